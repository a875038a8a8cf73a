package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// argument0 names the first process of a unit, and the next argument what it is to do.
const (
	argument0   = "arch-systemd-unit"
	modeRun     = "run"
	modeProbe   = "probe"
	modeNothing = "nothing"
	modeWorker  = "worker"
)

// Main runs the first process of a unit if args, which are os.Args, say so. Each binary that uses the driver calls it
// before anything else in main, beside the Main of the driver that inner returns: the inner layer, which should
// do without control groups, since the unit has them.
//
//	if handled, code := systemd.Main(os.Args, inner); handled {
//		os.Exit(code)
//	}
func Main(args []string, inner func() (runner.Runner, error)) (handled bool, code int) {
	if len(args) < 2 || args[0] != argument0 {
		return false, 0
	}
	var err error
	switch args[1] {
	case modeRun:
		err = first(inner)
	case modeNothing:
	case modeWorker:
		err = becomeWorker(args[2:])
	case modeProbe:
		err = probeEffects(args[2:])
	default:
		err = fmt.Errorf("mode %q is unknown", args[1])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "arch: unit: %v\n", err)
		return true, 1
	}
	return true, 0
}

// first is the life of the first process: it takes the order from the driver that connects to its control socket,
// becomes a user without any power, has the inner layer run the Spec, and hands out what came of it to that driver or to
// a later one. One that talks with its driver ends when that has gone: nobody could go on with the talk, and who wants to know what
// came of it runs it again.
func first(inner func() (runner.Runner, error)) error {
	signal.Ignore(syscall.SIGPIPE) // a driver that has gone must not end the unit
	s, err := listen()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	s.end = end
	go s.serve()
	o, err := s.order()
	if err != nil {
		return err
	}
	var out outcome
	err = become(o.HostUID, o.HostGID)
	if err == nil {
		out.Result, err = s.run(ctx, inner, o)
	}
	out.setError(err)
	out.CPU = childTime()
	return s.deliver(out)
}

// ownIDs is the first of the user and group ids that units have for themselves. systemd documents 1879048192 to
// 2147483647 as used by nobody (docs/UIDS-GIDS.md).
const ownIDs = 0x70000000

// become drops root for uid and gid, or if they are zero for ids that no other living unit has: those of the process id.
func become(uid, gid int) error {
	if uid == rootUser { // the inner layer takes what little power this process has
		return nil
	}
	if uid == 0 {
		uid, gid = ownIDs+os.Getpid(), ownIDs+os.Getpid()
	}
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setresgid(gid, gid, gid)
	}
	if err == nil {
		err = syscall.Setresuid(uid, uid, uid)
	}
	if err == nil {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // or its own files of /proc would belong to root
	}
	if err != nil {
		return &runner.SetupError{Act: fmt.Sprintf("become user %d", uid), Err: err}
	}
	return nil
}

// workerArguments are the arguments of the first process of a Pool's unit: it drops root and executes the class's command.
func workerArguments(c runner.Command) []string {
	return slices.Concat([]string{argument0, modeWorker, strconv.Itoa(len(c.Env))}, c.Env, c.Argv)
}

