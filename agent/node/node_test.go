package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/agent/node"
	"arch.network/attest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/manifest"
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
	os.Exit(m.Run())
}

// TestLife takes jobs from a signed document to an archive entry on a node with everything real, and reads the ledger afterwards as a
// stranger does.
func TestLife(t *testing.T) {
	w := newWorld(t)
	n := w.start(t)
	submitted, err := n.Submit(t.Context(), w.wordcount(t, "nonce-0000000000000001", "alice", "bob"), "uid:1000")
	if err != nil {
		t.Fatal(err)
	}
	done := await(t, n, submitted)
	if done.State != agent.Archived || len(done.Attempts) != 1 || done.Attempts[0].Gas == 0 || len(done.Outputs) != 1 {
		t.Fatalf("got %+v", done)
	}
	r, err := n.OutputNAR(t.Context(), done.ID, "counts")
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !strings.Contains(string(out), "the") {
		t.Errorf("output %q, %v", out, err)
	}

	// One signature is one too few; the refusal says so, and is in the ledger, too.
	refused, err := n.Submit(t.Context(), w.wordcount(t, "nonce-0000000000000002", "alice"), "uid:1000")
	if err != nil || refused.State != agent.Refused || len(refused.Reasons) == 0 {
		t.Fatalf("got %+v, %v", refused, err)
	}
	// The same nonce in another document of the same owner is a replay.
	again, err := n.Submit(t.Context(), w.sign(t, w.job(t, "nonce-0000000000000001", func(j *manifest.Job) { j.Spec.Priority = 1 }), "alice", "bob"), "uid:1000")
	if err != nil || again.State != agent.Refused {
		t.Fatalf("got %+v, %v", again, err)
	}

	var kinds []string
	for _, d := range w.decisions(t, n) {
		for _, b := range d.Before {
			kinds = append(kinds, b.Kind+" "+b.Verdict)
		}
		kinds = append(kinds, d.Kind+" "+d.Verdict)
	}
	// The start and the policy are told of beside what jobs do: each is somewhere, once.
	for _, own := range []string{"node started", "policy accepted"} {
		i := slices.Index(kinds, own)
		if i < 0 {
			t.Fatalf("%q is not among %q", own, kinds)
		}
		kinds = slices.Delete(kinds, i, i+1)
	}
	want := []string{
		"proposal received", "admission accepted", "placement here", "start started", "result holds", "archive kept",
		"proposal received", "admission refused",
		"proposal received", "admission refused",
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	// What follows at once is one entry: both steps of the end name it.
	if s := done.Steps; *s[0].Entry != *s[1].Entry || *s[len(s)-2].Entry != *s[len(s)-1].Entry {
		t.Errorf("decisions that follow each other at once are in entries of their own: %+v", s)
	}
	proof, err := n.Ledger.Proof(t.Context(), done.Steps[len(done.Steps)-1].Entry.Index)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ledger.ParsePolicy(w.ledgerKeys.LogPolicy())
	if err != nil {
		t.Fatal(err)
	}
	entry, err := w.entry(n, proof.Index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Verify(policy, entry); err != nil {
		t.Errorf("offline proof of the archive entry: %v", err)
	}
}

// TestRestart shows that what was accepted, and what was spent, outlives the process.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	n := w.start(t)
	envelope := w.wordcount(t, "nonce-0000000000000001", "alice", "bob")
	submitted, err := n.Submit(t.Context(), envelope, "uid:1000")
	if err != nil {
		t.Fatal(err)
	}
	before := await(t, n, submitted)
	w.stop()
	n = w.start(t)
	same, err := n.Submit(t.Context(), envelope, "uid:1000")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Outputs, same.Outputs); diff != "" || same.State != agent.Archived {
		t.Errorf("state %s (-want +got):\n%s", same.State, diff)
	}
	w.stop()
	starts := 0
	for _, d := range w.decisions(t, n) {
		if d.Kind == "start" {
			starts++
		}
	}
	if starts != 1 {
		t.Errorf("the job was started %d times", starts)
	}
}

// TestDemand shows that nothing runs of which the policy's proofs are missing.
func TestDemand(t *testing.T) {
	w := newWorld(t)
	w.write(t, w.policy, housePolicy(func(p *manifest.PolicySpec) {
		p.Attestations = []manifest.PolicyAttestation{{Role: manifest.RoleBuilder}}
	}))
	n := w.start(t)
	submitted, err := n.Submit(t.Context(), w.wordcount(t, "nonce-0000000000000001", "alice", "bob"), "uid:1000")
	if err != nil {
		t.Fatal(err)
	}
	done := await(t, n, submitted)
	if done.State != agent.Refused || len(done.Attempts) != 0 || len(done.Reasons) == 0 || done.Reasons[0].Field != "spec.image" {
		t.Errorf("got %+v", done)
	}
	for _, d := range w.decisions(t, n) {
		if d.Kind == "start" {
			t.Error("it was started")
		}
	}
}

