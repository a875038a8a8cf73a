package control_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/control/wire"
	"arch.network/agent/nodetest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// contract is openapi.json, in which objects have no members but those that are described.
type contract struct {
	schemas *jsonschema.Compiler
	paths   map[string]map[string]struct {
		Responses map[string]struct {
			Ref     string `json:"$ref"`
			Content map[string]json.RawMessage
		}
	}
}

const contractURL = "https://node.invalid/openapi.json"

func readContract(t *testing.T) contract {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(control.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	closeObjects(doc)
	c := contract{schemas: jsonschema.NewCompiler()}
	c.schemas.AssertFormat()
	c.schemas.DefaultDraft(jsonschema.Draft2020)
	if err := c.schemas.AddResource(contractURL, doc); err != nil {
		t.Fatal(err)
	}
	var parsed struct{ Paths json.RawMessage }
	if err := json.Unmarshal(control.OpenAPI(), &parsed); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(parsed.Paths, &c.paths); err != nil {
		t.Fatal(err)
	}
	return c
}

// closeObjects refuses members that a schema does not describe, so that the test finds them.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["type"] == "object" && v["properties"] != nil && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, x := range v {
			closeObjects(x)
		}
	case []any:
		for _, x := range v {
			closeObjects(x)
		}
	}
}

// check holds a response against what is described for it.
func (c contract) check(t *testing.T, method, path string, res *http.Response, body []byte) {
	t.Helper()
	responses := c.paths[path][strings.ToLower(method)].Responses
	status := fmt.Sprint(res.StatusCode)
	described, ok := responses[status]
	at := "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + strings.ToLower(method) + "/responses/" + status
	if !ok {
		if res.StatusCode < 400 {
			t.Errorf("%s %s: status %s is not described", method, path, status)
			return
		}
		at = "#/components/responses/Problem"
		described.Content = map[string]json.RawMessage{wire.MediaProblem: nil}
	}
	if len(described.Content) == 0 {
		if len(body) > 0 {
			t.Errorf("%s %s: a body of %q is not described", method, path, body)
		}
		return
	}
	media := res.Header.Get("Content-Type")
	if _, ok := described.Content[media]; !ok {
		t.Errorf("%s %s: type %q is not described: %v", method, path, media, slices.Sorted(maps.Keys(described.Content)))
		return
	}
	if base, _, err := mime.ParseMediaType(media); err != nil || !strings.HasSuffix(base, "json") {
		return
	}
	schema, err := c.schemas.Compile(contractURL + at + "/content/" + strings.ReplaceAll(media, "/", "~1") + "/schema")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("%s %s: %v\n%s", method, path, err, body)
	}
}

// world is a server on a socket and on TCP, with a ledger, and a job in each of several states.
type world struct {
	node        *nodetest.Memory
	socket, tcp string
	unix        *http.Client
	jobs        map[agent.State]agent.Job
	log         *testLog
}

func newWorld(t *testing.T, o control.Options) *world {
	t.Helper()
	w := &world{jobs: map[agent.State]agent.Job{}, socket: filepath.Join(t.TempDir(), "s"), log: newTestLog(t)}
	w.node = memory(t, nodetest.Options{Recorder: w.log, Slots: 2, Director: func(*dsse.Envelope) bool { return true }, Status: agent.Status{
		Node: "did:key:z6Mk", Version: "1", Capacity: agent.Resources{CPU: 4000, Memory: 8 << 30}, Policy: agent.PolicyStatus{Name: "house", Version: 3},
		Problems: []agent.Problem{{Code: "policy-expires", Text: "the policy expires soon", Cure: "sign a new one"}},
	}})
	o.Node = w.node
	o.Ledger = w.log.view(t)
	o.Tiles = w.log
	o.Content = &shelf{have: map[digest.SHA256]bool{}}
	o.Archive = func(_ ctx, id digest.SHA256, to io.Writer) error {
		_, err := io.WriteString(to, "archive of "+id.String())
		return err
	}
	o.Policy = func(t *testing.T) func(ctx ctx) ([]byte, error) {
		envelope := nodetest.Directive(t, "stands-for-a-policy", digest.SHA256{}, "it is an envelope")
		return func(ctx) ([]byte, error) { return envelope, nil }
	}(t)
	unix, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.tcp = tcp.Addr().String()
	serveOn(t, o, unix, tcp)
	w.unix = &http.Client{Transport: &http.Transport{DialContext: func(ctx ctx, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
	}}}
	t.Cleanup(w.unix.CloseIdleConnections)
	s := nodetest.Subject{Node: w.node}
	for state, does := range map[agent.State]nodetest.Does{
		agent.Archived: {Print: "hello <b>world</b> \x1b[31m\n"}, agent.Failed: {Exit: 3}, agent.Quarantined: {Odd: true}, agent.Running: {Hang: true, Print: "still here\n"},
	} {
		job, err := w.node.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "job-"+string(state), does)), "uid:0")
		if err != nil {
			t.Fatal(err)
		}
		w.jobs[state] = s.Until(t, job.ID, func(j agent.Job) bool { return j.State == state })
	}
	return w
}

