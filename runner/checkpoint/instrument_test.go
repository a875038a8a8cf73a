package checkpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"arch.network/attest/digest"
	"arch.network/runner/gas"
	"arch.network/runner/wasm/binary"
)

// assemble makes a module of text.
func assemble(tb testing.TB, text string) []byte {
	tb.Helper()
	path, err := exec.LookPath("wat2wasm")
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	in, out := filepath.Join(tb.TempDir(), "in.wat"), filepath.Join(tb.TempDir(), "out.wasm")
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if text, err := exec.CommandContext(tb.Context(), path, in, "-o", out).CombinedOutput(); err != nil {
		tb.Fatalf("wat2wasm: %v %s", err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return module
}

func tool(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath("wasm-opt")
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	return path
}

func TestInstrument(t *testing.T) {
	module := assemble(t, `(module (memory 1) (global $g (mut i64) (i64.const 1))
		(func (export "_start") (loop (global.set $g (i64.add (global.get $g) (i64.const 1))) (br_if 0 (i64.ne (global.get $g) (i64.const 99))))))`)
	out, record, err := Instrument(t.Context(), module, tool(t))
	if err != nil {
		t.Fatal(err)
	}
	again, second, err := Instrument(t.Context(), module, tool(t))
	if err != nil || !slices.Equal(out, again) || second.Output != record.Output {
		t.Errorf("made again: %v, outputs %v and %v", err, record.Output, second.Output)
	}
	if record.Input != digest.Of(module) || record.Output != digest.Of(out) || record.Gas != gas.Version ||
		!strings.HasPrefix(record.ToolVersion, "wasm-opt version ") || record.Tool.IsZero() || len(record.Arguments) == 0 {
		t.Errorf("record %+v", record)
	}
	if prepared, err := IsPrepared(out); !prepared || err != nil {
		t.Errorf("not recognised: %v", err)
	}
	if unchanged, err := prepare(out); err != nil || !slices.Equal(unchanged, out) {
		t.Errorf("prepared once more: %v", err)
	}
	if _, _, err := Instrument(t.Context(), out, tool(t)); err == nil {
		t.Error("instrumented twice")
	}
}

func TestUnfit(t *testing.T) {
	const start = `(func (export "_start"))`
	for _, test := range []struct{ name, text, want string }{
		{"start section", `(memory 1) (start 0)` + start, "start section"},
		{"no memory", start, "no memory of its own"},
		{"imported memory", `(import "a" "b" (memory 1))` + start, "it has no memory"},
		{"imported global", `(import "a" "b" (global i32)) (memory 1)` + start, `it imports "b" of "a", which is no function`},
		{"imported table", `(import "a" "t" (table 1 funcref)) (memory 1)` + start, `it imports "t" of "a"`},
		{"vector", `(memory 1) (global (mut v128) (v128.const i64x2 1 2))` + start, "its mutable global 0 is a vector"},
		{"table.set", `(memory 1) (table 1 funcref)` + `(func (table.set 0 (i32.const 0) (ref.null func)))`, "its function 0 changes a table"},
		{"table.grow", `(memory 1) (table 1 funcref)` + `(func (drop (table.grow 0 (ref.null func) (i32.const 1))))`, "changes a table"},
		{"table.fill", `(memory 1) (table 1 funcref)` + `(func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1)))`, "changes a table"},
		{"table.copy", `(memory 1) (table 1 funcref)` + `(func (table.copy (i32.const 0) (i32.const 0) (i32.const 1)))`, "changes a table"},
		{"data.drop", `(memory 1) (data "x") (func (data.drop 0))`, "drops a segment (instruction 0xfc09)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Instrument(t.Context(), assemble(t, "(module "+test.text+")"), tool(t))
			unfit, ok := errors.AsType[*UnfitError](err)
			if !ok || !strings.Contains(err.Error(), test.want) || unfit.Hint() == "" {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// TestPretenders shows modules that have part of what a prepared one has.
func TestPretenders(t *testing.T) {
	functions := `(func (export "asyncify_start_unwind") (param i32)) (func (export "asyncify_stop_unwind"))
		(func (export "asyncify_start_rewind") (param i32)) (func (export "asyncify_stop_rewind"))`
	for _, test := range []struct{ name, text, want string }{
		{"functions alone", `(memory 1)` + functions, "does not import the hook"},
		{"hook alone", `(import "arch" "gas" (func)) (memory 1)`, `has no function "asyncify_start_unwind"`},
		{"other types", `(import "arch" "gas" (func)) (memory 1)` + strings.ReplaceAll(functions, "(param i32)", "(param i64)"), "has no function"},
		{"no counter", `(import "arch" "gas" (func)) (memory 1)` + functions, `exports no counter "arch.gas"`},
		{"constant counter", `(import "arch" "gas" (func)) (memory 1) (global (export "arch.gas") i64 (i64.const 5))` + functions, "exports no counter"},
		{"a table that changes", `(import "arch" "gas" (func)) (memory 1) (table 1 funcref) (global (export "arch.gas") (mut i64) (i64.const 5))
			(func (table.set 0 (i32.const 0) (ref.null func)))` + functions, "changes a table"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := prepare(assemble(t, "(module "+test.text+")")); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestNoTool(t *testing.T) {
	module := assemble(t, `(module (memory 1) (func (export "_start")))`)
	for _, path := range []string{"/nonexistent/wasm-opt", "/bin/false"} {
		_, _, err := Instrument(t.Context(), module, path)
		if hint, ok := errors.AsType[*toolError](err); !ok || hint.Hint() == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Instrument(ctx, module, tool(t)); err == nil {
		t.Error("no error after cancelling")
	}
	if _, _, err := Instrument(t.Context(), []byte("\x00asm"), tool(t)); err == nil {
		t.Error("accepted what is no module")
	} else if _, ok := errors.AsType[*binary.FormatError](err); !ok {
		t.Errorf("error is a %T", err)
	}
}
