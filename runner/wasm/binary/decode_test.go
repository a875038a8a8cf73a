package binary

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// module concatenates the preamble and sections.
func module(sections ...string) []byte {
	return append(bytes.Clone(preamble), strings.Join(sections, "")...)
}

// section is one section with its size.
func section(id byte, content string) string {
	return string(AppendU32([]byte{id}, uint32(len(content)))) + content
}

// oneFunction is a module of one function of type [] -> [], with this code: declarations of locals and body.
func oneFunction(code string) []byte {
	return module("\x01\x04\x01\x60\x00\x00", "\x03\x02\x01\x00",
		section(10, "\x01"+string(AppendU32(nil, uint32(len(code))))+code))
}

func repeated(n int, s string) string { return strings.Repeat(s, n) }

// TestBombs shows that tiny modules that take an engine down, and others of their kind, are refused with where and why.
func TestBombs(t *testing.T) {
	const types = "\x01\x04\x01\x60\x00\x00"
	u32max := "\xff\xff\xff\xff\x0f"
	for _, c := range []struct {
		name   string
		module []byte
		want   string
	}{
		{"import count of 2^32-1", module("\x02\x05" + u32max), "import section, offset 10: imports: 4294967295, more than the limit of 10000"},
		{"type count over the bytes left", module("\x01\x02\xff\x01"), "type section, offset 10: 255 types announced, 2 bytes left"},
		{
			"2^31 locals", oneFunction("\x01\x80\x80\x80\x80\x08\x7f\x0b"),
			"code section, offset 23: locals of one function: 2147483648, more than the limit of 50000",
		},
		{
			"2^32 locals in two runs", oneFunction("\x02" + u32max + "\x7f\x01\x7f\x0b"),
			"code section, offset 23: locals of one function: 4294967295, more than the limit of 50000",
		},
		{
			"locals in many functions", module(types, section(3, "\xc8\x01"+repeated(200, "\x00")),
				section(10, "\xc8\x01"+repeated(200, "\x06\x01\xd0\x86\x03\x7f\x0b"))),
			"code section, offset 510: locals of all functions: 2050000, more than the limit of 2000000",
		},
		{
			"table of 2^27", module("\x04\x07\x01\x70\x00\x80\x80\x80\x40"),
			"table section, offset 11: initial elements of tables: 134217728, more than the limit of 10000000",
		},
		{
			"tables of 9M", module(section(4, "\x02"+repeated(2, "\x70\x00\xc0\xa8\xa5\x04"))),
			"table section, offset 23: initial elements of tables: 18000000, more than the limit of 10000000",
		},
		{
			"data segment of 2^31", module("\x05\x03\x01\x00\x01", "\x0b\x0a\x01\x00\x41\x00\x0b\x80\x80\x80\x80\x08"),
			"data section, offset 25: 2147483648 bytes announced, 0 left",
		},
		{
			"nested blocks", oneFunction("\x00" + repeated(75_000, "\x02\x40") + repeated(75_001, "\x0b")),
			"code section, offset 2025: nested blocks: 1001, more than the limit of 1000",
		},
		{
			"br_table of 2^32-1", oneFunction("\x00\x41\x00\x0e" + u32max + "\x00\x0b"),
			"code section, offset 26: targets of one br_table: 4294967295, more than the limit of 65520",
		},
		{
			"many br_tables", oneFunction("\x00" + repeated(20, "\x41\x00\x0e\xd0\x86\x03"+repeated(50_001, "\x00")) + "\x0b"),
			"code section, offset 950162: targets of all br_tables: 1000020, more than the limit of 1000000",
		},
		{
			"branches", oneFunction("\x00" + repeated(20_001, "\x41\x00\x0d\x00") + "\x0b"),
			"code section, offset 80029: blocks and branches of one function: 20001, more than the limit of 20000",
		},
		{
			"branches of many functions", module(types, section(3, "\x06"+repeated(6, "\x00")), section(10, "\x06"+repeated(6, "\xe2\xd4\x03\x00"+repeated(20_000, "\x03\x40\x0b")+"\x0b"))),
			"code section, offset 360058: blocks and branches, squared and summed over the functions: 2400000000, more than the limit of 2000000000",
		},
		{
			"wide blocks", module(section(1, "\x01\x60\x65"+repeated(101, "\x7f")+"\x00"), "\x03\x02\x01\x00", section(10, "\x01\x05\x00\x03\x00\x0b\x0b")),
			"code section, offset 124: parameters or results of one block: 101, more than the limit of 100",
		},
		{
			"large signatures", module(section(1, "\x01\x60\xe8\x07"+repeated(1000, "\x7f")+"\xe8\x07"+repeated(1000, "\x7f")), "\x03\x02\x01\x00",
				section(10, "\x01"+string(AppendU32(nil, 32_004))+"\x00"+repeated(16_001, "\x10\x00")+"\x0b")),
			"code section, offset 34032: values that blocks, branches and calls carry: 32002000, more than the limit of 32000000",
		},
		{
			"more parameters than any compiler makes", module(section(1, "\x01\x60\xe9\x07"+repeated(1001, "\x7f")+"\x00")),
			"type section, offset 13: parameters: 1001, more than the limit of 1000",
		},
		{
			"functions", module(types, section(3, "\xd1\x86\x03"+repeated(50_001, "\x00"))),
			"function section, offset 18: functions: 50001, more than the limit of 50000",
		},
		{
			"elements", module(types, section(9, "\x01\x01\x00\xff\xff\xff\x7f")),
			"element section, offset 19: entries of element segments: 268435455, more than the limit of 10000000",
		},
		{"name", module("\x02\x07\x01\x80\x80\x80\x01\x00\x00"), "import section, offset 11: bytes of a name: 2097152, more than the limit of 65536"},
		{"memory", module("\x05\x05\x01\x00\x81\x80\x04"), "memory section, offset 11: initial pages of the memory: 65537, more than the limit of 65536"},
		{"custom sections", module(repeated(1001, "\x00\x01\x00")), "custom section, offset 3010: custom sections: 1001, more than the limit of 1000"},
		{"2^32-1 names of functions", module(section(0, "\x04name\x01\x05"+u32max)), "name section, offset 17: 4294967295 names announced, 5 bytes left"},
		{"2^32-1 names of locals", module(section(0, "\x04name\x02\x07\x01\x00"+u32max)), "name section, offset 19: 4294967295 names announced, 5 bytes left"},
		{"section over the end", module("\x01\xff\xff\xff\xff\x0f"), "type section, offset 14: 4294967295 bytes announced, 0 left"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expectError(t, c.module, "decode module: "+c.want)
		})
	}
}

