package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

func TestJob(t *testing.T) {
	var got runner.Spec
	var seen string
	want := runner.Result{
		Reason: runner.ReasonExit, Engine: "test", Detail: "",
		Usage: runner.Usage{
			Wall: 3 * time.Second, CPU: 2 * time.Second, MemoryPeak: 1 << 20, IORead: 5, Gas: 77, Accounting: "cgroup-v2",
			Energy: &runner.Energy{Joules: 1.5, Source: "rapl"}, Network: &runner.Traffic{Sent: 1, Refused: 1, RefusedTo: []string{"tcp:h:25"}},
		},
		Anomalies:   []runner.Anomaly{{Kind: runner.AnomalySilence, At: time.Second, Evidence: "x"}},
		Confinement: runner.Confinement{Driver: "test", Enforced: []string{"seccomp"}},
	}
	nar1, sum := tree(t, map[string]string{"a": "A", "b/c": "C"})
	want.Outputs = []runner.Collected{{Name: "index", NAR: sum, Size: int64(len(nar1))}}
	w := newWorld(t, func(_ context.Context, spec runner.Spec) (runner.Result, error) {
		got = spec
		for _, m := range spec.Mounts {
			if m.Target == "/inputs/words" {
				data, err := os.ReadFile(filepath.Join(m.Source, "b/c"))
				if err != nil {
					return runner.Result{}, err
				}
				seen = string(data)
			}
		}
		io.WriteString(spec.Stdout, "out")
		io.WriteString(spec.Stderr, strings.Repeat("e", 2*maxData+1))
		if err := spec.Collect(spec.Outputs[0], bytes.NewReader(nar1)); err != nil {
			return runner.Result{}, err
		}
		return want, nil
	})
	words, wordsSum := tree(t, map[string]string{"b/c": "input"})
	w.blobs[wordsSum] = words
	j := newJob()
	j.Spec.Inputs = map[string]manifest.Ref{"words": {Scheme: manifest.RefTree, Location: "words", Digest: wordsSum}}
	j.Spec.Outputs = map[string]manifest.Target{"index": {Destination: "store"}}
	envelope := sign(t, j, "alice", "bob")
	id, err := manifest.ID(j)
	if err != nil {
		t.Fatal(err)
	}
	var out, errout, collected bytes.Buffer
	resp, err := (&Client{Path: w.socket}).Run(t.Context(), Request{
		Envelope: envelope, Timeout: 90 * time.Second, Content: w.content, Stdout: &out, Stderr: &errout,
		Collect: func(name string, r io.Reader) error {
			if name != "index" {
				t.Errorf("output %q", name)
			}
			_, err := io.Copy(&collected, r)
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, resp.Result); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if resp.ID != id || resp.Policy != "house" || resp.PolicyID.IsZero() || !resp.Started.Equal(now) || !resp.Finished.Equal(now) {
		t.Errorf("got %+v", resp)
	}
	if out.String() != "out" || errout.Len() != 2*maxData+1 || !bytes.Equal(collected.Bytes(), nar1) || seen != "input" {
		t.Errorf("stdout %q, %d bytes of stderr, %d bytes of output, input %q", out.String(), errout.Len(), collected.Len(), seen)
	}
	if got.Module == nil || got.Limits.Wall != 90*time.Second || !strings.HasPrefix(got.Name, "job-"+id.Hex()[:24]+"-") {
		t.Errorf("spec %+v", got)
	}
	for _, m := range got.Mounts {
		if m.Source != "" && !strings.HasPrefix(m.Source, filepath.Join(w.dir, "state", "content")) {
			t.Errorf("%s comes from %s, not from the broker's own", m.Target, m.Source)
		}
	}
	if diff := cmp.Diff([]Item{
		{Blob, digest.Of(module), j.Spec.Image.String()},
		{Tree, wordsSum, j.Spec.Inputs["words"].String()},
	}, w.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	t.Run("content that is there is not asked for again", func(t *testing.T) {
		w.asked = nil
		if _, err := w.run(envelope); err != nil {
			t.Fatal(err)
		}
		if len(w.asked) > 0 {
			t.Errorf("asked for %v", w.asked)
		}
	})
}

// TestAdmission judges documents. Nothing of what is refused runs, and each refusal has its code.
func TestAdmission(t *testing.T) {
	change := func(f func(j *manifest.Job)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			j := newJob()
			f(j)
			return sign(t, j, "alice", "bob")
		}
	}
	by := func(names ...string) func(t *testing.T) []byte {
		return func(t *testing.T) []byte { return sign(t, newJob(), names...) }
	}
	tests := []struct {
		name     string
		envelope func(t *testing.T) []byte
		code     Code
		says     string
	}{
		{"not JSON", func(*testing.T) []byte { return []byte("spec: {image: x}") }, CodeEnvelope, "read envelope"},
		{"a duplicate member", func(t *testing.T) []byte {
			return bytes.Replace(sign(t, newJob(), "alice", "bob"), []byte("{"), []byte(`{"payload":"",`), 1)
		}, CodeEnvelope, "read envelope"},
		{"a policy instead of a job", func(t *testing.T) []byte { return sign(t, newPolicy(), "carol") }, CodeEnvelope, "payload type"},
		{"a policy that says it is a job", func(t *testing.T) []byte {
			payload, err := manifest.Canonical(newPolicy())
			if err != nil {
				t.Fatal(err)
			}
			return signBytes(t, "Job", payload, "alice", "bob")
		}, CodeEnvelope, "the payload is a Policy"},
		{"a payload that is no document", func(t *testing.T) []byte { return signBytes(t, "Job", []byte("{}"), "alice", "bob") }, CodeEnvelope, ""},
		{"no signature", by(), CodeSignature, "no signature of anyone"},
		{"an issuer who is unknown", by("mallory"), CodeSignature, "no signature of anyone"},
		{"someone with another role", by("carol", "dave"), CodeSignature, "no signature of anyone"},
		{"one of two", by("alice"), CodeQuorum, "needs 2 of alice, bob: 1 agreed"},
		{"one of two, and a stranger", by("alice", "mallory"), CodeQuorum, "needs 2 of alice, bob: 1 agreed"},
		{"tampered", func(t *testing.T) []byte {
			j := newJob()
			good := sign(t, j, "alice", "bob")
			j.Metadata.Name = "county"
			bad := sign(t, j)
			_, sigs, ok := bytes.Cut(good, []byte(`"signatures":`))
			head, _, ok2 := bytes.Cut(bad, []byte(`"signatures":`))
			if !ok || !ok2 {
				t.Fatalf("envelope %s", good)
			}
			return append(append(head, `"signatures":`...), sigs...)
		}, CodeSignature, "no signature of anyone"},
		{"expired", change(func(j *manifest.Job) { j.Metadata.Expires = "2026-05-01T00:00:00Z" }), CodeTime, "expired on 2026-05-01"},
		{"too early", change(func(j *manifest.Job) { j.Spec.NotBefore = "2026-07-01T00:00:00Z" }), CodeTime, "must not run before"},
		{"for another node", change(func(j *manifest.Job) { j.Spec.Audience = []string{"node-2"} }), CodeAudience, "node-2"},
		{"a runtime that is not allowed", change(func(j *manifest.Job) {
			j.Spec.Runtime = manifest.RuntimeNix
			j.Spec.Image = manifest.Ref{Scheme: manifest.RefStore, Location: "/nix/store/00000000000000000000000000000000-hello", Digest: digest.Of(nil)}
		}), CodePolicy, "runtime nix"},
		{"a capability that is not allowed", change(func(j *manifest.Job) { j.Spec.Capabilities.FS = []string{"read:/etc/shadow"} }), CodePolicy, "read:/etc/shadow"},
		{"more memory than is allowed", change(func(j *manifest.Job) { j.Spec.Resources.Memory = "2Gi" }), CodePolicy, "memory"},
		{"an owner whom nobody may issue for", change(func(j *manifest.Job) { j.Metadata.Owner = "org:evil" }), CodeQuorum, "lets nobody issue"},
		{"a nonce without an end", change(func(j *manifest.Job) { j.Spec.Nonce, j.Metadata.Expires = "abcdefgh", "" }), CodeReplay, "no end"},
		{"a reference whose pin is no hash of bytes", change(func(j *manifest.Job) {
			j.Spec.Inputs = map[string]manifest.Ref{"m": {Scheme: manifest.RefGo, Location: "golang.org/toolchain", Version: "v0.0.1-go1.26.8.linux-amd64", Digest: digest.Of(nil)}}
		}), CodeContent, "input m: a Go toolchain"},
		{"content that the client does not have", change(func(j *manifest.Job) { j.Spec.Image = blobRef("https://example.org/x", []byte("other")) }), CodeContent, "file does not exist"},
	}
	w := newWorld(t, exits)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			if r := w.refused(test.envelope(t), test.code); !strings.Contains(r.Message, test.says) {
				t.Errorf("it says %q, want it to contain %q", r.Message, test.says)
			}
		})
	}
	w.t = t
	w.alive()
	j := newJob()
	j.Spec.Audience = []string{"node-2", "node-1"}
	if _, err := w.run(sign(t, j, "alice", "mallory", "bob")); err != nil {
		t.Errorf("a job for this node, with a stranger's signature beside the good ones: %v", err)
	}
}

