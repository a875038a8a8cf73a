package executor_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/attest/digest"
	"arch.network/runner"
)

// outliving is a Driver whose executions print half, and go on without the node that started them; the next one gets the other half.
type outliving struct {
	executor.Driver
	text     string
	half     chan struct{}    // closed when it is printed
	had      chan runner.Kept // what the next node said that it had
	survivor string
}

func (d *outliving) Run(ctx context.Context, w executor.Work) (executor.Outcome, error) {
	if _, err := io.WriteString(w.Stdout, d.text[:len(d.text)/2]); err != nil {
		return executor.Outcome{}, err
	}
	d.survivor = w.Name
	close(d.half)
	<-ctx.Done()
	return executor.Outcome{}, executor.ErrLeave
}

func (d *outliving) Survivors(context.Context) ([]string, error) { return []string{d.survivor}, nil }

func (d *outliving) Attach(ctx context.Context, w executor.Work) (executor.Outcome, error) {
	had, err := w.Resume()
	if err != nil {
		return executor.Outcome{}, err
	}
	d.had <- had
	rest := direct(func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		_, err := io.WriteString(spec.Stdout, d.text[had.Stdout:])
		if err == nil {
			err = collect(spec, "output")
		}
		return runner.Result{Reason: runner.ReasonExit, Engine: "test", Confinement: runner.Confinement{Driver: "test"}, Usage: runner.Usage{Gas: 1}}, err
	})
	return rest.Run(ctx, w)
}

// TestResume has a node go on with what an earlier one kept of what a job prints: a unit has forgotten what it was told is kept.
func TestResume(t *testing.T) {
	d := &outliving{Driver: direct(exits), text: strings.Repeat("a line of a long text\n", 1<<12), half: make(chan struct{}), had: make(chan runner.Kept, 1)}
	n := newNode(t, setup{driver: d, change: func(o *executor.Options) { o.Drain = 1 }})
	j, err := n.Submit(t.Context(), n.example("wordcount"), "uid:1")
	if err != nil {
		t.Fatal(err)
	}
	<-d.half
	n.stop()
	n = newNode(t, setup{dir: n.dir, driver: d})
	j = n.await(j.ID)
	if had, want := <-d.had, int64(len(d.text)/2); had.Stdout != want || had.Stderr != 0 {
		t.Errorf("the second node has %+v, want %d bytes of stdout", had, want)
	}
	if j.State != agent.Archived || len(j.Attempts) != 1 {
		t.Errorf("state %s after %d executions", j.State, len(j.Attempts))
	}
	log, err := n.Log(t.Context(), j.ID, agent.LogQuery{Stream: "stdout"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	got, err := io.ReadAll(log)
	if err != nil || digest.Of(got) != digest.Of([]byte(d.text)) {
		t.Errorf("%d bytes of the log, want %d: %v", len(got), len(d.text), err)
	}
}
