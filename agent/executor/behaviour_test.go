package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"

	"github.com/google/go-cmp/cmp"
)

// TestEnds is how jobs end that do not go well, and what the ledger says of each.
func TestEnds(t *testing.T) {
	ends := func(r runner.Result, err error) runFunc {
		return func(context.Context, runner.Spec) (runner.Result, error) {
			r.Confinement.Driver = "test"
			return r, err
		}
	}
	setupError := &runner.SetupError{Act: "create user namespace", Err: errors.New("operation not permitted"), Cure: "allow it"}
	tests := []struct {
		name   string
		run    runFunc
		change func(*manifest.Job)
		sign   []string
		want   agent.State
		ledger []string
		reason string
		tries  int
	}{
		{
			"nobody who may signed it", exits, nil,
			[]string{"alice", "mallory"},
			agent.Refused,
			[]string{"proposal received", "admission refused"},
			"job needs 2 of alice, bob", 0,
		},
		{
			"the policy does not allow it", exits, func(j *manifest.Job) { j.Spec.Determinism.Clock = manifest.ClockReal }, nil, agent.Refused,
			[]string{"proposal received", "admission refused"},
			"clock:real", 0,
		},
		{
			"content that nobody has", exits, func(j *manifest.Job) { j.Spec.Image.Digest[0]++ }, nil, agent.Failed,
			[]string{"proposal received", "admission accepted", "placement here", "failure not-fetched"},
			"image", 0,
		},
		{
			"a program that fails is not tried again", ends(runner.Result{Reason: runner.ReasonExit, Exit: 3}, nil),
			func(j *manifest.Job) { j.Spec.Retries = 5 }, nil, agent.Failed,
			[]string{"proposal received", "admission accepted", "placement here", "start started", "failure exit"},
			"ended with status 3", 1,
		},
		{
			"nor is one that takes too long", ends(runner.Result{Reason: runner.ReasonTimeout, Detail: "30s"}, nil),
			func(j *manifest.Job) { j.Spec.Retries = 5 }, nil, agent.Failed,
			[]string{"proposal received", "admission accepted", "placement here", "start started", "failure timeout"},
			"longer than it may (30s)", 1,
		},
		{
			"a confinement that cannot be made is tried as often as it may be", ends(runner.Result{}, setupError),
			func(j *manifest.Job) { j.Spec.Retries = 2 }, nil, agent.Failed,
			[]string{
				"proposal received", "admission accepted", "placement here", "start started", "failure unfinished", "placement here", "start started",
				"failure unfinished", "placement here", "start started", "failure unfinished",
			},
			"create user namespace", 3,
		},
		{
			"a result that is not the expected one is held back, and not tried again", exits,
			func(j *manifest.Job) {
				j.Spec.Outputs = map[string]manifest.Target{"x": {Destination: "store"}}
				j.Spec.Expected = map[string]digest.SHA256{"x": digest.Of([]byte("another"))}
				j.Spec.Retries = 5
			},
			nil, agent.Quarantined,
			[]string{"proposal received", "admission accepted", "placement here", "start started", "quarantine held"},
			`output "x" of execution 1 is`, 1,
		},
		{
			"too large for this node", exits, func(j *manifest.Job) { j.Spec.Resources.CPU = "1000" }, nil, agent.Refused,
			[]string{"proposal received", "admission refused"},
			"it needs 1000000 of cpu", 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, setup{driver: direct(tt.run)})
			envelope := n.example("c-hello-wasm", func(j *manifest.Job) {
				if tt.change != nil {
					tt.change(j)
				}
			})
			if tt.sign != nil {
				envelope = n.resign(envelope, tt.sign...)
			}
			j := n.await(n.submit(envelope).ID)
			if j.State != tt.want || len(j.Attempts) != tt.tries || j.Summary == "" {
				t.Errorf("job is %s after %d executions: %s; want %s after %d", j.State, len(j.Attempts), j.Summary, tt.want, tt.tries)
			}
			if diff := cmp.Diff(tt.ledger, n.journal.verdicts(j.ID)); diff != "" {
				t.Errorf("ledger (-want +got)\n%s", diff)
			}
			if len(j.Reasons) == 0 || !strings.Contains(j.Reasons[0].Msg, tt.reason) {
				t.Errorf("reasons %+v, want %q", j.Reasons, tt.reason)
			}
			why, err := n.Why(t.Context(), j.ID)
			if err != nil || len(why) < len(tt.ledger) {
				t.Errorf("why has %d findings: %v", len(why), err)
			}
		})
	}
}

