package namespace

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// clock shifts what the commands read from the wall clock.
//
// One thread of the first process traces the commands and all that they start, with ptrace(2), for three things. When a
// program is executed, it changes the program's vDSO, so that reading the clock through it adds the offset, or takes it
// away, so that reading the clock is a system call. A filter stops each system call that reads the wall clock, and the tracer
// answers in the kernel's place. And it stops each call that waits until a time on the wall clock, whose time the
// tracer shifts back. No other call stops, and signals are handed on as they are. The traced cannot get away: the
// confinement refuses ptrace and clone with CLONE_UNTRACED to them, and they die with the tracer.
//
// Not shifted are the times that the kernel itself writes: those of files, of received packets, and btime of
// /proc/stat. CLOCK_MONOTONIC, CLOCK_BOOTTIME and the clocks of CPU time are the host's. What can be noticed: TracerPid
// in /proc/PID/status, the bytes of the vDSO, and that CLONE_UNTRACED fails. A program that may be executed but not
// read sees the host's clock.
type clock struct {
	offset time.Duration
	vdso   *vdso            // nil: programs have to do without it
	jobs   chan func()      // run one after the other on the tracing thread
	held   map[int]replaced // by thread: calls in progress
}

// replaced is the argument of a call in progress that must be put back before the program goes on.
type replaced struct {
	argument int
	value    uint64
}

// newClock starts the tracing thread and tries out on a child of the calling thread, which must be locked, whether the
// host permits to trace.
func newClock(offset time.Duration, noVDSO bool) (*clock, error) {
	if !registersKnown {
		return nil, fmt.Errorf("the registers of %s are unknown", runtime.GOARCH)
	}
	c := &clock{offset: offset, jobs: make(chan func()), held: map[int]replaced{}}
	if !noVDSO {
		c.vdso, _ = newVDSO(offset) // an unknown one is hidden
	}
	go c.serve()
	probe, err := forkChild(runner.Command{Argv: []string{"/"}}, "/", "/", 0)
	if err != nil {
		return nil, err
	}
	err = c.do(func() error { return attachTracer(probe.pid) })
	if err == nil {
		err = c.do(func() error { return c.tryMemory(probe.pid) })
	}
	probe.abandon()
	_, rerr := reap(probe.pid)
	if err = errors.Join(err, rerr); err != nil {
		close(c.jobs)
		return nil, err
	}
	return c, nil
}

// tryMemory looks whether the memory of pid, a fork of this process, can be read.
func (c *clock) tryMemory(pid int) error {
	var got [1]int64
	if !readWords(pid, uint64(uintptr(unsafe.Pointer(&c.offset))), got[:]) || got[0] != int64(c.offset) {
		return errors.New("process_vm_readv is refused")
	}
	return nil
}

// serve keeps one thread for all ptrace calls: the kernel takes them from the tracer only, and that is a thread.
func (c *clock) serve() {
	runtime.LockOSThread()
	for job := range c.jobs {
		job()
	}
}

// do runs f on the tracing thread.
func (c *clock) do(f func() error) error {
	done := make(chan error)
	c.jobs <- func() { done <- f() }
	return <-done
}

// prepareClock starts what shifts the clock, while this thread still has the power to. Where the host refuses that, the
// commands will see its clock.
func (i *initProcess) prepareClock() error {
	if i.order.ClockOffset != 0 {
		i.clock, i.clockError = newClock(i.order.ClockOffset, i.order.NoVDSO)
	}
	return nil
}

// shiftClock makes the calling thread's children stop at the calls that c answers.
func (i *initProcess) shiftClock() error {
	if i.clock == nil {
		return nil
	}
	return program(clockProgram()).load()
}

// withClock adds to r what became of the order's offset.
func (i *initProcess) withClock(r readiness) readiness {
	switch {
	case i.clock != nil:
		r.Enforced = append(r.Enforced, "clock-offset")
	case i.clockError != nil:
		r.Missing = append(r.Missing, "clock-offset: "+i.clockError.Error())
	}
	return r
}

// execute runs c, as start and reap do, under the shifted clock.
func (c *clock) execute(command runner.Command, stdin int) (syscall.WaitStatus, error) {
	program, dir, err := find(command)
	if err != nil {
		return 0, err
	}
	p, err := forkChild(command, program, dir, stdin)
	if err != nil {
		return 0, err
	}
	if err := c.do(func() error { return attachTracer(p.pid) }); err != nil {
		p.abandon()
		ws, rerr := reap(p.pid)
		if rerr == nil && ws.Signaled() { // a limit came first
			return ws, nil
		}
		return 0, fmt.Errorf("trace command: %w", errors.Join(err, rerr))
	}
	var ws syscall.WaitStatus
	ended := make(chan error, 1)
	c.jobs <- func() {
		var err error
		ws, err = c.follow(p.pid)
		ended <- err
	}
	started := p.proceed()
	if err := <-ended; err != nil {
		return 0, err
	}
	return ws, describeExec(program, started)
}

