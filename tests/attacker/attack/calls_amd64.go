package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sysIOPL   = unix.SYS_IOPL
	sysIOPerm = unix.SYS_IOPERM
)

// getpid32 calls getpid through the interface for 32-bit programs, which has other numbers.
func getpid32() uintptr

// rawClone3 makes the call, and lets the child end at once.
func rawClone3(args unsafe.Pointer, size uintptr) (pid uintptr, errno syscall.Errno)

func call32() verdict {
	pid := getpid32()
	if int(pid) != syscall.Getpid() {
		return deniedf("returned %d", int32(pid))
	}
	return succeeded("getpid returned %d", pid)
}

// callX32 calls getpid through the x32 interface, which many kernels do not have.
func callX32() verdict { return judgeCall(0x40000000 | unix.SYS_GETPID) }
