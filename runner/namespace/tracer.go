package namespace

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceOptions make every process and thread that a traced one starts traced too, and kill them if the tracer dies.
const traceOptions = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESECCOMP

// syscallStop is the signal that stands for the end of a call under PTRACE_O_TRACESYSGOOD.
const syscallStop = unix.SIGTRAP | 0x80

// ptrace makes a request to the stopped thread tid.
func ptrace(request, tid int, address, data uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), address, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// attachTracer makes the calling thread the tracer of pid, without stopping it.
func attachTracer(pid int) error {
	if err := ptrace(unix.PTRACE_SEIZE, pid, 0, traceOptions); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	return nil
}

// transfer moves bytes between here and the memory of tid, as far as its pages permit.
func transfer(tid int, address uint64, here []byte, move func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) int {
	local := unix.Iovec{Base: &here[0]}
	local.SetLen(len(here))
	n, err := move(tid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: len(here)}}, 0)
	if err != nil {
		return 0
	}
	return n
}

// writeWords writes 64-bit words to the memory of tid and reports whether it could.
func writeWords(tid int, address uint64, words ...int64) bool {
	var buf [32]byte
	here := buf[:0]
	for _, w := range words {
		here = binary.NativeEndian.AppendUint64(here, uint64(w))
	}
	return transfer(tid, address, here, unix.ProcessVMWritev) == len(here)
}

// readWords fills words from the memory of tid and reports whether it could.
func readWords(tid int, address uint64, words []int64) bool {
	here := make([]byte, 8*len(words))
	if transfer(tid, address, here, unix.ProcessVMReadv) != len(here) {
		return false
	}
	for i := range words {
		words[i] = int64(binary.NativeEndian.Uint64(here[8*i:]))
	}
	return true
}

// memory reads the memory of a stopped thread upwards.
type memory struct {
	tid int
	at  uint64
}

// pageSize is the smallest that there is; reading up to its multiples never mixes pages that are there and others.
const pageSize = 4096

func (m *memory) Read(p []byte) (int, error) {
	p = p[:min(uint64(len(p)), pageSize-m.at%pageSize)]
	n := transfer(m.tid, m.at, p, unix.ProcessVMReadv)
	if n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	m.at += uint64(n)
	return n, nil
}

// Entries of the auxiliary vector (linux/auxvec.h).
const (
	auxNull   = 0
	auxIgnore = 1
	auxVDSO   = 33 // AT_SYSINFO_EHDR
)

// changeProgram makes the program that tid has just executed read the shifted clock. On its stack lie argc, the pointers
// of argv up to a null, those of the environment up to a null, and the auxiliary vector: pairs of type and value up to
// a null type. It names the vDSO, which is changed or, where that cannot be done, made unknown to the program.
func (c *clock) changeProgram(tid int) error {
	var r registers
	if err := r.get(tid); err != nil {
		return err
	}
	at := r.stack()
	in := bufio.NewReaderSize(&memory{tid, at}, pageSize)
	next := func() (word uint64, err error) {
		var b [8]byte
		_, err = io.ReadFull(in, b[:])
		at += 8
		return binary.NativeEndian.Uint64(b[:]), err
	}
	if _, err := next(); err != nil { // argc
		return err
	}
	for nulls := 0; nulls < 2; { // neither holds one before its end
		word, err := next()
		if err != nil {
			return err
		}
		if word == 0 {
			nulls++
		}
	}
	for {
		kind, err := next()
		if err != nil || kind == auxNull {
			return err
		}
		value, err := next()
		if err != nil {
			return err
		}
		if kind == auxVDSO && (c.vdso == nil || !c.vdso.install(tid, value)) && !writeWords(tid, at-16, auxIgnore) {
			return syscall.EFAULT
		}
	}
}

// getTimeOfDay is gettimeofday(2) with its second argument.
func getTimeOfDay(now *unix.Timeval, zone *int64) error {
	_, _, errno := unix.RawSyscall(unix.SYS_GETTIMEOFDAY, uintptr(unsafe.Pointer(now)), uintptr(unsafe.Pointer(zone)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
