package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdModule writes a WebAssembly module made by hand.
func cmdModule(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: module FILE KIND")
	}
	module, err := newModule(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), module, 0o644))
}

// newModule returns a module of a kind:
//
//	spin      never ends
//	trap      executes unreachable
//	symlink   makes the symbolic link leak to ../../etc/passwd in its first directory
//	bomb      a table of 2^32-1 elements
//	locals    a function of 2^32-1 variables
//	garbage   no module
func newModule(kind string) ([]byte, error) {
	const unreachable, end, drop = 0x00, 0x0b, 0x1a
	start := section(7, vector(concat(name("_start"), []byte{0, 0})))
	code := func(body ...byte) []byte { return section(10, vector(sized(body))) }
	simple := func(body ...byte) []byte {
		return module(section(1, vector([]byte{0x60, 0, 0})), section(3, vector([]byte{0})), section(5, vector([]byte{0, 1})), start, code(body...))
	}
	switch kind {
	case "spin":
		return simple(0, 0x03, 0x40, 0x0c, 0, end, end), nil // loop; br 0
	case "trap":
		return simple(0, unreachable, end), nil
	case "bomb":
		table := section(4, vector(concat([]byte{0x70, 0}, uleb(1<<32-1))))
		return module(section(1, vector([]byte{0x60, 0, 0})), section(3, vector([]byte{0})), table, start, code(0, end)), nil
	case "locals":
		return simple(concat([]byte{1}, uleb(1<<32-1), []byte{0x7f, end})...), nil
	case "garbage":
		return []byte("\x00asm\x01\x00\x00\x00\x01\xff\xff\xff\xff"), nil
	case "symlink":
		i32 := func(n uint64) []byte { return concat([]byte{0x41}, uleb(n)) }
		const to, at = "../../etc/passwd", "leak"
		call := concat([]byte{0}, i32(0), i32(uint64(len(to))), i32(3), i32(32), i32(uint64(len(at))), []byte{0x10, 0, drop, end})
		data := section(11, vector(
			concat([]byte{0, 0x41, 0, end}, sized([]byte(to))),
			concat([]byte{0, 0x41, 32, end}, sized([]byte(at))),
		))
		types := section(1, vector([]byte{0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 0}))
		imports := section(2, vector(concat(name("wasi_snapshot_preview1"), name("path_symlink"), []byte{0, 0})))
		exports := section(7, vector(concat(name("_start"), []byte{0, 1}), concat(name("memory"), []byte{2, 0})))
		return module(types, imports, section(3, vector([]byte{1})), section(5, vector([]byte{0, 1})), exports, code(call...), data), nil
	}
	return nil, fmt.Errorf("module kind %q is unknown", kind)
}

// The parts of the binary format (webassembly.github.io/spec/core/binary).

func module(sections ...[]byte) []byte {
	return concat([]byte("\x00asm\x01\x00\x00\x00"), slices.Concat(sections...))
}

func section(id byte, content []byte) []byte { return concat([]byte{id}, sized(content)) }

func vector(items ...[]byte) []byte { return concat(uleb(uint64(len(items))), slices.Concat(items...)) }

func sized(content []byte) []byte { return concat(uleb(uint64(len(content))), content) }

func name(text string) []byte { return sized([]byte(text)) }

func uleb(n uint64) []byte { return binary.AppendUvarint(nil, n) } // LEB128, as varint is

func concat(parts ...[]byte) []byte { return slices.Concat(parts...) }
