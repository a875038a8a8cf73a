package wasi

import (
	"syscall"
	"unsafe"
)

// utimeOmit is UTIME_OMIT of utimensat(2).
const utimeOmit = 1<<30 - 2

// futimens is utimensat(2) without a path: it sets the times of an open file.
func futimens(fd int, times *[2]syscall.Timespec) error {
	_, _, e := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
