package main

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one system call that must be refused.
type attempt struct {
	name string
	nr   uintptr
	args [6]uintptr
}

// tryDenied makes calls that a confinement must refuse, and prints how each ends.
func tryDenied([]string) {
	runtime.LockOSThread()
	self := uintptr(os.Getpid())
	const high = 1 << 32
	at := ^uintptr(99) // AT_FDCWD
	here, name := uintptr(unsafe.Pointer(&[]byte(".\x00")[0])), uintptr(unsafe.Pointer(&[]byte("made\x00")[0]))
	attempts := []attempt{
		{"mount", unix.SYS_MOUNT, [6]uintptr{}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{}},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{}},
		{"unshare user", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}},
		{"unshare mount", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWNS}},
		{"setns", unix.SYS_SETNS, [6]uintptr{0, 0}},
		{"clone user", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | uintptr(syscall.SIGCHLD)}},
		{"clone net", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWNET | uintptr(syscall.SIGCHLD)}},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{}},
		{"ptrace attach", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_ATTACH, 1}},
		{"ptrace traceme", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_TRACEME}},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{self}},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{self, self}},
		{"bpf", unix.SYS_BPF, [6]uintptr{}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{}},
		{"add_key", unix.SYS_ADD_KEY, [6]uintptr{}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{}},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{}},
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{}},
		{"reboot", unix.SYS_REBOOT, [6]uintptr{}},
		{"swapon", unix.SYS_SWAPON, [6]uintptr{}},
		{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{}},
		{"personality", unix.SYS_PERSONALITY, [6]uintptr{0x0040000}},
		{"personality, high bit", unix.SYS_PERSONALITY, [6]uintptr{high | 0x0040000}},
		{"socket packet", unix.SYS_SOCKET, [6]uintptr{unix.AF_PACKET, unix.SOCK_RAW}},
		{"socket packet, high bit", unix.SYS_SOCKET, [6]uintptr{high | unix.AF_PACKET, unix.SOCK_RAW}},
		{"socket alg", unix.SYS_SOCKET, [6]uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET}},
		{"socket vsock", unix.SYS_SOCKET, [6]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}},
		{"socket netlink audit", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}},
		{"socket netlink netfilter", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}},
		{"fchmod set-uid", unix.SYS_FCHMOD, [6]uintptr{1, 0o4755}},
		{"fchmodat set-gid", unix.SYS_FCHMODAT, [6]uintptr{at, here, 0o2755}},
		{"fchmodat2 set-uid", unix.SYS_FCHMODAT2, [6]uintptr{at, here, 0o4755}},
		{"openat set-uid", unix.SYS_OPENAT, [6]uintptr{at, name, unix.O_CREAT | unix.O_WRONLY, 0o4755}},
		{"openat unnamed set-uid", unix.SYS_OPENAT, [6]uintptr{at, here, unix.O_TMPFILE | unix.O_WRONLY, 0o4755}},
		{"openat2", unix.SYS_OPENAT2, [6]uintptr{at, here}},
		{"mknodat set-uid", unix.SYS_MKNODAT, [6]uintptr{at, name, unix.S_IFREG | 0o4755}},
		{"ioctl TIOCSTI", unix.SYS_IOCTL, [6]uintptr{0, unix.TIOCSTI}},
		{"ioctl TIOCSTI, high bit", unix.SYS_IOCTL, [6]uintptr{0, high | unix.TIOCSTI}},
		{"ioctl TIOCLINUX", unix.SYS_IOCTL, [6]uintptr{0, unix.TIOCLINUX}},
		{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{0, 0}},
		{"a call of the future", 100000, [6]uintptr{}},
	}
	for _, a := range attempts {
		_, _, errno := syscall.RawSyscall6(a.nr, a.args[0], a.args[1], a.args[2], a.args[3], a.args[4], a.args[5])
		say(a.name, errno)
	}
}
