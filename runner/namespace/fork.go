package namespace

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// image is what a forked child executes, in the form that execve takes: the child may not allocate.
type image struct {
	program, dir *byte
	argv, env    []*byte
	stdin        int
	gate, hold   int // the child reads one byte from gate, and closes its copy of hold, the other end
	errors       int // the child writes the errno of what fails to it; it closes on exec
}

// child is a process that waits at its gate, so that it can be traced from its first instruction on. Go's own fork has
// no such place, and no other thread of this process can run for sure until its child has executed a program.
type child struct {
	pid    int
	gate   *os.File // writing a byte lets it go on; closing it ends it
	errors *os.File // at its end the program runs; an int32 before is the errno why not
}

// forkChild forks a child from the calling thread, which must be locked, that is to execute program for c in dir.
func forkChild(c runner.Command, program, dir string, stdin int) (*child, error) {
	i, err := newImage(c, program, dir)
	if err != nil {
		return nil, err
	}
	gateR, gateW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gateR.Close()
	errorsR, errorsW, err := os.Pipe()
	if err != nil {
		gateW.Close()
		return nil, err
	}
	defer errorsW.Close()
	i.stdin, i.gate, i.hold, i.errors = stdin, int(gateR.Fd()), int(gateW.Fd()), int(errorsW.Fd())
	syscall.ForkLock.Lock()
	pid, errno := fork(i)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		gateW.Close()
		errorsR.Close()
		return nil, os.NewSyscallError("fork", errno)
	}
	return &child{pid: int(pid), gate: gateW, errors: errorsR}, nil
}

func newImage(c runner.Command, program, dir string) (*image, error) {
	i := new(image)
	var err error
	if i.program, err = syscall.BytePtrFromString(program); err != nil {
		return nil, err
	}
	if i.dir, err = syscall.BytePtrFromString(dir); err != nil {
		return nil, err
	}
	if i.argv, err = syscall.SlicePtrFromStrings(c.Argv); err != nil {
		return nil, err
	}
	i.env, err = syscall.SlicePtrFromStrings(c.Env)
	return i, err
}

// fork forks. The child is a copy of this thread alone, on which Go's scheduler and allocator do not work any more: it
// makes nothing but raw system calls, whose wrappers never look at the scheduler, and does not return.
//
//go:norace
//go:nocheckptr
//go:noinline
func fork(i *image) (pid uintptr, errno syscall.Errno) {
	var b [1]byte
	var n uintptr
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(i.hold), 0, 0)
	n, _, errno = syscall.RawSyscall(unix.SYS_READ, uintptr(i.gate), uintptr(unsafe.Pointer(&b[0])), 1)
	if errno == 0 && n == 0 {
		goto end // the parent has given up
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(i.stdin), 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(i.dir)), 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(i.program)),
			uintptr(unsafe.Pointer(&i.argv[0])), uintptr(unsafe.Pointer(&i.env[0])))
	}
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(i.errors), uintptr(unsafe.Pointer(&errno)), unsafe.Sizeof(errno))
end:
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, cannotExecute, 0, 0)
	}
}

// proceed lets the child execute its program, and returns the errno of that as an error.
func (c *child) proceed() error {
	if _, err := c.gate.Write([]byte{1}); err != nil {
		return fmt.Errorf("let command go on: %w", err)
	}
	c.gate.Close()
	defer c.errors.Close()
	var errno syscall.Errno
	n, err := c.errors.Read(unsafe.Slice((*byte)(unsafe.Pointer(&errno)), unsafe.Sizeof(errno)))
	if n == int(unsafe.Sizeof(errno)) {
		return errno
	}
	if n == 0 { // the program runs, or was killed before: its status tells
		return nil
	}
	return fmt.Errorf("read error of command: %w", err)
}

// abandon ends a child that has not proceeded.
func (c *child) abandon() {
	c.gate.Close()
	c.errors.Close()
}
