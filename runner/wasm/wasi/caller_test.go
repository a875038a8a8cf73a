package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// section writes one section, and vector a vector, of the binary format (WebAssembly core specification, 5.5).
func section(id byte, body []byte) []byte {
	return slices.Concat([]byte{id}, leb(len(body)), body)
}

func vector(items [][]byte) []byte {
	return slices.Concat(leb(len(items)), bytes.Join(items, nil))
}

func leb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func text(s string) []byte { return append(leb(len(s)), s...) }

// callerModule is a module with one page of memory that exports a function for each of functions, which calls it with its own
// parameters: so a test can call host functions as a module does.
func callerModule() []byte {
	var types, imports, funcs, exports, codes [][]byte
	all := functions()
	names := slices.Sorted(maps.Keys(all))
	for i, name := range names {
		f := all[name]
		results := []byte{1, api.ValueTypeI32}
		if f.noResult {
			results = []byte{0}
		}
		types = append(types, slices.Concat([]byte{0x60}, leb(len(f.params)), f.types(), results))
		imports = append(imports, slices.Concat(text(Module), text(name), []byte{0}, leb(i)))
		funcs = append(funcs, leb(i))
		exports = append(exports, slices.Concat(text(name), []byte{0}, leb(len(names)+i)))
		body := []byte{0} // no locals
		for p := range f.params {
			body = append(body, slices.Concat([]byte{0x20}, leb(p))...) // local.get
		}
		body = slices.Concat(body, []byte{0x10}, leb(i), []byte{0x0b}) // call, end
		codes = append(codes, slices.Concat(leb(len(body)), body))
	}
	exports = append(exports, slices.Concat(text("memory"), []byte{2, 0}))
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vector(types)), section(2, vector(imports)), section(3, vector(funcs)),
		section(5, []byte{1, 0, 1}), section(7, vector(exports)), section(10, vector(codes)))
}

// caller calls host functions as a module does.
type caller struct {
	*testing.T
	ctx    context.Context
	mod    api.Module
	system *System
}

// newCaller returns a caller of a System.
func newCaller(t *testing.T, c Config) *caller {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return callerOf(t, s)
}

func callerOf(t *testing.T, s *System) *caller {
	t.Helper()
	t.Cleanup(func() { s.Close() })
	ctx := s.Context(t.Context())
	r := newRuntime(t)
	if err := Instantiate(ctx, r); err != nil {
		t.Fatal(err)
	}
	mod, err := r.Instantiate(ctx, callerModule())
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t, ctx, mod, s}
}

func newRuntime(t *testing.T) wazero.Runtime {
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// call returns the error number.
func (c *caller) call(name string, params ...uint64) errno {
	c.Helper()
	results, err := c.mod.ExportedFunction(name).Call(c.ctx, params...)
	if err != nil {
		c.Fatalf("%s: %v", name, err)
	}
	return errno(results[0])
}

// ok calls a function that must succeed.
func (c *caller) ok(name string, params ...uint64) {
	c.Helper()
	if e := c.call(name, params...); e != success {
		c.Fatalf("%s: error %d", name, e)
	}
}

// Where tests put things in memory.
const (
	atResult = 0
	atVector = 64
	atPath   = 1024
	atTarget = 8192
	atData   = 16384
	dataSize = 32768
)

func (c *caller) put(at uint32, s string) (pointer, size uint64) {
	c.Helper()
	if !c.mod.Memory().Write(at, []byte(s)) {
		c.Fatal("memory is too small")
	}
	return uint64(at), uint64(len(s))
}

func (c *caller) bytes(at, n uint32) []byte {
	b, _ := c.mod.Memory().Read(at, n)
	return bytes.Clone(b)
}

func (c *caller) result32() uint32 { return binary.LittleEndian.Uint32(c.bytes(atResult, 4)) }
func (c *caller) result64() uint64 { return binary.LittleEndian.Uint64(c.bytes(atResult, 8)) }

func (c *caller) vector(size uint32) {
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], atData)
	binary.LittleEndian.PutUint32(b[4:], size)
	c.mod.Memory().Write(atVector, b[:])
}

// open opens a path with all rights that the directory passes on.
func (c *caller) open(dir uint64, path string, oflags uint64, want rights) (uint64, errno) {
	p, n := c.put(atPath, path)
	e := c.call("path_open", dir, lookupFollow, p, n, oflags, uint64(want), uint64(want), 0, atResult)
	return uint64(c.result32()), e
}

const (
	readRights  = readFileRights | readDirRights
	writeRights = writeFileRights | writeDirRights
)

func (c *caller) mustOpen(dir uint64, path string, oflags uint64, want rights) uint64 {
	c.Helper()
	fd, e := c.open(dir, path, oflags, want)
	if e != success {
		c.Fatalf("open %q: error %d", path, e)
	}
	return fd
}

func (c *caller) write(fd uint64, s string) errno {
	c.put(atData, s)
	c.vector(uint32(len(s)))
	e := c.call("fd_write", fd, atVector, 1, atResult)
	if e == success && c.result32() != uint32(len(s)) {
		c.Errorf("wrote %d of %d bytes", c.result32(), len(s))
	}
	return e
}

func (c *caller) read(fd uint64) (string, errno) {
	c.vector(dataSize)
	if e := c.call("fd_read", fd, atVector, 1, atResult); e != success {
		return "", e
	}
	return string(c.bytes(atData, c.result32())), success
}

// on calls a function of a directory, a path and results.
func (c *caller) on(name string, dir uint64, path string) errno {
	p, n := c.put(atPath, path)
	return c.call(name, dir, p, n)
}

// list returns the names in a directory, read through a buffer of so many bytes.
func (c *caller) list(fd uint64, buffer uint32) []string {
	c.Helper()
	var names []string
	for cookie := uint64(0); ; {
		c.ok("fd_readdir", fd, atData, uint64(buffer), cookie, atResult)
		n := c.result32()
		b := c.bytes(atData, n)
		for len(b) >= sizeDirent {
			size := sizeDirent + int(binary.LittleEndian.Uint32(b[16:]))
			if len(b) < size {
				break
			}
			names = append(names, string(b[sizeDirent:size]))
			cookie = binary.LittleEndian.Uint64(b)
			b = b[size:]
		}
		if n < buffer {
			return names
		}
	}
}

var (
	testClock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	testSeed  = [32]byte{1, 2, 3}
)
