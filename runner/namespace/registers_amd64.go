package namespace

import "golang.org/x/sys/unix"

// registersKnown is true where calls of a traced thread can be read and changed.
const registersKnown = true

const sysTime = unix.SYS_TIME

// registers are those of a thread that has stopped at a system call; see syscall(2) for their parts.
type registers struct{ values unix.PtraceRegs }

func (r *registers) get(tid int) error   { return unix.PtraceGetRegs(tid, &r.values) }
func (r *registers) set(tid int) error   { return unix.PtraceSetRegs(tid, &r.values) }
func (r *registers) number() uint64      { return r.values.Orig_rax }
func (r *registers) instruction() uint64 { return r.values.Rip }
func (r *registers) stack() uint64       { return r.values.Rsp }

func (r *registers) place(n int) *uint64 {
	return [...]*uint64{&r.values.Rdi, &r.values.Rsi, &r.values.Rdx, &r.values.R10, &r.values.R8, &r.values.R9}[n]
}

func (r *registers) argument(n int) uint64           { return *r.place(n) }
func (r *registers) setArgument(n int, value uint64) { *r.place(n) = value }

// skip makes the call return result without being made.
func (r *registers) skip(tid int, result int64) error {
	r.values.Orig_rax, r.values.Rax = ^uint64(0), uint64(result)
	return r.set(tid)
}