// TestRetryThatWorks has an execution fail to be made once.
func TestRetryThatWorks(t *testing.T) {
	var calls atomic.Int32
	n := newNode(t, setup{driver: direct(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		if calls.Add(1) == 1 {
			return runner.Result{}, &runner.SetupError{Act: "mount", Err: errors.New("busy")}
		}
		return exits(ctx, spec)
	})})
	j := n.await(n.submit(n.example("c-hello-wasm", func(j *manifest.Job) { j.Spec.Retries = 1 })).ID)
	if j.State != agent.Archived || len(j.Attempts) != 2 || j.Attempts[0].Detail != "mount: busy" || j.Attempts[1].Reason != "exit" {
		t.Errorf("%s, %+v", j.State, j.Attempts)
	}
}

// TestReplicas has as many executions agree as the document says, and holds back what they disagree about.
func TestReplicas(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy func(*manifest.Policy)
		gas    func(call int) uint64
		want   agent.State
		runs   int
	}{
		{"three agree", nil, func(int) uint64 { return 1000 }, agent.Archived, 3},
		{"the second lies", nil, func(n int) uint64 { return 1000 + uint64(n%2) }, agent.Quarantined, 2},
		{"the node checks itself", func(p *manifest.Policy) { p.Spec.Validation.SampleRate = 1 }, func(int) uint64 { return 7 }, agent.Archived, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			policy := newPolicy()
			if tt.policy != nil {
				tt.policy(policy)
			}
			n := newNode(t, setup{policy: policy, driver: direct(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
				r, err := exits(ctx, spec)
				r.Gas = tt.gas(int(calls.Add(1)))
				return r, err
			})})
			j := n.await(n.submit(n.example("c-hello-wasm", func(j *manifest.Job) {
				if tt.policy == nil {
					j.Spec.Replicas = 3
				}
			})).ID)
			if j.State != tt.want || len(j.Attempts) != tt.runs {
				t.Errorf("%s after %d executions: %s", j.State, len(j.Attempts), j.Summary)
			}
		})
	}
}

// TestQuarantine serves a held back result to nobody, until a person releases it, and never when it was dropped.
func TestQuarantine(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits)})
	wrong := func(name string) func(*manifest.Job) {
		return func(j *manifest.Job) {
			j.Metadata.Name = name
			j.Spec.Outputs = map[string]manifest.Target{"x": {Destination: "store"}}
			j.Spec.Expected = map[string]digest.SHA256{"x": digest.Of([]byte("another"))}
		}
	}
	one, two := n.submit(n.example("c-hello-wasm", wrong("one"))), n.submit(n.example("c-hello-wasm", wrong("two")))
	for _, j := range []agent.Job{one, two} {
		j = n.await(j.ID, agent.Quarantined)
		if _, err := n.OutputNAR(t.Context(), j.ID, "x"); !isHeld(err) {
			t.Errorf("a held back result is served: %v", err)
		}
		d := n.last(j.ID)
		bundle, err := n.Statement(t.Context(), d.Evidence[0].Digest)
		if err != nil || digest.Of(bundle) != d.Evidence[0].Digest || !strings.Contains(string(bundle), "the document says") {
			t.Errorf("evidence %q: %v", bundle, err)
		}
	}
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbRelease, Job: one.ID, By: "uid:0"}); err == nil {
		t.Error("it was released without a reason")
	}
	n.act(agent.VerbRelease, one.ID)
	n.act(agent.VerbDiscard, two.ID)
	j := n.await(one.ID, agent.Archived)
	checkReceipts(t, n, j)
	r, err := n.OutputNAR(t.Context(), one.ID, "x")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r)
	if got := n.await(two.ID); got.State != agent.Discarded {
		t.Errorf("it is %s", got.State)
	}
	if _, err := n.OutputNAR(t.Context(), two.ID, "x"); !isHeld(err) {
		t.Errorf("a dropped result is served: %v", err)
	}
	var step *agent.StepError
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbRelease, Job: two.ID, By: "uid:0", Reason: "after all"}); !errors.As(err, &step) {
		t.Errorf("a dropped result was released: %v", err)
	}
	want := []string{"proposal received", "admission accepted", "placement here", "start started", "quarantine held", "review released", "archive kept"}
	if diff := cmp.Diff(want, n.journal.verdicts(one.ID)); diff != "" {
		t.Errorf("ledger (-want +got)\n%s", diff)
	}
}