// TestContent sends what is not pinned.
func TestContent(t *testing.T) {
	_, sum := tree(t, map[string]string{"a": "A"})
	twice := nar2(t)
	tests := []struct {
		name string
		ref  manifest.Ref
		sent []byte
		code Code
	}{
		{"another blob", blobRef("https://example.org/x", []byte("x")), []byte("y"), CodeDigest},
		{"nothing", blobRef("https://example.org/x", []byte("x")), nil, CodeDigest},
		{"a prefix", blobRef("https://example.org/x", []byte("xyz")), []byte("xy"), CodeDigest},
		{"too much", blobRef("https://example.org/x", bytes.Repeat([]byte("x"), 3<<20)), bytes.Repeat([]byte("x"), 3<<20), CodeContent},
		{"no NAR", manifest.Ref{Scheme: manifest.RefTree, Location: "x", Digest: digest.Of([]byte("x"))}, []byte("x"), CodeContent},
		{"another tree", manifest.Ref{Scheme: manifest.RefTree, Location: "x", Digest: sum}, first(tree(t, map[string]string{"a": "B"})), CodeDigest},
		{"a pinned tree in which a link becomes a directory", manifest.Ref{Scheme: manifest.RefTree, Location: "x", Digest: digest.Of(twice)}, twice, CodeContent},
	}
	w := newWorld(t, exits, func(o *Options) { o.Content = 1 << 20 })
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			j := newJob()
			j.Spec.Inputs = map[string]manifest.Ref{"x": test.ref}
			w.blobs[test.ref.Digest] = test.sent
			w.refused(sign(t, j, "alice", "bob"), test.code)
			if _, ok := w.server.cache.objects[objectName(Blob, test.ref.Digest)]; ok {
				t.Error("it was kept")
			}
		})
	}
	w.t = t
	w.alive()
}