func TestModuleTooLarge(t *testing.T) {
	err := Check(append(bytes.Clone(preamble), 0, 0), Limits{Module: 9})
	want := "decode module: no section, offset 0: bytes of the module: 10, more than the limit of 9"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name   string
		module []byte
		want   string
	}{
		{"empty", nil, `no section, offset 0: starts with "", not with the magic number`},
		{"version", []byte("\x00asm\x0d\x00\x01\x00"), "not with the magic number and version 1"},
		{"order", module("\x03\x01\x00", "\x01\x01\x00"), "type section, offset 13: out of order or twice"},
		{"twice", module("\x01\x01\x00", "\x01\x01\x00"), "out of order or twice"},
		{"unknown section", module("\x0e\x00"), "section id 14"},
		{"bytes after a section's content", module("\x01\x02\x00\x00"), "1 bytes more than its content"},
		{"type index", module("\x03\x02\x01\x00"), "type 0 does not exist"},
		{"function without code", module("\x01\x04\x01\x60\x00\x00", "\x03\x02\x01\x00"), "1 functions, but code of 0"},
		{"code without function", module("\x0a\x04\x01\x02\x00\x0b"), "more codes than functions"},
		{"number of too many bits", module("\x01\x05\xff\xff\xff\xff\x1f"), "number of more than 32 bits"},
		{"number that never ends", module("\x01\x06\x80\x80\x80\x80\x80\x00"), "number of more than 32 bits"},
		{"i32.const of too many bits", oneFunction("\x00\x41\xff\xff\xff\xff\x17\x1a\x0b"), "number of more than 32 bits"},
		{"i64.const of too many bits", oneFunction("\x00\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7e\x1a\x0b"), "number of more than 64 bits"},
		{"name", module("\x00\x02\x01\xff"), "name is not UTF-8"},
		{"no end", oneFunction("\x00\x01"), "unexpected end"},
		{"bytes after the end", oneFunction("\x00\x0b\x01"), "1 bytes after the end of a function"},
		{"else", oneFunction("\x00\x05\x0b"), "else without an if"},
		{"else twice", oneFunction("\x00\x41\x00\x04\x40\x05\x05\x0b\x0b"), "else without an if"},
		{"label", oneFunction("\x00\x0c\x01\x0b"), "label 1 does not exist"},
		{"label of a br_table", oneFunction("\x00\x41\x00\x0e\x01\x00\x02\x0b"), "label 2 does not exist"},
		{"local", oneFunction("\x01\x02\x7f\x20\x02\x1a\x0b"), "local 2 does not exist"},
		{"global", oneFunction("\x00\x23\x00\x1a\x0b"), "global 0 does not exist"},
		{"function", oneFunction("\x00\x10\x01\x0b"), "function 1 does not exist"},
		{"function by reference", oneFunction("\x00\xd2\x01\x1a\x0b"), "function 1 does not exist"},
		{"load without memory", oneFunction("\x00\x41\x00\x28\x02\x00\x1a\x0b"), "memory 0 does not exist"},
		{"unknown instruction", oneFunction("\x00\x27\x0b"), "instruction 0x27 does not exist"},
		{"unknown bulk instruction", oneFunction("\x00\xfc\x12\x0b"), "instruction 0xfc 0x12 does not exist"},
		{"unknown vector instruction", oneFunction("\x00\xfd\x9a\x01\x0b"), "instruction 0xfd 0x9a does not exist"},
		{"data segment", oneFunction("\x00\xfc\x09\x00\x0b"), "data segment 0 does not exist"},
		{"assignment to a constant", module("\x01\x04\x01\x60\x00\x00", "\x03\x02\x01\x00", "\x06\x06\x01\x7f\x00\x41\x00\x0b",
			section(10, "\x01\x06\x00\x41\x00\x24\x00\x0b")), "global 0 cannot be changed"},
		{"initial value from an own global", module("\x06\x0b\x02\x7f\x00\x41\x00\x0b\x7f\x00\x23\x00\x0b"), "constant expression of global 0, which is not imported"},
		{"export", module("\x07\x05\x01\x01a\x00\x00"), "function 0 does not exist"},
		{"export twice", module("\x05\x03\x01\x00\x01", "\x07\x09\x02\x01a\x02\x00\x01a\x02\x00"), `export "a" twice`},
		{"two memories", module("\x05\x05\x02\x00\x01\x00\x01"), "more than one memory is not supported"},
		{"data count", module("\x0c\x01\x01"), "1 data segments announced, 0 found"},

		{"tail call", oneFunction("\x00\x12\x00\x0b"), "instruction 0x12: tail calls are not supported"},
		{"exceptions", oneFunction("\x00\x06\x40\x0b\x0b"), "instruction 0x6: exceptions are not supported"},
		{"tags", module("\x0d\x01\x00"), "exceptions are not supported"},
		{"threads", oneFunction("\x00\xfe\x03\x00\x0b"), "instruction 0xfe: threads are not supported"},
		{"shared memory", module("\x05\x04\x01\x03\x01\x01"), "threads are not supported"},
		{"64-bit memory", module("\x05\x03\x01\x04\x01"), "64-bit memory is not supported"},
		{"garbage collection", oneFunction("\x00\xfb\x00\x00\x0b"), "instruction 0xfb: garbage collection is not supported"},
		{"struct type", module("\x01\x04\x01\x5f\x00\x00"), "type of form 0x5f: only functions are supported"},
		{"typed references", oneFunction("\x00\x14\x00\x0b"), "typed function references are not supported"},
		{"relaxed vectors", oneFunction("\x00\xfd\x80\x02\x0b"), "relaxed vector instructions are not supported"},
		{"extended constant", module("\x06\x09\x01\x7f\x00\x41\x00\x41\x00\x6a\x0b"), "constant expression of several instructions is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expectError(t, c.module, c.want)
		})
	}
}