func isHeld(err error) bool {
	_, ok := errors.AsType[*executor.HeldError](err)
	return ok
}

func (n *node) act(verb agent.Verb, id digest.SHA256) {
	n.t.Helper()
	if err := n.Act(n.t.Context(), agent.Act{Verb: verb, Job: id, By: "uid:0", Reason: "a test"}); err != nil {
		n.t.Fatal(err)
	}
}

// last is the last decision about a job.
func (n *node) last(id digest.SHA256) agent.Decision {
	list := n.journal.decisions()
	for _, d := range slices.Backward(list) {
		if d.Subject == id {
			return d
		}
	}
	n.t.Fatalf("nothing was decided about %s", id)
	return agent.Decision{}
}

// TestCancel ends a job in each state in which that can be.
func TestCancel(t *testing.T) {
	running := make(chan struct{}, 10)
	blocks := func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		io.WriteString(spec.Stdout, "begun\n")
		running <- struct{}{}
		<-ctx.Done()
		return runner.Result{Reason: runner.ReasonCancelled}, nil
	}
	n := newNode(t, setup{driver: direct(blocks), change: func(o *executor.Options) { o.Slots = 1 }})
	runs := n.submit(n.example("c-hello-wasm", nonce(1)))
	<-running
	waits := n.submit(n.example("c-hello-wasm", nonce(2)))
	n.act(agent.VerbCancel, waits.ID)
	if j := n.await(waits.ID); j.State != agent.Cancelled || len(j.Attempts) != 0 {
		t.Errorf("waiting job: %s", j.State)
	}
	n.act(agent.VerbCancel, runs.ID)
	j := n.await(runs.ID)
	if j.State != agent.Cancelled || len(j.Attempts) != 1 || j.Attempts[0].Finished.IsZero() {
		t.Errorf("running job: %s, %+v", j.State, j.Attempts)
	}
	want := []string{"proposal received", "admission accepted", "placement here", "start started", "cancellation cancelled"}
	if diff := cmp.Diff(want, n.journal.verdicts(runs.ID)); diff != "" {
		t.Errorf("ledger (-want +got)\n%s", diff)
	}
	if got := n.log(runs.ID, agent.LogQuery{Stream: "stdout"}); got != "begun\n" {
		t.Errorf("log %q", got)
	}
	var step *agent.StepError
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: runs.ID, By: "uid:0", Reason: "again"}); !errors.As(err, &step) {
		t.Errorf("cancelled twice: %v", err)
	}
}

