package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"arch.network/attest/digest"
	"arch.network/builder/store"
	"arch.network/runner"
)

// ran is one execution of a build's steps.
type ran struct {
	outputs []Output
	result  runner.Result
	log     digest.SHA256
}

func (r ran) summary() string {
	return fmt.Sprintf("%s CPU, %d MiB peak", r.result.CPU.Round(10*time.Millisecond), r.result.MemoryPeak>>20)
}

// run executes the steps in the given surroundings and puts the outputs into the store. The log becomes
// <Logs>/<id><suffix>.log, unless the context ends first.
func (b *Builder) run(ctx context.Context, made *Made, s surroundings, suffix string) (*ran, error) {
	spec, err := plan(made.Manifest, made.Inputs, s)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", made.Manifest.Metadata.Name, err)
	}
	log, err := createLog(b.Logs, made.ID.Hex()+suffix)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", made.Manifest.Metadata.Name, err)
	}
	defer log.discard()
	taken := &collector{ctx: ctx, store: b.Store, got: map[string]digest.SHA256{}}
	spec.Stdout, spec.Stderr, spec.Degraded, spec.Collect = log, log, b.Degraded, taken.take
	result, err := b.Runner.Run(ctx, spec)
	if err == nil && result.OK() {
		return b.succeed(ctx, made, taken.got, result, log)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	failed := newBuildError(made, result, log)
	if output, ok := errors.AsType[*OutputError](err); ok {
		failed.Step, failed.Err = "", output
	} else if err != nil {
		return nil, fmt.Errorf("build %s: %w", made.Manifest.Metadata.Name, err)
	}
	if _, err := log.keep(); err != nil {
		return nil, errors.Join(failed, err)
	}
	return nil, failed
}

// succeed names the outputs and keeps the log of a run whose steps all ended well.
func (b *Builder) succeed(ctx context.Context, made *Made, got map[string]digest.SHA256, result runner.Result, log *buildLog) (*ran, error) {
	outputs, err := b.describe(ctx, made.Manifest, got)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	sum, kept := log.keep()
	if output, ok := errors.AsType[*OutputError](err); ok {
		failed := newBuildError(made, result, log)
		failed.Step, failed.Err = "", output
		return nil, failed
	}
	if err := errors.Join(err, kept); err != nil {
		return nil, fmt.Errorf("build %s: %w", made.Manifest.Metadata.Name, err)
	}
	return &ran{outputs, result, sum}, nil
}

// collector puts outputs into the store as they come out of the confinement.
type collector struct {
	ctx   context.Context
	store *store.Store
	got   map[string]digest.SHA256 // NAR hash by output
}

func (c *collector) take(out runner.Output, nar io.Reader) error {
	d, err := c.store.AddTree(c.ctx, outputStream{out.Name, nar}, digest.SHA256{})
	if err != nil {
		return fmt.Errorf("store output %s: %w", out.Name, err)
	}
	c.got[out.Name] = d
	return nil
}

// outputStream marks what goes wrong in the confinement, such as a socket that no NAR can hold, as the output's fault.
type outputStream struct {
	name string
	nar  io.Reader
}

func (s outputStream) Read(p []byte) (int, error) {
	n, err := s.nar.Read(p)
	if err != nil && err != io.EOF {
		err = &OutputError{Output: s.name, Err: err}
	}
	return n, err
}