// TestOwnProcess shows that a policy which says own-process lets jobs of one owner follow each other in one process, that each account
// says so, and that nobody else's job meets them there.
func TestOwnProcess(t *testing.T) {
	w := newWorld(t)
	w.driver = pooled
	w.write(t, w.policy, housePolicy(func(p *manifest.PolicySpec) { p.Degradations = append(p.Degradations, job.OwnProcess) }))
	n := w.start(t)
	number := 0
	run := func(owner string) string {
		t.Helper()
		number++
		doc := w.job(t, fmt.Sprintf("nonce-%016d", number), func(j *manifest.Job) { j.Metadata.Owner = owner })
		submitted, err := n.Submit(t.Context(), w.sign(t, doc, "alice", "bob"), "uid:1000")
		if err != nil {
			t.Fatal(err)
		}
		done := await(t, n, submitted)
		if done.State != agent.Archived {
			t.Fatalf("%s: %+v", owner, done)
		}
		for _, m := range done.Attempts[0].Missing {
			if rest, ok := strings.CutPrefix(m, job.OwnProcess+": "); ok {
				return rest
			}
		}
		return ""
	}
	first := run("user:alice")
	if first == "" {
		t.Skip("cannot run here: no control group counts the CPU time of a worker")
	}
	got := []string{first, run("user:alice"), run("user:bob"), run("user:alice"), run("")}
	var want []string
	for _, n := range []int{1, 2, 1, 3} {
		want = append(want, fmt.Sprintf("reused worker, run %d of its owner in this process", n))
	}
	if diff := cmp.Diff(append(want, ""), got); diff != "" {
		t.Errorf("what the accounts say of the process (-want +got):\n%s", diff)
	}
	w.stop()
	w.write(t, w.policy, housePolicy(func(p *manifest.PolicySpec) { p.Version = 2 }))
	n = w.start(t)
	if got := run("user:alice"); got != "" {
		t.Errorf("under a policy that does not allow it: %q", got)
	}
}

// TestNoPolicy shows that a node without a policy says so, and takes nothing.
func TestNoPolicy(t *testing.T) {
	w := newWorld(t)
	if err := os.Remove(w.policy); err != nil {
		t.Fatal(err)
	}
	n := w.start(t)
	if _, err := n.Submit(t.Context(), w.wordcount(t, "nonce-0000000000000001", "alice", "bob"), "uid:1000"); err == nil {
		t.Error("a job was taken without a policy")
	}
	status, err := n.Status(t.Context())
	if err != nil || status.Policy.Refused == "" || !status.Policy.ID.IsZero() {
		t.Errorf("got %+v, %v", status.Policy, err)
	}
	jobs, err := n.Jobs(t.Context(), agent.Query{})
	if err != nil || len(jobs) != 0 {
		t.Errorf("got %+v, %v", jobs, err)
	}
}

// world is everything around a node: keys, files, directories.
type world struct {
	dir, root, policy string
	ledgerKeys        *notekey.Keys
	driver            func(t *testing.T, cache string) (runner.Runner, error)
	now               func() time.Time // nil: time.Now
	online            bool             // it may fetch
	logged            func(string)     // is told what the node logs; may be nil
	stop              func()
}

func key(name string) *identity.Key {
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return k
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "arch-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nar.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{dir: dir, root: filepath.Join(dir, "trust.json"), policy: filepath.Join(dir, "policy.json"), driver: alone, stop: func() {}}
	if w.ledgerKeys, err = notekey.Generate("node.example/ledger", rand.Reader); err != nil {
		t.Fatal(err)
	}
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "example", Expires: "2100-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"carol"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"carol"}},
			manifest.RoleJob:        {Threshold: 2, Of: []string{"alice", "bob"}},
			manifest.RoleBuilder:    {Threshold: 1, Of: []string{"bob"}},
		}},
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key(name).Public().String()}})
	}
	w.write(t, w.root, root)
	w.write(t, w.policy, housePolicy(func(*manifest.PolicySpec) {}))
	return w
}

