package wasm

import (
	"context"
	"fmt"
	"io"
	"time"

	"arch.network/runner"
)

// compileWall bounds the making of machine code that is to be kept: many times what 64 MiB of honest code take.
const compileWall = 10 * time.Minute

// entry returns the cache entry of a module, which it makes if need be; nil if there is no cache, or the module is
// interpreted. If the module turns out to be unfit, refused is how its run ended.
func (r *Runner) entry(ctx context.Context, spec runner.Spec, module []byte, extension string) (e *storedEntry, refused *runner.Result, err error) {
	if r.cache == nil || spec.Module.Interpret {
		return nil, nil, nil
	}
	key := cacheKey(module, extension)
	for {
		if e := r.cache.get(key); e != nil {
			return e, nil, nil
		}
		done, mine, err := r.cache.claim(ctx, key)
		if err != nil {
			return nil, &runner.Result{Reason: runner.ReasonCancelled, Detail: err.Error()}, nil
		}
		if !mine {
			continue
		}
		refused, err = r.compile(ctx, spec, module, key, extension)
		done()
		if err != nil || refused != nil {
			return nil, refused, err
		}
		return r.cache.get(key), nil, nil
	}
}

// compile makes a cache entry, in a confinement that has nothing but the worker, under the limits of spec.
func (r *Runner) compile(ctx context.Context, spec runner.Spec, module []byte, key, extension string) (*runner.Result, error) {
	inner := r.workerSpec(runner.Spec{
		UID: spec.UID, GID: spec.GID, CPUs: spec.CPUs, Limits: spec.Limits, Degraded: spec.Degraded,
		Outputs: []runner.Output{{Name: "code", Path: insideScratch}},
		Stderr:  spec.Stderr,
	})
	inner.Limits.Output = 2 * scratchSize
	if inner.Limits.Wall == 0 {
		inner.Limits.Wall = compileWall
	}
	inner.Collect = func(_ runner.Output, archive io.Reader) error {
		if err := r.cache.store(key, archive); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, archive)
		return err
	}
	t := newTask(spec, actCompile, module)
	t.Args, t.Env, t.Clock, t.Seed = nil, nil, nil, nil
	t.Extension = extension
	s := &session{task: t, module: module}
	inner.Exchange = s.exchange
	result, err := s.result(r.options.Driver.Run(ctx, inner))
	if err != nil {
		return nil, fmt.Errorf("compile module: %w", err)
	}
	if !result.OK() {
		return &result, nil
	}
	return nil, nil
}
