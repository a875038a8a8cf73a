package namespace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// The descriptors of the first process. 0 is empty; 1 and 2 are the commands' stdout and stderr.
const (
	controlFD = 3 // an order, then a verdict on each output, until the driver is gone
	reportFD  = 4 // frames to the driver; what follows is named by the order
)

// argument0 names the first process. It is not a secret: without an order on descriptor 3 the process just ends.
const argument0 = "arch-namespace-init"

// Main runs the first process of a confinement, or the gateway of its network, if args, which are os.Args, say so. Each binary that uses the driver
// calls it before anything else in main, and in TestMain:
//
//	if handled, code := namespace.Main(os.Args); handled {
//		os.Exit(code)
//	}
func Main(args []string) (handled bool, code int) {
	if handled, code := egress.Main(args); handled {
		return handled, code
	}
	if len(args) != 1 || args[0] != argument0 {
		return false, 0
	}
	runtime.LockOSThread() // the thread from which the commands are forked
	if err := first(); err != nil {
		fmt.Fprintf(os.Stderr, "arch: confinement: %v\n", err)
		return true, 1
	}
	return true, 0
}

// first is the life of the first process: it takes the order, makes the confinement, runs the commands, kills what
// they left, hands out the outputs, and ends; as process 1 of its namespace it takes every other process with it.
func first() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process undumpable: %w", err)
	}
	if err := unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close leaked descriptors on exec: %w", err)
	}
	report := os.NewFile(reportFD, "report")
	o, err := readOrder(descriptor(controlFD))
	if err != nil {
		return err
	}
	i := &initProcess{order: o, report: report}
	ready, err := i.confine()
	if err != nil {
		return writeJSON(report, frameRefused, refuse(err))
	}
	if err := writeJSON(report, frameReady, ready); err != nil {
		return err
	}
	if err := i.run(); err != nil {
		return err
	}
	return writeFrame(report, frameDone, nil)
}

// watchDriver starts to watch the driver's end of the control pipe. Before that nothing lasts longer than a moment.
func (i *initProcess) watchDriver() error {
	if err := unix.SetNonblock(controlFD, true); err != nil { // so that no thread is spent on it
		return err
	}
	i.verdicts = make(chan byte, 1)
	go i.dieWith(os.NewFile(controlFD, "control"))
	return nil
}

// dieWith ends the process as soon as the driver has closed its end of the control pipe or is gone.
func (i *initProcess) dieWith(control io.Reader) {
	var verdict [1]byte
	for {
		if _, err := control.Read(verdict[:]); err != nil {
			break
		}
		i.verdicts <- verdict[0] // the driver sends one when one is waited for
	}
	if i.order.Mode == modeLandlock { // elsewhere the kernel does it
		killDescendants()
	}
	os.Exit(1)
}

// descriptor is read from the calling thread, which waits.
type descriptor int

func (d descriptor) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// actError is a refusal of one step of the set-up.
type actError struct {
	act  string
	host bool // the step is the first that needs power in the new namespaces
	err  error
}

func (e *actError) Error() string { return e.act + ": " + e.err.Error() }
func (e *actError) Unwrap() error { return e.err }

// refuse makes the frame of err.
func refuse(err error) refusal {
	r := refusal{Act: "set up confinement", Err: err.Error()}
	if act, ok := errors.AsType[*actError](err); ok {
		r.Act, r.Err, r.Host = act.act, act.err.Error(), act.host
	}
	if _, ok := errors.AsType[*maskedProcError](err); ok {
		r.Host, r.MaskedProc = true, true
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		r.Errno = errno
	}
	return r
}

// initProcess is the state of the first process.
type initProcess struct {
	order  order
	report *os.File
	stdin  int
	pids   *os.File // sets the process id that is given next; nil if the kernel cannot
	watch  watchdog

	verdicts chan byte // of the driver, on outputs

	done restriction

	clock      *clock // nil: the commands see the host's
	clockError error  // why they do, although the order says otherwise
}

// step is one step of making the confinement.
type step struct {
	act string
	do  func() error
}

// confine makes the confinement; after it the calling thread has no power left.
func (i *initProcess) confine() (readiness, error) {
	steps := i.namespaceSteps()
	if i.order.Mode == modeLandlock {
		steps = i.landlockSteps()
	}
	for n, s := range steps {
		if err := s.do(); err != nil {
			return readiness{}, &actError{act: s.act, host: n == 0, err: err}
		}
	}
	resetSignals()
	syscall.Umask(i.order.Umask)
	i.startWatchdog()
	ready := readiness{Enforced: i.enforced()}
	if i.order.Mode == modeLandlock {
		ready = landlockReadiness()
	}
	if i.order.Refusals != 0 && !i.done.counted {
		ready.Missing = append(ready.Missing, "refused-syscalls: the kernel does not let this process count them")
	}
	return i.withClock(ready), nil
}

