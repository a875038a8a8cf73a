package namespace

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launch starts the first process of a confinement in mode m, with these ids inside, as cmd says: Path, Args, Env and files.
//
// Timers of it have a slack (PR_SET_TIMERSLACK) that lets Go's scheduler monitor wake up a hundred times a second instead of
// ten thousand times. The first process sets it back for the commands.
func launch(cmd *exec.Cmd, m mode, uid, gid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, quietSlack, 0, 0, 0); err == nil {
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the thread's default
	}
	if m == modeUser {
		return launchUser(cmd, uid, gid)
	}
	cmd.SysProcAttr = m.attributes(uid, gid)
	return cmd.Start()
}

// Slacks of timers, in nanoseconds: the kernel's own for processes, and the first process's.
const (
	usualSlack = 50_000
	quietSlack = 10_000_000
)

// launchUser starts cmd in a user namespace of its own. Go's library can do that only by a fork which copies this process's page
// tables, and has every page that is written to afterwards copied as well: half of what a start costs in a small process,
// and ever more in a large one. By a vfork the child has to write its own mapping of ids, which the kernel allows if setgroups(2) is
// forbidden in it; so the groups that a privileged caller drops are dropped from this thread, for the moment.
func launchUser(cmd *exec.Cmd, uid, gid int) error {
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer empty.Close()
	n, err := newNewcomer(cmd, empty, uid, gid)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 { // an ordinary user cannot drop his supplementary groups
		restore, err := withoutGroups()
		if err != nil {
			return err
		}
		defer restore()
	}
	pid, err := n.start()
	if err != nil {
		return err
	}
	cmd.Process, err = os.FindProcess(pid)
	return err
}

// withoutGroups drops the supplementary groups of the calling thread, which must be locked; restore gives them back.
func withoutGroups() (restore func(), err error) {
	list, err := syscall.Getgroups()
	if err != nil {
		return nil, os.NewSyscallError("getgroups", err)
	}
	if len(list) == 0 {
		return func() {}, nil
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return nil, os.NewSyscallError("setgroups", errno)
	}
	groups := make([]uint32, len(list))
	for i, g := range list {
		groups[i] = uint32(g)
	}
	return func() {
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
		if errno != 0 {
			runtime.LockOSThread() // for want of memory: nobody else gets a thread with fewer rights than it expects
		}
	}, nil
}

// newcomer is a first process to be, in the form that system calls take: the child of a vfork may not allocate.
type newcomer struct {
	program, dir *byte
	argv, env    []*byte
	files        []int // that become 0, 1, 2 and so on

	setgroups, uidMap, gidMap *byte // paths
	deny, uids, gids          []byte
	uid, gid                  uintptr

	errno syscall.Errno // of what failed to the child; it writes that into the memory that it shares
}

// newNewcomer translates cmd, whose Stdin counts for nothing.
func newNewcomer(cmd *exec.Cmd, stdin *os.File, uid, gid int) (*newcomer, error) {
	n := &newcomer{
		uid: uintptr(uid), gid: uintptr(gid), deny: []byte("deny"),
		uids: []byte(strconv.Itoa(uid) + " " + strconv.Itoa(os.Geteuid()) + " 1\n"),
		gids: []byte(strconv.Itoa(gid) + " " + strconv.Itoa(os.Getegid()) + " 1\n"),
	}
	var errs [7]error
	n.program, errs[0] = syscall.BytePtrFromString(cmd.Path)
	n.dir, errs[1] = syscall.BytePtrFromString(cmd.Dir)
	n.argv, errs[2] = syscall.SlicePtrFromStrings(cmd.Args)
	n.env, errs[3] = syscall.SlicePtrFromStrings(cmd.Env)
	n.setgroups, errs[4] = syscall.BytePtrFromString("/proc/self/setgroups")
	n.uidMap, errs[5] = syscall.BytePtrFromString("/proc/self/uid_map")
	n.gidMap, errs[6] = syscall.BytePtrFromString("/proc/self/gid_map")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	n.files = []int{int(stdin.Fd())}
	for _, w := range []any{cmd.Stdout, cmd.Stderr} {
		f, ok := w.(*os.File)
		if !ok {
			return nil, errors.New("stdout and stderr of a first process are files")
		}
		n.files = append(n.files, int(f.Fd()))
	}
	for _, f := range cmd.ExtraFiles {
		n.files = append(n.files, int(f.Fd()))
	}
	return n, nil
}

// start makes the process. The calling thread must be locked.
func (n *newcomer) start() (pid int, err error) {
	all, none := ^uint64(0), uint64(0)
	syscall.ForkLock.Lock()
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&none)), 8, 0, 0)
	if errno == 0 {
		var child uintptr
		child, errno = n.vfork(modeUser.flags())
		pid = int(child)
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
	}
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(n)
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	if n.errno != 0 {
		syscall.Wait4(pid, nil, 0, nil)
		return 0, os.NewSyscallError("start first process", n.errno)
	}
	return pid, nil
}

// vfork makes the child, which goes on here, on the same stack, until it has executed its program. Its signals stay blocked: those of
// Go's runtime are none of its business, and resetSignals unblocks them.
//
//go:norace
//go:nocheckptr
//go:noinline
func (n *newcomer) vfork(flags uintptr) (pid uintptr, errno syscall.Errno) {
	var (
		i, fd, got uintptr
		head       unix.CapUserHeader
		caps       [2]unix.CapUserData
	)
	pid, errno = vfork(flags)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		goto failed
	}

	// Ids: the names of the groups' file first, without which the map of groups is refused.
	for i = 0; i < 3; i++ {
		path, text := n.setgroups, n.deny
		if i == 1 {
			path, text = n.uidMap, n.uids
		}
		if i == 2 {
			path, text = n.gidMap, n.gids
		}
		fd, _, errno = syscall.RawSyscall6(unix.SYS_OPENAT, atCurrentDir, uintptr(unsafe.Pointer(path)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			goto failed
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text))); errno != 0 {
			goto failed
		}
		syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, n.gid, n.gid, n.gid); errno != 0 {
		goto failed
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, n.uid, n.uid, n.uid); errno != 0 {
		goto failed
	}

	// Capabilities, which would not survive execve otherwise: it is not root inside.
	head.Version = unix.LINUX_CAPABILITY_VERSION_3
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&caps[0])), 0); errno != 0 {
		goto failed
	}
	caps[0].Inheritable, caps[1].Inheritable = caps[0].Permitted, caps[1].Permitted
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&caps[0])), 0); errno != 0 {
		goto failed
	}
	for i = 0; i <= lastCapability; i++ {
		syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, i, 0, 0, 0) // older kernels have fewer
	}

	// Files: first above the numbers that are wanted, so that none is overwritten before it has been copied.
	for i = 0; i < uintptr(len(n.files)); i++ {
		if fd = uintptr(n.files[i]); n.files[i] > len(n.files) {
			continue
		}
		got, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, uintptr(len(n.files)+1))
		if errno != 0 {
			goto failed
		}
		n.files[i] = int(got)
	}
	for i = 0; i < uintptr(len(n.files)); i++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(n.files[i]), i, 0); errno != 0 {
			goto failed
		}
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(n.dir)), 0, 0); errno != 0 {
		goto failed
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(n.program)),
		uintptr(unsafe.Pointer(&n.argv[0])), uintptr(unsafe.Pointer(&n.env[0])))
failed:
	n.errno = errno
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, cannotExecute, 0, 0)
	}
}

// atCurrentDir is AT_FDCWD as a register holds it.
const atCurrentDir = ^uintptr(99)
