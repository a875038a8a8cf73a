package checkpoint

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"arch.network/runner/gas"
	"arch.network/runner/wasm"
)

// bench is a machine's instance on wazero itself, without WASI.
type bench struct {
	module api.Module
	m      *machine
}

func (b *bench) Has(name string) bool { return b.module.ExportedFunction(name) != nil }

func (b *bench) Call(name string, params ...uint64) ([]uint64, error) {
	return b.module.ExportedFunction(name).Call(context.Background(), params...)
}

func (b *bench) Memory() wasm.Memory { return b.module.Memory() }

func (b *bench) Global(name string) (uint64, bool) {
	if g := b.module.ExportedGlobal(name); g != nil {
		return g.Get(), true
	}
	return 0, false
}

func (b *bench) SetGlobal(name string, v uint64) bool {
	g, ok := b.module.ExportedGlobal(name).(api.MutableGlobal)
	if ok {
		g.Set(v)
	}
	return ok
}

func (b *bench) SetGasUsed(uint64, int64)        {}
func (b *bench) wasiState() ([]byte, error)      { return []byte("{}"), nil }
func (b *bench) restoreWASI(state []byte) error  { return nil }
func (b *bench) files([]string) ([]Files, error) { return nil, nil }
func (b *bench) restoreFiles([]Files) error      { return nil }

// BenchmarkSnapshot stops a module with 900 KiB of memory that is not zero, nine calls deep, and resumes it in a new
// instance of the compiled module: the time between the hook and the encoded bytes, and between the encoded bytes (checked) and the
// return to where it was.
func BenchmarkSnapshot(b *testing.B) {
	module, _, err := Instrument(b.Context(), assemble(b, `(module (memory (export "memory") 15)
		(func $down (param $n i32) (result i32)
			(if (i32.eqz (local.get $n)) (then (loop (br_if 0 (i32.eqz (i32.load (i32.const 900000)))))))
			(if (local.get $n) (then (return (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))))
			(i32.const 0))
		(func (export "_start")
			(memory.fill (i32.const 64) (i32.const 7) (i32.const 899000))
			(drop (call $down (i32.const 9)))))`), tool(b))
	if err != nil {
		b.Fatal(err)
	}
	r := wazero.NewRuntimeWithConfig(b.Context(), wazero.NewRuntimeConfigCompiler())
	defer r.Close(b.Context())
	var current *bench
	var restored time.Time
	hook := func() {
		if current.m.rewinding {
			current.m.rewound()
			restored = time.Now()
			panic(wasm.ErrStopped)
		}
		current.m.hook()
	}
	if _, err := r.NewHostModuleBuilder(gas.HookModule).NewFunctionBuilder().WithFunc(hook).Export(gas.HookFunction).Instantiate(b.Context()); err != nil {
		b.Fatal(err)
	}
	compiled, err := r.CompileModule(b.Context(), module)
	if err != nil {
		b.Fatal(err)
	}
	start := func(from *Checkpoint) *bench {
		instance, err := r.InstantiateModule(b.Context(), compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			b.Fatal(err)
		}
		current = &bench{module: instance}
		req := request{Version: 2, Slice: 1 << 40, Stop: 120_000, Entry: "_start"}
		if from != nil {
			req.Stop = 0
		}
		if current.m, err = newMachine(current, req, from, 0, func() bool { return false }); err != nil {
			b.Fatal(err)
		}
		return current
	}
	var dump, restore []time.Duration
	var size int
	for b.Loop() {
		i := start(nil)
		var began time.Time
		i.m.request.Stop = 0
		i.m.asked = func() bool { began = time.Now(); return true }
		i.m.request.Slice = 120_000
		if err := i.m.run(); err != wasm.ErrStopped {
			b.Fatal(err)
		}
		encoded := i.m.stopped.Marshal()
		dump = append(dump, time.Since(began))
		size = len(encoded)
		i.module.Close(b.Context())

		began = time.Now()
		c, err := Parse(encoded)
		if err != nil {
			b.Fatal(err)
		}
		parsed := time.Since(began)
		i = start(c)
		began = time.Now()
		i.m.run()
		restore = append(restore, parsed+restored.Sub(began))
		i.module.Close(b.Context())
	}
	b.ReportMetric(median(dump), "dump-ms")
	b.ReportMetric(median(restore), "restore-ms")
	b.ReportMetric(float64(size), "bytes")
}

func median(list []time.Duration) float64 {
	slices.Sort(list)
	return list[len(list)/2].Seconds() * 1000
}
