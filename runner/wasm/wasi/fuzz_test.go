package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// FuzzCalls plays a hostile module: calls of any function with any numbers, over a memory that holds paths, iovecs and what the
// calls left there. Nothing may panic, go on forever, or hold more than it may.
func FuzzCalls(f *testing.F) {
	names := slices.Sorted(maps.Keys(functions()))
	names = slices.DeleteFunc(names, func(s string) bool { return s == "proc_exit" })
	open := byte(slices.Index(names, "path_open"))
	f.Add([]byte{open, 4, 1, 20, 5, 1, 30, 31, 0, 0, byte(slices.Index(names, "fd_write")), 5, 10, 1, 0})
	f.Add([]byte{byte(slices.Index(names, "fd_readdir")), 3, 11, 12, 0, 0, byte(slices.Index(names, "poll_oneoff")), 11, 12, 1, 0})
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	f.Cleanup(func() { r.Close(context.Background()) })
	if err := Instantiate(context.Background(), r); err != nil {
		f.Fatal(err)
	}
	compiled, err := r.CompileModule(context.Background(), callerModule())
	if err != nil {
		f.Fatal(err)
	}
	// Numbers that mean something: descriptors, addresses, lengths, flags, and what overflows.
	numbers := []uint64{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 15, atVector, atPath, atTarget, atData, 100, 4096, 65535, 65536, 1 << 20, 1 << 28,
		5, 7, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1, uint64(readRights | writeRights), uint64(rightRead),
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		var out bytes.Buffer
		tree := NewMemory(64 << 10)
		tree.Put("a/b", nopCloser{strings.NewReader("content")}, 7)
		s, err := New(Config{
			Args: []string{"x"}, Stdout: &out, Clock: &testClock, Seed: &testSeed,
			Dirs: []Dir{{"/in", trees["memory"](t), false}, {"/out", tree, true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx := s.Context(t.Context())
		mod, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatal(err)
		}
		defer mod.Close(ctx)
		mod.Memory().Write(atPath, []byte("a/b"))
		mod.Memory().Write(atTarget, []byte("hello.txt"))
		mod.Memory().Write(atVector, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, atData), 100))
		for len(script) > 0 {
			name := names[int(script[0])%len(names)]
			params := make([]uint64, len(functions()[name].params))
			script = script[1:]
			if len(script) < len(params) {
				break
			}
			for i := range params {
				params[i] = numbers[int(script[i])%len(numbers)]
			}
			script = script[len(params):]
			if _, err := mod.ExportedFunction(name).Call(ctx, params...); err != nil {
				t.Fatalf("%s%v: %v", name, params, err)
			}
		}
		if tree.room < 0 || len(s.table) > maxDescriptors || out.Len() > 1<<20 {
			t.Errorf("room %d, %d descriptors, %d bytes out", tree.room, len(s.table), out.Len())
		}
		if st, err := s.State(); err == nil {
			data, err := st.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseState(data); err != nil {
				t.Errorf("state of a run cannot be read back: %v\n%s", err, data)
			}
		}
	})
}
