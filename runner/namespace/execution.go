package namespace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// lastCapability is CAP_CHECKPOINT_RESTORE of Linux 5.9, the newest that there is.
const lastCapability = 40

// execution is one run in one mode, seen from the driver's side.
type execution struct {
	options Options
	spec    runner.Spec
	mode    mode
	refused error // why a stronger mode was not had; nil if none was tried
	pick    func(variant) (program, error)
	filter  program
	group   *group
	cmd     *exec.Cmd
	control *os.File // closing it ends everything
	report  *os.File
	logs    logs
	talk    talk
	way     way
	denied  tally

	rest     *meter.Rest  // while there is nothing to do; nil: there always is
	meter    *meter.Meter // nil: nothing is measured but what the kernel counts anyway
	measured meter.Report

	ready     readiness
	end       *ending
	absent    []absence
	collected []runner.Collected
	started   time.Time // of the commands
	finished  time.Time

	mu     sync.Mutex // guards stopped
	stop   *ending    // why the driver killed the execution
	failed error      // Run's error, if the driver killed it for one
	talked error      // Exchange's error
}

// run is the whole life of the execution. The error is a *hostError if the host refused the mode.
func (e *execution) run(ctx context.Context) (runner.Result, error) {
	if e.mode == modeLandlock {
		release, err := prepareLandlock(e.spec, cure("/", e.refused))
		if err != nil {
			return runner.Result{}, err
		}
		defer release()
	}
	if !e.options.NoCgroups {
		e.group = newGroup(e.spec)
		defer e.group.remove()
	}
	if err := e.pickFilter(); err != nil {
		return runner.Result{}, err
	}
	if err := e.start(); err != nil {
		return runner.Result{}, err
	}
	defer context.AfterFunc(ctx, func() {
		e.kill(ending{Reason: runner.ReasonCancelled, Detail: context.Cause(ctx).Error()}, nil)
	})()
	e.measure()
	watched := e.group.watch(e.rest, func(detail string) {
		e.kill(ending{Reason: runner.ReasonOutOfMemory, Detail: detail}, nil)
	})
	err := e.follow()
	if err != nil {
		e.kill(ending{}, err)
	}
	e.control.Close()
	e.cmd.Wait() // after it the namespace, and everything in it, is gone
	e.report.Close()
	e.logs.wait()
	watched()
	if e.meter != nil {
		e.measured = e.meter.Stop()
	}
	e.talked = e.talk.end()
	e.way.close()
	e.denied.close()
	return e.result(err)
}

// pickFilter chooses the filter of system calls, for which the groups must have been made.
func (e *execution) pickFilter() (err error) {
	counted := e.spec.Limits.Memory > 0 && !e.group.limitsMemory()
	if e.filter, err = e.pick(variantOf(e.spec, e.mode, counted)); err != nil {
		return &runner.SetupError{Act: "confine system calls", Err: err}
	}
	return nil
}

// start starts the first process, puts it into its group and sends the order.
func (e *execution) start() error {
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer controlR.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		controlW.Close()
		return err
	}
	defer reportW.Close()
	e.control, e.report = controlW, reportR
	e.cmd = &exec.Cmd{
		Path:       e.options.Executable,
		Args:       []string{argument0},
		Env:        firstEnv,
		Dir:        "/",
		ExtraFiles: []*os.File{controlR, reportW},
	}
	if err := errors.Join(e.talk.open(e.spec, e.cmd), e.way.open(e.spec, e.options, e.cmd)); err != nil {
		e.abandon()
		return err
	}
	if counter, err := e.denied.open(e.options.CountRefused || metered(e.spec.Limits)); err != nil {
		e.abandon()
		return err
	} else if counter != nil {
		e.denied.number = extraFile(e.cmd, counter)
	}
	if err := e.logs.open(e.spec, e.cmd, e.overflow); err != nil {
		e.abandon()
		return err
	}
	if err := launch(e.cmd, e.mode, e.spec.UID, e.spec.GID); err != nil {
		e.logs.abandon()
		e.abandon()
		return e.startError(err)
	}
	e.logs.start()
	e.talk.started()
	e.way.started()
	return e.sendOrder()
}

// firstEnv makes Go's runtime start quickly in the first process: it never has two things to compute, and ends before its
// garbage is worth collecting, unless it has a lot to archive.
var firstEnv = []string{"GOMAXPROCS=1", "GOGC=400"}

// sendOrder joins the first process to its group and tells it what to do; if that fails, the process is ended.
func (e *execution) sendOrder() error {
	err := e.group.add(e.cmd.Process.Pid)
	if err == nil {
		err = writeOrder(e.control, e.order())
		if errors.Is(err, syscall.EPIPE) {
			err = nil // it has ended; what it reported says why
		}
	}
	if err == nil {
		return nil
	}
	e.cmd.Process.Kill()
	e.closePipes()
	e.cmd.Wait()
	e.logs.wait()
	e.talk.end()
	e.way.close()
	e.denied.close()
	return &runner.SetupError{Act: "start confinement", Err: err}
}

// abandon closes what was opened for a first process that did not start.
func (e *execution) abandon() {
	e.closePipes()
	e.talk.abandon()
	e.way.close()
	e.denied.close()
}

