package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"arch.network/runner/gas"
)

// meter is one way to bound a module's work.
type meter struct {
	name   string
	config wazero.RuntimeConfig
	make   func(module []byte) ([]byte, error)
}

func instrumented(o gas.Options) func([]byte) ([]byte, error) {
	return func(module []byte) ([]byte, error) {
		m, err := gas.Instrument(module, o)
		if err != nil {
			return nil, err
		}
		return m.Module, nil
	}
}

func unchanged(module []byte) ([]byte, error) { return module, nil }

// BenchmarkGas compares counted modules with bare ones, and with wazero's own way to stop a module, for a tight
// loop, for nothing but calls, and for a tight loop of floating-point arithmetic. All in turn, least of the times of each.
func BenchmarkGas(b *testing.B) {
	module := assembleWAT(b, "../../runner/gas/testdata/bench.wat")
	compiler := wazero.NewRuntimeConfigCompiler()
	meters := []meter{
		{"bare", compiler, unchanged},
		{"gas", compiler, instrumented(gas.Options{})},
		{"gas-nan", compiler, instrumented(gas.Options{CanonicalNaN: true})},
		{"hook", compiler, instrumented(gas.Options{Hook: true})},
		{"context", compiler.WithCloseOnContextDone(true), unchanged},
	}
	instances := make([]api.Module, len(meters))
	for i, m := range meters {
		instances[i] = meterInstance(b, m, module)
	}
	for _, work := range []struct {
		name string
		n    uint64
	}{{"loop", 20_000_000}, {"fib", 30}, {"float", 10_000_000}} {
		b.Run(work.name, func(b *testing.B) {
			least := make([]time.Duration, len(meters))
			ctx, cancel := context.WithCancel(b.Context()) // or there is nothing to wait for
			defer cancel()
			run := func(i int) {
				if g, ok := instances[i].ExportedGlobal(gas.Global).(api.MutableGlobal); ok {
					g.Set(1 << 60)
				}
				start := cpuTime(b)
				if _, err := instances[i].ExportedFunction(work.name).Call(ctx, work.n); err != nil {
					b.Fatal(err)
				}
				if took := cpuTime(b) - start; least[i] == 0 || took < least[i] {
					least[i] = took
				}
			}
			for b.Loop() {
				for range 15 {
					for i := range len(meters) - 1 {
						run(i)
					}
				}
				run(len(meters) - 1) // takes twenty times as long
			}
			for i := range meters[1:] {
				b.ReportMetric(least[i+1].Seconds()/least[0].Seconds(), meters[i+1].name+"/bare")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func meterInstance(b *testing.B, m meter, module []byte) api.Module {
	b.Helper()
	out, err := m.make(module)
	if err != nil {
		b.Fatal(err)
	}
	r := wazero.NewRuntimeWithConfig(b.Context(), m.config)
	b.Cleanup(func() { r.Close(context.Background()) })
	if _, err := r.NewHostModuleBuilder(gas.HookModule).NewFunctionBuilder().WithFunc(func() {}).Export(gas.HookFunction).Instantiate(b.Context()); err != nil {
		b.Fatal(err)
	}
	instance, err := r.Instantiate(b.Context(), out)
	if err != nil {
		b.Fatal(err)
	}
	return instance
}

// BenchmarkInstrument instruments a Go program of 2.6 MB.
func BenchmarkInstrument(b *testing.B) {
	out := filepath.Join(b.TempDir(), "hello.wasm")
	cmd := exec.CommandContext(b.Context(), "go", "build", "-o", out, "../../runner/wasm/binary/testdata/hello.go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := gas.Instrument(module, gas.Options{CanonicalNaN: true}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(0, "ns/op")
}

func assembleWAT(b *testing.B, file string) []byte {
	b.Helper()
	path, err := exec.LookPath("wat2wasm")
	if err != nil {
		b.Skipf("cannot run here: %v", err)
	}
	out := filepath.Join(b.TempDir(), "out.wasm")
	if text, err := exec.CommandContext(b.Context(), path, file, "-o", out).CombinedOutput(); err != nil {
		b.Fatalf("wat2wasm %s: %v %s", file, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return module
}
