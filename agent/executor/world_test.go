package executor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/content"
	"arch.network/agent/executor"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/job"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 1 && os.Args[1] == childArgument {
		os.Exit(child(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// key makes a key that is the same for the same name.
func key(name string) *identity.Key {
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return k
}

// court is a Judge: a quorum of the trust root, the calendar and a policy, all real.
type court struct {
	root *quorum.Root

	mu     sync.Mutex // guards policy
	policy *manifest.Policy
}

func newRoot() *manifest.TrustRoot {
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "node", Expires: "2100-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"carol"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"carol"}},
			manifest.RoleJob:        {Threshold: 2, Of: []string{"alice", "bob"}},
		}},
	}
	for _, name := range []string{"alice", "bob", "carol", "mallory"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key(name).Public().String()}})
	}
	return root
}

func newCourt(policy *manifest.Policy) *court {
	compiled, err := quorum.Compile(newRoot())
	if err != nil {
		panic(err)
	}
	return &court{root: compiled, policy: policy}
}

func (c *court) set(change func(*manifest.Policy)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.policy
	change(&next)
	c.policy = &next
}

// Policy implements executor.Judge.
func (c *court) Policy() executor.Policy {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, err := manifest.ID(c.policy)
	if err != nil {
		panic(err)
	}
	return executor.Policy{Doc: c.policy, ID: id, Status: agent.PolicyStatus{Name: c.policy.Metadata.Name, Version: c.policy.Spec.Version, ID: id}}
}

// Judge implements executor.Judge.
func (c *court) Judge(_ context.Context, p executor.Proposal) (executor.Verdict, error) {
	policy := c.Policy()
	v := executor.Verdict{Policy: policy.ID, Weight: 1}
	d := c.root.Evaluate(manifest.RoleJob, p.Envelope.Verified(c.root.KeysAt(manifest.RoleJob, p.At)), p.At, quorum.Options{})
	v.Signers = d.Principals
	if !d.OK {
		v.Reasons = append(v.Reasons, agent.Reason{Field: "signatures", Msg: strings.Join(d.Reasons, "; "), Cure: "have enough of the role sign it"})
	}
	for _, r := range append(job.Due(p.Doc, p.At), job.Allowed(policy.Doc, p.Doc)...) {
		v.Reasons = append(v.Reasons, agent.Reason(r))
	}
	v.Accepted = len(v.Reasons) == 0
	v.Summary = "all checks passed"
	if !v.Accepted {
		v.Summary = "it may not run: " + v.Reasons[0].Msg
	}
	return v, nil
}

func newPolicy() *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: "2100-01-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeWasm},
			Degradations: []string{"cpu", "refused-syscalls", "memory", "processes", "devices", "io"},
			Resources:    manifest.PolicyResources{Job: manifest.JobResources{Memory: "64Mi"}},
		},
	}
}

// journal is a Recorder: a file of JSON lines, written before Record returns.
type journal struct {
	mu   sync.Mutex // guards the rest
	file *os.File
	list []agent.Decision
	fail error
}

func openJournal(path string, flag int) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|flag, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	dec := json.NewDecoder(f)
	for {
		var d agent.Decision
		if err := dec.Decode(&d); err != nil {
			return j, f.Truncate(dec.InputOffset()) // the last line may be torn
		}
		j.list = append(j.list, d)
	}
}

// Record implements agent.Recorder.
func (j *journal) Record(_ context.Context, d agent.Decision) (agent.Entry, error) {
	line, err := json.Marshal(d)
	if err != nil {
		return agent.Entry{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail != nil {
		return agent.Entry{}, j.fail
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return agent.Entry{}, err
	}
	j.list = append(j.list, d)
	n := int64(len(j.list))
	return agent.Entry{Index: n - 1, Sequence: n, ID: digest.Of(line)}, nil
}

func (j *journal) decisions() []agent.Decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.list)
}

func (j *journal) setFail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fail = err
}

// forget drops what it has in memory.
func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = nil
}

// verdicts are the decisions about one job, each "kind verdict".
func (j *journal) verdicts(id digest.SHA256) (out []string) {
	for _, d := range j.decisions() {
		if d.Subject == id {
			out = append(out, string(d.Kind)+" "+d.Verdict)
		}
	}
	return out
}

// node is an engine with everything around it.
type node struct {
	*executor.Engine
	t       testing.TB
	dir     string
	court   *court
	journal *journal
	store   *store.Store
	gather  *content.Gatherer
	stop    func() // ends Run, and closes; may be called again
}

// setup says what is not as usual.
type setup struct {
	dir     string           // of an earlier node
	driver  executor.Driver  // nil: the namespace driver with a wasm worker
	policy  *manifest.Policy // nil: newPolicy
	change  func(*executor.Options)
	idle    bool        // Run is not called
	journal int         // flags of the journal's file, such as os.O_SYNC
	died    func(error) // called when Run returns before it is told to; nil: not
}

