package systemd_test

import (
	"os"
	"path/filepath"
	"testing"

	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// emptyModule exports a _start that does nothing.
var emptyModule = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b")

// testModules runs a module in a unit of its own, and in one of a pool: what is compiled there can be executed.
func testModules(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(dir, "module.wasm")
	if err := os.WriteFile(module, emptyModule, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := r.NewPool(t.Context(), systemd.PoolOptions{Size: 1, Compile: true, Class: runner.Spec{
		Commands: []runner.Command{wasm.PoolCommand("/worker")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: options.Executable, Target: "/worker"},
			{Kind: runner.Tmpfs, Target: "/tmp"},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, pool := range map[string]runner.Pool{"own unit": nil, "pool": p} {
		t.Run(name, func(t *testing.T) {
			w, err := wasm.New(wasm.Options{Driver: r, Pool: pool, Worker: options.Executable})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			result, err := w.Run(t.Context(), runner.Spec{
				Module: &runner.Module{Path: "/module", Args: []string{"m"}},
				Mounts: []runner.Mount{{Kind: runner.Bind, Source: module, Target: "/module"}},
				Limits: runner.Limits{Memory: 256 << 20, CPU: 1000},
			})
			if err != nil || !result.OK() {
				t.Fatalf("got %+v, %v", result, err)
			}
			t.Log(result.Engine, result.Confinement.Driver, result.Wall)
		})
	}
}