// shelf takes content, and forgets it.
type shelf struct {
	mu   sync.Mutex // guards have
	have map[digest.SHA256]bool
}

func (s *shelf) HasContent(_ wire.ContentKind, d digest.SHA256) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[d], nil
}

func (s *shelf) PutContent(_ ctx, _ wire.ContentKind, d digest.SHA256, r io.Reader) error {
	got, _, err := digest.OfReader(r)
	if err != nil {
		return err
	}
	if got != d {
		return &wire.MismatchError{Want: d, Why: "it is " + got.String()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[d] = true
	return nil
}

// TestContent shows who may hand over content, and how much: only operators, through the socket, each piece within its limit.
func TestContent(t *testing.T) {
	w := newWorld(t, control.Options{Reading: true})
	path := "/v1/content/blob/" + digest.Of([]byte("hello")).String()
	for _, c := range []struct {
		client *http.Client
		base   string
		method string
		status int
	}{
		{http.DefaultClient, "http://" + w.tcp, "PUT", 403},
		{http.DefaultClient, "http://" + w.tcp, "GET", 403},
		{w.unix, "http://node", "PUT", 204},
		{w.unix, "http://node", "GET", 200},
	} {
		if res, body := fetch(t, c.client, c.method, c.base+path, wire.MediaBytes, "hello", nil); res.StatusCode != c.status {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.base, res.StatusCode, c.status, body)
		}
	}
	// What says that it is too long is not read.
	r, err := http.NewRequestWithContext(t.Context(), "PUT", "http://node/v1/content/blob/"+digest.Of([]byte("other")).String(), io.LimitReader(rand.Reader, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = wire.MaxContent + 1
	r.Header.Set("Expect", "100-continue")
	if res, err := w.unix.Do(r); err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("too long: status %d", res.StatusCode)
		}
	}
	// Other methods keep the small limit.
	if res, _ := fetch(t, w.unix, "POST", "http://node/v1/jobs", wire.MediaEnvelope, strings.Repeat("x", wire.MaxBody+1), nil); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("large envelope: status %d", res.StatusCode)
	}
}

var pathValue = regexp.MustCompile(`\{(\w+)\}`)

