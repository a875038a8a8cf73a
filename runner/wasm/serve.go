package wasm

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
)

// serve prepares a module and runs it for one task after the other, each in an instance of its own, until the other side hangs
// up. The next instance is made when a run has been reported; what that costs is told with the run that uses it.
func (w *worker) serve(ctx context.Context, prepared task) (ok bool, err error) {
	finish := func(rep report) error {
		rep.PrepareCPU, rep.Engine = w.prepareCPU, engineName(prepared.Interpret)
		return w.report(rep)
	}
	debug.SetGCPercent(servingGC)
	w.memory = &slab{}
	defer w.memory.release()
	ctx = w.memory.context(ctx)
	e, err := w.prepare(ctx, prepared, nil)
	if err != nil {
		return false, finish(describe(err))
	}
	w.rehearse(ctx, e)
	for {
		t, err := w.next(prepared)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, finish(describe(err))
		}
		passed := w.files
		err = finish(w.run(ctx, e, t, nil))
		w.files = nil
		closeAll(passed)
		if err != nil {
			return false, err
		}
		began := cpu()
		if err := e.renew(ctx); err != nil {
			return false, err
		}
		w.prepareCPU = cpu() - began
	}
}

// servingGC lets the heap of a worker that serves grow to some megabytes before it is collected: what lives on in it is little, and a small job leaves
// next to nothing.
const servingGC = 400

// renew replaces the instance by a new one of the same module.
func (e *engine) renew(ctx context.Context) error {
	if err := e.instance.Close(ctx); err != nil {
		return err
	}
	return e.instantiate(ctx, e.compiled)
}
