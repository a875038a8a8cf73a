package wasi

import (
	"context"
	"encoding/binary"
	"reflect"

	"github.com/tetratelabs/wazero/api"
)

// memory is the linear memory of the module that calls, in which addresses and lengths are its own, unchecked numbers.
type memory struct {
	api.Memory
	mod api.Module
	ctx context.Context
}

// MemoryOf returns the memory of a module, and nil if it has none: wazero then returns a pointer that is nil in an interface
// that is not.
func MemoryOf(mod api.Module) api.Memory {
	m := mod.Memory()
	if m == nil || reflect.ValueOf(m).IsNil() {
		return nil
	}
	return m
}

// at returns size bytes at a pointer, as they lie in memory.
func (m memory) at(pointer, size uint64) ([]byte, errno) {
	b, ok := m.Read(uint32(pointer), uint32(size))
	if !ok {
		return nil, errFault
	}
	return b, success
}

func (m memory) put32(pointer uint64, v uint32) errno {
	if !m.WriteUint32Le(uint32(pointer), v) {
		return errFault
	}
	return success
}

func (m memory) put64(pointer, v uint64) errno {
	if !m.WriteUint64Le(uint32(pointer), v) {
		return errFault
	}
	return success
}

// maxPath is how long a path may be, as on Linux.
const maxPath = 4096

// vectors calls do with each non-empty buffer of a list of iovecs, until it moves fewer bytes than there is room for, and returns
// the sum. An error after the first bytes is not told: as in readv(2), the next call meets it.
func (m memory) vectors(list, count uint64, do func(b []byte) (int, errno)) (uint32, errno) {
	table, e := m.at(list, sizeIOVec*count)
	if e != success || count > 1<<28 { // more does not fit in an address
		return 0, errFault
	}
	var total uint32
	for ; len(table) > 0; table = table[sizeIOVec:] {
		b, e := m.at(uint64(binary.LittleEndian.Uint32(table)), uint64(binary.LittleEndian.Uint32(table[4:])))
		if e != success {
			return total, e
		}
		if len(b) == 0 {
			continue
		}
		if uint64(total)+uint64(len(b)) > 1<<31-1 { // what a ssize_t holds
			return total, success
		}
		n, e := do(b)
		total += uint32(n)
		if e != success && total == 0 {
			return 0, e
		}
		if e != success || n < len(b) {
			break
		}
	}
	return total, success
}
