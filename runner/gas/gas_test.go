package gas

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero/api"

	"arch.network/attest/digest"
	"arch.network/runner/wasm/binary"
)

const plenty = 1 << 60

// outcome is what can be seen of an execution.
type outcome struct {
	Results []uint64
	Trapped bool
	Memory  digest.SHA256
	Pages   uint32
}

// run calls an export with small numbers as arguments, and returns the gas used if the module counts.
func run(tb testing.TB, m api.Module, name string) (outcome, uint64) {
	tb.Helper()
	f := m.ExportedFunction(name)
	args := make([]uint64, len(f.Definition().ParamTypes()))
	for i := range args {
		args[i] = uint64(i + 3)
	}
	counter, _ := m.ExportedGlobal(Global).(api.MutableGlobal)
	if counter != nil {
		counter.Set(plenty)
	}
	var o outcome
	results, err := f.Call(context.Background(), args...)
	o.Results, o.Trapped = results, err != nil
	o.Pages = m.Memory().Size() >> 16
	memory, _ := m.Memory().Read(0, m.Memory().Size())
	o.Memory = digest.Of(memory)
	if counter == nil {
		return o, 0
	}
	return o, plenty - counter.Get()
}

func validate(tb testing.TB, module []byte) {
	tb.Helper()
	path, err := exec.LookPath("wasm-validate")
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	file := filepath.Join(tb.TempDir(), "module.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		tb.Fatal(err)
	}
	if text, err := exec.CommandContext(context.Background(), path, file).CombinedOutput(); err != nil {
		tb.Errorf("wasm-validate: %v %s", err, text)
	}
}

func instrument(tb testing.TB, module []byte, o Options) []byte {
	tb.Helper()
	m, err := Instrument(module, o)
	if err != nil {
		tb.Fatal(err)
	}
	return m.Module
}

// agree runs every function of a generated module as it is, instrumented in each way, and in the interpreter.
func agree(tb testing.TB, module []byte, floats bool) {
	tb.Helper()
	decoded, err := binary.Decode(module, binary.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range decoded.Funcs {
		name := "f" + string(rune('0'+i))
		bare, _ := run(tb, instantiate(tb, module), name) // its NaNs may be the processor's
		counted, used := run(tb, instantiate(tb, instrument(tb, module, Options{})), name)
		if diff := cmp.Diff(bare, counted); diff != "" && !floats {
			tb.Errorf("%s: instrumented differs (-want +got):\n%s", name, diff)
		}
		_, hooked := run(tb, instantiate(tb, instrument(tb, module, Options{Hook: true})), name)
		if hooked != used {
			tb.Errorf("%s: %d gas, %d with a hook", name, used, hooked)
		}
		if floats {
			canonical := instrument(tb, module, Options{CanonicalNaN: true})
			compiled, gas := run(tb, instantiate(tb, canonical), name)
			interpreted, again := run(tb, interpret(tb, canonical), name)
			if diff := cmp.Diff(compiled, interpreted); diff != "" || gas != again {
				tb.Errorf("%s: %d and %d gas; interpreter of wazero differs (-compiler +interpreter):\n%s", name, gas, again, diff)
			}
			continue
		}
		interpreted(tb, decoded, i, counted, used)
	}
}

// interpreted compares an execution with the interpreter's.
func interpreted(tb testing.TB, m *binary.Module, f int, want outcome, gas uint64) {
	tb.Helper()
	v := newInterpreter(m)
	args := make([]uint64, len(m.Types[m.Funcs[f]].Params))
	for i := range args {
		args[i] = uint64(i + 3)
	}
	results, err := v.call(f, args)
	got := outcome{results, err != nil, digest.Of(v.memory), uint32(len(v.memory) >> 16)}
	if err != nil {
		got.Results = nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("f%d: interpreter differs (-wazero +interpreter):\n%s", f, diff)
	}
	if v.gas != gas && err == nil {
		tb.Errorf("f%d: counted %d gas, interpreter %d", f, gas, v.gas)
	}
	if gas < v.gas {
		tb.Errorf("f%d: counted %d gas, less than what was executed: %d", f, gas, v.gas)
	}
}

// FuzzInstrument generates modules, and checks that instrumented ones are valid, do the same, and count what an interpreter counts.
func FuzzInstrument(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed%3 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, floats bool) {
		module := generate(rand.New(rand.NewPCG(seed, 0)), floats)
		validate(t, module)
		for _, o := range []Options{{}, {Hook: true}, {CanonicalNaN: true}, {CanonicalNaN: true, Hook: true}} {
			validate(t, instrument(t, module, o))
		}
		if t.Failed() {
			t.Fatalf("%x", module)
		}
		agree(t, module, floats)
	})
}

// FuzzModule instruments whatever is a module: the result is one, and is not instrumented again.
func FuzzModule(f *testing.F) {
	f.Add(assemble(f, "../wasm/binary/testdata/features.wat"), true, true)
	f.Add(assemble(f, "../wasm/binary/testdata/loop.wat"), false, true)
	f.Add(assemble(f, "testdata/bench.wat"), true, false)
	f.Add(generate(rand.New(rand.NewPCG(1, 0)), true), true, true)
	f.Fuzz(func(t *testing.T, module []byte, nan, hook bool) {
		limits := binary.Limits{Elements: 1 << 12, Locals: 1 << 12, Arity: 100}
		before := bytes.Clone(module)
		m, err := Instrument(module, Options{CanonicalNaN: nan, Hook: hook, Limits: limits})
		if err != nil {
			return
		}
		if !bytes.Equal(before, module) {
			t.Fatal("the module given was changed")
		}
		if _, err := binary.Decode(m.Module, binary.Limits{}); err != nil {
			t.Fatalf("instrumented module: %v", err)
		}
		if _, err := Instrument(m.Module, Options{}); err == nil {
			t.Error("instrumented twice")
		}
	})
}

// TestFeatures validates instrumented modules of all features.
func TestFeatures(t *testing.T) {
	for _, file := range []string{"../wasm/binary/testdata/features.wat", "../wasm/binary/testdata/loop.wat"} {
		module := assemble(t, file)
		for _, o := range []Options{{}, {Hook: true}, {CanonicalNaN: true}, {CanonicalNaN: true, Hook: true}} {
			validate(t, instrument(t, module, o))
		}
	}
}
