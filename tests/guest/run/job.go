package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"
)

// The kinds of guests.
const (
	modeNamespaces = "ns"
	modeUML        = "uml"
)

// job is what a guest is started for. It travels to the guest's PID 1 and to the unit as a file.
type job struct {
	Mode    string
	Root    string // of the overlay's lower layer
	Binds   []bind
	Shows   []string // directories to show throw-away copies of
	Modules []string // kernel modules to load first, in order, for uml
	Debug   bool     // systemd logs to the console, and that is shown

	Argv []string
	Dir  string
	Env  []string
}

// bind is a directory of the host that keeps what is written to it.
type bind struct{ Dir, Inside string }

const jobFile = "job.json"

func (j job) write(dir string) error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, jobFile), data, 0o600)
}

func readJob(dir string) (job, error) {
	data, err := os.ReadFile(filepath.Join(dir, jobFile))
	if err != nil {
		return job{}, err
	}
	var j job
	return j, json.Unmarshal(data, &j)
}

// status is how a command ended.
type status struct {
	Exit   int            `json:"exit"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

// statusOf reads it from what exec.Cmd.Wait has left. A command that could not be started counts as 127, as in a shell.
func statusOf(cmd *exec.Cmd, err error) status {
	if cmd.ProcessState == nil {
		fmt.Fprintf(cmd.Stderr, "run: %v\n", err)
		return status{Exit: 127}
	}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return status{Signal: w.Signal()}
	}
	return status{Exit: cmd.ProcessState.ExitCode()}
}

// end passes the status on as this process's own: it returns an exit status, or dies of the signal.
func (s status) end() int {
	if s.Signal == 0 {
		return s.Exit
	}
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // the core, if any, is the guest's
	var byDefault [64]byte                                    // struct sigaction of the kernel, at least as long, with SIG_DFL
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s.Signal), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	syscall.Kill(syscall.Getpid(), s.Signal)
	return 128 + int(s.Signal) // a signal that does not end a process
}
