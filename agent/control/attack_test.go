package control_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/agent/nodetest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// TestStrangers holds what comes over TCP: nothing but what is open, and nothing changes without a known signature.
func TestStrangers(t *testing.T) {
	good := string(nodetest.Sign(t, nodetest.Document(t, "from-afar", nodetest.Does{})))
	for _, c := range []struct {
		name, method, path, media, body string
		header                          http.Header
		reading, known                  bool
		status                          int
		code                            string
	}{
		{name: "alive", method: "GET", path: "/livez", status: 200},
		{name: "closed", method: "GET", path: "/v1/jobs", status: 403, code: wire.CodeReading},
		{name: "closed events", method: "GET", path: "/v1/events", status: 403, code: wire.CodeReading},
		{name: "closed figures", method: "GET", path: "/metrics", status: 403, code: wire.CodeReading},
		{name: "closed tiles", method: "GET", path: "/ledger/checkpoint", status: 403, code: wire.CodeReading},
		{name: "open", method: "GET", path: "/v1/jobs", reading: true, status: 200},
		{name: "open tiles", method: "GET", path: "/ledger/checkpoint", reading: true, status: 200},
		{name: "drain", method: "POST", path: "/v1/node/drain", media: wire.MediaJSON, body: `{"reason":"x"}`, reading: true, status: 403, code: wire.CodeOperator},
		{name: "cancel", method: "POST", path: "/v1/jobs/x/cancel", media: wire.MediaJSON, body: `{"reason":"x"}`, reading: true, status: 403, code: wire.CodeOperator},
		{name: "a job nobody known signed", method: "POST", path: "/v1/jobs", media: wire.MediaEnvelope, body: good, status: 403, code: wire.CodeUnsigned},
		{name: "a job somebody known signed", method: "POST", path: "/v1/jobs", media: wire.MediaEnvelope, body: good, known: true, status: 200},
		{name: "evil host", method: "GET", path: "/v1/jobs", header: http.Header{"Host": {"evil.example"}}, reading: true, status: 421, code: wire.CodeHost},
		{name: "evil host with our port", method: "GET", path: "/livez", header: http.Header{"Host": {"evil.example:7340"}}, reading: true, status: 421, code: wire.CodeHost},
		{name: "our name", method: "GET", path: "/livez", header: http.Header{"Host": {"Node.Example:80"}}, reading: true, status: 200},
		{name: "another site's page", method: "POST", path: "/v1/jobs", media: wire.MediaJSON, body: good, header: http.Header{"Origin": {"https://evil.example"}}, known: true, status: 403, code: wire.CodeOrigin},
		{name: "another site's page, as browsers say it", method: "POST", path: "/v1/jobs", media: wire.MediaJSON, body: good, header: http.Header{"Sec-Fetch-Site": {"cross-site"}}, known: true, status: 403, code: wire.CodeOrigin},
		{name: "another site's form", method: "POST", path: "/v1/jobs", media: "application/x-www-form-urlencoded", body: good, known: true, status: 415, code: wire.CodeMedia},
		{name: "10 MB", method: "POST", path: "/v1/jobs", media: wire.MediaJSON, body: strings.Repeat("x", 10<<20), known: true, status: 413, code: wire.CodeTooLarge},
		{name: "preflight", method: "OPTIONS", path: "/v1/jobs", status: 405, code: wire.CodeMethod},
		{name: "delete", method: "DELETE", path: "/v1/jobs", status: 405, code: wire.CodeMethod},
		{name: "nowhere", method: "GET", path: "/v2/jobs", status: 404, code: wire.CodeNotFound},
		{name: "up", method: "GET", path: "/ledger/tile/../../etc/passwd", reading: true, status: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := control.Options{Reading: c.reading, Hosts: []string{"node.example"}}
			if c.known {
				o.Known = func(*dsse.Envelope) error { return nil }
			}
			w := newWorld(t, o)
			conn := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			defer conn.CloseIdleConnections()
			res, body := fetch(t, conn, c.method, "http://"+w.tcp+c.path, c.media, c.body, c.header)
			if res.StatusCode != c.status && !(c.name == "up" && res.StatusCode/100 == 3) {
				t.Errorf("status %d, want %d: %s", res.StatusCode, c.status, body)
			}
			if c.code != "" && !strings.Contains(string(body), `"code":"`+c.code+`"`) {
				t.Errorf("the answer is %s, want code %s", body, c.code)
			}
			for _, name := range []string{"Access-Control-Allow-Origin", "Set-Cookie", "Server"} {
				if res.Header.Get(name) != "" {
					t.Errorf("%s: %s", name, res.Header.Get(name))
				}
			}
			if res.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("an answer without protection: %v", res.Header)
			}
		})
	}
}

// asUser is set in a process that talks to a socket as another user.
const asUser = "ARCH_CONTROL_TEST_SOCKET"