func (i *initProcess) namespaceSteps() []step {
	o := i.order
	return []step{
		{"isolate mounts", isolateMounts},
		{"isolate cgroups", isolateCgroups},
		{"set host name", func() error { return setNames(o.Hostname) }},
		{"make file system", i.makeRoot},
		{"open descriptor 0", i.openStdin},
		{"set resource limits", func() error { return setLimits(i.order.WatchMemory) }},
		{"open network", i.openNetwork},
		{"prepare clock", i.prepareClock},
		{"watch driver", i.watchDriver},
		{"limit processes", i.limitProcesses},
		{"drop privileges", i.dropPrivileges},
		{"shift clock", i.shiftClock},
	}
}

func (i *initProcess) startWatchdog() {
	i.watch = watchdog{memory: i.order.WatchMemory, processes: i.order.WatchProcesses}
	list := others
	i.watch.sockets = socketMemory
	i.watch.kill = func() { unix.Kill(-1, unix.SIGKILL) }
	if i.order.Mode == modeLandlock {
		list, i.watch.sockets = descendants, nil // the sockets are the host's as well
		i.watch.kill = func() { killDescendants() }
	}
	go i.watch.run(list)
}

// isolateMounts stops mounts from spreading to the host and back.
func isolateMounts() error {
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// isolateCgroups makes the group that the driver put this process into look like the root of all groups. It
// acts on this thread, and so on the commands.
func isolateCgroups() error {
	err := unix.Unshare(unix.CLONE_NEWCGROUP)
	if errors.Is(err, unix.EINVAL) { // a kernel without cgroups
		return nil
	}
	return err
}

func setNames(host string) error {
	if err := unix.Sethostname([]byte(host)); err != nil {
		return err
	}
	return unix.Setdomainname([]byte("(none)")) // the kernel's own value where nobody set one
}

// makeRoot makes the file system and enters it.
func (i *initProcess) makeRoot() error {
	o := i.order
	syscall.Umask(0)
	t := &tree{owner: owner{o.UID, o.GID}, scratch: o.Scratch}
	inside := func() error {
		if err := t.makeProc(); err != nil {
			return err
		}
		return t.makeDev(o.Devices)
	}
	if err := t.build(o.Mounts, resolverMounts(o), inside); err != nil {
		return err
	}
	if t.lastPID >= 0 {
		i.pids = os.NewFile(uintptr(t.lastPID), "ns_last_pid")
	}
	return t.enter()
}

// resolverFile tells programs where names are resolved (resolv.conf(5)).
const resolverFile = "/etc/resolv.conf"

// resolverMounts are what a Spec with network access gets beside its own mounts, unless it has its own.
func resolverMounts(o order) []runner.Mount {
	own := func(m runner.Mount) bool { return m.Target == resolverFile }
	if o.Network.IsZero() || slices.ContainsFunc(o.Mounts, own) {
		return nil
	}
	text := fmt.Sprintf("nameserver %s\n", egress.Resolver)
	return []runner.Mount{{Kind: runner.Data, Target: resolverFile, Content: []byte(text)}}
}

func (i *initProcess) openStdin() (err error) {
	if i.order.Exchange != 0 {
		i.stdin = i.order.Exchange
		return nil
	}
	i.stdin, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

func (i *initProcess) dropPrivileges() (err error) {
	i.done, err = restrictThread(i.order)
	return err
}

// openNetwork makes the way out that the Spec allows.
func (i *initProcess) openNetwork() error {
	if i.order.Network.IsZero() {
		return nil
	}
	link := os.NewFile(uintptr(i.order.Link), "link")
	defer link.Close()
	return egress.Inside(i.order.Network, link)
}

// How many threads the first process keeps. It rarely has as many things to do at a time as the first says; each thread
// costs a tenth of a millisecond of its start. It never has as many as the second says, which counts where it could not
// make another.
const (
	idleThreads     = 4
	mostIdleThreads = 10
)

func (i *initProcess) limitProcesses() error {
	if i.order.MaxProcesses == 0 {
		warmThreads(idleThreads)
		return nil
	}
	warmThreads(mostIdleThreads)
	return limitProcesses(i.order.MaxProcesses)
}

// resetSignals gives every signal its default action and blocks none, so that commands do not inherit what the
// driver's caller ignores. It protects this process as well: to the first process of a namespace the kernel delivers
// no signal from inside whose action is the default one (pid_namespaces(7)), while Go's own handlers would end the
// process. The library's signal package would do the same with two thread switches for each signal.
func resetSignals() {
	var defaults [4]uint64 // struct kernel_sigaction, all zero: SIG_DFL
	for s := syscall.Signal(1); s <= 64; s++ {
		if s == syscall.SIGURG { // the runtime's preemption; its default is to be ignored
			continue
		}
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&defaults)), 0, 8, 0, 0)
	}
	var none unix.Sigset_t
	unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}

