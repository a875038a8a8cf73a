package executor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/agent/content"
	"arch.network/agent/executor"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"

	"github.com/google/go-cmp/cmp"
)

// elsewhere is another machine: it has nothing but what is imported.
func elsewhere(t *testing.T, run runner.Runner) *archive.Replayer {
	t.Helper()
	dir := tempDir(t)
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if run == nil {
		ns, err := namespace.New(namespace.Options{NoCgroups: true})
		if err != nil {
			t.Fatal(err)
		}
		m, err := wasm.New(wasm.Options{Driver: ns, Cache: filepath.Join(dir, "wasm")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		run = m
	}
	return &archive.Replayer{
		Store: s, Gatherer: &content.Gatherer{Store: s, Fetch: &source.Fetcher{Store: s, Offline: true}, Images: filepath.Join(dir, "images")},
		Runner: run, Signer: key("elsewhere"), Version: "test",
	}
}

// exported runs the word count and returns it as a file.
func exported(t *testing.T) (*node, agent.Job, []byte) {
	t.Helper()
	n := newNode(t, setup{})
	j := n.await(n.submit(n.example("wordcount")).ID, agent.Archived)
	b, err := n.Bundle(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	var one, two bytes.Buffer
	for _, w := range []*bytes.Buffer{&one, &two} {
		if err := archive.Export(t.Context(), w, b, n.store); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two exports differ")
	}
	return n, j, one.Bytes()
}

// TestReplay takes a job to another machine as one file, and runs it there again: the same result, to the last unit of gas. A machine on which
// something else comes out says what, signed.
func TestReplay(t *testing.T) {
	n, j, file := exported(t)
	there := elsewhere(t, nil)
	b, err := archive.Import(t.Context(), bytes.NewReader(file), there.Store, archive.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	collectAll(t, &node{store: there.Store})
	r, err := there.Replay(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Same || r.Result != j.Result || r.Gas != j.Attempts[0].Gas || r.Receipt != nil {
		t.Errorf("got %+v, want result %s with %d gas", r, j.Result, j.Attempts[0].Gas)
	}
	if _, err := n.Replayed(t.Context(), j.ID, "uid:0", r); err != nil {
		t.Error(err)
	}
	honest := there.Runner
	there.Runner = runFunc(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		keep := spec.Collect
		spec.Collect = func(out runner.Output, nar io.Reader) error {
			var other bytes.Buffer
			if _, err := io.Copy(io.Discard, nar); err != nil {
				return err
			}
			if err := writeNAR(&other, "another text\n"); err != nil {
				return err
			}
			return keep(out, &other)
		}
		res, err := honest.Run(ctx, spec)
		res.Gas++
		return res, err
	})
	r, err = there.Replay(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if r.Same || r.Negative == nil || r.Negative.State != attest.Differs || len(r.Negative.Differences) == 0 || !strings.Contains(r.Negative.Cause, "gas is") {
		t.Fatalf("got %+v, %+v", r, r.Negative)
	}
	var names []string
	for _, f := range r.Negative.Found {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"counts", "counts#nar", "#gas"}, names); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(r.Receipt.Verified([]identity.PublicKey{key("elsewhere").Public()})) != 1 {
		t.Error("the receipt is not signed")
	}
	if _, err := n.Replayed(t.Context(), j.ID, "uid:0", r); err != nil {
		t.Fatal(err)
	}
	got := n.journal.verdicts(j.ID)
	if diff := cmp.Diff([]string{"archive kept", "replay same", "replay differs"}, got[len(got)-3:]); diff != "" {
		t.Errorf("ledger (-want +got)\n%s", diff)
	}
	if data, err := n.Statement(t.Context(), r.Receipt.ID()); err != nil || data == nil {
		t.Errorf("the negative receipt is not kept: %v", err)
	}
}

// TestImportRefuses takes no file that was changed, cut or lengthened anywhere: one byte in each of its first 8 KiB and then every hundredth
// byte is another, and every thousandth byte is its last.
func TestImportRefuses(t *testing.T) {
	n, j, file := exported(t)
	there := elsewhere(t, runFunc(exits))
	options := archive.ImportOptions{Entry: n.last(j.ID).Evidence[0].Digest}
	try := func(what string, data []byte) {
		t.Helper()
		if _, err := archive.Import(t.Context(), bytes.NewReader(data), there.Store, options); err == nil {
			t.Errorf("%s: it was taken", what)
		}
		if _, err := archive.Check(t.Context(), bytes.NewReader(data), options); err == nil {
			t.Errorf("%s: it was found right", what)
		}
	}
	for i := 0; i < len(file); i += step(i) {
		changed := bytes.Clone(file)
		changed[i] ^= 1
		try(fmt.Sprintf("byte %d changed", i), changed)
	}
	for i := 0; i < len(file)-1024; i += 997 {
		try(fmt.Sprintf("cut to %d bytes", i), file[:i])
	}
	try("one byte more", append(bytes.Clone(file), 0))
	try("twice", append(bytes.Clone(file), file...))
	if _, err := archive.Import(t.Context(), bytes.NewReader(file), there.Store, archive.ImportOptions{MaxObject: 100}); err == nil {
		t.Error("an object over the limit was taken")
	}
	if _, err := archive.Check(t.Context(), bytes.NewReader(file), options); err != nil {
		t.Errorf("unchanged, checked: %v", err)
	}
	if _, err := archive.Import(t.Context(), bytes.NewReader(file), there.Store, options); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestArchiveLies exports no bundle, and so reads none, whose entry says of the job what its signed documents do not say.
func TestArchiveLies(t *testing.T) {
	n := newNode(t, setup{})
	j := n.await(n.submit(n.example("wordcount")).ID, agent.Archived)
	k := n.await(n.submit(n.example("c-hello-wasm")).ID, agent.Archived)
	other, err := n.Bundle(t.Context(), k.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		lie  func(b *archive.Bundle)
		want string
	}{
		{"nothing", func(*archive.Bundle) {}, ""},
		{"name", func(b *archive.Bundle) { b.Entry.Name = "harmless" }, `the entry calls it "harmless", the document "wordcount"`},
		{"gas", func(b *archive.Bundle) { b.Entry.Gas++ }, "gas, the result"},
		{"text", func(b *archive.Bundle) { b.Entry.Stdout = digest.Of([]byte("x")) }, "other outputs"},
		{"output", func(b *archive.Bundle) { b.Entry.Outputs[0].NAR[0] ^= 1 }, "other outputs"},
		{"file of an output", func(b *archive.Bundle) { b.Entry.Outputs[0].File[0] ^= 1 }, "other outputs"},
		{"name of an output", func(b *archive.Bundle) { b.Entry.Outputs[0].Name = "other" }, "other outputs"},
		{"no outputs", func(b *archive.Bundle) { b.Entry.Outputs = nil }, "other outputs"},
		{"run of another job", func(b *archive.Bundle) {
			b.Entry.Runs = other.Entry.Runs
			maps.Copy(b.Statements, other.Statements)
		}, "is of another job"},
		{"result as a run", func(b *archive.Bundle) { b.Entry.Runs = []digest.SHA256{b.Entry.Result} }, "run sha256:"},
		{"result of another job", func(b *archive.Bundle) {
			b.Entry.Result = other.Entry.Result
			maps.Copy(b.Statements, other.Statements)
		}, "it is of another job"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := n.Bundle(t.Context(), j.ID)
			if err != nil {
				t.Fatal(err)
			}
			tt.lie(b)
			err = archive.Export(t.Context(), io.Discard, b, n.store)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func step(i int) int {
	if i < 8<<10 {
		return 7
	}
	return 499
}

// TestPinsOnly keeps only the pin of what the policy says must not be kept.
func TestPinsOnly(t *testing.T) {
	policy := newPolicy()
	policy.Spec.Retention.PinsOnly = []string{"tree:wordcount.*"}
	n := newNode(t, setup{policy: policy})
	j := n.await(n.submit(n.example("wordcount")).ID, agent.Archived)
	b, err := n.Bundle(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Entry.Pins) != 1 || !strings.HasPrefix(b.Entry.Pins[0], "tree:wordcount.wasm#") || len(b.Entry.Objects) != 2 {
		t.Errorf("pins %q, objects %+v", b.Entry.Pins, b.Entry.Objects)
	}
	n.Expire() // waits for the removal of roots
	collectAll(t, n)
	if err := archive.Export(t.Context(), io.Discard, b, n.store); err != nil {
		t.Error(err)
	}
	r := elsewhere(t, runFunc(exits))
	r.Store, r.Gatherer = n.store, n.gather
	var missing *source.MissingError
	if _, err := r.Replay(t.Context(), b); !errors.As(err, &missing) {
		t.Errorf("replayed without its module: %v", err)
	}
}

// TestRetention removes what was kept long enough, with a decision for the archive entry, and nothing before.
func TestRetention(t *testing.T) {
	policy := newPolicy()
	policy.Spec.Retention = manifest.PolicyRetention{Results: "1h", Logs: "2h", Archive: "3h"}
	var hours atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(hours.Load()) * time.Hour) }
	s := setup{policy: policy, driver: direct(exits), change: func(o *executor.Options) { o.Now = now }}
	n := newNode(t, s)
	j := n.await(n.submit(n.example("c-hello-wasm", func(j *manifest.Job) {
		j.Spec.Outputs = map[string]manifest.Target{"x": {Destination: "store"}}
	})).ID, agent.Archived)
	has := func() (out []string) {
		collectAll(t, n)
		if r, err := n.OutputNAR(t.Context(), j.ID, "x"); err == nil {
			r.Close()
			out = append(out, "output")
		}
		if n.log(j.ID, agent.LogQuery{Stream: "stdout"}) != "" {
			out = append(out, "log")
		}
		if _, err := n.Bundle(t.Context(), j.ID); err == nil {
			out = append(out, "entry")
		}
		return out
	}
	for _, tt := range []struct {
		hours int64
		want  []string
	}{{0, []string{"output", "log", "entry"}}, {1, []string{"log", "entry"}}, {2, []string{"entry"}}, {4, nil}} {
		hours.Store(tt.hours)
		n.Expire()
		if diff := cmp.Diff(tt.want, has()); diff != "" {
			t.Errorf("after %d hours (-want +got)\n%s", tt.hours, diff)
		}
	}
	if got := n.last(j.ID); got.Kind != agent.KindArchive || got.Verdict != "removed" {
		t.Errorf("last decision %s %s", got.Kind, got.Verdict)
	}
	if roots, err := n.store.Roots(t.Context()); err != nil || len(roots) != 0 {
		t.Errorf("%d roots are left: %v", len(roots), err)
	}
}

// TestForget removes what is kept of jobs that ended without a result, when their time is over and not before; who asks is told where the
// ledger has them.
func TestForget(t *testing.T) {
	policy := newPolicy()
	policy.Spec.Retention = manifest.PolicyRetention{Logs: "1h", Archive: "9h", Ended: "2h"}
	var hours atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(hours.Load()) * time.Hour) }
	dir := tempDir(t)
	fails := func(_ context.Context, spec runner.Spec) (runner.Result, error) {
		_, err := io.WriteString(spec.Stdout, strings.Repeat("a long complaint\n", 2000)) // a file of its own
		return runner.Result{Reason: runner.ReasonExit, Exit: 3, Confinement: runner.Confinement{Driver: "test"}}, err
	}
	s := setup{dir: dir, policy: policy, driver: direct(fails), change: func(o *executor.Options) { o.Now = now }}
	n := newNode(t, s)
	good := n.example("c-hello-wasm", nonce(1))
	failed := n.await(n.submit(good).ID, agent.Failed)
	bad := n.resign(n.example("c-hello-wasm", nonce(2)), "alice", "mallory")
	refused := n.submit(bad)
	if refused.State != agent.Refused {
		t.Fatalf("it is %s", refused.State)
	}
	logs := func() int {
		files, err := os.ReadDir(filepath.Join(dir, "state", "logs"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if n.Expire(); n.log(failed.ID, agent.LogQuery{Stream: "stdout"}) == "" || logs() == 0 {
		t.Error("its log is not kept")
	}
	hours.Store(1)
	if n.Expire(); logs() != 0 {
		t.Error("its log is kept too long")
	}
	for _, j := range []agent.Job{failed, refused} {
		if why, err := n.Why(t.Context(), j.ID); err != nil || len(why) == 0 {
			t.Errorf("after an hour: %v, %v", why, err)
		}
	}
	hours.Store(3)
	n.Expire()
	for _, j := range []agent.Job{failed, refused} {
		_, err := n.Why(t.Context(), j.ID)
		gone, ok := errors.AsType[*agent.ForgottenError](err)
		want := &agent.ForgottenError{ID: j.ID, Name: j.Name, State: j.State, Since: j.Since, Entry: *j.Steps[len(j.Steps)-1].Entry}
		if diff := cmp.Diff(want, gone); !ok || diff != "" {
			t.Errorf("why: %v (-want +got)\n%s", err, diff)
		}
		for _, ref := range []string{j.ID.String(), j.ID.Hex()[:8]} {
			if _, err := n.Job(t.Context(), ref); !errors.As(err, &gone) || gone.ID != j.ID {
				t.Errorf("%s: %v", ref, err)
			}
		}
		if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: j.ID, By: "uid:0", Reason: "a test"}); !errors.As(err, &gone) {
			t.Errorf("cancel: %v", err)
		}
		if got := n.last(j.ID); got.Kind != agent.KindArchive || got.Verdict != "removed" {
			t.Errorf("last decision %s %s", got.Kind, got.Verdict)
		}
		for _, a := range j.Attempts {
			if data, err := n.Statement(t.Context(), a.Run); err != nil || data != nil {
				t.Errorf("its receipt is kept: %s, %v", data, err)
			}
		}
	}
	if _, err := n.Job(t.Context(), failed.Name); !errors.As(err, new(*agent.UnknownError)) {
		t.Errorf("by its name: %v", err)
	}
	if list, err := n.Jobs(t.Context(), agent.Query{}); err != nil || len(list) != 0 {
		t.Errorf("jobs %v, %v", list, err)
	}
	if st, err := n.Status(t.Context()); err != nil || len(st.Jobs) != 0 {
		t.Errorf("counts %v, %v", st.Jobs, err)
	}
	if roots, err := n.store.Roots(t.Context()); err != nil || len(roots) != 0 {
		t.Errorf("%d roots are left: %v", len(roots), err)
	}

	// Numbers are not given twice, so that nothing of a new job is taken for an old one's; the old document is a new proposal.
	n.stop()
	n = newNode(t, s)
	again := n.await(n.submit(good).ID)
	if again.State == agent.Refused && len(again.Steps) == 0 || again.ID != failed.ID {
		t.Errorf("handed in again: %+v", again)
	}
	if _, err := n.Why(t.Context(), failed.ID); err != nil {
		t.Errorf("why it is there again: %v", err)
	}
	if files, err := os.ReadDir(filepath.Join(dir, "state", "logs")); err != nil || len(files) == 0 || !strings.HasPrefix(files[0].Name(), "3-") {
		t.Errorf("logs %v, %v", files, err)
	}
}