// TestPeers has the kernel say who is there.
func TestPeers(t *testing.T) {
	if socket := os.Getenv(asUser); socket != "" {
		c, err := client.New(socket)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Status(t.Context())
		fmt.Printf("read: %v\n", err)
		err = c.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, Reason: "it is tried"})
		fmt.Printf("act: %v\n", err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("cannot run here: only root can be somebody else")
	}
	for _, c := range []struct {
		name   string
		o      control.Options
		groups []uint32
		read   string
		act    string
	}{
		{"a stranger", control.Options{}, nil, "read: uid:4711 may not read", "act: uid:4711 is no operator of this node"},
		{"a reader", control.Options{Reading: true}, nil, "read: <nil>", "act: uid:4711 is no operator of this node"},
		{"an operator by user", control.Options{Operators: control.Operators{UIDs: []uint32{4711}}}, nil, "read: <nil>", "act: <nil>"},
		{"an operator by its own group", control.Options{Operators: control.Operators{GIDs: []uint32{4711}}}, nil, "read: <nil>", "act: <nil>"},
		{"an operator by another group", control.Options{Operators: control.Operators{GIDs: []uint32{4712}}}, []uint32{4713, 4712}, "read: <nil>", "act: <nil>"},
		{"root by number only", control.Options{Operators: control.Operators{GIDs: []uint32{1}}}, []uint32{4713}, "read: uid:4711 may not read", "act: uid:4711 is no operator of this node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "arch-control-*")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "socket")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			exe := filepath.Join(dir, "test")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{os.Chmod(path, 0o666), os.Chmod(dir, 0o755), copyFile(exe, self)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			c.o.Node = memory(t, nodetest.Options{})
			serveOn(t, c.o, l)
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestPeers$", "-test.v")
			cmd.Env, cmd.Dir = append(os.Environ(), asUser+"="+path), "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711, Groups: c.groups}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.read+"\n") || !strings.Contains(string(out), c.act+"\n") {
				t.Errorf("%v\n%s\nwant %q and %q", err, out, c.read, c.act)
			}
		})
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// A connection that says nothing, or speaks forever, holds nobody up.
func TestConnections(t *testing.T) {
	w := newWorld(t, control.Options{Connections: 3, Reading: true})
	var slow []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", w.tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
		slow = append(slow, c)
	}
	for { // until the three are accepted, a fourth one may be served
		c, err := net.Dial("tcp", w.tcp)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(c)
		c.Close()
		if len(answer) == 0 {
			break
		}
	}
	if res, _ := fetch(t, w.unix, "GET", "http://node/livez", "", "", nil); res.StatusCode != 200 {
		t.Errorf("the socket answers with %d", res.StatusCode)
	}
	io.WriteString(slow[0], "\r\n")
	if line, err := bufio.NewReader(slow[0]).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("the one that was slow got %q (%v)", line, err)
	}
	fmt.Fprintf(slow[1], "X-Long: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	if line, _ := bufio.NewReader(slow[1]).ReadString('\n'); strings.Contains(line, "200") {
		t.Errorf("64 KiB of headers got %q", line)
	}
}

// A name that is markup or a terminal's command is data, wherever it goes.
func TestNamesAreData(t *testing.T) {
	w := newWorld(t, control.Options{})
	for _, path := range []string{"/v1/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/v1/jobs/%1b%5D0%3Bowned%07", "/%3Cscript%3E"} {
		res, body := fetch(t, w.unix, "GET", "http://node"+path, "", "", nil)
		if res.StatusCode != 404 || res.Header.Get("Content-Type") != wire.MediaProblem || strings.ContainsAny(string(body), "<>\x1b\x07") {
			t.Errorf("%s: status %d, type %s: %s", path, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
	}
	res, body := fetch(t, w.unix, "GET", "http://node/v1/jobs/job-archived/log", "", "", nil)
	if !strings.Contains(string(body), "<b>world</b>") || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") || !strings.Contains(res.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("a log as %v: %q", res.Header, body)
	}
}

// TestEvents reads a stream to its end, comes back, and is told when it was away for too long.
func TestEvents(t *testing.T) {
	m := memory(t, nodetest.Options{Events: 8})
	c := serve(t, control.Options{Node: m})
	s := nodetest.Subject{Node: m}
	first, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "first", nodetest.Does{})), "uid:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Until(t, first.ID, func(j agent.Job) bool { return j.State.Ended() })
	last := int64(0)
	for e, err := range c.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if last = e.Number; e.Job.State == agent.Running {
			break
		}
	}
	for e, err := range c.Events(t.Context(), last) {
		if err != nil || e.Number != last+1 || e.Job.State != agent.Validating {
			t.Errorf("after %d comes %+v (%v)", last, e, err)
		}
		break
	}
	second, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "second", nodetest.Does{})), "uid:0")
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range m.Events(t.Context(), 7) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Job.ID == second.ID && e.Job.State.Ended() {
			break
		}
	}
	for _, err := range c.Events(t.Context(), 1) {
		if lagged, ok := errors.AsType[*agent.LaggedError](err); !ok || lagged.Next != 7 {
			t.Errorf("a reader who was away got %v", err)
		}
		break
	}
}

