package main

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
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
	return mayDie(func() (v verdict) {
		// A machine without that interface faults, which would end the program.
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if fault := recover(); fault != nil {
				v = deniedf("%v: %v", fault, syscall.ENOSYS)
			}
		}()
		pid := getpid32()
		if int(pid) != syscall.Getpid() {
			return deniedf("returned %d", int32(pid))
		}
		return succeeded("getpid returned %d", pid)
	})
}

// callX32 calls getpid through the x32 interface, which many kernels do not have.
func callX32() verdict {
	return mayDie(func() verdict { return judgeCall(0x40000000 | unix.SYS_GETPID) })
}

// mayDie makes a call that ends its thread in some filters, which nobody else notices.
func mayDie(try func() verdict) verdict {
	got := make(chan verdict, 1)
	go func() {
		runtime.LockOSThread()
		got <- try()
	}()
	select {
	case v := <-got:
		return v
	case <-time.After(2 * time.Second):
		return deniedf("its thread does not return")
	}
}
