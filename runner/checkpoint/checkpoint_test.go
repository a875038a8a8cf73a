package checkpoint_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
)

// outcome is all that a job leaves.
type outcome struct {
	Reason runner.Reason
	Exit   int
	Gas    uint64
	Said   string
	Files  map[string]string
}

// whole runs a job without stopping, by the ordinary way of package wasm.
func whole(t *testing.T, j *job) outcome {
	t.Helper()
	result, c, said := j.run(t, checkpoint.Options{})
	if c != nil {
		t.Fatal("a run that nobody stopped was stopped")
	}
	return outcome{result.Reason, result.Exit, result.Gas, said, j.files(t)}
}

// TestResume stops jobs again and again and resumes each time in another process: the outcome is that of an unstopped one.
func TestResume(t *testing.T) {
	r := newRunner(t)
	for _, test := range []struct {
		name  string
		parts uint64
		exit  int
	}{{"c", 12, 5}, {"go", 4, 0}} {
		t.Run(test.name, func(t *testing.T) {
			want := whole(t, newJob(t, r, prepared(t, test.name)))
			if want.Reason != runner.ReasonExit || want.Exit != test.exit || len(want.Files) != 1 {
				t.Fatalf("unstopped: %+v", want)
			}
			t.Run("snapshot", func(t *testing.T) {
				j := newJob(t, r, prepared(t, test.name))
				var said strings.Builder
				var from *checkpoint.Checkpoint
				for i := uint64(1); ; i++ {
					result, c, s := j.run(t, checkpoint.Options{From: from, StopAt: want.Gas * i / test.parts})
					said.WriteString(s)
					if c == nil {
						if diff := cmp.Diff(want, outcome{result.Reason, result.Exit, result.Gas, said.String(), j.files(t)}); diff != "" {
							t.Errorf("(-unstopped +resumed):\n%s", diff)
						}
						if i != test.parts {
							t.Errorf("ended in part %d, want %d", i, test.parts)
						}
						return
					}
					if result.Reason != runner.ReasonCancelled || c.Snapshot == nil || c.Gas < want.Gas*i/test.parts {
						t.Fatalf("part %d: %+v, %d gas", i, result, c.Gas)
					}
					if i == 1 {
						t.Logf("checkpoint of %d bytes, call stack of %d, memory of %d pages", len(c.Marshal()), len(c.Snapshot.Stack), c.Snapshot.Pages)
					}
					from = c
				}
			})
			t.Run("mark", func(t *testing.T) {
				unprepared := newJob(t, r, source(t, test.name))
				_, c, _ := unprepared.run(t, checkpoint.Options{StopAt: want.Gas / 2})
				if c == nil || c.Snapshot != nil || c.Gas < want.Gas/2 {
					t.Fatalf("checkpoint is %+v, want a mark", c)
				}
				again := newJob(t, r, source(t, test.name))
				result, c, said := again.run(t, checkpoint.Options{From: c})
				if c != nil {
					t.Fatal("stopped again")
				}
				if diff := cmp.Diff(want, outcome{result.Reason, result.Exit, result.Gas, said, again.files(t)}); diff != "" {
					t.Errorf("(-prepared, unstopped +unprepared, repeated):\n%s", diff)
				}
			})
			t.Run("plain", func(t *testing.T) {
				j := newJob(t, r, source(t, test.name))
				result, err := r.Run(t.Context(), j.spec)
				if err != nil {
					t.Fatal(err)
				}
				if result.Gas != want.Gas {
					t.Errorf("%d gas without any of this, %d with", result.Gas, want.Gas)
				}
			})
		})
	}
}