func expectError(t *testing.T, module []byte, want string) {
	t.Helper()
	err := Check(module, Limits{})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want %s", err, want)
	}
	if _, ok := errors.AsType[*FormatError](err); !ok {
		if _, ok := errors.AsType[*LimitError](err); !ok {
			t.Errorf("error is a %T", err)
		}
	}
}

// TestTruncated cuts a module with every section at each byte: accepted only where a section ends.
func TestTruncated(t *testing.T) {
	whole := assemble(t, "testdata/features.wat")
	ends := map[int]bool{len(preamble): true}
	for r := (reader{data: whole, pos: len(preamble)}); r.left() > 0; ends[r.pos] = true {
		r.byte()
		r.bytes(r.u32())
	}
	for n := range whole {
		if _, err := Decode(whole[:n], Limits{}); err == nil && !ends[n] {
			t.Errorf("accepted %d of %d bytes", n, len(whole))
		}
	}
}

// TestRoundTrip decodes and encodes modules of several compilers.
func TestRoundTrip(t *testing.T) {
	for name, module := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			m, err := Decode(module, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, m)
			validate(t, m.Encode(), true)
		})
	}
}

func roundTrip(t *testing.T, m *Module) {
	t.Helper()
	encoded := m.Encode()
	again, err := Decode(encoded, Limits{})
	if err != nil {
		t.Fatalf("decode what was encoded: %v", err)
	}
	for i := range m.Codes {
		m.Codes[i].Offset = again.Codes[i].Offset
	}
	if !reflect.DeepEqual(m, again) { // cmp takes ten seconds for megabytes
		t.Errorf("encoded module differs (-want +got):\n%s", cmp.Diff(m, again))
	}
	if !bytes.Equal(encoded, again.Encode()) {
		t.Error("encodes differently the second time")
	}
}

