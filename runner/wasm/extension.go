package wasm

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/tetratelabs/wazero/api"

	"arch.network/runner/wasm/wasi"
)

// Extension takes part in a worker's run. Package checkpoint makes one: the worker gets it by Main, and a run asks for it
// by Extra. All of it happens inside the worker's confinement.
type Extension struct {
	Name string // tells extensions apart, and goes into cache keys: change it when Prepare changes

	// Prepare makes of a module, which has passed the structural check, what is compiled. It must export the counter
	// gas.Global. Nil: gas.Instrument.
	Prepare func(module []byte) ([]byte, error)

	// Hook is what the module imports as function gas of module arch: gas.Options.Hook. It is called when the counter is below
	// zero. Nil: there is no such function.
	Hook func(in *Instance)

	// Run is called in place of the module's entry, and calls that by Instance.Enter or Instance.Call. An error that is
	// Enter's or Call's says how the module ended; ErrStopped says that the module was stopped where it stood. Nil: Instance.Enter.
	Run func(in *Instance) error
}

// ErrStopped is what Extension.Run returns when it has ended a run on purpose before the module's end: the Result's Reason
// is then ReasonCancelled.
var ErrStopped error = stopped{}

type stopped struct{}

func (stopped) Error() string { return "stopped where it stood" }

// maxExtra bounds what goes to and from an Extension in one run: bytes.
const maxExtra = 8 << 30

// Memory is a module's linear memory.
type Memory interface {
	Size() uint32 // bytes
	Grow(pages uint32) (before uint32, ok bool)
	// Read returns the bytes themselves, not a copy.
	Read(offset, size uint32) ([]byte, bool)
	Write(offset uint32, b []byte) bool
}

// Instance is the running module, as an Extension sees it. Its methods may be called by Hook, and by Run, only.
type Instance struct {
	ctx    context.Context
	module api.Module
	run    *run
	extra  []byte
	out    io.Writer
	asked  *atomic.Bool
}

// Extra returns what Extra.Send brought.
func (in *Instance) Extra() []byte { return in.extra }

// Write sends bytes to Extra.Receive, in order.
func (in *Instance) Write(b []byte) (int, error) { return in.out.Write(b) }

// Asked reports whether the Runner has asked for a stop: Extra.Stop.
func (in *Instance) Asked() bool { return in.asked.Load() }

// Enter runs the module as it is run without an Extension: what its start section names, then its entry.
func (in *Instance) Enter() error { return in.run.enter(in.ctx) }

// Has reports whether the module exports a function of this name.
func (in *Instance) Has(function string) bool { return in.module.ExportedFunction(function) != nil }

// Call calls an exported function.
func (in *Instance) Call(function string, params ...uint64) ([]uint64, error) {
	f := in.module.ExportedFunction(function)
	if f == nil {
		return nil, &refusal{"it exports no function " + function}
	}
	return f.Call(in.ctx, params...)
}

// Memory returns the module's memory; nil if it has none.
func (in *Instance) Memory() Memory {
	if m := wasi.MemoryOf(in.module); m != nil {
		return m
	}
	return nil
}

// Global returns the value of an exported global, as bits.
func (in *Instance) Global(name string) (value uint64, ok bool) {
	g := in.module.ExportedGlobal(name)
	if g == nil {
		return 0, false
	}
	return g.Get(), true
}

// SetGlobal sets an exported mutable global.
func (in *Instance) SetGlobal(name string, value uint64) (ok bool) {
	g, ok := in.module.ExportedGlobal(name).(api.MutableGlobal)
	if ok {
		g.Set(value)
	}
	return ok
}

// Gas returns the limit of the run, and zero if it has none.
func (in *Instance) Gas() uint64 { return in.run.task.Gas }

// SetGasUsed makes the report count from here: what the run has used before it was stopped, and what the counter held at
// its start.
func (in *Instance) SetGasUsed(before uint64, counter int64) {
	in.run.gasBefore, in.run.gasStart = before, counter
}

// WASI returns the System that the module sees.
func (in *Instance) WASI() *wasi.System { return in.run.system }

// RestoreWASI replaces the System by one in another state, over the same directories.
func (in *Instance) RestoreWASI(st wasi.State) error {
	s, err := wasi.Restore(in.run.config, st)
	if err != nil {
		return err
	}
	in.run.system = s
	in.ctx = s.Context(in.ctx)
	return nil
}