// TestContract asks for every resource, well and badly, and holds each answer against openapi.json.
func TestContract(t *testing.T) {
	c := readContract(t)
	w := newWorld(t, control.Options{})
	good := nodetest.Sign(t, nodetest.Document(t, "another", nodetest.Does{}))
	reason, _ := json.Marshal(wire.Reason{Reason: "it is tried"})
	done := w.jobs[agent.Archived].ID.String()
	blob := map[string]string{"kind": "blob", "digest": digest.Of([]byte("hello")).String()}
	asked := map[string]bool{}
	for _, r := range []struct {
		method, path, query string
		values              map[string]string
		media, body         string
		status              int
	}{
		{"GET", "/v1/jobs", "limit=2&state=archived,failed,running", nil, "", "", 200},
		{"GET", "/v1/jobs", "limit=1001", nil, "", "", 400},
		{"GET", "/v1/jobs", "state=happy", nil, "", "", 400},
		{"GET", "/v1/jobs", "colour=red", nil, "", "", 400},
		{"GET", "/v1/jobs", "limit=1&limit=1", nil, "", "", 400},
		{"GET", "/v1/jobs", "before=" + done, nil, "", "", 200},
		{"GET", "/v1/jobs", "before=x", nil, "", "", 400},
		{"POST", "/v1/jobs", "", nil, wire.MediaEnvelope, string(good), 200},
		{"POST", "/v1/jobs", "", nil, wire.MediaJSON, "{}", 400},
		{"POST", "/v1/jobs", "", nil, "text/plain", string(good), 415},
		{"GET", "/v1/jobs/{job}", "", map[string]string{"job": done}, "", "", 200},
		{"GET", "/v1/jobs/{job}", "", map[string]string{"job": w.jobs[agent.Running].ID.String()}, "", "", 200},
		{"GET", "/v1/jobs/{job}", "", map[string]string{"job": "nobody"}, "", "", 404},
		{"GET", "/v1/jobs/{job}/why", "", map[string]string{"job": w.jobs[agent.Failed].ID.String()}, "", "", 200},
		{"GET", "/v1/jobs/{job}/envelope", "", map[string]string{"job": done}, "", "", 200},
		{"GET", "/v1/jobs/{job}/log", "stream=stdout&offset=3", map[string]string{"job": done}, "", "", 200},
		{"GET", "/v1/jobs/{job}/log", "offset=-1", map[string]string{"job": done}, "", "", 400},
		{"GET", "/v1/jobs/{job}/log", "follow=maybe", map[string]string{"job": done}, "", "", 400},
		{"GET", "/v1/jobs/{job}/outputs/{output}", "", map[string]string{"job": done, "output": "printed"}, "", "", 200},
		{"GET", "/v1/jobs/{job}/outputs/{output}", "", map[string]string{"job": done, "output": "x"}, "", "", 404},
		{"GET", "/v1/jobs/{job}/outputs/{output}", "", map[string]string{"job": w.jobs[agent.Quarantined].ID.String(), "output": "printed"}, "", "", 409},
		{"GET", "/v1/jobs/{job}/archive", "", map[string]string{"job": done}, "", "", 200},
		{"GET", "/v1/jobs/{job}/archive", "", map[string]string{"job": w.jobs[agent.Failed].ID.String()}, "", "", 409},
		{"GET", "/v1/content/{kind}/{digest}", "", blob, "", "", 200},
		{"GET", "/v1/content/{kind}/{digest}", "", map[string]string{"kind": "soup", "digest": blob["digest"]}, "", "", 404},
		{"GET", "/v1/content/{kind}/{digest}", "", map[string]string{"kind": "blob", "digest": "sha256:00"}, "", "", 400},
		{"PUT", "/v1/content/{kind}/{digest}", "", blob, wire.MediaBytes, "what another digest names", 400},
		{"PUT", "/v1/content/{kind}/{digest}", "", blob, wire.MediaBytes, "hello", 204},
		{"PUT", "/v1/content/{kind}/{digest}", "", blob, wire.MediaBytes, "it is there, so this is not read", 204},
		{"PUT", "/v1/content/{kind}/{digest}", "colour=red", blob, wire.MediaBytes, "hello", 400},
		{"GET", "/v1/quarantine", "", nil, "", "", 200},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": w.jobs[agent.Quarantined].ID.String(), "verb": "release"}, wire.MediaJSON, string(reason), 200},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": done, "verb": "cancel"}, wire.MediaJSON, string(reason), 409},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": done, "verb": "praise"}, wire.MediaJSON, string(reason), 404},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": done, "verb": "cancel"}, wire.MediaJSON, `{"reason":"x","Reason":"y"}`, 400},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": done, "verb": "cancel"}, wire.MediaJSON, `{"REASON":"x"}`, 400},
		{"POST", "/v1/jobs/{job}/{verb}", "", map[string]string{"job": done, "verb": "cancel"}, wire.MediaJSON, `{"reason":" "}`, 400},
		{"GET", "/v1/events", "after=x", nil, "", "", 400},
		{"GET", "/v1/status", "", nil, "", "", 200},
		{"GET", "/v1/samples", "", nil, "", "", 200},
		{"POST", "/v1/node/{verb}", "", map[string]string{"verb": "drain"}, wire.MediaJSON, string(reason), 200},
		{"POST", "/v1/node/{verb}", "", map[string]string{"verb": "explode"}, wire.MediaJSON, string(reason), 404},
		{"POST", "/v1/directives", "", nil, wire.MediaEnvelope, string(nodetest.Directive(t, "resume", digest.SHA256{}, "it is tried")), 204},
		{"POST", "/v1/directives", "", nil, wire.MediaEnvelope, string(good), 400},
		{"GET", "/v1/policy", "", nil, "", "", 200},
		{"GET", "/v1/ledger", "", nil, "", "", 200},
		{"GET", "/v1/ledger/entries/{index}", "", map[string]string{"index": "0"}, "", "", 200},
		{"GET", "/v1/ledger/entries/{index}", "", map[string]string{"index": "1000"}, "", "", 404},
		{"GET", "/v1/ledger/entries/{index}/proof", "", map[string]string{"index": "1"}, "", "", 200},
		{"GET", "/v1/ledger/entries/{index}/proof", "", map[string]string{"index": "01"}, "", "", 400},
		{"GET", "/v1/problems", "", nil, "", "", 200},
		{"GET", "/openapi.json", "", nil, "", "", 200},
		{"GET", "/livez", "", nil, "", "", 200},
		{"GET", "/readyz", "", nil, "", "", 200},
		{"GET", "/metrics", "", nil, "", "", 200},
	} {
		asked[r.method+" "+r.path] = true
		url := "http://node" + pathValue.ReplaceAllStringFunc(r.path, func(name string) string { return r.values[strings.Trim(name, "{}")] })
		if r.query != "" {
			url += "?" + r.query
		}
		res, body := fetch(t, w.unix, r.method, url, r.media, r.body, nil)
		if res.StatusCode != r.status {
			t.Errorf("%s %s: status %d, want %d: %s", r.method, url, res.StatusCode, r.status, body)
		}
		c.check(t, r.method, r.path, res, body)
		if tag := res.Header.Get("ETag"); tag != "" && r.method == "GET" && !strings.Contains(r.path, "outputs") && r.path != "/v1/samples" {
			if again, _ := fetch(t, w.unix, "GET", url, "", "", http.Header{"If-None-Match": {`"x", W/` + tag}}); again.StatusCode != http.StatusNotModified {
				t.Errorf("GET %s: with its own ETag: status %d", url, again.StatusCode)
			}
		}
	}
	asked["GET /v1/events"] = true // TestEvents reads them
	for path, methods := range c.paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + path
			if !slices.Contains(control.Routes(), name) {
				t.Errorf("%s is described, and does not exist", name)
			}
		}
	}
	for _, name := range control.Routes() {
		method, path, _ := strings.Cut(name, " ")
		if _, ok := c.paths[path][strings.ToLower(method)]; !ok {
			t.Errorf("%s is not described", name)
		}
		if !asked[name] {
			t.Errorf("%s is not asked by this test", name)
		}
	}
}

