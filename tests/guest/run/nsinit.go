package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// systemdPath is where Debian has it, in the merged /usr.
const systemdPath = "/usr/lib/systemd/systemd"

// droppedCapabilities are those that would reach the host's kernel itself. systemd and all of its services go without.
var droppedCapabilities = []uintptr{unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_SYSLOG, unix.CAP_WAKE_ALARM}

// startInNamespaces is the first process of the new namespaces. It makes the file system and becomes systemd.
func startInNamespaces(dir string) error {
	runtime.LockOSThread() // the cgroup namespace and the capabilities are this thread's
	hierarchies, err := readHierarchies()
	if err != nil {
		return err
	}
	gate := os.NewFile(3, "gate")
	if n, err := gate.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("wait for the control groups: %w", err)
	}
	gate.Close()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	j, err := readJob(filepath.Join(dir, "io"))
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return err
	}
	m := &mounter{base: filepath.Join(dir, "mnt")}
	m.namespaces(j, filepath.Join(dir, "io"), hierarchies)
	if m.err != nil {
		return m.err
	}
	if err := prepare(m.root(), j.Mode); err != nil {
		return err
	}
	if err := enterRoot(m.root()); err != nil {
		return err
	}
	for _, c := range droppedCapabilities {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return becomeSystemd(j, "container=guest")
}

// namespaces builds the root of a guest in namespaces.
func (m *mounter) namespaces(j job, io string, hierarchies []hierarchy) {
	m.mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	m.overlay(j.Root)
	m.proc()
	m.mount("sysfs", m.at("sys"), "sysfs", unix.MS_RDONLY|nosuid, "")
	m.cgroups(hierarchies)
	m.dev(j)
	m.temporary()
	// An unmasked instance of each must be visible somewhere, or user namespaces inside could not mount their own.
	m.mkdir("run/.visible", 0o700)
	m.mkdir("run/.visible/proc", 0o755)
	m.mkdir("run/.visible/sys", 0o755)
	m.mount("proc", m.at("run/.visible/proc"), "proc", 0, "")
	m.mount("sysfs", m.at("run/.visible/sys"), "sysfs", unix.MS_RDONLY, "")
	m.shows(j)
	for _, b := range j.Binds {
		m.mkdir(b.Inside, 0o755)
		m.bind(b.Dir, m.at(b.Inside))
	}
	m.mkdir(ioDir, 0o755)
	m.bind(io, m.at(ioDir))
}

// proc mounts a proc in which the host's settings are out of reach.
func (m *mounter) proc() {
	m.mount("proc", m.at("proc"), "proc", nosuid, "")
	m.bind(m.at("proc/sys"), m.at("proc/sys"))
	m.bind(m.at("proc/sys/net"), m.at("proc/sys/net")) // of the guest's own network namespace
	m.readOnly(m.at("proc/sys"))
	for _, name := range []string{"proc/sysrq-trigger", "proc/bus", "proc/fs", "proc/irq"} {
		if _, err := os.Stat(m.at(name)); err == nil {
			m.bind(m.at(name), m.at(name))
			m.readOnly(m.at(name))
		}
	}
}

// cgroups mounts the hierarchies as the host has them; the cgroup namespace makes the guest's own groups their roots.
func (m *mounter) cgroups(hierarchies []hierarchy) {
	hybrid := slices.ContainsFunc(hierarchies, func(h hierarchy) bool { return h.controllers != "" })
	if !hybrid {
		m.mount("cgroup2", m.at("sys/fs/cgroup"), "cgroup2", nosuid, "")
		return
	}
	m.mount("tmpfs", m.at("sys/fs/cgroup"), "tmpfs", nosuid, "mode=755")
	for _, h := range hierarchies {
		if h.controllers == "" {
			m.mkdir("sys/fs/cgroup/unified", 0o755)
			m.mount("cgroup2", m.at("sys/fs/cgroup/unified"), "cgroup2", nosuid, "")
			continue
		}
		dir := filepath.Join("sys/fs/cgroup", strings.TrimPrefix(h.controllers, "name="))
		m.mkdir(dir, 0o755)
		m.mount("cgroup", m.at(dir), "cgroup", nosuid, h.controllers)
	}
}

// dev makes a minimal /dev. The console is the launcher's with job.Debug, and /dev/null otherwise.
func (m *mounter) dev(j job) {
	m.mount("tmpfs", m.at("dev"), "tmpfs", unix.MS_NOSUID, "mode=755")
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		m.node("dev/"+name, unix.S_IFCHR|0o666, unix.Mkdev(1, minor))
	}
	m.node("dev/tty", unix.S_IFCHR|0o666, unix.Mkdev(5, 0))
	m.node("dev/console", unix.S_IFCHR|0o600, unix.Mkdev(1, 3))
	if j.Debug {
		if terminal, err := os.Readlink("/proc/self/fd/4"); err == nil {
			m.bind(terminal, m.at("dev/console"))
		}
		unix.CloseOnExec(4)
	}
	if _, err := os.Stat("/dev/fuse"); err == nil {
		m.node("dev/fuse", unix.S_IFCHR|0o666, unix.Mkdev(10, 229))
	}
	if _, err := os.Stat("/dev/net/tun"); err == nil {
		m.mkdir("dev/net", 0o755)
		m.node("dev/net/tun", unix.S_IFCHR|0o666, unix.Mkdev(10, 200))
	}
	m.mkdir("dev/pts", 0o755)
	m.mkdir("dev/shm", 0o755)
	m.mount("devpts", m.at("dev/pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=666,mode=620")
	m.mount("tmpfs", m.at("dev/shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
	} {
		m.link(target, "dev/"+name)
	}
}

// becomeSystemd replaces this process. Generators are left out: there is nothing for them to find, and they take half of the boot.
func becomeSystemd(j job, env ...string) error {
	env = append(env, "SYSTEMD_GENERATOR_PATH=/none", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	argv := []string{systemdPath, "--system", "--unit=" + unitName, "--show-status=no", "--log-target=journal"}
	if j.Debug {
		argv[len(argv)-1] = "--log-target=console"
	}
	return fmt.Errorf("start %s: %w", systemdPath, syscall.Exec(systemdPath, argv, env))
}

// enterRoot makes dir the root of the mount namespace. Mounts propagate inside from here on: credentials of units rely on it.
func enterRoot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := os.Mkdir("run/.old", 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "run/.old"); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount("/run/.old", unix.MNT_DETACH); err != nil {
		return err
	}
	return errors.Join(os.Remove("/run/.old"), unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
}