// becomeWorker does what workerArguments say. It returns only if it cannot.
func becomeWorker(args []string) error {
	if len(args) == 0 {
		return errors.New("a worker has arguments")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 || len(args) < n+2 {
		return errors.New("a worker has an environment and a program")
	}
	env, argv := args[1:n+1], args[n+1:]
	runtime.LockOSThread() // the bounding set is a thread's, and the one that executes the program hands its own on
	if err := dropBounding(); err != nil {
		return err
	}
	if err := become(0, 0); err != nil {
		return err
	}
	return fmt.Errorf("execute %q: %w", argv[0], syscall.Exec(argv[0], argv, env))
}

// dropBounding empties the calling thread's capability bounding set.
func dropBounding() error {
	for c := range uintptr(64) {
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

// run has the inner layer run the order.
func (s *session) run(ctx context.Context, inner func() (runner.Runner, error), o *received) (runner.Result, error) {
	r, err := inner()
	if err != nil {
		return runner.Result{}, err
	}
	spec := runner.Spec{
		Commands: o.Commands, Mounts: o.Mounts, Devices: o.Devices, Outputs: o.Outputs,
		Hostname: o.Hostname, UID: o.UID, GID: o.GID, Umask: o.Umask, CPUs: o.CPUs,
		ClockOffset: o.ClockOffset, Network: o.Network, Limits: o.Limits, Degraded: o.Degraded,
		Stdout: printer{s, 0}, Stderr: printer{s, 1},
	}
	if o.OneLog {
		spec.Stderr = spec.Stdout
	}
	if len(o.Outputs) > 0 {
		spec.Collect = s.collector(o.Outputs)
	}
	if o.Exchange {
		spec.Exchange = func(conn *os.File) error {
			s.send(frameBegin, nil)
			return relay(conn, o.exchange)
		}
	}
	return runWithin(ctx, o.Wall, r, spec)
}

// startSlack is what the limit of time leaves to the inner layer for starting: measured 5 to 10 ms.
const startSlack = 10 * time.Millisecond

// errWall is why a run is cancelled whose time is up.
var errWall = errors.New("time is up")

// runWithin has r run spec, whose commands may take that long. Collecting outputs does not count.
func runWithin(ctx context.Context, wall time.Duration, r runner.Runner, spec runner.Spec) (runner.Result, error) {
	if wall == 0 {
		return r.Run(ctx, spec)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(wall+startSlack, func() { cancel(errWall) })
	defer timer.Stop()
	if collect := spec.Collect; collect != nil {
		spec.Collect = func(out runner.Output, nar io.Reader) error {
			timer.Stop()
			return collect(out, nar)
		}
	}
	result, err := r.Run(ctx, spec)
	if result.Reason == runner.ReasonCancelled && context.Cause(ctx) == errWall {
		result.Reason, result.Detail = runner.ReasonTimeout, fmt.Sprintf("wall time: more than %s", wall)
	}
	return result, err
}

// printer is a stream of the log, whose reader may go away while the commands go on.
type printer struct {
	s      *session
	stream int
}

func (p printer) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		n += p.s.printed.add(p.stream, b[n:])
		p.s.flush()
	}
	return len(b), nil
}

// collector returns a Collect that sends outputs to the driver.
func (s *session) collector(outputs []runner.Output) func(runner.Output, io.Reader) error {
	index := map[string]int{}
	for n, o := range outputs {
		index[o.Name] = n
	}
	return func(o runner.Output, nar io.Reader) error {
		conn, err := s.present(nil, time.After(keepOutcome))
		if err != nil {
			return err
		}
		to, broken := &sender{s: s, conn: conn}, error(nil)
		body, err := json.Marshal(index[o.Name])
		if err == nil {
			err = writeFrame(to, frameOutput, body)
		}
		if err == nil {
			_, broken = io.CopyBuffer(dataWriter{to}, onlyReader{nar}, make([]byte, maxFrame))
		}
		text := ""
		if broken != nil {
			text = broken.Error()
		}
		if err == nil && to.err == nil {
			writeFrame(to, frameEOF, []byte(text)) // what does not arrive, the next driver does not have
		}
		if broken != nil && to.err == nil { // the output cannot be read, and what that means is not the driver's to say
			return broken
		}
		return s.collected(conn, index[o.Name], o.Name)
	}
}

// onlyReader hides what else a reader can do, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// inspect reads what is in force for this process.
func inspect() (hello, error) {
	var h hello
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return h, err
	}
	h.Groups = string(groups)
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapEff":
			h.Capabilities = value
		case "CapBnd":
			h.Bounding = value
		case "NoNewPrivs":
			h.NoNewPrivs = value == "1"
		case "Seccomp_filters":
			h.Filters, _ = strconv.Atoi(value)
		}
	}
	return h, nil
}

// childTime returns the processor time of all processes that this one has waited for, with theirs.
func childTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
