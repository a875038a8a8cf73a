package gas

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero/api"

	"arch.network/runner/wasm/binary"
)

// text assembles a module.
func text(tb testing.TB, module string) []byte {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "module.wat")
	if err := os.WriteFile(file, []byte(module), 0o600); err != nil {
		tb.Fatal(err)
	}
	return assemble(tb, file)
}

// spent calls export f with arguments and returns the gas that is used.
func spent(tb testing.TB, m api.Module, args ...uint64) (int64, []uint64, error) {
	tb.Helper()
	g := m.ExportedGlobal(Global).(api.MutableGlobal)
	g.Set(plenty)
	results, err := m.ExportedFunction("f").Call(tb.Context(), args...)
	return plenty - int64(g.Get()), results, err
}

// TestSchedule shows what things cost, counted by hand.
func TestSchedule(t *testing.T) {
	for _, test := range []struct {
		name, module string
		arg          uint64
		want         int64
	}{
		{"nothing", `(func (export "f") (param i32))`, 0, 0},
		{"two instructions", `(func (export "f") (param i32) (drop (local.get 0)))`, 0, 2},
		{"blocks are free", `(func (export "f") (param i32) (block (block (nop))))`, 0, 0},
		{"if, taken", `(func (export "f") (param i32) (if (local.get 0) (then (drop (i32.const 1)) (drop (i32.const 1)))))`, 1, 6},
		{"if, not taken", `(func (export "f") (param i32) (if (local.get 0) (then (drop (i32.const 1)) (drop (i32.const 1)))))`, 0, 2},
		{"else", `(func (export "f") (param i32) (if (local.get 0) (then (drop (i32.const 1))) (else unreachable)) (drop (i32.const 1)))`, 1, 6},
		{"branch out, taken", `(func (export "f") (param i32) (block (br_if 0 (local.get 0)) (drop (i32.const 1))) (drop (i32.const 1)))`, 1, 4},
		{"branch out, not taken", `(func (export "f") (param i32) (block (br_if 0 (local.get 0)) (drop (i32.const 1))) (drop (i32.const 1)))`, 0, 6},
		{"branch over two blocks", `(func (export "f") (param i32) (block (block (br_if 1 (local.get 0))) (drop (i32.const 1))) (drop (i32.const 1)))`, 1, 4},
		{"return", `(func (export "f") (param i32) (if (local.get 0) (then (return))) (drop (i32.const 1)))`, 1, 3},
		{"no return", `(func (export "f") (param i32) (if (local.get 0) (then (return))) (drop (i32.const 1)))`, 0, 4},
		{"dead code", `(func (export "f") (param i32) (return) (drop (i32.const 1)) (loop (br 0)))`, 0, 1},
		{"table of branches", `(func (export "f") (param i32) (block (block (block (br_table 0 1 2 (local.get 0))) (drop (i32.const 1)) (br 1)) (drop (i32.const 1))))`, 0, 5},
		{"table of branches, default", `(func (export "f") (param i32) (block (block (block (br_table 0 1 2 (local.get 0))) (drop (i32.const 1)) (br 1)) (drop (i32.const 1))))`, 9, 2},
		{"loop", `(func (export "f") (param i32) (loop (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br_if 0 (local.get 0))) (drop (i32.const 1)))`, 10, 62},
		{"call", `(func (export "f") (param i32) (call $g)) (func $g (drop (i32.const 1)))`, 0, 7},
		{"call_indirect", `(table funcref (elem $g)) (func (export "f") (param i32) (call_indirect (local.get 0))) (func $g (drop (i32.const 1)))`, 0, 10},
		{"division", `(func (export "f") (param i32) (drop (i32.div_u (local.get 0) (i32.const 1))))`, 0, 7},
		{"square root", `(func (export "f") (param i32) (drop (f64.sqrt (f64.const 1))))`, 0, 6},
		{"seventeen locals", `(func (export "f") (param i32) (local i32 i32 i32 i32 i32 i32 i32 i32 i64 i64 i64 i64 i64 i64 i64 i64 f32))`, 0, 2},
		{"nine results", `(func (export "f") (param i32) (call $g) drop drop drop drop drop drop drop drop drop)
			(func $g (result i32 i32 i32 i32 i32 i32 i32 i32 i32) (return (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1)
			(i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1)))`, 0, 5 + 9 + 9 + 1 + 1},
		{"memory.grow", `(memory 1 4) (func (export "f") (param i32) (drop (memory.grow (local.get 0))))`, 2, 3 + 2*1024},
		{"memory.grow that fails", `(memory 1 4) (func (export "f") (param i32) (drop (memory.grow (local.get 0))))`, 4, 3},
		{"memory.grow beyond all", `(memory 1 4) (func (export "f") (param i32) (drop (memory.grow (local.get 0))))`, 0xffffffff, 3},
		{"memory.fill", `(memory 1) (func (export "f") (param i32) (memory.fill (i32.const 0) (i32.const 1) (local.get 0)))`, 807, 4 + 100},
		{"memory.copy", `(memory 1) (func (export "f") (param i32) (memory.copy (i32.const 0) (i32.const 1) (local.get 0)))`, 800, 4 + 100},
		{"memory.init", `(memory 1) (data $d "12345678901234567890") (func (export "f") (param i32) (memory.init $d (i32.const 0) (i32.const 1) (local.get 0)))`, 19, 4 + 2},
		{"table.grow", `(table 1 9 funcref) (func (export "f") (param i32) (drop (table.grow 0 (ref.null func) (local.get 0))))`, 5, 4 + 5},
		{"table.grow that fails", `(table 1 9 funcref) (func (export "f") (param i32) (drop (table.grow 0 (ref.null func) (local.get 0))))`, 9, 4},
		{"table.fill", `(table 9 9 funcref) (func (export "f") (param i32) (table.fill 0 (i32.const 1) (ref.null func) (local.get 0)))`, 5, 4 + 5},
		{"table.copy", `(table 9 9 funcref) (func (export "f") (param i32) (table.copy (i32.const 1) (i32.const 2) (local.get 0)))`, 5, 4 + 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			module := text(t, "(module "+test.module+")")
			for _, o := range []Options{{}, {CanonicalNaN: true}, {Hook: true}} {
				out := instrument(t, module, o)
				validate(t, out)
				if got, _, err := spent(t, instantiate(t, out), test.arg); got != test.want || err != nil {
					t.Errorf("%+v: %d gas, want %d (%v)", o, got, test.want, err)
				}
			}
		})
	}
}

