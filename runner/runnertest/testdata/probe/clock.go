package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wallClocks follow the time of day.
var wallClocks = []struct {
	name string
	id   uintptr
}{
	{"CLOCK_REALTIME", unix.CLOCK_REALTIME},
	{"CLOCK_REALTIME_COARSE", unix.CLOCK_REALTIME_COARSE},
	{"CLOCK_TAI", unix.CLOCK_TAI},
	{"CLOCK_REALTIME with a high bit", 1<<32 | unix.CLOCK_REALTIME},
}

// tellTime prints the time in Unix seconds, by every way to read it. What its arguments name are ways that go on in
// another program, a child, or a thread.
func tellTime(args []string) {
	where := "here"
	if len(args) > 0 {
		where = args[0]
	}
	tell := func(name string, seconds int64) { fmt.Printf("%s: %s: %d\n", where, name, seconds) }
	tell("time.Now", time.Now().Unix())
	for _, c := range wallClocks {
		var ts unix.Timespec
		_, _, errno := syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, c.id, uintptr(unsafe.Pointer(&ts)), 0)
		if errno != 0 {
			fail(errno)
		}
		tell(c.name, ts.Sec)
	}
	var tv unix.Timeval
	if err := unix.Gettimeofday(&tv); err != nil {
		fail(err)
	}
	tell("gettimeofday", tv.Sec)
	if where != "here" {
		return
	}
	for _, how := range []string{"child", "vfork", "exec in a thread"} {
		elsewhere(how)
	}
}

// elsewhere tells the time again in another process.
func elsewhere(how string) {
	c := exec.Command("/proc/self/exe", "time", how)
	switch how {
	case "vfork":
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	case "exec in a thread":
		c.Args = []string{"probe", "thread", how}
	}
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		fail(err)
	}
}

// execInThread executes the probe from a thread that is not the first, while others run: its id changes by that.
func execInThread(args []string) {
	for range 3 {
		go wait()
	}
	for range 2 { // one of them at most is on the first thread
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() != os.Getpid() {
				fail(unix.Exec("/proc/self/exe", append([]string{"probe", "time"}, args...), os.Environ()))
			}
			wait()
		}()
	}
	wait()
}

// tellSteady prints in nanoseconds the clocks that do not follow the time of day.
func tellSteady([]string) {
	for _, c := range []struct {
		name string
		id   int32
	}{{"CLOCK_MONOTONIC", unix.CLOCK_MONOTONIC}, {"CLOCK_MONOTONIC_RAW", unix.CLOCK_MONOTONIC_RAW}, {"CLOCK_BOOTTIME", unix.CLOCK_BOOTTIME}} {
		var ts unix.Timespec
		if err := unix.ClockGettime(c.id, &ts); err != nil {
			fail(err)
		}
		fmt.Printf("%s: %d\n", c.name, ts.Nano())
	}
}

// badClocks makes calls that the kernel refuses.
func badClocks([]string) {
	runtime.LockOSThread()
	read := func(name string, nr, a, b uintptr) {
		_, _, errno := syscall.RawSyscall(nr, a, b, 0)
		say(name, errno)
	}
	var ts unix.Timespec
	read("no such clock", unix.SYS_CLOCK_GETTIME, 99, uintptr(unsafe.Pointer(&ts)))
	read("clock_gettime to nowhere", unix.SYS_CLOCK_GETTIME, 0, 1)
	read("gettimeofday to nowhere", unix.SYS_GETTIMEOFDAY, 1, 0)
	read("gettimeofday of nothing", unix.SYS_GETTIMEOFDAY, 0, 0)
	_, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, 0x00800000|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	say("clone out of sight", errno)
}