// enforced lists what this process has put in force, in the words of runner.Confinement.
func (i *initProcess) enforced() []string {
	devices := "devices-minimal"
	if len(i.order.Devices) > 0 {
		devices = "devices-named"
	}
	list := []string{
		"capabilities-none", devices, "file-system-private", "ipc-namespace", "mount-namespace",
		"no-new-privileges", "pid-namespace", "seccomp", "uts-namespace",
	}
	if i.order.Network.IsZero() {
		list = append(list, "network-none")
	} else {
		list = append(list, "network-egress:gateway")
	}
	if i.order.Mode == modeUser {
		list = append(list, "user-namespace")
	}
	if i.order.CPUs > 0 {
		list = append(list, "cpus")
	}
	if i.done.scoped {
		list = append(list, "landlock-scope")
	}
	slices.Sort(list)
	return list
}

// run runs the commands, kills what they left behind and sends the outputs.
func (i *initProcess) run() error {
	e, err := i.commands()
	if err != nil {
		return err
	}
	e = i.watch.verdict(e)
	if err := writeJSON(i.report, frameEnd, e); err != nil {
		return err
	}
	if e.Reason != runner.ReasonExit || e.Exit != 0 {
		return nil
	}
	if err := closeLogs(); err != nil {
		return err
	}
	sent := make(chan error)
	go func() { sent <- i.sendOutputs() }() // on another thread: this one may not read everything
	return <-sent
}

// closeLogs lets the driver see the end of what the commands, all of whose processes are dead, have printed.
func closeLogs() error {
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(controlFD, fd, unix.O_CLOEXEC); err != nil { // which nobody can write to
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// commands runs the commands in turn, up to the first that fails.
func (i *initProcess) commands() (ending, error) {
	e := ending{Reason: runner.ReasonExit}
	for n, c := range i.order.Commands {
		e.Command = n
		if err := writeJSON(i.report, frameStart, n); err != nil {
			return e, err
		}
		ws, err := i.command(c)
		if err != nil {
			return describeStart(e, err), nil
		}
		if ws.Signaled() {
			e.Reason, e.Signal = runner.ReasonSignal, unix.SignalName(ws.Signal())
			e.Detail = fmt.Sprintf("%s was killed by %s", c.Argv[0], e.Signal)
			return e, nil
		}
		if e.Exit = ws.ExitStatus(); e.Exit != 0 {
			return e, nil
		}
	}
	return e, nil
}

// firstPID is the process id that each command gets, so that what its programs do with ids comes out the same: the
// ids before it go to the threads of the first process, whose number varies. The kernel gives out ids from 300 on
// again once it has come around.
const firstPID = 300

// command runs c and returns when it and everything it started is dead.
func (i *initProcess) command(c runner.Command) (syscall.WaitStatus, error) {
	i.resetPIDs()
	ws, err := i.execute(c)
	if err != nil {
		return 0, err
	}
	return ws, i.killAll()
}

// execute runs c and returns when its own process is dead.
func (i *initProcess) execute(c runner.Command) (syscall.WaitStatus, error) {
	if i.clock != nil {
		return i.clock.execute(c, i.stdin)
	}
	pid, err := start(c, i.stdin)
	if err != nil {
		return 0, err
	}
	return reap(pid)
}

// resetPIDs makes firstPID the next process id. The thread that forks may not do it any more.
func (i *initProcess) resetPIDs() {
	if i.pids == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.pids.WriteString(strconv.Itoa(firstPID - 1)) // where that is refused, ids just vary
	}()
	<-done
}

// killAll kills every process of the confinement but this one, and buries them.
func (i *initProcess) killAll() error {
	var err error
	if i.order.Mode == modeLandlock {
		err = killDescendants()
	} else {
		err = unix.Kill(-1, unix.SIGKILL)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill what the command left: %w", err)
	}
	for {
		_, err := syscall.Wait4(-1, nil, syscall.WALL, nil)
		switch err {
		case nil, syscall.EINTR:
		case syscall.ECHILD:
			return nil
		default:
			return os.NewSyscallError("wait4", err)
		}
	}
}

// cannotExecute is the exit status of a program that exists but cannot be executed, as in every shell (POSIX.1, 2.8.2).
const cannotExecute = 126

// describeStart classifies an error of start.
func describeStart(e ending, err error) ending {
	e.Detail = err.Error()
	if _, ok := errors.AsType[*notFoundError](err); ok {
		e.Reason = runner.ReasonNotFound
		return e
	}
	e.Exit = cannotExecute
	return e
}