func (e *execution) closePipes() {
	e.control.Close()
	e.report.Close()
}

// startError classifies an error of clone or execve.
func (e *execution) startError(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if ok && e.mode != modeLandlock && slices.Contains(refusals, errno) {
		return &hostError{act: e.mode.describe(), err: errno}
	}
	return &runner.SetupError{Act: "start confinement", Err: err}
}

// refusals are the errors by which kernels and their security modules refuse namespaces: EPERM and EACCES by policy,
// ENOSPC and EUSERS at a limit, EINVAL and ENOSYS where they are not built in.
var refusals = []syscall.Errno{
	syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS,
}

func (e *execution) order() order {
	s := e.spec
	o := order{
		Mode: e.mode, Commands: s.Commands, Mounts: s.Mounts, Outputs: s.Outputs, Devices: s.Devices,
		Hostname: s.Hostname, UID: s.UID, GID: s.GID, Umask: s.Umask, CPUs: s.CPUs, Scratch: s.Limits.Scratch,
		ClockOffset: s.ClockOffset, NoVDSO: e.options.NoVDSO, Exchange: e.talk.number,
		Filter: e.filter, Refusals: e.denied.number, Network: s.Network, Link: e.way.number,
	}
	if e.options.CountRefused {
		o.Sockets = socketFilter(e.mode != modeLandlock)
	}
	if !e.group.limitsMemory() {
		o.WatchMemory = s.Limits.Memory
	}
	if !e.group.limitsProcesses() {
		o.WatchProcesses = s.Limits.Processes
		if e.mode == modeUser && os.Geteuid() != 0 && countsPerNamespace() {
			o.MaxProcesses = s.Limits.Processes
		}
	}
	return o
}

// kill ends the execution for the reason, or for the error, that comes first.
func (e *execution) kill(why ending, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop != nil {
		return
	}
	e.stop, e.failed = &why, err
	if e.mode == modeLandlock {
		e.control.Close() // the first process must live to kill the others
		return
	}
	e.cmd.Process.Kill()
}

// overflow is called when the commands have written more than they may.
func (e *execution) overflow(err error) {
	if err != nil {
		e.kill(ending{}, fmt.Errorf("write log: %w", err))
		return
	}
	e.kill(ending{Reason: runner.ReasonLimit, Detail: fmt.Sprintf("log: more than %d bytes", e.spec.Limits.Log)}, nil)
}

// follow reads the report to its end.
func (e *execution) follow() error {
	var wall *time.Timer
	defer func() {
		if wall != nil {
			wall.Stop()
		}
	}()
	for {
		kind, body, err := readFrame(e.report)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameRefused:
			return e.refusal(body)
		case frameReady:
			err = e.standsReady(body)
			wall = e.limitWall()
		case frameStart:
			err = e.commandStarts(body)
		case frameEnd:
			if wall != nil {
				wall.Stop()
			}
			err = e.commandsEnd(body)
		case frameOutput, frameAbsent:
			err = e.output(kind, body)
		case frameDone:
			return nil
		default:
			err = fmt.Errorf("read report: unknown frame %q", kind)
		}
		if err != nil {
			return err
		}
	}
}

func (e *execution) standsReady(body []byte) error {
	if !e.started.IsZero() {
		return errors.New("read report: ready twice")
	}
	if err := json.Unmarshal(body, &e.ready); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	e.started = time.Now()
	return nil
}

// limitWall starts the clock of the commands.
func (e *execution) limitWall() *time.Timer {
	limit := e.spec.Limits.Wall
	if limit == 0 {
		return nil
	}
	return time.AfterFunc(limit, func() {
		e.kill(ending{Reason: runner.ReasonTimeout, Detail: fmt.Sprintf("wall time: more than %s", limit)}, nil)
	})
}

func (e *execution) refusal(body []byte) error {
	var r refusal
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if r.MaskedProc {
		return &hostError{act: "mount /proc", err: r.Errno, maskedProc: true}
	}
	if r.Host && slices.Contains(refusals, r.Errno) {
		return &hostError{act: e.mode.describe(), err: r.Errno}
	}
	cause := errors.New(r.Err)
	if r.Errno == syscall.ENOSYS {
		return &runner.SetupError{Act: r.Act, Err: cause, Cure: "run on Linux 5.12 or later"}
	}
	return &runner.SetupError{Act: r.Act, Err: cause}
}

func (e *execution) commandStarts(body []byte) error {
	var n int
	if err := json.Unmarshal(body, &n); err != nil || n < 0 || n >= len(e.spec.Commands) {
		return fmt.Errorf("read report: command %q does not exist", body)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end = &ending{Command: n}
	e.talk.begin(func(err error) { e.kill(ending{}, err) })
	return nil
}

func (e *execution) commandsEnd(body []byte) error {
	e.finished = time.Now()
	e.talk.shut()
	var end ending
	if err := json.Unmarshal(body, &end); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if end.Reason == "" || end.Command < 0 || end.Command >= len(e.spec.Commands) {
		return fmt.Errorf("read report: ending %q is not complete", body)
	}
	e.end = &end
	return nil
}
