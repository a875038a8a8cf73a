// Package systemd is a driver of runner's contract for hosts whose first process is systemd, 252 or later: one
// transient service for each execution, in a slice of its own.
//
// Two layers confine a command, and neither trusts the other. systemd makes the outer one from the unit's properties: an
// own root directory that holds nothing but what the Spec mounts, a list of the system calls that may be made at all,
// no network, no devices, no capabilities, a user id that no other unit has, and control groups for memory, processor time, processes
// and I/O. The unit's first process is the caller's own binary (see Main), which then runs the Spec with a second
// driver, runner/namespace, chosen by whoever calls Main: it makes the inner layer of process, mount, host name, IPC, cgroup, network
// and user namespaces and a second filter. So commands see the same, and end the same way, as under that driver alone.
// Units of a Pool have no inner layer: one static program, every property that systemd has to offer.
//
// A unit works on the host as a user that no other unit and nobody else is. Where a source of the Spec is closed to such a
// stranger, it works as that source's owner: as root, but without root's power, if that is the owner. A unit whose Spec has a
// Network is in the network namespace of the host, in which the gateway of the inner layer works; the commands are in one of their own.
//
// Limits of memory and processes are for the commands: units have 24 MiB and 48 threads more, for the first two processes.
// Result.Usage counts those processes as well, some 6 MiB and 20 ms.
//
// Refused system calls are counted, and an anomaly when they are many, as far as the inner layer's filter refuses them: mounts,
// namespaces, other processes' memory, set-ID files, odd sockets. What systemd's filter refuses as well, such as bpf or keyctl, nobody can count: the
// kernel takes the strictest answer of all filters (seccomp(2)), and systemd's "errno" beats the inner layer's "ask the first process"
// (SECCOMP_RET_USER_NOTIF), of which there may be only one anyway. SystemCallLog= would have the kernel log them, but reading its log takes a
// capability that the broker does not have, and the log is rate-limited and names no unit. Confinement.Missing says so.
//
// What it promises: the limits are kept by control groups, and what was applied is read back from the kernel for each
// unit, never assumed, since systemd accepts and ignores what it cannot do; a Spec that needs something that has no
// effect here is refused with the cure, unless it is Degraded. Everything that a command starts is dead when Run
// returns. A unit does not end with the process that asked for it: Adopt finds it again, and it keeps its result for an hour.
// StopAll ends all.
//
// What it never does: mount, change owners, or need a capability: being uid 0 on the bus is enough. It never fetches,
// verifies or decides.
package systemd

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// Options configure a Runner. The zero value is right for a daemon on an ordinary host.
type Options struct {
	// Slice holds the units. Empty: "arch-jobs.slice".
	Slice string
	// Private talks to systemd by its private socket instead of the system bus, as before there is a bus. Only root can.
	Private bool
	// State is a directory of the host that is made if it does not exist: for the units' empty root directory, their
	// control sockets, and what the effect probes found. It must be the same for a process and its successor, and on a
	// file system that a reboot empties. Empty: "/run/arch-jobs".
	State string
	// Executable is the binary of the units' first process: static, readable by everyone, and with a main that calls
	// Main. Empty: the running one.
	Executable string
}

// The values that zero fields of Options stand for.
const (
	defaultSlice = "arch-jobs.slice"
	defaultState = "/run/arch-jobs"
)

// Runner runs commands in transient units. It may be used by several goroutines at once.
type Runner struct {
	options Options
	bus     *bus
	report  Report
}

// New connects to systemd, and finds out by probe units what its properties really do, unless that is known since the
// last boot. Close ends the connection. The error is a *runner.SetupError.
func New(ctx context.Context, options Options) (*Runner, error) {
	options, err := options.complete()
	if err != nil {
		return nil, err
	}
	b, err := connect(ctx, options.Private)
	if err != nil {
		return nil, err
	}
	r := &Runner{options: options, bus: b}
	if r.report, err = r.probed(ctx); err != nil {
		b.close()
		return nil, err
	}
	return r, nil
}

// Close ends the connection to systemd. Units that run go on.
func (r *Runner) Close() error {
	r.bus.close()
	return nil
}

// Report returns what the effect probes found.
func (r *Runner) Report() Report { return r.report }

// defaults fills in what zero fields stand for.
func (o Options) defaults() (Options, error) {
	if o.Slice == "" {
		o.Slice = defaultSlice
	}
	if o.State == "" {
		o.State = defaultState
	}
	if o.Executable != "" {
		return o, nil
	}
	var err error
	if o.Executable, err = os.Executable(); err != nil {
		return o, &runner.SetupError{Act: "find own binary", Err: err}
	}
	return o, nil
}

// complete fills in the defaults and makes the state directory.
func (o Options) complete() (Options, error) {
	o, err := o.defaults()
	if err != nil {
		return o, err
	}
	if o.Executable, err = filepath.EvalSymlinks(o.Executable); err != nil {
		return o, &runner.SetupError{Act: "find binary for units", Err: err}
	}
	if err := checkExecutable(o.Executable); err != nil {
		return o, &runner.SetupError{
			Act: "use " + o.Executable + " in units", Err: err,
			Cure: "build it with CGO_ENABLED=0 and install it with mode 0755, or name another one",
		}
	}
	if err := makeState(o.State); err != nil {
		return o, &runner.SetupError{Act: "make state directory", Err: err, Cure: "run as root, or with a RuntimeDirectory for " + o.State}
	}
	return o, nil
}

// checkExecutable sees to it that the file runs in an empty root directory as any user.
func checkExecutable(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is linked dynamically: there is no library in a unit")
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	if st.Mode&0o005 != 0o005 {
		return fmt.Errorf("its mode %#o keeps others from running it", st.Mode&0o777)
	}
	return nil
}

// makeState makes the directories of the driver.
func makeState(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := filepath.Join(dir, rootName)
	for _, name := range []string{"", "dev", "proc", "sys", "run", slots} {
		if err := makeDirectory(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// makeDirectory makes a directory that everyone may enter, whatever this process's umask is.
func makeDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// rootName is the directory, below the state directory, that is the units' root.
const rootName = "root"

func (o Options) root() string { return filepath.Join(o.State, rootName) }

// socket returns the path of the control socket of the unit for the execution name.
func (o Options) socket(name string) string { return filepath.Join(o.State, name+".sock") }