// A reader who takes nothing is dropped; the others do not notice.
func TestSlowReader(t *testing.T) {
	m := memory(t, nodetest.Options{Events: 4000})
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, control.Options{Node: m, Slow: 2 * time.Second, Streams: 2}, l)
	c, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, "GET /v1/events?after=0 HTTP/1.1\r\nHost: node\r\n\r\n")

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	seen := make(chan error, 2)
	go func() {
		n := 0
		for _, err := range c.Events(ctx, 0) {
			if err != nil {
				seen <- err
				return
			}
			if n++; n == 900 {
				seen <- nil // and it reads on: it keeps its place
			}
		}
	}()
	long := strings.Repeat("x", 4000)
	for i := range 150 {
		job, err := m.Submit(ctx, nodetest.Sign(t, nodetest.Document(t, fmt.Sprintf("job-%d", i), nodetest.Does{Print: long})), long)
		if err != nil {
			t.Fatal(err)
		}
		nodetest.Subject{Node: m}.Until(t, job.ID, func(j agent.Job) bool { return j.State.Ended() })
		if i == 0 {
			_, err := c.Job(ctx, job.ID.String())
			if err != nil {
				t.Error(err)
			}
		}
	}
	if err := <-seen; err != nil {
		t.Errorf("the reader who keeps up: %v", err)
	}
	// There is a place for another stream once the slow one's has ended: what the kernel holds can be read then, and nothing more.
	for free := false; !free; {
		for _, err := range c.Events(ctx, 0) {
			free = err == nil
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the slow reader keeps its place")
		}
	}
	slow.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := io.Copy(io.Discard, slow); err != nil && !errors.Is(err, syscall.ECONNRESET) || n > 1<<20 {
		t.Errorf("the slow reader was sent %d bytes (%v)", n, err)
	}
}

// As many streams as there may be, and one more.
func TestStreams(t *testing.T) {
	m := memory(t, nodetest.Options{})
	c := serve(t, control.Options{Node: m, Streams: 1})
	job, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "hangs", nodetest.Does{Print: "x", Hang: true})), "uid:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Log(t.Context(), job.ID, agent.LogQuery{Stream: "stdout", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, err := range c.Events(t.Context(), 0) {
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Problem.Code != wire.CodeBusy || e.Hint() == "" {
			t.Errorf("a second stream: %v", err)
		}
		break
	}
	if _, err := c.Job(t.Context(), "hangs"); err != nil {
		t.Errorf("what is no stream: %v", err)
	}
}

// What a node says of its own failures stays with it.
func TestInternalErrors(t *testing.T) {
	c := serve(t, control.Options{Node: broken{memory(t, nodetest.Options{})}})
	_, err := c.Status(t.Context())
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Problem.Code != wire.CodeInternal || strings.Contains(fmt.Sprint(e.Problem), "secret") {
		t.Errorf("the answer is %v", err)
	}
	r, err := c.OutputNAR(t.Context(), digest.Of(nil), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err == nil {
		t.Errorf("half an output passes for a whole one: %q", data)
	}
}

// broken is a node whose disk fails.
type broken struct{ *nodetest.Memory }

func (broken) Status(context.Context) (agent.Status, error) {
	return agent.Status{}, errors.New("read /secret/place: input/output error")
}

func (broken) Job(context.Context, string) (agent.Job, error) {
	return agent.Job{State: agent.Archived, Outputs: []agent.Output{{Name: "out"}}}, nil
}

func (broken) OutputNAR(context.Context, digest.SHA256, string) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{})), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) {
	return 0, errors.New("read /secret/place: input/output error")
}

// A thousand readers cost bounded memory, and each hears everything.
func TestManyReaders(t *testing.T) {
	const readers = 1000
	m := memory(t, nodetest.Options{Events: 100})
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, control.Options{Node: m}, l)
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapInuse + s.StackInuse
	}
	before := heap()
	conns := make([]net.Conn, readers)
	for i := range conns {
		if conns[i], err = net.Dial("unix", socket); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		io.WriteString(conns[i], "GET /v1/events?after=0 HTTP/1.1\r\nHost: node\r\n\r\n")
	}
	job, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "heard", nodetest.Does{})), "uid:0")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range conns {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		lines := bufio.NewReader(c)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("reader %d: %v", i, err)
			}
			if strings.Contains(line, `"state":"archived"`) && strings.Contains(line, job.ID.String()) {
				break
			}
		}
	}
	grown := int64(heap()) - int64(before)
	t.Logf("%d readers: %.1f MiB of heap and stacks, on both ends", readers, float64(grown)/(1<<20))
	if grown > 100<<20 {
		t.Errorf("%d bytes for %d readers, want at most 100 MiB", grown, readers)
	}
}
