package namespace

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// The degraded mode, for hosts that refuse namespaces. Commands are ordinary processes of the host: Landlock limits
// which files they may open, seccomp refuses every socket but local ones, and they have no capabilities. They see the
// host's paths, names, users and processes. Since nothing can be mounted, a bind mount must have its source as its
// target, and a tmpfs is a directory that is made for the run, must not exist before, and is not limited in size. Data
// is a file that must not exist before either.

// prepareLandlock checks that spec can be run in the degraded mode and makes its directories. The function that it
// returns removes them. Allow tells how the host can be made to allow namespaces.
func prepareLandlock(spec runner.Spec, allow string) (release func(), err error) {
	if _, err := ll.LandlockGetABIVersion(); err != nil {
		return nil, &runner.SetupError{
			Act: "confine by Landlock", Err: err,
			Cure: "allow user namespaces, or boot a kernel with Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock,…)",
		}
	}
	if !spec.Network.IsZero() {
		return nil, &runner.SetupError{
			Act: "open network", Err: errors.New("what leaves cannot be limited without a network namespace"),
			Cure: allow,
		}
	}
	for _, d := range spec.Devices {
		if d.Target != d.Source {
			return nil, &runner.SetupError{
				Act: "device " + d.Source, Err: fmt.Errorf("%q cannot appear at another path without namespaces", d.Source),
				Cure: allow,
			}
		}
	}
	for _, m := range spec.Mounts { // before anything is made
		if m.Kind == runner.Bind && m.Source != m.Target {
			return nil, &runner.SetupError{
				Act: fmt.Sprintf("bind mount %s without namespaces", m.Target), Err: fmt.Errorf("%q cannot appear at another path", m.Source), Cure: allow,
			}
		}
	}
	var made []string
	release = func() {
		for _, dir := range made {
			os.RemoveAll(dir)
		}
	}
	for _, m := range spec.Mounts {
		dir, err := prepareMount(m)
		if err != nil {
			release()
			return nil, &runner.SetupError{
				Act: fmt.Sprintf("%s mount %s without namespaces", m.Kind, m.Target), Err: err,
				Cure: allow,
			}
		}
		if dir != "" {
			made = append(made, dir)
		}
	}
	return release, nil
}

// prepareMount makes the directory of a tmpfs and returns it.
func prepareMount(m runner.Mount) (made string, err error) {
	switch {
	case m.Kind == runner.Data:
		return prepareData(m)
	case m.Kind == runner.Tmpfs:
		if err := os.Mkdir(m.Target, 0o700); err != nil {
			return "", err
		}
		return m.Target, nil
	default:
		return "", nil
	}
}

// prepareData makes the file of a Data mount and returns it.
func prepareData(m runner.Mount) (made string, err error) {
	file, err := os.OpenFile(m.Target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return "", err
	}
	_, err = file.Write(m.Content)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(m.Target)
		return "", err
	}
	return m.Target, nil
}

// landlockSteps are the steps of confine in the degraded mode.
func (i *initProcess) landlockSteps() []step {
	return []step{
		{"adopt orphans", func() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }},
		{"copy inputs", i.copyInputs},
		{"open descriptor 0", i.openStdin},
		{"set resource limits", func() error { return setLimits(i.order.WatchMemory) }},
		{"restrict files", func() error { return restrictFiles(i.order.Mounts, i.order.Devices) }},
		{"prepare clock", i.prepareClock},
		{"watch driver", i.watchDriver},
		{"drop privileges", i.dropPrivileges},
		{"shift clock", i.shiftClock},
	}
}

// copyInputs makes the Spec's copies, in the directories that the driver has made.
func (i *initProcess) copyInputs() error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	unix.Umask(0)
	t := &tree{root: root, owner: owner{os.Geteuid(), os.Getegid()}}
	for _, m := range i.order.Mounts {
		if m.Kind != runner.Copy {
			continue
		}
		if err := t.copy(m); err != nil {
			return fmt.Errorf("copy %s: %w", m.Target, err)
		}
	}
	return nil
}

// restrictFiles lets this process and its children open the mounts, /proc, and the devices that every confinement has.
func restrictFiles(mounts []runner.Mount, named []runner.Device) error {
	rules := []landlock.Rule{landlock.RODirs("/proc")}
	for _, d := range named {
		rules = append(rules, landlock.RWFiles(d.Source))
	}
	for _, d := range devices {
		rules = append(rules, landlock.RWFiles("/dev/"+d.name))
	}
	for _, m := range mounts {
		if m.Kind == runner.Copy {
			continue
		}
		info, err := os.Lstat(m.Target)
		if err != nil {
			return err
		}
		rules = append(rules, fileRule(m, info.IsDir()))
	}
	if err := landlock.V9.BestEffort().Restrict(rules...); err != nil {
		return err
	}
	return probeLandlock(mounts)
}

// probeLandlock looks whether the restriction works: the library does nothing, without an error, where a rule needs
// more than an old kernel has.
func probeLandlock(mounts []runner.Mount) error {
	for _, m := range mounts {
		if m.Target == "/" {
			return nil // everything is open to the commands
		}
	}
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return errors.New("restrict by Landlock: it has no effect: a directory that is no mount can be read")
	}
	return nil
}

// scopeThread keeps the calling thread and its children from signals to, and abstract sockets of, whatever is outside of them. The
// namespaces do that as well; this is a second wall, which costs two system calls. It reports whether the kernel has it (Linux 6.12).
func scopeThread() bool {
	fd, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{Scoped: ll.ScopeAbstractUnixSocket | ll.ScopeSignal}, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return ll.LandlockRestrictSelf(fd, 0) == nil
}

func fileRule(m runner.Mount, dir bool) landlock.Rule {
	writable := m.Writable || m.Kind == runner.Tmpfs
	switch {
	case dir && writable:
		return landlock.RWDirs(m.Target).WithRefer()
	case dir:
		return landlock.RODirs(m.Target)
	case writable:
		return landlock.RWFiles(m.Target)
	default:
		return landlock.ROFiles(m.Target)
	}
}

// landlockReadiness tells what the degraded mode enforces, and what it does not.
func landlockReadiness() readiness {
	return readiness{
		Enforced: []string{"capabilities-none", "file-access:landlock", "internet-sockets-none", "no-new-privileges", "seccomp"},
		Missing: []string{
			"file-system-private: there is no mount namespace, paths are the host's",
			"host-name: there is no UTS namespace",
			"ids: there is no user namespace, they are the caller's",
			"network-none: there is no network namespace, only internet sockets are refused",
			"pid-namespace: the host's processes are visible",
			"scratch-size: there is no file system in memory",
		},
	}
}

// descendants lists the living processes that this one has started, or adopted.
func descendants() ([]int, error) {
	pids, err := allProcesses()
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for _, pid := range pids {
		f := statFields(pid)
		if len(f) < 2 || f[0] == "Z" {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			parents[pid] = parent
		}
	}
	var found []int
	for pid := range parents {
		for up := parents[pid]; up > 1; up = parents[up] {
			if up == os.Getpid() {
				found = append(found, pid)
				break
			}
		}
	}
	return found, nil
}

// killDescendants kills until there is none: what forks in between is found the next time.
func killDescendants() error {
	for {
		pids, err := descendants()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
	}
}