// newNode starts a node. At the end it must stop.
func newNode(t testing.TB, s setup) *node {
	t.Helper()
	n, err := startNode(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func startNode(t testing.TB, s setup) (*node, error) {
	if s.dir == "" {
		s.dir = tempDir(t)
	}
	if s.policy == nil {
		s.policy = newPolicy()
	}
	n := &node{t: t, dir: s.dir, court: newCourt(s.policy)}
	var err error
	if n.store, err = store.Open(filepath.Join(s.dir, "store")); err != nil {
		return nil, err
	}
	if n.journal, err = openJournal(filepath.Join(s.dir, "ledger"), s.journal); err != nil {
		return nil, err
	}
	n.gather = &content.Gatherer{Store: n.store, Fetch: &source.Fetcher{Store: n.store, Offline: true}, Images: filepath.Join(s.dir, "images")}
	if s.driver == nil {
		if s.driver, err = realDriver(filepath.Join(s.dir, "wasm")); err != nil {
			return nil, err
		}
	}
	o := executor.Options{
		Dir: filepath.Join(s.dir, "state"), Store: n.store, Recorder: n.journal, Judge: n.court, Source: n.gather, Driver: s.driver,
		Signer: key("node"), Version: "test", Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(min(d, 10*time.Millisecond)):
				return nil
			}
		},
	}
	if s.change != nil {
		s.change(&o)
	}
	if n.Engine, err = executor.Open(o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if s.idle {
		done <- nil
	} else {
		go func() {
			err := n.Run(ctx)
			if s.died != nil && ctx.Err() == nil {
				s.died(err)
			}
			done <- err
		}()
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, n.Close(), n.gather.Close(), n.store.Close(), n.journal.file.Close()); err != nil {
			t.Errorf("stop node: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n, nil
}

// testWriter sends what is logged to the test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// tempDir is like t.TempDir, for trees that are read-only.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "arch-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nar.RemoveAll(dir); err != nil {
			t.Errorf("remove state: %v", err)
		}
	})
	return dir
}

// realDriver runs modules in confinement.
func realDriver(cache string) (executor.Driver, error) {
	ns, err := namespace.New(namespace.Options{NoCgroups: true})
	if err != nil {
		return nil, err
	}
	r, err := wasm.New(wasm.Options{Driver: ns, Cache: cache})
	if err != nil {
		return nil, err
	}
	return &executor.Direct{Runner: r}, nil
}

// runFunc is a runner.
type runFunc func(ctx context.Context, spec runner.Spec) (runner.Result, error)

// Run implements runner.Runner.
func (f runFunc) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	return f(ctx, spec)
}

// exits is a job that ends at once, well, and leaves what it has to.
func exits(_ context.Context, spec runner.Spec) (runner.Result, error) {
	r := runner.Result{Reason: runner.ReasonExit, Engine: "test", Confinement: runner.Confinement{Driver: "test"}}
	r.Gas = 1000
	io.WriteString(spec.Stdout, "hello\n")
	return r, collect(spec, "output")
}

// collect leaves the same text as each output.
func collect(spec runner.Spec, text string) error {
	for _, o := range spec.Outputs {
		var b bytes.Buffer
		if err := writeNAR(&b, text); err != nil {
			return err
		}
		if err := spec.Collect(o, &b); err != nil {
			return err
		}
	}
	return nil
}

func writeNAR(w io.Writer, text string) error {
	dir, err := os.MkdirTemp("", "nar-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return nar.Dump(context.Background(), w, path, nar.Options{})
}

func direct(f runFunc) executor.Driver { return &executor.Direct{Runner: f} }

// example reads a job of tests/examples/jobs, whose content is put into the node's store.
func (n *node) example(name string, change ...func(*manifest.Job)) []byte {
	n.t.Helper()
	dir := filepath.Join("..", "..", "tests", "examples", "jobs")
	src, err := os.ReadFile(filepath.Join(dir, name+".yaml"))
	if err != nil {
		n.t.Fatal(err)
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		n.t.Fatal(err)
	}
	j := doc.(*manifest.Job)
	abs, err := filepath.Abs(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.gather.Gather(n.t.Context(), j, content.Options{Beside: []string{abs}}); err != nil {
		n.t.Fatal(err)
	}
	for _, c := range change {
		c(j)
	}
	return sign(n.t, j, "alice", "bob")
}

func sign(t testing.TB, doc manifest.Document, names ...string) []byte {
	t.Helper()
	if err := doc.Validate(); err != nil {
		t.Fatal(err)
	}
	payload, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	for _, name := range names {
		if err := env.Add(context.Background(), key(name)); err != nil {
			t.Fatal(err)
		}
	}
	return env.Marshal()
}

func nonce(n int) func(*manifest.Job) {
	return func(j *manifest.Job) {
		j.Spec.Nonce = fmt.Sprintf("nonce-%016d", n)
		j.Metadata.Expires = "2099-01-01T00:00:00Z"
	}
}

// submit hands a job in, and wants it to be taken.
func (n *node) submit(envelope []byte) agent.Job {
	n.t.Helper()
	j, err := n.Submit(n.t.Context(), envelope, "uid:1000")
	if err != nil {
		n.t.Fatal(err)
	}
	return j
}

// await waits until a job is in one of the states, or has ended.
func (n *node) await(id digest.SHA256, states ...agent.State) agent.Job {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	fits := func(j agent.Job) bool {
		return j.State.Ended() && len(states) == 0 || slices.Contains(states, j.State)
	}
	var after int64
	for {
		j, err := n.Job(ctx, id.String())
		if err != nil {
			n.t.Fatal(err)
		}
		if fits(j) {
			return j
		}
		for ev, err := range n.Events(ctx, after) {
			if lag, ok := errors.AsType[*agent.LaggedError](err); ok {
				after = lag.Next - 1
				break
			}
			if after = ev.Number; ev.Job != nil && ev.Job.ID == id {
				break
			}
		}
		if ctx.Err() != nil {
			n.t.Fatalf("job is %s for too long: %s", j.State, j.Summary)
		}
	}
}

func envelopeID(t testing.TB, envelope []byte) digest.SHA256 {
	t.Helper()
	env, err := dsse.Parse(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return env.ID()
}

func parse(t testing.TB, envelope []byte) *dsse.Envelope {
	t.Helper()
	env, err := dsse.Parse(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// collectAll removes everything from the store that no root keeps.
func collectAll(t testing.TB, n *node) {
	t.Helper()
	if _, err := n.store.GC(t.Context(), store.GCOptions{Age: -1}); err != nil {
		t.Fatal(err)
	}
}