// waitUntil waits until a moment from now on the wall clock, by every call that can.
func waitUntil([]string) {
	runtime.LockOSThread()
	const ahead = 20 * time.Millisecond
	until := func() unix.Timespec { return unix.NsecToTimespec(time.Now().Add(ahead).UnixNano()) }
	var word uint32
	ts := until()
	kept := ts
	_, _, errno := syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), 9|128|256, 0, uintptr(unsafe.Pointer(&ts)), 0, ^uintptr(0))
	say("futex", errno)
	fmt.Println("time is unchanged:", ts == kept)
	ts = until()
	_, _, errno = syscall.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_REALTIME, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	say("clock_nanosleep", errno)
	past := unix.Timespec{Sec: 1}
	_, _, errno = syscall.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_REALTIME, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&past)), 0, 0, 0)
	say("clock_nanosleep until 1970", errno)
	for _, clock := range []int{unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC} {
		waitByDescriptor(clock, ahead)
	}
	waitByTimer(until())
}

// waitByDescriptor waits for a timerfd.
func waitByDescriptor(clock int, ahead time.Duration) {
	fd, err := unix.TimerfdCreate(clock, unix.TFD_CLOEXEC)
	if err != nil {
		fail(err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(int32(clock), &now); err != nil {
		fail(err)
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(now.Nano() + ahead.Nanoseconds())}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		fail(err)
	}
	var count [8]byte
	n, err := unix.Read(fd, count[:])
	fmt.Println("timerfd:", n, count[0], word(err))
}

// waitByTimer waits for the signal of a POSIX timer.
func waitByTimer(until unix.Timespec) {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGUSR1 - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		fail(err)
	}
	event := struct { // struct sigevent
		value          uint64
		signal, notify int32
		thread         int32
		pad            [11]int32
	}{signal: int32(unix.SIGUSR1), notify: 4, thread: int32(unix.Gettid())} // SIGEV_THREAD_ID
	var first, id int32
	for _, create := range []struct {
		clock uintptr
		id    *int32
	}{{unix.CLOCK_MONOTONIC, &first}, {unix.CLOCK_REALTIME, &id}} {
		_, _, errno := syscall.Syscall(unix.SYS_TIMER_CREATE, create.clock, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(create.id)))
		if errno != 0 {
			fail(errno)
		}
	}
	spec := unix.ItimerSpec{Value: until}
	_, _, errno := syscall.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(id), unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		fail(errno)
	}
	got, _, errno := syscall.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, 0, 8, 0, 0)
	fmt.Println("timer:", int(got) == int(unix.SIGUSR1), word(errno))
}

// load starts many processes and threads at once, each of which reads the clock, and says how many came back well.
func load(args []string) {
	const rounds = 20
	good := 0
	for range rounds {
		var running []*exec.Cmd
		for range 4 {
			c := exec.Command("/proc/self/exe", "threads")
			if err := c.Start(); err != nil {
				fail(err)
			}
			running = append(running, c)
		}
		for _, c := range running {
			if c.Wait() == nil {
				good++
			}
		}
	}
	fmt.Println("good:", good, "of", 4*rounds)
}

// threads starts threads that end again, each after it has read the clock.
func threads([]string) {
	done := make(chan int64)
	for range 20 {
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends
			done <- time.Now().Unix()
		}()
	}
	for range 20 {
		<-done
	}
}

// stopAndGo stops a child and lets it go on, and says what its parent sees of that.
func stopAndGo([]string) {
	c := exec.Command("/proc/self/exe", "idle")
	if err := c.Start(); err != nil {
		fail(err)
	}
	see := func(options int) {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(c.Process.Pid, &ws, options, nil); err != nil {
			fail(err)
		}
		fmt.Println("stopped:", ws.Stopped(), "continued:", ws.Continued(), "killed:", ws.Signaled())
	}
	for range 3 {
		unix.Kill(c.Process.Pid, unix.SIGSTOP)
		see(syscall.WUNTRACED)
		unix.Kill(c.Process.Pid, unix.SIGCONT)
		see(syscall.WCONTINUED)
	}
	unix.Kill(c.Process.Pid, unix.SIGSTOP)
	see(syscall.WUNTRACED)
	unix.Kill(c.Process.Pid, unix.SIGKILL)
	see(0)
}
