package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// key makes a key that is the same for the same name.
func key(t testing.TB, name string) *identity.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// now is when tests happen.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// newRoot is a trust root in which alice and bob must both sign jobs, carol signs policies, and mallory has no role.
func newRoot(t testing.TB) *manifest.TrustRoot {
	t.Helper()
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "node", Expires: "2027-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"carol"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"carol"}},
			manifest.RoleJob:        {Threshold: 2, Of: []string{"alice", "bob"}},
			manifest.RolePlaybook:   {Threshold: 1, Of: []string{"dave"}},
		}},
	}
	for _, name := range []string{"alice", "bob", "carol", "dave", "mallory"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key(t, name).Public().String()}})
	}
	return root
}

func newPolicy() *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy",
		Metadata: manifest.Metadata{Name: "house", Expires: "2027-01-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 3, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob, Owners: []string{"user:*"}}},
			Runtimes:     []manifest.Runtime{manifest.RuntimeWasm, manifest.RuntimeOCI},
			Capabilities: manifest.PolicyCapabilities{Allow: []string{"clock:real", "randomness:real"}},
			Resources:    manifest.PolicyResources{Job: manifest.JobResources{Memory: "1Gi"}},
		},
	}
}

// module is what the test job runs: nobody looks into it where the runner is a function.
var module = []byte("\x00asm\x01\x00\x00\x00")

// newJob is a job that may run.
func newJob() *manifest.Job {
	return &manifest.Job{
		APIVersion: manifest.APIVersion, Kind: "Job",
		Metadata: manifest.Metadata{Name: "count", Owner: "user:alice", Expires: "2026-12-01T00:00:00Z"},
		Spec:     manifest.JobSpec{Image: blobRef("https://example.org/count.wasm", module), Runtime: manifest.RuntimeWasm},
	}
}

func blobRef(url string, content []byte) manifest.Ref {
	return manifest.Ref{Scheme: manifest.RefURL, Location: url, Digest: digest.Of(content)}
}

// sign makes an envelope.
func sign(t testing.TB, doc manifest.Document, names ...string) []byte {
	t.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	return signBytes(t, doc.DocumentKind(), payload, names...)
}

func signBytes(t testing.TB, kind string, payload []byte, names ...string) []byte {
	t.Helper()
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(kind), Payload: payload}
	for _, name := range names {
		if err := env.Add(t.Context(), key(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return env.Marshal()
}

// runFunc is a runner.
type runFunc func(ctx context.Context, spec runner.Spec) (runner.Result, error)

func (f runFunc) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	return f(ctx, spec)
}

// exits is a job that ends at once.
func exits(context.Context, runner.Spec) (runner.Result, error) {
	return runner.Result{Reason: runner.ReasonExit, Engine: "test"}, nil
}

// world is a broker and what it trusts.
type world struct {
	t      testing.TB
	dir    string
	socket string
	server *Server
	stop   func() // ends the broker and waits; may be called again

	mu     sync.Mutex // guards asked and starts
	asked  []Item
	starts int
	blobs  map[digest.SHA256][]byte
}

// newWorld starts a broker with this runner. At the end it must stop, and leave nothing.
func newWorld(t testing.TB, run runFunc, change ...func(*Options)) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), run, change...)
}

// newWorldIn starts a broker with the state of an earlier one.
func newWorldIn(t testing.TB, dir string, run runFunc, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, dir: dir, blobs: map[digest.SHA256][]byte{digest.Of(module): module}}
	w.socket = filepath.Join(w.dir, "socket")
	t.Cleanup(func() { nar.RemoveAll(filepath.Join(dir, "state")) }) // its trees are read-only
	w.write("root.json", sign(t, newRoot(t), "carol"))
	w.write("policy.json", sign(t, newPolicy(), "carol"))
	counted := runFunc(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		w.mu.Lock()
		w.starts++
		w.mu.Unlock()
		return run(ctx, spec)
	})
	o := Options{
		Runner: counted, Files: Files{TrustRoot: filepath.Join(w.dir, "root.json"), Policy: filepath.Join(w.dir, "policy.json")},
		State: filepath.Join(w.dir, "state"), Users: []uint32{uint32(os.Geteuid())}, Names: []string{"node-1"}, Now: func() time.Time { return now },
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if w.server, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.server.Serve(ctx, l) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		w.clean()
		if err := w.server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// clean fails the test if the broker holds on to something when all is over.
func (w *world) clean() {
	for name, o := range w.server.cache.objects {
		if o.jobs != 0 && !w.server.tasks.left {
			w.t.Errorf("%s is still held by %d jobs", name, o.jobs)
		}
	}
	for _, sub := range contentDirs() {
		left, err := filepath.Glob(filepath.Join(w.server.cache.dir, sub, tempPrefix+"*"))
		if err != nil || len(left) > 0 {
			w.t.Errorf("left half done: %q %v", left, err)
		}
	}
	for name, task := range w.server.tasks.list {
		if !task.order.Request.Detach {
			w.t.Errorf("job %s is still on disk", name)
		}
	}
	if w.server.tasks.left {
		return // what runs still has what it holds
	}
	if len(w.server.jobs) != 0 || len(w.server.connections) != 0 {
		w.t.Errorf("%d jobs and %d connections are still counted", len(w.server.jobs), len(w.server.connections))
	}
}

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts
}

// content answers from blobs.
func (w *world) content(_ context.Context, item Item) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, item)
	data, ok := w.blobs[item.Digest]
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", item.Kind, item.Digest, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// run asks for a job.
func (w *world) run(envelope []byte) (Response, error) {
	return (&Client{Path: w.socket}).Run(w.t.Context(), Request{Envelope: envelope, Content: w.content})
}

// refused wants a refusal with a code.
func (w *world) refused(envelope []byte, code Code) *Refusal {
	w.t.Helper()
	before := w.started()
	_, err := w.run(envelope)
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Code != code {
		w.t.Errorf("got %v, want a refusal with code %q", err, code)
		return &Refusal{}
	}
	if w.started() != before {
		w.t.Error("the job ran")
	}
	return r
}

// alive wants the broker to run a good job.
func (w *world) alive() {
	w.t.Helper()
	resp, err := w.run(sign(w.t, newJob(), "alice", "bob"))
	if err != nil || !resp.Result.OK() {
		w.t.Fatalf("the broker no longer runs a good job: %v, %+v", err, resp)
	}
}

// tree makes a NAR of files.
func tree(t testing.TB, files map[string]string) ([]byte, digest.SHA256) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name := range maps.Keys(files) {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := nar.Dump(t.Context(), &buf, dir, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), digest.Of(buf.Bytes())
}

// message makes a frame of anything.
func message(t testing.TB, k kind, v any) []byte {
	t.Helper()
	body, err := canonical.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return appendFrame(nil, k, body)
}
