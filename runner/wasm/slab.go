package wasm

import (
	"context"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// slab gives one instance after the other the same memory, which each finds zero, as a new one is. What the kernel has given stays: most
// of what an instance costs is else the first touch of its pages.
type slab struct {
	bytes []byte // mapped
	taken bool
}

// keptMemory is how much of a memory stays with the process between two instances: bytes. It is also what is cleared by writing;
// to give pages back costs less beyond it.
const keptMemory = 1 << 20

// context makes instances that are made in it use the slab.
func (s *slab) context(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, s)
}

// Allocate implements experimental.MemoryAllocator. A second memory at a time, which wazero's features here do not include, gets a
// mapping of its own.
func (s *slab) Allocate(_, _ uint64) experimental.LinearMemory {
	if s.taken {
		return &slabMemory{slab: &slab{taken: true}, own: true}
	}
	s.taken = true
	return &slabMemory{slab: s}
}

// release gives the mapping back.
func (s *slab) release() {
	if s.bytes != nil {
		unix.Munmap(s.bytes)
		s.bytes = nil
	}
}

// slabMemory is the slab in use.
type slabMemory struct {
	slab *slab
	size uint64 // bytes that the instance has had
	own  bool   // nobody uses the slab again
}

// Reallocate implements experimental.LinearMemory. It returns nil where the kernel has no more memory to give.
func (m *slabMemory) Reallocate(size uint64) []byte {
	s := m.slab
	if size > uint64(len(s.bytes)) {
		grown, err := remap(s.bytes, int(max(size, min(2*uint64(len(s.bytes)), size+maxSlack))))
		if err != nil {
			return nil
		}
		s.bytes = grown
	}
	m.size = max(m.size, size)
	return s.bytes[:size:size]
}

// maxSlack bounds by how much more than asked for a mapping grows: bytes of addresses, which cost nothing until they are used.
const maxSlack = 64 << 20

// remap makes a mapping longer; it may move.
func remap(old []byte, size int) ([]byte, error) {
	if len(old) == 0 {
		size = max(size, 1<<16)
		return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	}
	return unix.Mremap(old, size, unix.MREMAP_MAYMOVE)
}

// Free implements experimental.LinearMemory: it makes what was used zero again.
func (m *slabMemory) Free() {
	s := m.slab
	if m.own {
		s.release()
		return
	}
	used := s.bytes[:m.size]
	if len(used) > keptMemory {
		if unix.Madvise(used[keptMemory:], unix.MADV_DONTNEED) != nil {
			clear(used[keptMemory:])
		}
		used = used[:keptMemory]
	}
	clear(used)
	m.size, s.taken = 0, false
	if len(s.bytes) > maxSlack { // addresses are limited: task.Space
		if shorter, err := unix.Mremap(s.bytes, keptMemory, 0); err == nil {
			s.bytes = shorter
		}
	}
}