func first[T any](v T, _ digest.SHA256) T { return v }

// nar2 is the NAR of a directory with the entry x twice: a link to /etc, and then a directory with a file passwd.
func nar2(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	put := func(words ...string) {
		for _, s := range words {
			n := len(s)
			b.Write([]byte{byte(n), byte(n >> 8), 0, 0, 0, 0, 0, 0})
			b.WriteString(s)
			b.Write(make([]byte, -n&7))
		}
	}
	put("nix-archive-1", "(", "type", "directory",
		"entry", "(", "name", "x", "node", "(", "type", "symlink", "target", "/etc", ")", ")",
		"entry", "(", "name", "x", "node", "(", "type", "directory",
		"entry", "(", "name", "passwd", "node", "(", "type", "regular", "contents", "root::0:0::/:/bin/sh", ")", ")", ")", ")", ")")
	return b.Bytes()
}

func TestReplay(t *testing.T) {
	w := newWorld(t, exits)
	j := newJob()
	j.Spec.Nonce, j.Spec.Retries = "only-once-and-a-retry", 1
	envelope := sign(t, j, "alice", "bob")
	for range 2 {
		if _, err := w.run(envelope); err != nil {
			t.Fatal(err)
		}
	}
	w.refused(envelope, CodeReplay)
	// The same document in another envelope is the same document.
	w.refused(sign(t, j, "bob", "alice", "mallory"), CodeReplay)
	l, err := openLedger(filepath.Join(w.dir, "state", "spent.json"))
	if err != nil {
		t.Fatal(err)
	}
	id, _ := manifest.ID(j)
	a := &admitted{doc: j, id: id}
	if r := refusalOf(l.spend(a, now)); r.Code != CodeReplay {
		t.Errorf("after a restart: %v", r)
	}
	// When it has expired nobody need remember it; it is refused for that.
	if err := l.spend(a, now.AddDate(1, 0, 0)); err != nil {
		t.Error(err)
	}
	j.Spec.Nonce = "another-nonce"
	if _, err := w.run(sign(t, j, "alice", "bob")); err != nil {
		t.Error(err)
	}
}

