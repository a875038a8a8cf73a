package namespace

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// device is a character device of the host that every confinement has.
type device struct {
	name         string
	major, minor uint32
}

// devices are those of the kernel's memory driver (Documentation/admin-guide/devices.txt, major 1) that hold no state.
var devices = []device{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9},
}

// deviceLinks are the usual names for the process's own descriptors.
var deviceLinks = [][2]string{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
}

// ownDevice reports whether the path lies in what makeDev makes.
func ownDevice(p string) bool {
	names := []string{"shm"}
	for _, d := range devices {
		names = append(names, d.name)
	}
	for _, l := range deviceLinks {
		names = append(names, l[1])
	}
	return slices.ContainsFunc(names, func(name string) bool { return within(p, "/dev/"+name) })
}

// makeDev puts a minimal /dev in place: memory devices, links, an empty /dev/shm, and what the Spec names. There is no terminal.
func (t *tree) makeDev(named []runner.Device) error {
	fd, err := newTmpfs(0, 0o755, t.owner)
	if err != nil {
		return err
	}
	if err := t.attachAt(fd, "/dev", true); err != nil {
		return err
	}
	t.dev = fd
	t.sealed = append(t.sealed, fd)
	t.stamped = append(t.stamped, "/dev")
	for _, d := range devices {
		if err := t.addDevice(d); err != nil {
			return err
		}
	}
	for _, d := range named {
		if err := t.addNamed(d); err != nil {
			return fmt.Errorf("device %q: %w", d.Source, err)
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[0], fd, l[1]); err != nil {
			return fmt.Errorf("link /dev/%s: %w", l[1], err)
		}
		if err := stampLink(fd, l[1], epoch); err != nil {
			return err
		}
	}
	shm, err := newTmpfs(t.scratch, 0o1777, t.owner)
	if err != nil {
		return err
	}
	defer unix.Close(shm)
	t.stamped = append(t.stamped, "/dev/shm")
	return t.attachAt(shm, "/dev/shm", true)
}

func (t *tree) addDevice(d device) error {
	fd, err := cloneTree(unix.AT_FDCWD, "/dev/"+d.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(d.major, d.minor) {
		return fmt.Errorf("the host's /dev/%s is not the device %d:%d", d.name, d.major, d.minor)
	}
	if err := restrictMount(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return err
	}
	return t.attachAt(fd, "/dev/"+d.name, false)
}

// addNamed makes a device of the Spec appear.
func (t *tree) addNamed(d runner.Device) error {
	fd, err := cloneTree(unix.AT_FDCWD, d.Source)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kind, err := typeOf(fd)
	if err == nil && kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		err = errors.New("it is not a device")
	}
	if err != nil {
		return err
	}
	if err := restrictMount(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return err
	}
	return t.attachAt(fd, d.Target, false)
}

// hiddenProc are files of /proc that tell about, or act on, the whole host. Some of them check only that the reader's
// uid is the host's 0, which a user namespace made by root keeps. /dev/null covers them.
var hiddenProc = []string{
	"/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
	"/proc/sched_debug", "/proc/slabinfo", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/vmallocinfo",
}

// makeProc mounts the process file system of the new process namespace, wholly read-only: with that, no
// sysctl, no /proc/PID/mem and no oom_score_adj can be written whoever asks.
func (t *tree) makeProc() error {
	const attributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := newFileSystem("proc", attributes|unix.MOUNT_ATTR_RDONLY)
	if errors.Is(err, unix.EPERM) {
		return &maskedProcError{err}
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if t.lastPID, err = openLastPID(attributes); err != nil {
		t.lastPID = -1 // a kernel without CONFIG_CHECKPOINT_RESTORE
	}
	if err := t.attachAt(fd, "/proc", true); err != nil {
		return err
	}
	for _, name := range hiddenProc {
		if err := t.hide(name); err != nil {
			return err
		}
	}
	return nil
}

// maskedProcError says that the kernel refuses a new /proc because the caller's own is partly covered, as
// container engines do it: a new one would show what they hide.
type maskedProcError struct{ err error }

func (e *maskedProcError) Error() string { return e.err.Error() }
func (e *maskedProcError) Unwrap() error { return e.err }

// openLastPID opens the setting from which the kernel goes on numbering processes, through a mount that is nowhere.
func openLastPID(attributes int) (int, error) {
	fd, err := newFileSystem("proc", attributes)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return openInside(fd, "sys/kernel/ns_last_pid", unix.O_WRONLY)
}

func (t *tree) hide(name string) error {
	point, err := t.open(name, unix.O_PATH)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hide %s: %w", name, err)
	}
	defer unix.Close(point)
	null, err := cloneTree(unix.AT_FDCWD, "/dev/null")
	if err != nil {
		return err
	}
	defer unix.Close(null)
	return attach(null, point)
}
