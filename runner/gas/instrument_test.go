package gas

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"arch.network/runner/wasm/binary"
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

// TestNames shows that names survive, and that those of functions follow their functions where a hook moves them.
func TestNames(t *testing.T) {
	module := assemble(t, "testdata/bench.wat")
	names := func(module []byte) string {
		m, err := binary.Decode(module, binary.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.Customs {
			if c.Name == binary.NameSection {
				return string(c.Data)
			}
		}
		return ""
	}
	before := names(module)
	if after := names(instrument(t, module, Options{})); after != before {
		t.Errorf("name section is %q, was %q", after, before)
	}
	after := names(instrument(t, module, Options{Hook: true}))
	want := strings.Replace(strings.Replace(before, "\x01\x06\x01\x00\x03fib", "\x01\x06\x01\x01\x03fib", 1), "\x03\x00\x00\x01\x03\x00\x01n\x01\x01i\x02\x01x\x02", "", 0)
	if !strings.HasPrefix(after, want[:8]) {
		t.Errorf("name section is %q, was %q", after, before)
	}
	if diff := cmp.Diff(len(before), len(after)); diff != "" {
		t.Errorf("length (-want +got):\n%s", diff)
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