// follow is reap for traced processes: it lets each that stops go on.
func (c *clock) follow(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		if ws.Stopped() {
			if err := c.resume(got, ws); err != nil && !errors.Is(err, unix.ESRCH) { // killed while it was stopped
				return 0, err
			}
			continue
		}
		delete(c.held, got)
		if got == pid {
			return ws, nil
		}
	}
}

// resume lets the thread tid go on from the stop that ws tells of; see ptrace(2) on the kinds of stops.
func (c *clock) resume(tid int, ws syscall.WaitStatus) error {
	signal := ws.StopSignal()
	event := int(uint32(ws) >> 16)
	request, deliver := unix.PTRACE_CONT, syscall.Signal(0)
	switch {
	case event == unix.PTRACE_EVENT_EXEC:
		delete(c.held, tid)
		c.changeProgram(tid) // fails only for a program that may not be read
	case event == unix.PTRACE_EVENT_SECCOMP:
		if c.call(tid) {
			request = unix.PTRACE_SYSCALL
		}
	case event == unix.PTRACE_EVENT_STOP && stops(signal):
		request = unix.PTRACE_LISTEN
	case event != 0: // a new process or thread, and its first stop
	case signal == syscallStop:
		c.restore(tid)
	default:
		deliver = signal
	}
	if err := ptrace(request, tid, 0, uintptr(deliver)); err != nil {
		return fmt.Errorf("let process %d go on: %w", tid, err)
	}
	return nil
}

// stops reports whether the signal stops a process group.
func stops(s syscall.Signal) bool {
	return s == unix.SIGSTOP || s == unix.SIGTSTP || s == unix.SIGTTIN || s == unix.SIGTTOU
}

// call answers the call at which tid has stopped, or changes it. What cannot be answered, such as a call with a wrong
// address, is left to the kernel. It reports whether the thread must stop again at the end of the call.
func (c *clock) call(tid int) (again bool) {
	var r registers
	if r.get(tid) != nil {
		return false
	}
	if c.shiftedThere(tid, &r) {
		return false
	}
	if answer, ok := c.answer(tid, &r); ok {
		r.skip(tid, answer)
		return false
	}
	argument, layout, ok := deadline(tid, &r)
	if !ok {
		return false
	}
	return c.shiftBack(tid, &r, argument, layout)
}

// shiftedThere reports whether a changed vDSO has made the call, and will add the offset to what the kernel answers.
func (c *clock) shiftedThere(tid int, r *registers) bool {
	switch {
	case r.number() == unix.SYS_CLOCK_GETTIME && int32(r.argument(0)) != unix.CLOCK_REALTIME_ALARM:
	case r.number() == unix.SYS_GETTIMEOFDAY:
	default:
		return false
	}
	return c.vdso.made(tid, r.instruction())
}

// answer executes the call that reads the clock, if it is one.
func (c *clock) answer(tid int, r *registers) (result int64, ok bool) {
	switch r.number() {
	case unix.SYS_CLOCK_GETTIME:
		var now unix.Timespec
		if unix.ClockGettime(int32(r.argument(0)), &now) != nil {
			return 0, false
		}
		t := shifted(now.Sec, now.Nsec, c.offset)
		return 0, writeWords(tid, r.argument(1), t.seconds, t.nanoseconds)
	case unix.SYS_GETTIMEOFDAY:
		return 0, c.timeOfDay(tid, r.argument(0), r.argument(1))
	case sysTime:
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil {
			return 0, false
		}
		t := shifted(now.Sec, now.Nsec, c.offset)
		return t.seconds, r.argument(0) == 0 || writeWords(tid, r.argument(0), t.seconds)
	}
	return 0, false
}

// timeOfDay writes the time to the timeval at tv, and the kernel's time zone to tz; either may be 0.
func (c *clock) timeOfDay(tid int, tv, tz uint64) bool {
	var zone int64 // struct timezone: two 32-bit integers
	var now unix.Timeval
	if err := getTimeOfDay(&now, &zone); err != nil {
		return false
	}
	t := shifted(now.Sec, now.Usec*1000, c.offset)
	if tv != 0 && !writeWords(tid, tv, t.seconds, t.nanoseconds/1000) {
		return false
	}
	return tz == 0 || writeWords(tid, tz, zone)
}

// instant is a time of a clock, as in struct timespec.
type instant struct{ seconds, nanoseconds int64 }

// shifted adds offset.
func shifted(seconds, nanoseconds int64, offset time.Duration) instant {
	t := instant{seconds + int64(offset/time.Second), nanoseconds + int64(offset%time.Second)}
	switch {
	case t.nanoseconds >= 1e9:
		t.seconds, t.nanoseconds = t.seconds+1, t.nanoseconds-1e9
	case t.nanoseconds < 0:
		t.seconds, t.nanoseconds = t.seconds-1, t.nanoseconds+1e9
	}
	return t
}