func (n *node) log(id digest.SHA256, q agent.LogQuery) string {
	n.t.Helper()
	r, err := n.Log(n.t.Context(), id, q)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

// TestLog follows what a job prints while it prints it, from any offset, short and long, and reads it again after a restart.
func TestLog(t *testing.T) {
	const lines = 5000
	begun, more := make(chan struct{}), make(chan struct{})
	prints := func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		io.WriteString(spec.Stdout, "first line\n")
		io.WriteString(spec.Stderr, "warning\n")
		close(begun)
		<-more
		for i := range lines {
			fmt.Fprintf(spec.Stdout, "line %d\n", i)
		}
		return runner.Result{Reason: runner.ReasonExit, Confinement: runner.Confinement{Driver: "test"}}, nil
	}
	n := newNode(t, setup{driver: direct(prints)})
	j := n.submit(n.example("c-hello-wasm"))
	<-begun
	if got := n.log(j.ID, agent.LogQuery{Stream: "stdout"}); got != "first line\n" {
		t.Errorf("so far it printed %q", got)
	}
	var want strings.Builder
	want.WriteString("first line\n")
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	var wg sync.WaitGroup
	for _, offset := range []int64{0, 6, 11} {
		r, err := n.Log(t.Context(), j.ID, agent.LogQuery{Stream: "stdout", Offset: offset, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			if data, err := io.ReadAll(r); err != nil || string(data) != want.String()[offset:] {
				t.Errorf("followed from %d: %d bytes, %v; want %d", offset, len(data), err, want.Len()-int(offset))
			}
		})
	}
	close(more)
	wg.Wait()
	n.await(j.ID, agent.Archived)
	n.stop()
	n = newNode(t, setup{dir: n.dir, driver: direct(exits)})
	if got := n.log(j.ID, agent.LogQuery{Stream: "stdout", Offset: 6}); got != want.String()[6:] {
		t.Errorf("after a restart: %d bytes, want %d", len(got), want.Len()-6)
	}
	if got := n.log(j.ID, agent.LogQuery{Stream: "stderr", Attempt: 1, Follow: true}); got != "warning\n" {
		t.Errorf("stderr %q", got)
	}
	for _, q := range []agent.LogQuery{{Stream: "stdin"}, {Stream: "stdout", Attempt: 2}, {Stream: "stdout", Offset: -1}} {
		if _, err := n.Log(t.Context(), j.ID, q); err == nil {
			t.Errorf("%+v was read", q)
		}
	}
}

// TestLogIsCut keeps no more of a log than it may, and says so.
func TestLogIsCut(t *testing.T) {
	n := newNode(t, setup{
		change: func(o *executor.Options) { o.MaxLog = 100_000 },
		driver: direct(func(_ context.Context, spec runner.Spec) (runner.Result, error) {
			for range 100 {
				io.WriteString(spec.Stdout, strings.Repeat("x", 9999)+"\n")
			}
			return runner.Result{Reason: runner.ReasonExit, Confinement: runner.Confinement{Driver: "test"}}, nil
		}),
	})
	j := n.await(n.submit(n.example("c-hello-wasm")).ID)
	got := n.log(j.ID, agent.LogQuery{Stream: "stdout"})
	if len(got) > 100_100 || !strings.HasSuffix(got, "[what follows is not kept]\n") {
		t.Errorf("%d bytes, the end is %q", len(got), got[max(0, len(got)-40):])
	}
}

// TestFull refuses what there is no room for, and keeps nothing of it.
func TestFull(t *testing.T) {
	policy := newPolicy()
	policy.Spec.Queue = manifest.PolicyQueue{Max: 3, PerOwner: 2}
	n := newNode(t, setup{policy: policy, driver: direct(exits), idle: true})
	owner := func(name string, i int) []byte {
		return n.example("c-hello-wasm", nonce(i), func(j *manifest.Job) { j.Metadata.Owner = name })
	}
	n.submit(owner("user:a", 1))
	n.submit(owner("user:a", 2))
	refused := owner("user:a", 3)
	_, err := n.Submit(t.Context(), refused, "uid:1")
	if full, ok := errors.AsType[*agent.FullError](err); !ok || full.Owner != "user:a" || full.Hint() == "" {
		t.Errorf("got %v", err)
	}
	n.submit(owner("user:b", 4))
	_, err = n.Submit(t.Context(), owner("user:b", 5), "uid:1")
	if full, ok := errors.AsType[*agent.FullError](err); !ok || full.Max != 3 {
		t.Errorf("got %v", err)
	}
	list, err := n.Jobs(t.Context(), agent.Query{})
	if err != nil || len(list) != 3 {
		t.Errorf("%d jobs: %v", len(list), err)
	}
	if list[0].Position == 0 || list[0].Owner != "user:b" {
		t.Errorf("newest job %+v", list[0])
	}
}