func fetch(t *testing.T, c *http.Client, method, url, media, body string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	if host := header.Get("Host"); host != "" {
		r.Host = host
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return res, data
}

// TestMetrics reads the figures with the parser of those who wrote the format.
func TestMetrics(t *testing.T) {
	w := newWorld(t, control.Options{})
	for range 3 {
		fetch(t, w.unix, "GET", "http://node/v1/jobs/nobody%22%0a", "", "", nil)
	}
	_, body := fetch(t, w.unix, "GET", "http://node/metrics", "", "", nil)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	value := func(name string, labels ...string) float64 {
		for _, m := range families[name].GetMetric() {
			have := []string{}
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if slices.Equal(have, labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		t.Errorf("there is no %s%v", name, labels)
		return -1
	}
	for _, c := range []struct {
		got, want float64
	}{
		{value("arch_jobs", "state=archived"), 1},
		{value("arch_jobs", "state=refused"), 0},
		{value("arch_capacity_cpu_cores"), 4},
		{value("arch_policy_version"), 3},
		{value("arch_node_problems"), 1},
		{value("arch_http_requests_total", "route=GET /v1/jobs/{job}", "class=4xx"), 3},
	} {
		if c.got != c.want {
			t.Errorf("a figure is %v, want %v", c.got, c.want)
		}
	}
	if value("process_resident_memory_bytes") < 1<<20 {
		t.Error("it uses no memory")
	}
	if n := len(body); n > 64<<10 {
		t.Errorf("%d bytes, although labels are fixed", n)
	}
}
