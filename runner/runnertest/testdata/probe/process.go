package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// idle never returns, whatever signal comes that can be caught.
func idle() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	wait()
}

func wait() {
	for {
		unix.Ppoll(nil, nil, nil)
	}
}

// raise kills the probe by the signal.
func raise(args []string) {
	unix.Kill(os.Getpid(), syscall.Signal(number(args[0])))
	wait()
}

// daemonize leaves a grandchild in a session of its own that ignores polite signals. The rest of the arguments tell
// what to do then; they also mark the grandchild's command line.
func daemonize(args []string) {
	c := exec.Command("/proc/self/exe", append([]string{"idle"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		fail(err)
	}
	fmt.Println("daemon started")
	if len(args) > 0 && args[0] == "stay" {
		idle()
	}
}

// children starts a daemon and waits for it in the foreground, for tests of what kills it.
func children(args []string) {
	daemonize(append([]string{"stay"}, args...))
}

// forkUntilRefused forks processes that stay until it may not any more, and exits with 3.
func forkUntilRefused(args []string) {
	most := number(args[0])
	for n := range most {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			fmt.Printf("refused after at least one: %v: %s\n", n > 0, word(errno))
			os.Exit(3)
		}
		if pid == 0 {
			for {
				syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
	}
	idle() // a limit that is kept by counting comes a moment later
}

// allocate touches that many bytes, then idles: a limit that is kept by counting comes a moment later.
func allocate(args []string) {
	size := number(args[0])
	const step = 1 << 20
	for done := 0; done < size; done += step {
		mem, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			fail(err)
		}
		for i := 0; i < step; i += 4096 {
			mem[i] = 1
		}
	}
	idle()
}

// spin uses that many milliseconds of CPU time in as many threads as there are CPUs, and prints how many it took.
func spin(args []string) {
	want := time.Duration(number(args[0])) * time.Millisecond
	start := time.Now()
	for range runtime.NumCPU() {
		go func() {
			for {
			}
		}()
	}
	for ownTime() < want {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(time.Since(start).Milliseconds())
}

func ownTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		fail(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// flood writes that many bytes to stdout.
func flood(args []string) {
	line := []byte(strings.Repeat("x", 4095) + "\n")
	for left := number(args[0]); left > 0; left -= len(line) {
		if _, err := os.Stdout.Write(line[:min(left, len(line))]); err != nil {
			fail(err)
		}
	}
}

// signalFirst sends every signal to process 1. The run must go on.
func signalFirst([]string) {
	for s := range 65 {
		unix.Kill(1, syscall.Signal(s))
	}
	os.Exit(7)
}

// attackFirst tries to get at the first process, which has the capabilities that the probe must not have.
func attackFirst([]string) {
	for _, name := range []string{"mem", "environ", "exe", "root/", "cwd/", "fd/3", "fd/4", "maps", "task/1/mem"} {
		f, err := os.Open("/proc/1/" + name)
		fmt.Printf("read %s: %v\n", name, refused(err))
		f.Close()
	}
	for _, name := range []string{"mem", "exe", "uid_map", "oom_score_adj", "fd/4"} {
		_, err := os.OpenFile("/proc/1/"+name, os.O_WRONLY, 0)
		fmt.Printf("write %s: %v\n", name, refused(err))
	}
	_, err := os.OpenFile("/proc/self/exe", os.O_WRONLY, 0)
	fmt.Println("write own program:", err != nil)
	var local, remote [8]byte
	liov := unix.Iovec{Base: &local[0], Len: 8}
	riov := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&remote[0])), Len: 8}
	_, err = unix.ProcessVMReadv(1, []unix.Iovec{liov}, []unix.RemoteIovec{riov}, 0)
	say("process_vm_readv", err)
}

// refused says "refused" for the errors that keep an intruder out; which of them comes first depends on the user.
func refused(err error) string {
	if w := word(err); w != "EACCES" && w != "EPERM" && w != "EROFS" {
		return w
	}
	return "refused"
}