// TestLimit shows that the gas limit holds over all parts, and at the same place as without stopping.
func TestLimit(t *testing.T) {
	r := newRunner(t)
	for name, module := range map[string][]byte{"snapshot": prepared(t, "c"), "mark": source(t, "c")} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t, r, module)
			j.spec.Module.Gas = 400_000
			unstopped, _, _ := j.run(t, checkpoint.Options{})
			if unstopped.Reason != runner.ReasonLimit || unstopped.Gas <= 400_000 {
				t.Fatalf("unstopped: %+v", unstopped)
			}
			j = newJob(t, r, module)
			j.spec.Module.Gas = 400_000
			_, c, _ := j.run(t, checkpoint.Options{StopAt: 200_000, Slice: 1_000})
			if c == nil {
				t.Fatal("not stopped")
			}
			if name == "mark" {
				j = newJob(t, r, module)
				j.spec.Module.Gas = 400_000
			}
			resumed, c, _ := j.run(t, checkpoint.Options{From: c, Slice: 3_000})
			if c != nil || resumed.Reason != runner.ReasonLimit || resumed.Gas != unstopped.Gas || resumed.Detail != unstopped.Detail {
				t.Errorf("resumed: %+v, unstopped: %+v", resumed, unstopped)
			}
		})
	}
}

// TestStopWhenAsked stops a module that would never end.
func TestStopWhenAsked(t *testing.T) {
	r := newRunner(t)
	j := newJob(t, r, assemble(t, "forever"))
	stop := make(chan struct{})
	close(stop)
	result, c, _ := j.run(t, checkpoint.Options{Stop: stop, Slice: 100_000})
	if c == nil || result.Reason != runner.ReasonCancelled {
		t.Fatalf("result %+v, checkpoint %v", result, c)
	}
	_, next, _ := j.run(t, checkpoint.Options{From: c, StopAt: c.Granted + 1_000_000})
	if next == nil || next.Gas < c.Gas+1_000_000 {
		t.Errorf("next checkpoint %+v after %+v", next, c)
	}
}

// TestRefused shows what cannot be resumed, and that it is told apart from a job that failed.
func TestRefused(t *testing.T) {
	r := newRunner(t)
	stopped := func(module []byte, change func(j *job)) *checkpoint.Checkpoint {
		j := newJob(t, r, module)
		change(j)
		_, c, _ := j.run(t, checkpoint.Options{StopAt: 200_000})
		if c == nil {
			t.Fatal("not stopped")
		}
		return c
	}
	same := func(*job) {}
	snapshot, mark := stopped(prepared(t, "c"), same), stopped(source(t, "c"), same)
	otherSeed := [32]byte{9}
	forged := *mark
	forged.Gas++
	forgedState := *mark
	forgedState.State[0]++
	for _, test := range []struct {
		name   string
		from   *checkpoint.Checkpoint
		module []byte
		change func(j *job)
		want   string
	}{
		{"another module", snapshot, source(t, "c"), same, "the checkpoint is of module"},
		{"other randomness", mark, source(t, "c"), func(j *job) { j.spec.Module.Seed = &otherSeed }, "repeating the execution led to another state"},
		{"forged state", &forgedState, source(t, "c"), same, "repeating the execution led to another state"},
		{"forged gas", &forged, source(t, "c"), same, "repeating the execution led to another state"},
		{"host's clock", mark, source(t, "c"), func(j *job) { j.spec.Module.Clock = nil }, "the module has the host's clock or randomness"},
		{"another entry", snapshot, prepared(t, "c"), func(j *job) { j.spec.Module.Entry = "main" }, `the checkpoint is of entry \"_start\", not \"main\"`},
		{"smaller limit", snapshot, prepared(t, "c"), func(j *job) { j.spec.Module.Gas = 1_000 }, "more than the limit of 1000"},
		{"files that are gone", snapshot, prepared(t, "c"), same, "restore descriptor"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJob(t, r, test.module)
			test.change(j)
			_, c, err := checkpoint.Run(t.Context(), r, j.spec, checkpoint.Options{From: test.from, Module: digest.Of(test.module)})
			if _, ok := errors.AsType[*checkpoint.RefusedError](err); !ok || !strings.Contains(err.Error(), test.want) || c != nil {
				t.Errorf("got %v, %v, want %s", c, err, test.want)
			}
		})
	}
}