// corpus returns modules: assembled, of clang and of the Go compiler.
func corpus(t *testing.T) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"features": assemble(t, "testdata/features.wat"),
		"loop":     assemble(t, "testdata/loop.wat"),
		"c":        compileC(t),
		"go":       compileGo(t),
	}
}

func assemble(tb testing.TB, file string) []byte {
	tb.Helper()
	return produce(tb, "wat2wasm", nil, "--debug-names", file, "-o")
}

func compileC(tb testing.TB) []byte {
	tb.Helper()
	return produce(tb, "clang-14", nil, "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "testdata/hello.c", "-o")
}

func compileGo(tb testing.TB) []byte {
	tb.Helper()
	return produce(tb, "go", []string{"GOOS=wasip1", "GOARCH=wasm", "GOFLAGS="}, "build", "-o", "OUT", "testdata/hello.go")
}

// produce runs a compiler; its output file replaces the argument OUT, or comes last.
func produce(tb testing.TB, name string, env []string, args ...string) []byte {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Skipf("cannot run here: %v", err)
	}
	out := filepath.Join(tb.TempDir(), "out.wasm")
	for i := range args {
		if args[i] == "OUT" {
			args[i] = out
		}
	}
	if !bytes.Contains([]byte(strings.Join(args, " ")), []byte(out)) {
		args = append(args, out)
	}
	cmd := exec.CommandContext(tb.Context(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	module, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return module
}

// validate asks wasm-validate of WABT, and reports whether it agrees.
func validate(t *testing.T, module []byte, want bool) bool {
	t.Helper()
	path, err := exec.LookPath("wasm-validate")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	file := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := exec.CommandContext(t.Context(), path, file).CombinedOutput()
	if (err == nil) != want {
		t.Errorf("wasm-validate: %v %s", err, text)
	}
	return err == nil
}
