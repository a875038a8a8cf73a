package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// fullWAT fills 900 KB of memory, calls itself nine times deep, and loops there for a short time.
const fullWAT = `(module (memory (export "memory") 15)
	(func $down (param $n i32) (result i32)
		(if (i32.eqz (local.get $n)) (then (loop
			(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
			(br_if 0 (i32.lt_u (i32.load (i32.const 8)) (i32.const 1000))))))
		(if (local.get $n) (then (return (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))))
		(i32.const 0))
	(func (export "_start")
		(memory.fill (i32.const 64) (i32.const 7) (i32.const 900000))
		(drop (call $down (i32.const 9)))))`

// BenchmarkCheckpoint stops a module with 900 KB of state, and resumes it in another process. It reports medians, in milliseconds, of the
// worker's CPU time from the order to run to its report:
//
//	unstopped   all of the module's work
//	stop        half of it, and taking, hashing, encoding and sending the state
//	restore     receiving the state, putting it in place, getting back to the place, and the rest of the work
func BenchmarkCheckpoint(b *testing.B) {
	module, spec := fullModule(b)
	driver, err := namespace.New(namespace.Options{})
	if err != nil {
		b.Fatal(err)
	}
	worker := buildProgram(b, "../../runner/checkpoint/testdata/worker", "worker")
	var ran time.Duration
	r, err := wasm.New(wasm.Options{
		Driver: driver, Worker: worker, Cache: filepath.Join(b.TempDir(), "cache"),
		Timing: func(_, run time.Duration) { ran = run },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	t := times{}
	run := func(name string, o checkpoint.Options, want runner.Reason) *checkpoint.Checkpoint {
		o.Module = module
		result, c, err := checkpoint.Run(b.Context(), r, spec, o)
		if err != nil || result.Reason != want {
			b.Fatalf("%s: %+v, %v", name, result, err)
		}
		t.add(name, ran)
		return c
	}
	run("first", checkpoint.Options{}, runner.ReasonExit) // fills the cache
	size := 0
	for b.Loop() {
		run("unstopped", checkpoint.Options{}, runner.ReasonExit)
		c := run("stop", checkpoint.Options{StopAt: 115_000}, runner.ReasonCancelled)
		size = len(c.Marshal())
		run("restore", checkpoint.Options{From: c}, runner.ReasonExit)
	}
	for _, name := range []string{"unstopped", "stop", "restore"} {
		b.ReportMetric(t.median(name), "p50-cpu-ms/"+name)
	}
	b.ReportMetric(float64(size), "bytes")
	b.ReportMetric(0, "ns/op")
}

// fullModule is fullWAT, prepared, and a run of it.
func fullModule(b *testing.B) (digest.SHA256, runner.Spec) {
	b.Helper()
	wasmOpt, err := exec.LookPath("wasm-opt")
	if err != nil {
		b.Skipf("cannot run here: %v", err)
	}
	file := filepath.Join(b.TempDir(), "full")
	if err := os.WriteFile(file+".wat", []byte(fullWAT), 0o644); err != nil {
		b.Fatal(err)
	}
	module, _, err := checkpoint.Instrument(b.Context(), assembleWAT(b, file+".wat"), wasmOpt)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file+".wasm", module, 0o644); err != nil {
		b.Fatal(err)
	}
	clock, seed := time.Unix(0, 0), [32]byte{}
	return digest.Of(module), runner.Spec{
		Mounts: []runner.Mount{{Kind: runner.Bind, Source: file + ".wasm", Target: "/module.wasm"}},
		Module: &runner.Module{Path: "/module.wasm", Args: []string{"full"}, Clock: &clock, Seed: &seed},
		Limits: runner.Limits{Wall: time.Minute, Memory: 512 << 20},
	}
}