// TestHostileSnapshot changes a snapshot: whatever it is, the worker reports, and the module can do no more than any other.
func TestHostileSnapshot(t *testing.T) {
	r := newRunner(t)
	module := prepared(t, "c")
	j := newJob(t, r, module)
	_, c, _ := j.run(t, checkpoint.Options{StopAt: 200_000})
	for _, test := range []struct {
		name   string
		change func(s *checkpoint.Snapshot)
	}{
		{"no stack", func(s *checkpoint.Snapshot) { s.Stack = nil }},
		{"stack of noise", func(s *checkpoint.Snapshot) { s.Stack = bytes.Repeat([]byte{0x55}, len(s.Stack)) }},
		{"stack as large as the memory", func(s *checkpoint.Snapshot) { s.Stack = make([]byte, int(s.Pages)<<16-24) }},
		{"stack larger than the memory", func(s *checkpoint.Snapshot) { s.Stack = make([]byte, int(s.Pages)<<16) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			hostile, s := *c, *c.Snapshot
			hostile.Snapshot = &s
			test.change(&s)
			result, _, err := checkpoint.Run(t.Context(), r, j.spec, checkpoint.Options{From: &hostile, Module: hostile.Module})
			if err == nil && result.Reason == runner.ReasonExit && result.Exit == 0 {
				t.Errorf("result %+v", result)
			}
		})
	}
}

// TestDeepStack stops where the call stack does not fit into the memory: a mark is left.
func TestDeepStack(t *testing.T) {
	r := newRunner(t)
	module := assemble(t, "deep")
	j := newJob(t, r, module)
	want, _, _ := j.run(t, checkpoint.Options{})
	_, c, _ := j.run(t, checkpoint.Options{StopAt: want.Gas / 2})
	if c == nil || c.Snapshot != nil {
		t.Fatalf("checkpoint %+v, want a mark", c)
	}
	got, c, _ := j.run(t, checkpoint.Options{From: c})
	if c != nil || got.Gas != want.Gas || got.Exit != want.Exit || got.Reason != want.Reason {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRunner stops and resumes by way of the contract of package runner, and runs what is no module.
func TestRunner(t *testing.T) {
	module := prepared(t, "c")
	j := newJob(t, newRunner(t), module)
	r := &checkpoint.Runner{Wasm: j.runner, Options: checkpoint.Options{Module: digest.Of(module), StopAt: 200_000}}
	r.Stopped = func(c *checkpoint.Checkpoint) error {
		r.Options = checkpoint.Options{Module: c.Module, From: c}
		return nil
	}
	var driver runner.Runner = r
	for _, want := range []runner.Reason{runner.ReasonCancelled, runner.ReasonExit} {
		result, err := driver.Run(t.Context(), j.spec)
		if err != nil || result.Reason != want {
			t.Errorf("got %+v, %v, want %s", result, err, want)
		}
	}
	spec := runner.Spec{
		Commands: []runner.Command{{Argv: []string{"/worker"}}},
		Mounts:   []runner.Mount{{Kind: runner.Bind, Source: compile(t, "worker"), Target: "/worker"}},
	}
	if result, err := driver.Run(t.Context(), spec); err != nil || result.Exit != 2 {
		t.Errorf("command: %+v, %v, want exit status 2", result, err)
	}
	if _, _, err := checkpoint.Run(t.Context(), j.runner, spec, checkpoint.Options{}); err == nil {
		t.Error("a command was run to be stopped")
	}
}

// TestOtherEngine stops in machine code and goes on in the interpreter.
func TestOtherEngine(t *testing.T) {
	r := newRunner(t)
	want := whole(t, newJob(t, r, prepared(t, "c")))
	j := newJob(t, r, prepared(t, "c"))
	_, c, said := j.run(t, checkpoint.Options{StopAt: want.Gas / 3})
	if c == nil || c.Snapshot == nil {
		t.Fatalf("checkpoint %+v, want a snapshot", c)
	}
	j.spec.Module.Interpret = true
	result, c, rest := j.run(t, checkpoint.Options{From: c})
	if c != nil {
		t.Fatal("stopped again")
	}
	if diff := cmp.Diff(want, outcome{result.Reason, result.Exit, result.Gas, said + rest, j.files(t)}); diff != "" {
		t.Errorf("(-unstopped +resumed):\n%s", diff)
	}
}
