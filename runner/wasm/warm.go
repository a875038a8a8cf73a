package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"

	"arch.network/runner"
)

// warmKey tells what a ready worker can be used for: its confinement's limits and what it has prepared.
type warmKey struct {
	code      string
	memory    int64
	interpret bool
	limits    runner.Limits
}

func keyOf(spec runner.Spec, module []byte) warmKey {
	return warmKey{cacheKey(module, ""), spec.Module.Memory, spec.Module.Interpret, spec.Limits}
}

// Warm makes n workers of the pool hold spec's module ready: compiled and instantiated, for a later Run with the same module,
// Memory, Interpret and Limits. Each of them runs one job, as every worker does. Close ends those that are left.
func (r *Runner) Warm(ctx context.Context, spec runner.Spec, n int) error {
	if spec.Module == nil || r.options.Pool == nil {
		return &runner.SetupError{Act: "warm worker", Err: errors.New("there is no module, or no pool")}
	}
	if err := check(spec); err != nil {
		return &runner.SetupError{Act: "check spec", Err: err}
	}
	module, err := readModule(spec)
	if err != nil {
		return err
	}
	key := keyOf(spec, module)
	for range n {
		w, refused, err := r.prepareWorker(ctx, spec, module, false)
		if err != nil {
			return err
		}
		if refused != nil {
			return fmt.Errorf("warm worker: %s: %s", refused.Reason, refused.Detail)
		}
		r.mu.Lock()
		if r.shut {
			r.mu.Unlock()
			w.end()
			return errors.New("warm worker: the runner is closed")
		}
		r.warm[key] = append(r.warm[key], w)
		r.mu.Unlock()
	}
	return nil
}

// ready returns a worker that has prepared the module. If there is none that has, it prepares one.
func (r *Runner) ready(ctx context.Context, spec runner.Spec, module []byte) (*readyWorker, *runner.Result, error) {
	key := keyOf(spec, module)
	for {
		r.mu.Lock()
		list := r.warm[key]
		if len(list) == 0 {
			r.mu.Unlock()
			return r.prepareWorker(ctx, spec, module, false)
		}
		w := list[len(list)-1]
		r.warm[key] = list[:len(list)-1]
		if len(list) == 1 {
			delete(r.warm, key)
		}
		r.mu.Unlock()
		select {
		case <-w.ended: // it died while it waited
			w.end()
		default:
			return w, nil, nil
		}
	}
}

// prepareWorker takes a worker and has it prepare the module, for one run or for several. If the module is unfit, refused is how its run ended.
func (r *Runner) prepareWorker(ctx context.Context, spec runner.Spec, module []byte, serial bool) (w *readyWorker, refused *runner.Result, err error) {
	e, refused, err := r.entry(ctx, spec, module, "")
	if err != nil || refused != nil {
		return nil, refused, err
	}
	taken, err := r.options.Pool.Take(ctx, spec.Limits)
	if err != nil {
		return nil, nil, err
	}
	w = newReadyWorker(taken)
	s := w.session
	s.task = newTask(spec, actPrepare, module)
	s.task.Args, s.task.Env, s.task.Clock, s.task.Seed = nil, nil, nil, nil
	s.task.Scratch, s.task.Serial = pooledScratch, serial
	s.module = module
	if e != nil {
		files, err := e.open()
		if err != nil {
			w.end()
			return nil, nil, err
		}
		defer closeAll(files)
		s.task.Size, s.module, s.files = 0, nil, files
		s.task.Cached = &cached{Name: e.name}
	}
	stop := context.AfterFunc(ctx, w.cancel)
	err = s.exchange(w.worker.Conn())
	if stop() && err == nil && s.report == nil && s.phase == phaseReady {
		return w, nil, nil
	}
	if err != nil {
		w.cancel()
	}
	<-w.ended
	w.worker.Conn().Close()
	result := w.result
	if reason, ok := ended(ctx); ok {
		result.Reason, result.Detail = reason, context.Cause(ctx).Error()
		return nil, &result, nil
	}
	if s.report != nil && result.Reason == runner.ReasonExit && result.Exit == 0 {
		result.Exit = 1
	}
	result, err = s.result(result, w.err)
	return nil, &result, err
}

// open opens the files of an entry, the metered module first.
func (e *storedEntry) open() ([]*os.File, error) {
	module, err := os.Open(e.module)
	if err != nil {
		return nil, fmt.Errorf("open cached module: %w", err)
	}
	code, err := os.Open(e.code)
	if err != nil {
		module.Close()
		return nil, fmt.Errorf("open cached code: %w", err)
	}
	return []*os.File{module, code}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
