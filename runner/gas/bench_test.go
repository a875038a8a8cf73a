package gas

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

func assemble(tb testing.TB, file string) []byte {
	tb.Helper()
	path, err := exec.LookPath("wat2wasm")
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	out := filepath.Join(tb.TempDir(), "out.wasm")
	cmd := exec.CommandContext(tb.Context(), path, "--debug-names", file, "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return module
}

func instantiate(tb testing.TB, module []byte) api.Module {
	tb.Helper()
	r := wazero.NewRuntimeWithConfig(tb.Context(), wazero.NewRuntimeConfigCompiler())
	tb.Cleanup(func() { r.Close(tb.Context()) })
	_, err := r.NewHostModuleBuilder("arch").NewFunctionBuilder().WithFunc(func() { panic("limit") }).Export("gas").Instantiate(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	m, err := r.Instantiate(tb.Context(), module)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func BenchmarkX(b *testing.B) {
	wat := assemble(b, "testdata/bench.wat")
	variants := map[string]api.Module{"bare": instantiate(b, wat)}
	for name, o := range map[string]Options{"gas": {}, "hook": {Hook: true}, "nan": {CanonicalNaN: true}} {
		m, err := Instrument(wat, o)
		if err != nil {
			b.Fatal(err)
		}
		i := instantiate(b, m.Module)
		variants[name] = i
	}
	for _, f := range []struct {
		name string
		n    uint64
	}{{"fib", 32}, {"loop", 50_000_000}, {"float", 20_000_000}} {
		t := map[string][]time.Duration{}
		for range 15 {
			for name, m := range variants {
				if g := m.ExportedGlobal(Global); g != nil {
					g.(api.MutableGlobal).Set(1 << 60)
				}
				start := time.Now()
				if _, err := m.ExportedFunction(f.name).Call(b.Context(), f.n); err != nil {
					b.Fatal(err)
				}
				t[name] = append(t[name], time.Since(start))
			}
		}
		for name := range t {
			b.Log(f.name, name, slices.Min(t[name]), float64(slices.Min(t[name]))/float64(slices.Min(t["bare"])))
		}
	}
}
