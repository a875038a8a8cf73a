package gas

import (
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// interpret instantiates a module in wazero's interpreter, which computes with the host's processor in another way than compiled code.
func interpret(tb testing.TB, module []byte) api.Module {
	tb.Helper()
	r := wazero.NewRuntimeWithConfig(tb.Context(), wazero.NewRuntimeConfigInterpreter())
	tb.Cleanup(func() { r.Close(tb.Context()) })
	m, err := r.Instantiate(tb.Context(), module)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

const (
	odd32 = "(f32.const -nan:0x312345)"
	odd64 = "(f64.const -nan:0x3123456789abc)"
)

// TestCanonicalNaN shows the bits of results: those of arithmetic on NaNs are canonical wherever somebody can see them, and bits
// that were only moved stay.
func TestCanonicalNaN(t *testing.T) {
	type test struct {
		name, module string
		want         uint64
	}
	var tests []test
	for _, op := range []string{"add", "sub", "mul", "div", "min", "max"} {
		tests = append(tests,
			test{"f32." + op, fmt.Sprintf(`(func (export "f") (result f32) (f32.%s %s (f32.const 1)))`, op, odd32), nan32},
			test{"f64." + op, fmt.Sprintf(`(func (export "f") (result f64) (f64.%s (f64.const 1) %s))`, op, odd64), nan64},
			test{"f32x4." + op, fmt.Sprintf(`(func (export "f") (result i64) (i64x2.extract_lane 1 (f32x4.%s (f32x4.splat %s) (v128.const f32x4 1 1 1 1))))`, op, odd32), nan32<<32 | nan32},
			test{"f64x2." + op, fmt.Sprintf(`(func (export "f") (result i64) (i64x2.extract_lane 1 (f64x2.%s (f64x2.splat %s) (v128.const f64x2 1 1))))`, op, odd64), nan64})
	}
	for _, op := range []string{"sqrt", "ceil", "floor", "trunc", "nearest"} {
		tests = append(tests,
			test{"f32." + op, fmt.Sprintf(`(func (export "f") (result f32) (f32.%s %s))`, op, odd32), nan32},
			test{"f64." + op, fmt.Sprintf(`(func (export "f") (result f64) (f64.%s %s))`, op, odd64), nan64},
			test{"f32x4." + op, fmt.Sprintf(`(func (export "f") (result i64) (i64x2.extract_lane 0 (f32x4.%s (f32x4.splat %s))))`, op, odd32), nan32<<32 | nan32},
			test{"f64x2." + op, fmt.Sprintf(`(func (export "f") (result i64) (i64x2.extract_lane 0 (f64x2.%s (f64x2.splat %s))))`, op, odd64), nan64})
	}
	tests = append(tests,
		test{"0/0", `(func (export "f") (result f64) (f64.div (f64.const 0) (f64.const 0)))`, nan64},
		test{"square root of -1", `(func (export "f") (result f32) (f32.sqrt (f32.const -1)))`, nan32},
		test{"infinity minus infinity", `(func (export "f") (result f64) (f64.sub (f64.const inf) (f64.const inf)))`, nan64},
		test{"demote", `(func (export "f") (result f32) (f32.demote_f64 ` + odd64 + `))`, nan32},
		test{"promote", `(func (export "f") (result f64) (f64.promote_f32 ` + odd32 + `))`, nan64},
		test{"lanes promoted", `(func (export "f") (result i64) (i64x2.extract_lane 1 (f64x2.promote_low_f32x4 (f32x4.splat ` + odd32 + `))))`, nan64},
		test{"lanes demoted", `(func (export "f") (result i64) (i64x2.extract_lane 0 (f32x4.demote_f64x2_zero (f64x2.splat ` + odd64 + `))))`, nan32<<32 | nan32},
		test{"lanes that are numbers", `(func (export "f") (result f32) (f32x4.extract_lane 2 (f32x4.add (v128.const f32x4 nan nan 1 nan) (v128.const f32x4 1 1 1 1))))`, 0x4000_0000},
		test{"reinterpreted", `(func (export "f") (result i64) (i64.reinterpret_f64 (f64.add (f64.const 1) ` + odd64 + `)))`, nan64},
		test{"stored", `(memory 1) (func (export "f") (result i64) (f64.store (i32.const 0) (f64.add (f64.const 1) ` + odd64 + `)) (i64.load (i32.const 0)))`, nan64},
		test{"in a global", `(global $g (mut f64) (f64.const 0)) (func (export "f") (result i64)
			(global.set $g (f64.add (f64.const 1) ` + odd64 + `)) (i64.reinterpret_f64 (global.get $g)))`, nan64},
		test{"in a local", `(func (export "f") (result i64) (local f64) (local.set 0 (f64.add (f64.const 1) ` + odd64 + `)) (i64.reinterpret_f64 (local.get 0)))`, nan64},
		test{"in a local that is kept", `(func (export "f") (result i64) (local f64) (drop (f64.gt (local.tee 0 (f64.add (f64.const 1) ` + odd64 + `)) (f64.const 1)))
			(i64.reinterpret_f64 (local.get 0)))`, nan64},
		test{"as an argument", `(func $bits (param f64) (result i64) (i64.reinterpret_f64 (local.get 0)))
			(func (export "f") (result i64) (call $bits (f64.add (f64.const 1) ` + odd64 + `)))`, nan64},
		test{"selected", `(func (export "f") (result i64) (i64.reinterpret_f64 (select (f64.add (f64.const 1) ` + odd64 + `) (f64.const 1) (i32.const 1))))`, nan64},
		test{"out of a block", `(func (export "f") (result i64) (i64.reinterpret_f64 (block (result f64) (f64.add (f64.const 1) ` + odd64 + `))))`, nan64},
		test{"carried by a branch", `(func (export "f") (result i64) (i64.reinterpret_f64 (block (result f64) (br 0 (f64.add (f64.const 1) ` + odd64 + `)))))`, nan64},
		test{"under a block", `(func (export "f") (result i64) (f64.add (f64.const 1) ` + odd64 + `) (block) (i64.reinterpret_f64))`, nan64},
		test{"with another sign", `(func (export "f") (result f64) (f64.neg (f64.add (f64.const 1) ` + odd64 + `)))`, 1<<63 | nan64},
		test{"without a sign", `(func (export "f") (result f64) (f64.abs (f64.sub (f64.const inf) (f64.const inf))))`, nan64},
		test{"arithmetic of arithmetic", `(func (export "f") (result f64) (f64.mul (f64.add (f64.const 1) ` + odd64 + `) (f64.const 2)))`, nan64},
		test{"constant", `(func (export "f") (result f64) ` + odd64 + `)`, 0xfff3_1234_5678_9abc},
		test{"negated constant", `(func (export "f") (result f64) (f64.neg ` + odd64 + `))`, 0x7ff3_1234_5678_9abc},
		test{"number", `(func (export "f") (result f64) (f64.add (f64.const 1) (f64.const 1)))`, 0x4000_0000_0000_0000},
	)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			module := text(t, "(module "+test.module+")")
			out := instrument(t, module, Options{CanonicalNaN: true})
			validate(t, out)
			_, plain, err := spent(t, instantiate(t, instrument(t, module, Options{})))
			if err != nil {
				t.Fatal(err)
			}
			for name, m := range map[string]api.Module{"compiler": instantiate(t, out), "interpreter": interpret(t, out)} {
				if _, got, err := spent(t, m); err != nil || got[0] != test.want {
					t.Errorf("%s: %#x, want %#x; without the option %#x (%v)", name, got, test.want, plain, err)
				}
			}
		})
	}
}

