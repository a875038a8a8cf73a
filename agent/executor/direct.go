package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/job"
)

// Direct is the Driver that derives the confinement itself and has a runner.Runner enforce it: for a node that may do so, as root
// under systemd, or where namespaces need no root.
type Direct struct {
	Runner runner.Runner // for modules one that runs them, such as wasm.Runner. Required
	// Surviving lists the executions that have outlived the process which started them, if the runner's do. Nil: none do.
	Surviving func(ctx context.Context) ([]Survivor, error)
	Now       func() time.Time // nil: time.Now
}

// Survivor is an execution that went on without the process that started it.
type Survivor interface {
	// Name is the Spec's.
	Name() string
	// Wait does what Run would have done from now on, for somebody who has that much of what it printed. See systemd.Running.
	Wait(ctx context.Context, spec runner.Spec, had runner.Kept) (runner.Result, error)
	// Kill ends it and returns when it is gone.
	Kill(ctx context.Context) error
}

var _ Driver = (*Direct)(nil)

// Name implements Driver: it is what job.Derive calls the execution.
func (d *Direct) Name(id digest.SHA256, instance string) string {
	return "job-" + id.Hex()[:24] + "-" + instance
}

// Run implements Driver.
func (d *Direct) Run(ctx context.Context, w Work) (Outcome, error) {
	spec, err := d.derive(w)
	if err != nil {
		return Outcome{}, err
	}
	return d.outcome(func() (runner.Result, error) { return d.Runner.Run(ctx, spec) })
}

func (d *Direct) outcome(run func() (runner.Result, error)) (Outcome, error) {
	now := d.Now
	if now == nil {
		now = time.Now
	}
	o := Outcome{Started: now()}
	var err error
	o.Result, err = run()
	o.Finished = now()
	return o, err
}

func (d *Direct) derive(w Work) (runner.Spec, error) {
	_, instance, ok := strings.Cut(strings.TrimPrefix(w.Name, "job-"), "-")
	if !ok {
		return runner.Spec{}, fmt.Errorf("derive job: %q is no name of an execution", w.Name)
	}
	spec, err := job.Derive(w.Doc, w.Content.Content, job.Options{
		ID: w.ID, Policy: w.Policy, Instance: instance, Timeout: w.Timeout, Degraded: slices.Contains(w.Policy.Spec.Degradations, "namespaces"),
	})
	if err != nil {
		return runner.Spec{}, &FinalError{err} // it is pure
	}
	spec.Stdout, spec.Stderr = w.Stdout, w.Stderr
	spec.Collect = func(out runner.Output, nar io.Reader) error { return w.Collect(out.Name, nar) }
	return spec, nil
}

// Survivors implements Driver.
func (d *Direct) Survivors(ctx context.Context) ([]string, error) {
	list, err := d.survivors(ctx)
	var names []string
	for _, s := range list {
		names = append(names, s.Name())
	}
	return names, err
}

func (d *Direct) survivors(ctx context.Context) ([]Survivor, error) {
	if d.Surviving == nil {
		return nil, nil
	}
	return d.Surviving(ctx)
}

// find returns the survivor of that name; nil: there is none.
func (d *Direct) find(ctx context.Context, name string) (Survivor, error) {
	list, err := d.survivors(ctx)
	for _, s := range list {
		if s.Name() == name {
			return s, err
		}
	}
	return nil, err
}

// Attach implements Driver.
func (d *Direct) Attach(ctx context.Context, w Work) (Outcome, error) {
	s, err := d.find(ctx, w.Name)
	if err != nil {
		return Outcome{}, err
	}
	if s == nil {
		return Outcome{}, ErrNoSurvivor
	}
	spec, err := d.derive(w)
	if err == nil && spec.Module != nil {
		err = errors.New("a module cannot be taken up again: its worker lost its connection")
	}
	var had runner.Kept
	if err == nil {
		had, err = w.Resume()
	}
	if err != nil {
		return Outcome{}, errors.Join(err, s.Kill(ctx))
	}
	return d.outcome(func() (runner.Result, error) { return s.Wait(ctx, spec, had) })
}

// End implements Driver.
func (d *Direct) End(ctx context.Context, name string) error {
	s, err := d.find(ctx, name)
	if err != nil || s == nil {
		return err
	}
	return s.Kill(ctx)
}