// TestSubmitRefusesBytes takes nothing that is no envelope of a valid job.
func TestSubmitRefusesBytes(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits), idle: true})
	good := n.example("c-hello-wasm")
	for name, data := range map[string][]byte{
		"nothing":      nil,
		"no JSON":      []byte("job"),
		"a policy":     sign(t, newPolicy(), "carol"),
		"too large":    append(slices.Clone(good), make([]byte, 1<<20)...),
		"a second one": append(slices.Clone(good), good...),
		"another type": []byte(strings.Replace(string(good), "vnd.arch.network.job", "vnd.arch.network.build", 1)),
		"cut off":      good[:len(good)/2],
	} {
		_, err := n.Submit(t.Context(), data, "uid:1")
		if _, ok := errors.AsType[*agent.EnvelopeError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := n.Jobs(t.Context(), agent.Query{}); err != nil || len(list) != 0 || len(n.journal.decisions()) != 0 {
		t.Errorf("%d jobs and %d decisions are there: %v", len(list), len(n.journal.decisions()), err)
	}
}

// TestSubmitTwiceAtOnce runs a document once, whoever hands it in how often.
func TestSubmitTwiceAtOnce(t *testing.T) {
	var calls atomic.Int32
	n := newNode(t, setup{driver: direct(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		calls.Add(1)
		return exits(ctx, spec)
	})})
	envelope := n.example("c-hello-wasm")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := n.Submit(t.Context(), envelope, "uid:1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	j := n.await(envelopeID(t, envelope), agent.Archived)
	if list, err := n.Jobs(t.Context(), agent.Query{}); err != nil || len(list) != 1 || calls.Load() != 1 || len(j.Attempts) != 1 {
		t.Errorf("%d jobs, %d executions: %v", len(list), calls.Load(), err)
	}
}

// TestClaimGivesBack gives the place back when the step that was to start a job could not be written: the job can be handed in again, and runs.
func TestClaimGivesBack(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits), change: func(o *executor.Options) { o.Slots = 2 }})
	n.await(n.submit(n.example("c-hello-wasm", nonce(1))).ID, agent.Archived) // it starts jobs, and has the module
	envelope := n.example("c-hello-wasm", nonce(2))
	n.journal.setFail(errors.New("no room"))
	for range 2 { // as often as there are places
		if j, err := n.Submit(t.Context(), envelope, "uid:1000"); err == nil {
			t.Fatalf("it was accepted: %+v", j)
		}
	}
	n.journal.setFail(nil)
	j := n.submit(envelope)
	if j.State != agent.Running || len(j.Steps) != 4 {
		t.Errorf("it did not start at once: %s, %d steps", j.State, len(j.Steps))
	}
	n.await(j.ID, agent.Archived)
}

// TestPolicyChanges judges again, before it starts, what waited while the policy changed.
func TestPolicyChanges(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits)})
	n.act(agent.VerbDrain, digest.SHA256{})
	j := n.submit(n.example("c-hello-wasm"))
	if s, err := n.Status(t.Context()); err != nil || !s.Draining || s.Jobs[agent.Verified] != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
	n.court.set(func(p *manifest.Policy) { p.Spec.Version, p.Spec.Runtimes = 2, []manifest.Runtime{manifest.RuntimeOCI} })
	n.act(agent.VerbResume, digest.SHA256{})
	j = n.await(j.ID)
	want := []string{"proposal received", "admission accepted", "admission refused"}
	if diff := cmp.Diff(want, n.journal.verdicts(j.ID)); diff != "" || j.State != agent.Refused {
		t.Errorf("%s\n%s", j.State, diff)
	}
}

