package gas

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

func compileGo(tb testing.TB) []byte {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "out.wasm")
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-o", out, "../wasm/binary/testdata/hello.go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return module
}

func compileC(tb testing.TB) []byte {
	tb.Helper()
	path, err := exec.LookPath("clang-14")
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	out := filepath.Join(tb.TempDir(), "out.wasm")
	cmd := exec.CommandContext(tb.Context(), path, "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "../wasm/binary/testdata/hello.c", "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return module
}

// program runs a WASI program and returns what it wrote and the gas it used.
func program(tb testing.TB, module []byte, interpret bool) (string, uint64) {
	tb.Helper()
	config := wazero.NewRuntimeConfigCompiler()
	if interpret {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := wazero.NewRuntimeWithConfig(tb.Context(), config)
	defer r.Close(tb.Context())
	wasi_snapshot_preview1.MustInstantiate(tb.Context(), r)
	_, err := r.NewHostModuleBuilder(HookModule).NewFunctionBuilder().WithFunc(func() {}).Export(HookFunction).Instantiate(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var out strings.Builder
	m, err := r.InstantiateWithConfig(tb.Context(), module, wazero.NewModuleConfig().WithStdout(&out).WithArgs("hello").WithStartFunctions())
	if err != nil {
		tb.Fatal(err)
	}
	g := m.ExportedGlobal(Global).(api.MutableGlobal)
	g.Set(plenty)
	m.ExportedFunction("_start").Call(tb.Context()) // ends in proc_exit or not
	return out.String(), plenty - g.Get()
}

// TestPrograms shows that programs of two compilers do the same and count the same in both engines of wazero, with and
// without the options.
func TestPrograms(t *testing.T) {
	for name, c := range map[string]struct {
		module []byte
		says   string
	}{
		"c":  {compileC(t), "hello 7.484471 -25\n"},
		"go": {compileGo(t), "hello\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var first uint64
			for i, o := range []Options{{}, {Hook: true}, {CanonicalNaN: true}, {}} {
				m, err := Instrument(c.module, o)
				if err != nil {
					t.Fatal(err)
				}
				validate(t, m.Module)
				says, used := program(t, m.Module, i == 3)
				if says != c.says {
					t.Errorf("%+v: says %q, want %q", o, says, c.says)
				}
				if first == 0 {
					first = used
				}
				if used != first {
					t.Errorf("%+v: %d gas, at first %d", o, used, first)
				}
			}
			t.Logf("%d gas", first)
		})
	}
}

// TestNames shows that names follow their functions where a hook moves them.
func TestNames(t *testing.T) {
	module := text(t, `(module (import "a" "b" (func $imported))
		(func $first (param $x i32)) (func $second (export "f") (call $first (i32.const 1)) (call $imported)) (func))`)
	for _, o := range []Options{{}, {Hook: true}} {
		r := wazero.NewRuntime(t.Context())
		defer r.Close(t.Context())
		m, err := r.CompileModule(t.Context(), instrument(t, module, o))
		if err != nil {
			t.Fatal(err)
		}
		if name := m.ExportedFunctions()["f"].Name(); name != "second" {
			t.Errorf("%+v: exported function is called %q", o, name)
		}
	}
}

// BenchmarkInstrument instruments a program of the Go compiler of 2.6 MB.
func BenchmarkInstrument(b *testing.B) {
	module := compileGo(b)
	b.SetBytes(int64(len(module)))
	for b.Loop() {
		if _, err := Instrument(module, Options{CanonicalNaN: true}); err != nil {
			b.Fatal(err)
		}
	}
	m, _ := Instrument(module, Options{})
	b.ReportMetric(float64(len(m.Module))/float64(len(module)), "size-ratio")
}
