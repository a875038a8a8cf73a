// Package namespace is a driver of runner's contract that needs nothing but the kernel: Linux 5.12 or later.
//
// Each Run starts the calling binary again as the first process of new user, mount, process, network, IPC, host name
// and cgroup namespaces. That process makes a file system of the Spec's mounts alone, drops every privilege on the
// thread that forks, runs the commands one after the other, kills whatever each of them leaves behind, and at last
// sends the outputs. It works the same for root and for an ordinary user; the confined processes are always seen
// inside under the Spec's ids, and outside they have the caller's.
//
// What it promises: nothing is visible that the Spec does not name, but /proc of the confinement itself, a minimal
// /dev, the kernel's version and the machine's processor and memory sizes; nothing is writable that the Spec does not
// make writable; there is no network, not even a loopback interface that is up, but what the Spec allows (see
// package egress), and no socket of the host but those inside the mounts; no capability, no way to get one, no new namespace, no foreign architecture's calls;
// when Run returns, every process is gone, and with it every mount. If the caller dies, all of it dies too.
//
// With a ClockOffset, one thread of the first process traces the confined ones, and shifts what they read from the wall
// clock, whichever way they read it. Builds take about a tenth longer by that. Times that the kernel itself writes, such
// as those of files, are the host's, and so are all clocks that do not tell the time of day. If the host refuses to
// trace, the commands run by the host's clock, and Confinement.Missing says "clock-offset: …".
//
// Memory, processes, CPU time, I/O and the use of devices are limited by control groups, of either version, where the caller may
// make some. Elsewhere memory and processes are counted and the executions that pass a limit killed, and of the other limits
// Confinement.Missing says that they are not kept. What is limited is also measured, by package meter.
//
// A Spec with network access gets /etc/resolv.conf, unless it has its own or its root file system has a symbolic link there.
//
// What it never does: fetch, verify, or decide; write outside of what the Spec makes writable; follow a symbolic link
// inside the confinement.
//
// Where the host refuses user namespaces, root still gets the others; anyone else gets a *runner.SetupError
// with the cure or, if the Spec allows that by Degraded, a much weaker confinement by Landlock and seccomp, in which
// a bind mount must have its source as its target.
// Result.Confinement says what was in force.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// Options configure a Runner. The zero value is right for everything but tests and odd hosts.
type Options struct {
	// Executable is the binary to start as the first process: one whose main calls Main. Empty: the running one.
	Executable string
	// NoUserNamespace leaves out the user namespace, as where the host refuses it: only root can do without it.
	NoUserNamespace bool
	// NoCgroups does without control groups, as where none is writable. Limits of memory and processes
	// are then kept by counting, which is slower to notice.
	NoCgroups bool
	// CountRefused counts the system calls that the filter refuses also where the Spec has no limits, as within a unit that has
	// them instead. Otherwise they are counted where an execution is metered. It says that there is another filter outside, which refuses
	// address families with an error of its own: commands get this driver's all the same, but those refusals are not counted.
	CountRefused bool
	// NoVDSO makes programs under a ClockOffset do without the vDSO, as on hosts whose vDSO is of an unknown kind: each
	// reading of the wall clock then takes some ten microseconds.
	NoVDSO bool
	// Egress configures the gateway of Specs with network access.
	Egress egress.Options
}

// Runner runs commands in namespaces. It may be used by several goroutines at once.
type Runner struct {
	options Options

	mu      sync.Mutex          // guards filters
	filters map[variant]program // those made so far
}

// New returns a Runner. It starts nothing, and says nothing about what the host permits: the first Run tells.
func New(options Options) (*Runner, error) {
	if options.Executable == "" {
		options.Executable = "/proc/self/exe"
	}
	return &Runner{options: options, filters: map[variant]program{}}, nil
}

// Run implements runner.Runner.
func (r *Runner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	return r.run(ctx, spec, func(*execution) {})
}

// run is Run, which tells each execution that it tries before it starts.
func (r *Runner) run(ctx context.Context, spec runner.Spec, tries func(*execution)) (runner.Result, error) {
	spec, err := complete(spec)
	if err != nil {
		return runner.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return runner.Result{Reason: runner.ReasonCancelled, Detail: err.Error()}, nil
	}
	m := modeUser
	if r.options.NoUserNamespace {
		m = modeRoot
	}
	var refused error // why the stronger mode could not be had
	for {
		e := &execution{options: r.options, spec: spec, mode: m, refused: refused, pick: r.filter}
		tries(e)
		result, err := e.run(ctx)
		refused = err
		h, ok := errors.AsType[*hostError](err)
		if !ok {
			return result, err
		}
		next, ok := weaker(m, spec.Degraded)
		if !ok {
			return runner.Result{}, h.explain()
		}
		m = next
	}
}

// filter returns the filter of system calls, which is made once.
func (r *Runner) filter(v variant) (program, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.filters[v]; ok {
		return p, nil
	}
	p, err := newFilter(v)
	if err == nil {
		r.filters[v] = p
	}
	return p, err
}

// weaker returns the mode to try where the host refused m.
func weaker(m mode, degraded bool) (mode, bool) {
	switch {
	case m == modeUser && os.Geteuid() == 0:
		return modeRoot, true
	case m != modeLandlock && degraded:
		return modeLandlock, true
	default:
		return "", false
	}
}

// hostError says that the host refused the namespaces themselves.
type hostError struct {
	act        string
	err        error
	maskedProc bool // because the caller's /proc is partly covered
}

func (e *hostError) Error() string { return e.act + ": " + e.cause().Error() }
func (e *hostError) Unwrap() error { return e.err }

// cause is what the kernel answered, without the misleading name that Linux has for a limit on namespaces.
func (e *hostError) cause() error {
	if errors.Is(e.err, syscall.ENOSPC) {
		return &fullError{e.err}
	}
	return e.err
}

// fullError is ENOSPC of clone(2), which has nothing to do with space: see namespaces(7).
type fullError struct{ err error }

func (e *fullError) Error() string {
	return "the host allows no more of them (ENOSPC: sysctl user.max_user_namespaces, or another of user.max_*_namespaces)"
}

func (e *fullError) Unwrap() error { return e.err }

// explain adds the cure.
func (e *hostError) explain() *runner.SetupError {
	if e.maskedProc {
		return &runner.SetupError{Act: e.act, Err: e.err, Cure: cureMaskedProc}
	}
	return &runner.SetupError{Act: e.act, Err: e.cause(), Cure: cure("/", e.err)}
}

// flags returns the namespaces of the mode, for clone(2).
func (m mode) flags() uintptr {
	const others = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	switch m {
	case modeUser:
		return syscall.CLONE_NEWUSER | others
	case modeRoot:
		return others
	default:
		return 0
	}
}

// attributes returns how the first process is started in mode m, with these ids inside.
func (m mode) attributes(uid, gid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: m.flags(), Setsid: true}
	if m != modeUser {
		return attr
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getegid(), Size: 1}}
	for c := range uintptr(lastCapability + 1) {
		attr.AmbientCaps = append(attr.AmbientCaps, c)
	}
	if os.Geteuid() == 0 { // an ordinary user cannot drop his supplementary groups
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// describe names the mode in an error.
func (m mode) describe() string {
	if m == modeUser {
		return "create user namespace"
	}
	return fmt.Sprintf("create namespaces (mode %s)", string(m))
}
