package namespace

import "syscall"

// vfork clones the calling thread with flags, to which it adds CLONE_VM and CLONE_VFORK. It returns twice: in the child, with pid
// zero, which has this process's memory and stack; and in the parent as soon as the child has executed a program or ended.
// Whoever calls it obeys the rules of Go's own vfork (syscall/exec_linux.go): all signals are blocked, and the child
// makes nothing but raw system calls, in the function that called vfork, which it never leaves.
//
//go:noescape
func vfork(flags uintptr) (pid uintptr, errno syscall.Errno)
