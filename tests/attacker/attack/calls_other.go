//go:build !amd64

package main

import (
	"syscall"
	"unsafe"
)

// These calls exist on amd64 alone; elsewhere the number is one that no kernel has.
const (
	sysIOPL   = 100001
	sysIOPerm = 100002
)

// rawClone3 is not made where the child's part is not written.
func rawClone3(unsafe.Pointer, uintptr) (uintptr, syscall.Errno) { return 0, syscall.ENOSYS }

func call32() verdict  { return notApplicable("only amd64 has it") }
func callX32() verdict { return notApplicable("only amd64 has it") }