// TestEvents numbers events without gaps, also over a restart, and tells a reader who missed some.
func TestEvents(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits), change: func(o *executor.Options) { o.Events = 1 }})
	j := n.await(n.submit(n.example("c-hello-wasm", nonce(1))).ID)
	var lag *agent.LaggedError
	for _, err := range n.Events(t.Context(), 0) {
		if !errors.As(err, &lag) {
			t.Fatalf("got %v", err)
		}
	}
	if lag.Next != 2 { // running, archived: two writes of several steps each
		t.Errorf("oldest event %d", lag.Next)
	}
	last := lag.Next - 1
	for ev, err := range n.Events(t.Context(), last) {
		if err != nil || ev.Number != last+1 || ev.Job == nil || ev.Job.Steps != nil || ev.Text == "" {
			t.Fatalf("event %+v, %v", ev, err)
		}
		if last = ev.Number; ev.Job.State == agent.Archived {
			break
		}
	}
	n.stop()
	n = newNode(t, setup{dir: n.dir, driver: direct(exits)})
	k := n.submit(n.example("c-hello-wasm", nonce(2)))
	for ev, err := range n.Events(t.Context(), last) {
		if err != nil || ev.Number != last+1 || ev.Job.ID != k.ID {
			t.Fatalf("after a restart: event %+v, %v", ev, err)
		}
		break
	}
	if j, err := n.Job(t.Context(), j.ID.Hex()[:8]); err != nil || j.State != agent.Archived {
		t.Errorf("%s, %v", j.State, err)
	}
}

// TestDrainLasts drains a node, which starts nothing after it was started again, either, until it is told to.
func TestDrainLasts(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits)})
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, By: "uid:7", Reason: "the kernel is replaced"}); err != nil {
		t.Fatal(err)
	}
	j := n.submit(n.example("c-hello-wasm", nonce(1)))
	n.stop()
	n = newNode(t, setup{dir: n.dir, driver: direct(exits)})
	status, err := n.Status(t.Context())
	if err != nil || !status.Draining || status.Drain == nil || status.Drain.By != "uid:7" || status.Drain.Reason != "the kernel is replaced" || status.Drain.At.IsZero() {
		t.Errorf("after a restart: %+v, %v", status.Drain, err)
	}
	if j, err := n.Job(t.Context(), j.ID.Hex()); err != nil || j.State != agent.Verified || j.Position != 1 {
		t.Errorf("the job is %s, at place %d: %v", j.State, j.Position, err)
	}
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbResume, By: "uid:7", Reason: "it was replaced"}); err != nil {
		t.Fatal(err)
	}
	if j := n.await(j.ID); j.State != agent.Archived {
		t.Errorf("it ended as %s", j.State)
	}
	n.stop()
	n = newNode(t, setup{dir: n.dir, driver: direct(exits)})
	if status, err := n.Status(t.Context()); err != nil || status.Draining || status.Drain != nil {
		t.Errorf("it drains again: %+v, %v", status.Drain, err)
	}
}

// TestFind finds jobs by id, prefix and name.
func TestFind(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits), idle: true})
	one, two := n.submit(n.example("c-hello-wasm", nonce(1))), n.submit(n.example("c-hello-wasm", nonce(2)))
	for ref, want := range map[string]digest.SHA256{
		one.ID.String(): one.ID, one.ID.Hex(): one.ID, one.ID.Hex()[:6]: one.ID, "c-hello-wasm": two.ID, "sha256:" + two.ID.Hex()[:10]: two.ID,
		"c-hello": {}, one.ID.Hex()[:5]: {}, "": {}, "000000": {}, "c-hello-wasm\x00": {},
	} {
		j, err := n.Job(t.Context(), ref)
		if _, unknown := errors.AsType[*agent.UnknownError](err); unknown != want.IsZero() || j.ID != want {
			t.Errorf("%q: %s, %v", ref, j.ID, err)
		}
	}
	list, err := n.Jobs(t.Context(), agent.Query{Before: two.ID})
	if err != nil || len(list) != 1 || list[0].ID != one.ID {
		t.Errorf("before the second: %+v, %v", list, err)
	}
	list, err = n.Jobs(t.Context(), agent.Query{States: []agent.State{agent.Failed}})
	if err != nil || len(list) != 0 {
		t.Errorf("failed: %+v, %v", list, err)
	}
}

