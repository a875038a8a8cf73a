package namespace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// restriction is what restrictThread could do of what not every kernel can.
type restriction struct {
	scoped  bool // Landlock's scopes are in force
	counted bool // refused system calls are counted
}

// restrictThread takes all power from the calling thread, which the caller has locked: the commands are forked from it
// and inherit its state, while the other threads of the first process keep what they need to watch and to collect.
func restrictThread(o order) (done restriction, err error) {
	if err := limitCPUs(o.CPUs); err != nil {
		return done, err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, usualSlack, 0, 0, 0); err != nil {
		return done, fmt.Errorf("set timer slack: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return done, fmt.Errorf("set no_new_privs: %w", err)
	}
	if o.Mode != modeLandlock {
		if err := dropBounding(); err != nil {
			return done, err
		}
	}
	if o.Mode == modeRoot {
		if err := becomeUser(o.UID, o.GID); err != nil {
			return done, err
		}
	}
	if err := dropCapabilities(); err != nil {
		return done, err
	}
	done.scoped = o.Mode != modeLandlock && scopeThread()
	if o.Refusals == 0 {
		return done, o.Filter.load()
	}
	if done.counted, err = o.Filter.loadCounted(o.Refusals); err != nil || len(o.Sockets) == 0 {
		return done, err
	}
	return done, o.Sockets.load()
}

// limitCPUs confines the thread to the first n of the CPUs it may use; zero leaves them all.
func limitCPUs(n int) error {
	if n <= 0 {
		return nil
	}
	var have, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return fmt.Errorf("get CPU affinity: %w", err)
	}
	for cpu := 0; n > 0 && cpu < len(have)*64; cpu++ {
		if have.IsSet(cpu) {
			want.Set(cpu)
			n--
		}
	}
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("set CPU affinity: %w", err)
	}
	return nil
}

// dropBounding empties the capability bounding set: no file can give a capability any more.
func dropBounding() error {
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // beyond the kernel's last capability
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// becomeUser changes the ids of this thread alone: the calls are made raw, since the library's change every thread.
func becomeUser(uid, gid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("drop groups: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("set gid %d: %w", gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("set uid %d: %w", uid, errno)
	}
	return nil
}

// dropCapabilities empties the ambient, effective, permitted and inheritable sets of this thread.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// rlimits are the resource limits that every command gets, so that what a program reads there is the same on all hosts
// whose own limits are not lower. RLIMIT_NPROC is set apart.
var rlimits = []struct {
	resource  int
	soft, max uint64
}{
	{unix.RLIMIT_CORE, 0, 0},
	{unix.RLIMIT_NOFILE, 1024, 4096},
	{unix.RLIMIT_STACK, 8 << 20, unix.RLIM_INFINITY},
	{unix.RLIMIT_MEMLOCK, 64 << 10, 64 << 10},
	{unix.RLIMIT_MSGQUEUE, 819200, 819200},
	{unix.RLIMIT_NICE, 0, 0},
	{unix.RLIMIT_RTPRIO, 0, 0},
	{unix.RLIMIT_FSIZE, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_CPU, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
}

// Where memory is only counted, files are fewer: each may be a socket, in which the kernel holds up to a buffer of data. The
// buffer is 208 KiB unless a program changes that (net.core.wmem_default, socket(7)).
const (
	socketBuffer = 256 << 10 // bytes
	fewestFiles  = 64
)

// setLimits sets rlimits on the whole process, each as far as the host's hard limit permits. counted is the limit of memory if that
// is kept by counting, and zero otherwise.
func setLimits(counted int64) error {
	for _, l := range rlimits {
		if l.resource == unix.RLIMIT_NOFILE && counted > 0 {
			l.max = min(l.max, max(uint64(counted/socketBuffer), fewestFiles))
			l.soft = min(l.soft, l.max)
		}
		var have unix.Rlimit
		if err := unix.Getrlimit(l.resource, &have); err != nil {
			return fmt.Errorf("get resource limit %d: %w", l.resource, err)
		}
		want := unix.Rlimit{Cur: min(l.soft, have.Max), Max: min(l.max, have.Max)}
		if err := unix.Setrlimit(l.resource, &want); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.resource, err)
		}
	}
	return nil
}
