package wasm

import (
	"bytes"
	"testing"
)

// Each instance finds the memory zero, however large those before it were.
func TestSlab(t *testing.T) {
	s := &slab{}
	defer s.release()
	for _, sizes := range [][]uint64{{1 << 16}, {1 << 16, 3 << 20, 5 << 20}, {2 << 20}, {1 << 16, 8 << 20}, {0, 1 << 16}} {
		m := s.Allocate(0, 1<<32)
		var last []byte
		for _, size := range sizes {
			b := m.Reallocate(size)
			if uint64(len(b)) != size || uint64(cap(b)) != size {
				t.Fatalf("asked for %d bytes, got %d of %d", size, len(b), cap(b))
			}
			if !bytes.Equal(b[:len(last)], bytes.Repeat([]byte{0xff}, len(last))) {
				t.Fatalf("growing to %d bytes lost what was there", size)
			}
			if rest := b[len(last):]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Fatalf("of %d bytes some new ones are not zero", size)
			}
			for i := range b {
				b[i] = 0xff
			}
			last = b
		}
		second := s.Allocate(0, 1<<32)
		if b := second.Reallocate(1 << 16); len(last) > 0 && (&b[0] == &last[0] || b[0] != 0) {
			t.Fatal("two memories at a time are one")
		}
		second.Free()
		m.Free()
	}
}
