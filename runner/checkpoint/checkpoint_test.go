package checkpoint_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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
	}{{"c", 12}, {"go", 4}} {
		t.Run(test.name, func(t *testing.T) {
			want := whole(t, newJob(t, r, prepared(t, test.name)))
			t.Run("snapshot", func(t *testing.T) {
				j := newJob(t, r, prepared(t, test.name))
				var said string
				var from *checkpoint.Checkpoint
				for i := uint64(1); ; i++ {
					result, c, s := j.run(t, checkpoint.Options{From: from, StopAt: want.Gas * i / test.parts})
					said += s
					if c == nil {
						if diff := cmp.Diff(want, outcome{result.Reason, result.Exit, result.Gas, said, j.files(t)}); diff != "" {
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