// write signs a document as carol, who may, and puts it where the node looks.
func (w *world) write(t *testing.T, file string, doc manifest.Document) {
	t.Helper()
	if err := os.WriteFile(file, w.sign(t, doc, "carol"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func housePolicy(change func(*manifest.PolicySpec)) *manifest.Policy {
	p := &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: "2099-01-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeWasm},
			Degradations: []string{"cpu", "refused-syscalls", "memory", "processes", "devices", "io"},
			Resources:    manifest.PolicyResources{Job: manifest.JobResources{Memory: "64Mi"}},
		},
	}
	change(&p.Spec)
	return p
}

// start starts the node, which stops with the test, or before the next start.
func (w *world) start(t *testing.T) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Options{
		State: filepath.Join(w.dir, "state"), Policy: w.policy, TrustRoot: w.root, Signer: key("node"), LedgerKeys: w.ledgerKeys, Now: w.now,
		Driver: func(*store.Store) (executor.Driver, error) {
			r, err := w.driver(t, filepath.Join(w.dir, "wasm"))
			return &executor.Direct{Runner: r}, err
		},
		Fetch:   func(f *source.Fetcher) { f.Offline = !w.online },
		Content: []string{jobs(t)}, // what wordcount pins lies beside its document
		Log:     slog.New(slog.NewTextHandler(logTo{t, w.logged}, nil)), Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Errorf("stop node: %v", err)
		}
	}
	t.Cleanup(w.stop)
	return n
}

// alone runs each job in a process of its own, without control groups.
func alone(_ *testing.T, cache string) (runner.Runner, error) {
	ns, err := namespace.New(namespace.Options{NoCgroups: true})
	if err != nil {
		return nil, err
	}
	return wasm.New(wasm.Options{Driver: ns, Cache: cache})
}

// pooled runs modules in workers of a pool.
func pooled(t *testing.T, cache string) (runner.Runner, error) {
	ns, err := namespace.New(namespace.Options{})
	if err != nil {
		return nil, err
	}
	class, err := wasm.PoolClass("")
	if err != nil {
		return nil, err
	}
	pool, err := ns.NewPool(namespace.PoolOptions{Class: class, Size: 1})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { pool.Close() })
	r, err := wasm.New(wasm.Options{Driver: ns, Pool: pool, Cache: cache})
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

type logTo struct {
	t    *testing.T
	tell func(line string) // may be nil
}

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	if l.tell != nil {
		l.tell(string(p))
	}
	return len(p), nil
}

// jobs is the directory of the example jobs.
func jobs(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "tests", "examples", "jobs"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (w *world) job(t *testing.T, nonce string, change ...func(*manifest.Job)) *manifest.Job {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(jobs(t), "wordcount.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		t.Fatal(err)
	}
	j := doc.(*manifest.Job)
	j.Metadata.Owner, j.Metadata.Expires, j.Spec.Nonce = "user:alice", "2098-01-01T00:00:00Z", nonce
	for _, c := range change {
		c(j)
	}
	return j
}

func (w *world) wordcount(t *testing.T, nonce string, signers ...string) []byte {
	t.Helper()
	return w.sign(t, w.job(t, nonce), signers...)
}

func (w *world) sign(t *testing.T, doc manifest.Document, names ...string) []byte {
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
		if err := env.Add(t.Context(), key(name)); err != nil {
			t.Fatal(err)
		}
	}
	return env.Marshal()
}

// entry reads an entry from the log's files.
func (w *world) entry(n *node.Node, index int64) ([]byte, error) {
	tree, err := n.Ledger.Log().Tree()
	if err != nil {
		return nil, err
	}
	b, at := ledger.BundleOf(index, tree.Size)
	data, err := n.Ledger.Log().Dir().ReadBundle(context.Background(), b.Path())
	if err != nil {
		return nil, err
	}
	entries, err := ledger.ParseEntries(b, data)
	if err != nil {
		return nil, err
	}
	return entries[at], nil
}

// decisions reads the whole ledger: every entry must be signed by the node.
func (w *world) decisions(t *testing.T, n *node.Node) (out []*attest.Decision) {
	t.Helper()
	tree, err := n.Ledger.Log().Tree()
	if err != nil {
		t.Fatal(err)
	}
	for i := range tree.Size {
		data, err := w.entry(n, i)
		if err != nil {
			t.Fatal(err)
		}
		env, err := dsse.ParseLimit(data, ledger.MaxEntry)
		if err != nil {
			t.Fatal(err)
		}
		if len(env.Verified([]identity.PublicKey{key("node").Public()})) != 1 {
			t.Fatalf("entry %d is not signed by the node", i)
		}
		s, err := attest.ParseStatement(env.Payload)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Decision()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// await follows the events until the job has ended.
func await(t *testing.T, n *node.Node, submitted agent.Job) agent.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for after := int64(0); ctx.Err() == nil; {
		for _, err := range n.Events(ctx, after) {
			if late, ok := errors.AsType[*agent.LaggedError](err); ok { // the node was started again
				after = late.Next - 1
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := n.Job(ctx, submitted.ID.Hex())
			if err != nil {
				t.Fatal(err)
			}
			if got.State.Ended() {
				return got
			}
		}
	}
	t.Fatal(fmt.Errorf("job %s did not end", submitted.Name))
	return agent.Job{}
}
