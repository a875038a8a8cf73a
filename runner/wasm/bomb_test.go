package wasm_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

// The binary format (WebAssembly core specification, 5.5), as far as hostile modules need it.

func leb(n uint64) []byte { return binary.AppendUvarint(nil, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func section(id byte, parts ...[]byte) []byte {
	body := join(parts...)
	return join([]byte{id}, leb(uint64(len(body))), body)
}

func wasmOf(sections ...[]byte) []byte {
	return join(append([][]byte{[]byte("\x00asm\x01\x00\x00\x00")}, sections...)...)
}

// body is a function body with these groups of local variables.
func body(locals []byte, code ...byte) []byte {
	b := join(locals, code, []byte{0x0b})
	return join(leb(uint64(len(b))), b)
}

var (
	oneType   = section(1, []byte{1, 0x60, 0, 0})                             // [] -> []
	oneFunc   = section(3, []byte{1, 0})                                      // of that type
	start     = section(7, []byte{1}, leb(6), []byte("_start"), []byte{0, 0}) // exports function 0
	noLocals  = []byte{0}
	onePage   = section(5, []byte{1, 0, 1})
	unbounded = section(4, []byte{1, 0x70, 0, 0}) // a table of functions, empty
)

// code is the code section of a module's only function.
func code(ops ...byte) []byte { return section(10, []byte{1}, body(noLocals, ops...)) }

// simple is a module whose _start is ops.
func simple(ops ...byte) []byte { return wasmOf(oneType, oneFunc, start, code(ops...)) }

func repeat(n int, b ...byte) []byte { return bytes.Repeat(b, n) }

// bombs are modules that take down, or stop for long, a process that believes them (the first six were measured on wazero 1.12.0).
func bombs() map[string][]byte {
	return map[string][]byte{
		"imports 2^32-1":       wasmOf(section(2, leb(1<<32-1))),
		"locals 2^31":          wasmOf(oneType, oneFunc, start, section(10, []byte{1}, body(join([]byte{1}, leb(1<<31), []byte{0x7f})))),
		"table of 2^27":        wasmOf(oneType, oneFunc, section(4, []byte{1, 0x70, 0}, leb(1<<27)), start, code()),
		"data of 2^31":         wasmOf(oneType, oneFunc, onePage, start, code(), section(11, []byte{1, 0, 0x41, 0, 0x0b}, leb(1<<31))),
		"table.grow":           wasmOf(oneType, oneFunc, unbounded, start, code(0x03, 0x40, 0xd0, 0x70, 0x41, 0x80, 0x80, 0x04, 0xfc, 0x0f, 0, 0x1a, 0x0c, 0, 0x0b)),
		"nested blocks":        simple(join(repeat(75_000, 0x02, 0x40), repeat(75_000, 0x0b))...),
		"memory.grow":          wasmOf(oneType, oneFunc, onePage, start, code(0x03, 0x40, 0x41, 1, 0x40, 0, 0x1a, 0x3f, 0, 0x41, 0x10, 0x74, 0x41, 0x08, 0x6b, 0x41, 1, 0x36, 2, 0, 0x0c, 0, 0x0b)),
		"memory of 4 GiB":      wasmOf(oneType, oneFunc, section(5, []byte{1, 0}, leb(65536)), start, code()),
		"memory.fill":          wasmOf(oneType, oneFunc, section(5, []byte{1, 0}, leb(16384)), start, code(0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x80, 0x80, 0x04, 0xfc, 0x0b, 0)),
		"infinite loop":        simple(0x03, 0x40, 0x0c, 0, 0x0b),
		"recursion":            simple(0x10, 0),
		"wide recursion":       wasmOf(oneType, oneFunc, start, section(10, []byte{1}, body(join([]byte{1}, leb(40_000), []byte{0x7e}), 0x10, 0))),
		"br_table":             simple(join([]byte{0x41, 0, 0x0e}, leb(4_000_000), repeat(4_000_001, 0))...),
		"many br_tables":       simple(slices.Concat(repeat(100, join([]byte{0x41, 0, 0x0e}, leb(60_000), repeat(60_001, 0))...))...),
		"functions and locals": wasmOf(oneType, section(3, leb(50_000), repeat(50_000, 0)), start, section(10, leb(50_000), bytes.Repeat(body(join([]byte{1}, leb(50_000), []byte{0x7f})), 50_000))),
		"functions 2^31":       wasmOf(oneType, section(3, leb(1<<31))),
		"parameters 2^31":      wasmOf(section(1, []byte{1, 0x60}, leb(1<<31))),
		"elements 2^31":        wasmOf(oneType, oneFunc, section(9, []byte{1, 0, 0x41, 0, 0x0b}, leb(1<<31))),
		"names 2^32-1":         wasmOf(oneType, oneFunc, start, code(), section(0, leb(4), []byte("name"), []byte{1, 5}, leb(1<<32-1))),
		"name of 2^31":         wasmOf(section(0, leb(1<<31))),
		"globals 2^31":         wasmOf(section(6, leb(1<<31))),
		"exports 2^31":         wasmOf(section(7, leb(1<<31))),
		"long body":            simple(repeat(4<<20, 0x41, 0, 0x1a)...),
		"many values":          simple(join(repeat(1_000_000, 0x41, 0), repeat(1_000_000, 0x1a))...),
		"start section loop":   wasmOf(oneType, oneFunc, start, section(8, []byte{0}), code(0x03, 0x40, 0x0c, 0, 0x0b)),
		"reserved name":        wasmOf(oneType, oneFunc, section(7, []byte{1}, leb(10), []byte("arch.start"), []byte{0, 0}), code()),
		"empty":                {},
		"only a magic":         []byte("\x00asm"),
		"text":                 []byte("(module)"),
		"component":            []byte("\x00asm\x0d\x00\x01\x00"),
		"nothing to start":     wasmOf(),
		"unknown import":       wasmOf(oneType, section(2, []byte{1}, leb(3), []byte("env"), leb(1), []byte("f"), []byte{0, 0})),
		"two memories":         wasmOf(section(5, []byte{2, 0, 1, 0, 1})),
	}
}

// Whatever a module claims or does, it is refused or ended, and the caller hardly notices.
func TestBombs(t *testing.T) {
	r := newRunner(t, wasm.Options{})
	for name, code := range bombs() {
		for _, interpret := range []bool{false, true} {
			title := name
			if interpret {
				title += ", interpreted"
			}
			t.Run(title, func(t *testing.T) { explode(t, r, name, code, interpret) })
		}
	}
}

// The same in workers of a pool, for one of each kind.
func TestBombsInPool(t *testing.T) {
	r := newRunner(t, wasm.Options{Pool: newPool(t)})
	all := bombs()
	for _, name := range []string{"imports 2^32-1", "table.grow", "memory.grow", "recursion", "memory of 4 GiB", "infinite loop", "unknown import", "many values"} {
		t.Run(name, func(t *testing.T) { explode(t, r, name, all[name], false) })
	}
}

func explode(t *testing.T, r *wasm.Runner, name string, code []byte, interpret bool) {
	spec := module(code)
	if len(code) > 1<<20 {
		spec.Mounts[0] = fileMount(t, code)
	}
	spec.Limits = runner.Limits{Wall: 2 * time.Second, Memory: 192 << 20, Processes: 64}
	spec.Module.Interpret = interpret
	spec.Module.Memory = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	result, err := r.Run(t.Context(), spec)
	runtime.ReadMemStats(&after)
	t.Logf("%s in %v: %s", result.Reason, time.Since(began).Round(time.Millisecond), result.Detail)
	if err != nil {
		t.Fatal(err)
	}
	trapped := strings.HasPrefix(result.Detail, "trap: ")
	harmless := result.OK() && slices.Contains([]string{"memory.fill", "long body", "many values", "br_table", "many br_tables"}, name)
	switch result.Reason {
	case runner.ReasonRefused, runner.ReasonLimit, runner.ReasonOutOfMemory, runner.ReasonTimeout, runner.ReasonSignal:
	default:
		if !trapped && !harmless {
			t.Errorf("got %+v", result)
		}
	}
	if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
		t.Errorf("the caller has grown by %d bytes", grown)
	}
}