func TestTrustIsReadForEachJob(t *testing.T) {
	w := newWorld(t, exits)
	w.alive()
	good := sign(t, newJob(), "alice", "bob")
	policy := func(f func(p *manifest.Policy), signers ...string) {
		p := newPolicy()
		f(p)
		w.write("policy.json", sign(t, p, signers...))
	}
	policy(func(p *manifest.Policy) { p.Spec.Version, p.Spec.Runtimes = 4, nil }, "carol")
	w.refused(good, CodePolicy)
	policy(func(*manifest.Policy) {}, "carol")
	if r := w.refused(good, CodeTrust); !strings.Contains(r.Message, "went down") {
		t.Errorf("an older policy: %q", r.Message)
	}
	policy(func(p *manifest.Policy) { p.Spec.Version = 5 }, "alice", "mallory")
	w.refused(good, CodeTrust)
	policy(func(p *manifest.Policy) { p.Spec.Version, p.Metadata.Expires = 5, "2026-05-01T00:00:00Z" }, "carol")
	w.refused(good, CodeTrust)
	policy(func(p *manifest.Policy) { p.Spec.Version = 5 }, "carol")
	w.alive()
	if err := os.Chmod(filepath.Join(w.dir, "policy.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	if r := w.refused(good, CodeTrust); r.Cure == "" {
		t.Errorf("no hint: %v", r)
	}
	os.Remove(filepath.Join(w.dir, "policy.json"))
	if err := os.Symlink("root.json", filepath.Join(w.dir, "policy.json")); err != nil {
		t.Fatal(err)
	}
	w.refused(good, CodeTrust)
}

func TestOldTrustRoot(t *testing.T) {
	w := newWorld(t, exits)
	good := sign(t, newJob(), "alice", "bob")
	root := newRoot(t)
	root.Spec.Version = 2
	w.write("root.json", sign(t, root, "carol"))
	w.alive()
	root.Spec.Version = 1
	w.write("root.json", sign(t, root, "carol"))
	if r := w.refused(good, CodeTrust); !strings.Contains(r.Message, "TrustRoot node: version 1, but version 2 was in force") {
		t.Errorf("got %q", r.Message)
	}
}

// TestLoad holds all running jobs together to what the policy allows an owner and the node.
func TestLoad(t *testing.T) {
	release, running := make(chan struct{}), make(chan struct{}, 8)
	w := newWorld(t, func(context.Context, runner.Spec) (runner.Result, error) {
		running <- struct{}{}
		<-release
		return runner.Result{Reason: runner.ReasonExit}, nil
	})
	p := newPolicy()
	p.Spec.Resources.Owner = manifest.JobResources{CPU: "2"}
	p.Spec.Resources.Node = manifest.JobResources{CPU: "3"}
	w.write("policy.json", sign(t, p, "carol"))
	ask := func(owner, cpu string) []byte {
		j := newJob()
		j.Metadata.Owner, j.Spec.Resources.CPU = "user:"+owner, manifest.Quantity(cpu)
		return sign(t, j, "alice", "bob")
	}
	var clients sync.WaitGroup
	for _, owner := range []string{"alice", "bob"} {
		clients.Go(func() {
			if _, err := w.run(ask(owner, "1200m")); err != nil {
				t.Errorf("%s: %v", owner, err)
			}
		})
		<-running
	}
	for _, test := range []struct {
		owner, cpu string
		code       Code
		says       string
	}{
		{"alice", "", CodePolicy, "this job has no limit of it"},
		{"alice", "2100m", CodePolicy, "its cpu alone"},
		{"alice", "900m", CodeBusy, "the cpu of all jobs of user:alice"},
		{"carol", "700m", CodeBusy, "the cpu of all jobs of the node"},
	} {
		if r := w.refused(ask(test.owner, test.cpu), test.code); !strings.Contains(r.Message, test.says) {
			t.Errorf("%s, %s: %q", test.owner, test.cpu, r.Message)
		}
	}
	clients.Go(func() {
		if _, err := w.run(ask("alice", "600m")); err != nil {
			t.Error(err)
		}
	})
	<-running
	close(release)
	clients.Wait()
	settle(w.server.jobs)
	if len(w.server.load.jobs) != 0 {
		t.Errorf("%d jobs are still counted", len(w.server.load.jobs))
	}
}

func TestClientGoes(t *testing.T) {
	running, ended := make(chan struct{}), make(chan error)
	w := newWorld(t, func(ctx context.Context, _ runner.Spec) (runner.Result, error) {
		running <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return runner.Result{Reason: runner.ReasonCancelled}, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := (&Client{Path: w.socket}).Run(ctx, Request{Envelope: sign(t, newJob(), "alice", "bob"), Content: w.content})
		done <- err
	}()
	<-running
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("the job ended with %v", err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
}

func TestRunnerFails(t *testing.T) {
	tests := []struct {
		name string
		run  runFunc
		code Code
	}{
		{"no confinement", func(context.Context, runner.Spec) (runner.Result, error) {
			return runner.Result{}, &runner.SetupError{Act: "make it", Err: errors.New("no"), Cure: "buy one"}
		}, CodeSetup},
		{"a failure", func(context.Context, runner.Spec) (runner.Result, error) { return runner.Result{}, errors.New("no") }, CodeInternal},
		{"a panic", func(context.Context, runner.Spec) (runner.Result, error) { panic("no") }, CodeInternal},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.run)
			for range 2 {
				_, err := w.run(sign(t, newJob(), "alice", "bob"))
				if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != test.code {
					t.Errorf("got %v, want code %s", err, test.code)
				}
			}
		})
	}
}