// TestLedgerFails acts on nothing that is not in the ledger: a submission is refused, what runs stands still until it can be written.
func TestLedgerFails(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	n := newNode(t, setup{driver: direct(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		close(begun)
		<-end
		return exits(ctx, spec)
	})})
	j := n.submit(n.example("c-hello-wasm", nonce(1)))
	<-begun
	n.journal.setFail(errors.New("no space left on device"))
	if _, err := n.Submit(t.Context(), n.example("c-hello-wasm", nonce(2)), "uid:1"); err == nil || !strings.Contains(err.Error(), "write ledger: no space left") {
		t.Errorf("submitted without a ledger: %v", err)
	}
	if err := n.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: j.ID, By: "uid:0", Reason: "x"}); err == nil {
		t.Error("cancelled without a ledger")
	}
	close(end)
	for {
		s, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Problems) > 0 && s.Problems[0].Code == "state-not-written" {
			break
		}
	}
	if got, err := n.Job(t.Context(), j.ID.String()); err != nil || got.State != agent.Running {
		t.Errorf("it is %s without a ledger: %v", got.State, err)
	}
	n.journal.setFail(nil)
	if j = n.await(j.ID); j.State != agent.Archived {
		t.Errorf("it is %s", j.State)
	}
	if list, err := n.Jobs(t.Context(), agent.Query{}); err != nil || len(list) != 1 {
		t.Errorf("%d jobs: %v", len(list), err)
	}
}

// TestGarbage keeps in the store what an archive entry needs, and nothing else.
func TestGarbage(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits)})
	out := func(j *manifest.Job) { j.Spec.Outputs = map[string]manifest.Target{"x": {Destination: "store"}} }
	j := n.await(n.submit(n.example("c-hello-wasm", out)).ID, agent.Archived)
	collectAll(t, n)
	if r, err := n.OutputNAR(t.Context(), j.ID, "x"); err != nil {
		t.Error(err)
	} else {
		r.Close()
	}
	roots, err := n.store.Roots(t.Context())
	if err != nil || len(roots) != 2 {
		t.Errorf("%d roots, want the module and the output: %v", len(roots), err)
	}
	entry, err := n.Entry(t.Context(), j.ID)
	if err != nil || digest.Of(entry) != n.last(j.ID).Evidence[0].Digest {
		t.Errorf("the archive entry is not what the ledger says: %v", err)
	}
}

// resign has others sign the same document.
func (n *node) resign(envelope []byte, names ...string) []byte {
	n.t.Helper()
	doc, err := manifest.Payload(parse(n.t, envelope))
	if err != nil {
		n.t.Fatal(err)
	}
	return sign(n.t, doc, names...)
}

// TestState refuses a state directory of another format, and one that is in use.
func TestState(t *testing.T) {
	n := newNode(t, setup{driver: direct(exits), idle: true})
	if _, err := executor.Open(executor.Options{
		Dir: filepath.Join(n.dir, "state"), Store: n.store, Recorder: n.journal, Judge: n.court, Source: n.gather, Driver: direct(exits), Signer: key("node"),
	}); err == nil {
		t.Error("two nodes have one state")
	}
}

// TestMemory holds what a waiting job takes of the node's memory to a 50,000th of 200 MB.
func TestMemory(t *testing.T) {
	const jobs = 1000
	n := newNode(t, setup{driver: direct(exits), idle: true})
	var envelopes [][]byte
	for i := range jobs {
		envelopes = append(envelopes, n.example("c-hello-wasm", nonce(i), func(j *manifest.Job) { j.Metadata.Owner = fmt.Sprintf("user:%d", i%50) }))
	}
	before := heapSize()
	var wg sync.WaitGroup
	next := make(chan []byte)
	for range 16 {
		wg.Go(func() {
			for e := range next {
				if _, err := n.Submit(t.Context(), e, "uid:1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, e := range envelopes {
		next <- e
	}
	close(next)
	wg.Wait()
	n.journal.forget()
	used := heapSize() - before
	if per := used / jobs; per > 200_000_000/50_000 {
		t.Errorf("a waiting job takes %d bytes", per)
	}
	t.Logf("%d bytes a job, with its event", used/jobs)
	runtime.KeepAlive(envelopes)
}

func heapSize() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