// TestNaNOnlyWhereSeen shows that intermediate results cost nothing.
func TestNaNOnlyWhereSeen(t *testing.T) {
	size := func(module string) int {
		m := text(t, "(module "+module+")")
		return len(instrument(t, m, Options{CanonicalNaN: true})) - len(instrument(t, m, Options{}))
	}
	one := size(`(func (param f64) (result f64) (f64.add (local.get 0) (f64.const 1)))`)
	for _, test := range []struct {
		name, module string
		want         int
	}{
		{"polynomial", `(func (param f64) (result f64) (f64.add (f64.mul (f64.add (f64.mul (local.get 0) (f64.const 2)) (f64.const 3)) (local.get 0)) (f64.const 4)))`, one},
		{"comparison", `(func (param f64) (result i32) (f64.lt (f64.mul (local.get 0) (f64.const 2)) (f64.const 3)))`, 0},
		{"conversion", `(func (param f64) (result i32) (i32.trunc_sat_f64_s (f64.sqrt (local.get 0))))`, 0},
		{"dropped", `(func (param f64) (drop (f64.sqrt (local.get 0))))`, 0},
		{"dead", `(func (param f64) (return) (drop (i64.reinterpret_f64 (f64.sqrt (local.get 0)))))`, 0},
	} {
		if got := size(test.module); got != test.want {
			t.Errorf("%s: %d bytes, want %d", test.name, got, test.want)
		}
	}
}
