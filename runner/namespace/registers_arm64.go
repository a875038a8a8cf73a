package namespace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// registersKnown is true where calls of a traced thread can be read and changed.
const registersKnown = true

// sysTime is no call: this architecture has no time(2).
const sysTime = ^uint64(0)

// systemCallSet is the register set that holds the number of the call in progress (linux/elf.h: NT_ARM_SYSTEM_CALL).
const systemCallSet = 0x404

// registers are those of a thread that has stopped at a system call; see syscall(2) for their parts.
type registers struct{ values unix.PtraceRegs }

func (r *registers) get(tid int) error   { return unix.PtraceGetRegs(tid, &r.values) }
func (r *registers) set(tid int) error   { return unix.PtraceSetRegs(tid, &r.values) }
func (r *registers) number() uint64      { return r.values.Regs[8] }
func (r *registers) instruction() uint64 { return r.values.Pc }
func (r *registers) stack() uint64       { return r.values.Sp }

func (r *registers) argument(n int) uint64           { return r.values.Regs[n] }
func (r *registers) setArgument(n int, value uint64) { r.values.Regs[n] = value }

// skip makes the call return result without being made.
func (r *registers) skip(tid int, result int64) error {
	none := int32(-1)
	part := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none)), Len: uint64(unsafe.Sizeof(none))}
	if err := ptrace(unix.PTRACE_SETREGSET, tid, systemCallSet, uintptr(unsafe.Pointer(&part))); err != nil {
		return err
	}
	r.values.Regs[0] = uint64(result)
	return r.set(tid)
}
