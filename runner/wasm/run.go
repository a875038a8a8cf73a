package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"arch.network/runner/gas"
	"arch.network/runner/wasm/wasi"
)

// defaultEntry is runner.Module.Entry where that is empty.
const defaultEntry = "_start"

// run is one execution of a prepared module.
type run struct {
	engine *engine
	task   task
	config wasi.Config
	system *wasi.System

	counter   api.MutableGlobal
	gasStart  int64  // what the counter held at the start
	gasBefore uint64 // what earlier parts of the run have used
}

// newRun makes the System of a task. stdout and stderr take what the module writes.
func newRun(e *engine, t task, trees []wasi.Tree, stdout, stderr io.Writer) (*run, error) {
	r := &run{engine: e, task: t, gasStart: math.MaxInt64}
	counter, ok := e.instance.ExportedGlobal(gas.Global).(api.MutableGlobal)
	if !ok || counter.Type() != api.ValueTypeI64 {
		return nil, &refusal{"it exports no counter " + gas.Global}
	}
	r.counter = counter
	if t.Gas > 0 && t.Gas < math.MaxInt64 {
		r.gasStart = int64(t.Gas)
	}
	r.config = wasi.Config{
		Args: t.Args, Env: t.Env, Stdout: stdout, Stderr: stderr, Clock: t.Clock, Charge: r.charge,
	}
	if t.Seed != nil {
		r.config.Seed = (*[32]byte)(t.Seed)
	}
	for i, d := range t.Dirs {
		r.config.Dirs = append(r.config.Dirs, wasi.Dir{Name: d.As, Tree: trees[i], Writable: d.Writable})
	}
	var err error
	r.system, err = wasi.New(r.config)
	return r, err
}

// bytesPerGas is how many bytes a host function copies for one unit of gas, as memory.copy does in package gas.
const bytesPerGas = 8

// charge counts what a host function copies.
func (r *run) charge(bytes uint64) {
	left := int64(r.counter.Get())
	r.counter.Set(uint64(max(left-int64(bytes/bytesPerGas), math.MinInt64/2)))
}

// used is the gas of the run so far.
func (r *run) used() uint64 { return r.gasBefore + uint64(r.gasStart-int64(r.counter.Get())) }

// enter calls what the start section named, _initialize of a module that is a library, and the entry.
func (r *run) enter(ctx context.Context) error {
	entry := r.task.Entry
	if entry == "" {
		entry = defaultEntry
	}
	f := r.engine.instance.ExportedFunction(entry)
	if f == nil {
		return &refusal{fmt.Sprintf("it exports no function %q to start with", entry)}
	}
	if n := len(f.Definition().ParamTypes()); n > 0 {
		return &refusal{fmt.Sprintf("its function %q takes %d parameters: one to start with takes none", entry, n)}
	}
	before := []string{StartExport}
	if entry != defaultEntry { // wasi-libc's crt1-reactor.o
		before = append(before, "_initialize")
	}
	for _, name := range before {
		if init := r.engine.instance.ExportedFunction(name); init != nil {
			if _, err := init.Call(ctx); err != nil {
				return err
			}
		}
	}
	_, err := f.Call(ctx)
	return err
}

// execute runs the module to its end and says what that was.
func (r *run) execute(ctx context.Context, ext *Extension, extra []byte, out io.Writer, asked *atomic.Bool) report {
	r.counter.Set(uint64(r.gasStart))
	in := &Instance{ctx: r.system.Context(ctx), module: r.engine.instance, run: r, extra: extra, out: out, asked: asked}
	do := (*Instance).Enter
	if ext != nil && ext.Run != nil {
		do = func(in *Instance) error { return ext.Run(in) }
	}
	if ext != nil && ext.Hook != nil {
		r.engine.hook = func() { ext.Hook(in) }
	}
	rep := r.classify(do(in))
	rep.Gas = r.used()
	if m := wasi.MemoryOf(r.engine.instance); m != nil {
		rep.Memory = int64(m.Size())
	}
	return rep
}

// trapStatus is the exit status of a module that trapped: what a shell says of SIGABRT, and other runtimes of a trap.
const trapStatus = 134

// classify says how a run ended.
func (r *run) classify(err error) report {
	if over := r.task.Gas > 0 && r.used() > r.task.Gas; over && !errors.Is(err, ErrStopped) {
		return report{End: endGas, Detail: fmt.Sprintf("gas: the limit of %d units is used up", r.task.Gas)}
	}
	if err == nil {
		return report{End: endExit}
	}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		return report{End: endExit, Exit: exit.ExitCode()}
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		return report{End: endRefused, Detail: cut(refused.what)}
	}
	if errors.Is(err, ErrStopped) {
		return report{End: endStopped, Detail: err.Error()}
	}
	return report{End: endTrap, Exit: trapStatus, Detail: "trap: " + strings.TrimPrefix(firstLine(err), "wasm error: ")}
}