// TestExhaustion shows that everything which can take long ends when the gas is used up, and that the counter tells this from a trap of
// the module's own.
func TestExhaustion(t *testing.T) {
	for _, test := range []struct {
		name, module string
		limit        int64
		over         bool
	}{
		{"loop", `(func (export "f") (loop (br 0)))`, 1000, true},
		{"loop in a loop", `(func (export "f") (loop (loop (br 1)) (br 0)))`, 1000, true},
		{"loop with a table of branches", `(func (export "f") (loop (br_table 0 0 0 (i32.const 1))))`, 1000, true},
		{"recursion", `(func $f (export "f") (call $f))`, 1000, true},
		{"recursion of two", `(func $f (export "f") (call $g)) (func $g (call $f))`, 1000, true},
		{"recursion through a table", `(table funcref (elem $f)) (func $f (export "f") (call_indirect (i32.const 0)))`, 1000, true},
		{"memory.fill", `(memory 100) (func (export "f") (memory.fill (i32.const 0) (i32.const 1) (i32.const 6000000)))`, 1000, true},
		{"memory.grow", `(memory 0) (func (export "f") (drop (memory.grow (i32.const 10))))`, 1000, true},
		{"table.grow", `(table 0 funcref) (func (export "f") (loop (drop (table.grow 0 (ref.null func) (i32.const 100000))) (br 0)))`, 1_000_000, true},
		{"enough", `(func (export "f") (drop (i32.const 1)))`, 2, false},
		{"not enough", `(func (export "f") (drop (i32.const 1)))`, 1, true},
		{"trap", `(func (export "f") (unreachable))`, 1000, false},
		{"trap when it is just enough", `(func (export "f") (drop (i32.load (i32.const 0)))) (memory 0)`, 3, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			module := text(t, "(module "+test.module+")")
			for _, o := range []Options{{}, {Hook: true}} {
				m := instantiate(t, instrument(t, module, o))
				g := m.ExportedGlobal(Global).(api.MutableGlobal)
				g.Set(uint64(test.limit))
				_, err := m.ExportedFunction("f").Call(t.Context())
				if over := int64(g.Get()) < 0; over != test.over || over && err == nil {
					t.Errorf("%+v: over the limit: %v, want %v (%v)", o, over, test.over, err)
				}
				if o.Hook && test.over && !strings.Contains(err.Error(), "limit") {
					t.Errorf("ended otherwise than by the hook: %v", err)
				}
			}
		})
	}
}

// TestReserved shows that no module can name what counts it.
func TestReserved(t *testing.T) {
	for _, test := range []struct{ name, module, want string }{
		{"export", `(global (export "arch.gas") (mut i64) (i64.const 0))`, `it exports "arch.gas", a reserved name`},
		{"export of state", `(func (export "arch.global.7"))`, `it exports "arch.global.7", a reserved name`},
		{"import", `(import "arch" "gas" (func))`, `it imports "gas" of the reserved module "arch"`},
		{"other import", `(import "arch" "x" (func))`, `it imports "x" of the reserved module "arch"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Instrument(text(t, "(module "+test.module+")"), Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	once := instrument(t, text(t, `(module (func))`), Options{})
	if _, err := Instrument(once, Options{}); err == nil {
		t.Error("instrumented twice")
	}
	// What would be the counter, and the local for sizes, if the module could name them.
	for _, code := range []string{"\x00\x23\x00\x1a\x0b", "\x00\x42\x00\x24\x00\x0b", "\x00\x20\x00\x1a\x0b"} {
		module := "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a" + string(rune(len(code)+2)) + "\x01" + string(rune(len(code))) + code
		if _, err := Instrument([]byte(module), Options{}); err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("%x: %v", code, err)
		}
	}
}

// TestTables shows that tables cannot grow without bounds.
func TestTables(t *testing.T) {
	m, err := binary.Decode(instrument(t, text(t, `(module (table 5 funcref) (table 1 2 funcref) (table 9000000 externref) (table 0 4000000000 funcref))`), Options{}), binary.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := []binary.Table{
		{Type: binary.FuncRef, Min: 5, Max: MaxElements / 4, HasMax: true},
		{Type: binary.FuncRef, Min: 1, Max: 2, HasMax: true},
		{Type: binary.ExternRef, Min: 9_000_000, Max: 9_000_000, HasMax: true},
		{Type: binary.FuncRef, Max: MaxElements / 4, HasMax: true},
	}
	if diff := cmp.Diff(want, m.Tables); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestState shows which globals a hooked module exports.
func TestState(t *testing.T) {
	m, err := Instrument(text(t, `(module (global i32 (i32.const 1)) (global (mut i32) (i32.const 2)) (global (mut f64) (f64.const 3)))`), Options{Hook: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"arch.global.0", "arch.global.1"}, m.State); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := instantiate(t, m.Module).ExportedGlobal("arch.global.0").Get(); got != 2 {
		t.Errorf("first mutable global is %d, want 2", got)
	}
}
