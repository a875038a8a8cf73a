package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lines are the serial lines of a UML guest: what the unit writes to them comes out of these descriptors of the launcher.
const (
	lineStdout = iota // /dev/ttyS0
	lineStderr        // /dev/ttyS1
	lineStatus        // /dev/ttyS2
	lineCount
)

// umlMemory is what a guest has, in MiB. It is a sparse file in memory: only what is touched is used.
const umlMemory = 2048

// runUML runs a job in a User-Mode Linux guest.
func runUML(ctx context.Context, j job) (s status, err error) {
	k, err := findKernel(ctx)
	if err != nil {
		return status{}, err
	}
	j.Modules = k.modules
	st, err := newState(j)
	if err != nil {
		return status{}, err
	}
	defer func() { err = errors.Join(err, st.remove()) }()
	runtime.LockOSThread() // the death signal is sent when this thread ends
	defer runtime.UnlockOSThread()
	for boots := 1; ; boots++ {
		m := &machine{started: make(chan struct{})}
		if err := m.start(k, st, j); err != nil {
			return status{}, err
		}
		s, err := m.wait(ctx)
		if _, dead := errors.AsType[*bootError](err); !dead || boots == bootTries {
			return s, err
		}
	}
}

// bootTries is how often a guest is started that does not get as far as its command: UML's kernel panics at times on a busy host.
const bootTries = 3

// bootError says that the command was never started.
type bootError struct {
	reason  string
	console []byte
}

func (e *bootError) Error() string {
	return fmt.Sprintf("the guest did not start its command: %s; its console said:\n%s", e.reason, e.console)
}

// machine is a running UML guest.
type machine struct {
	cmd     *exec.Cmd
	console tail
	copies  sync.WaitGroup
	status  bytes.Buffer
	started chan struct{} // closed when the unit has written to the status line
}

// Write takes what comes over the status line.
func (m *machine) Write(p []byte) (int, error) {
	if m.status.Len() == 0 && len(p) > 0 {
		close(m.started)
	}
	return m.status.Write(p)
}

// stageKeeper is the argument that makes this program the first process of a process namespace, with UML as its child: a kernel that
// panics aborts, which the first process of a namespace cannot.
const stageKeeper = "stage-keeper"

// keep runs a program and ends as it does.
func keep(args []string) int {
	runtime.LockOSThread()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for i := range lineCount {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(3+i), "line"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s := statusOf(cmd, cmd.Run())
	return s.Exit + 128*min(int(s.Signal), 1)
}

func (m *machine) start(k kernel, st *state, j job) error {
	init := filepath.Join(st.io(), "run")
	m.cmd = exec.Command("/proc/self/exe", stageKeeper, k.path, fmt.Sprintf("mem=%dM", umlMemory), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
		"con=null", "con0=null,fd:1", "ssl=null", "init="+init)
	m.console.limit = 16 << 10
	m.cmd.Stdout = &m.console
	if j.Debug {
		m.cmd.Stdout = io.MultiWriter(&m.console, os.Stderr)
	}
	// A process namespace ends all of its processes together: UML runs each guest process in one of the host.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET}
	m.cmd.Env = []string{"TMPDIR=" + memoryDir(), "PATH=/usr/bin:/bin", "HOME=" + st.dir}
	to := [lineCount]io.Writer{lineStdout: os.Stdout, lineStderr: os.Stderr, lineStatus: m}
	for i, w := range to {
		out, in, err := os.Pipe()
		if err != nil {
			return err
		}
		defer in.Close()
		m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, in)
		m.cmd.Args = append(m.cmd.Args, fmt.Sprintf("ssl%d=null,fd:%d", i, 3+i))
		m.copies.Go(func() {
			io.Copy(w, out)
			out.Close()
		})
	}
	m.cmd.Args = append(m.cmd.Args, "--", stageUML, st.dir)
	return m.cmd.Start()
}

// memoryDir is where UML keeps the guest's memory: where programs may be executed, and where it has room. In containers /dev/shm is
// often a small one.
func memoryDir() string {
	for _, dir := range []string{"/dev/shm", os.TempDir()} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Flags&unix.ST_NOEXEC == 0 && unix.Access(dir, unix.W_OK) == nil &&
			int64(fs.Bavail)*fs.Bsize >= umlMemory<<20 {
			return dir
		}
	}
	return "/var/tmp"
}

// wait returns the command's status when the guest is off.
func (m *machine) wait(ctx context.Context) (status, error) {
	done := make(chan error, 1)
	go func() {
		err := m.cmd.Wait()
		m.copies.Wait()
		done <- err
	}()
	boot := time.NewTimer(bootLimit)
	defer boot.Stop()
	stop := func() {
		m.cmd.Process.Kill()
		<-done
	}
	select {
	case err := <-done:
		return m.ended(err)
	case <-ctx.Done():
		stop()
		return status{}, errors.New("interrupted")
	case <-boot.C:
		stop()
		return status{}, &bootError{"it took more than " + bootLimit.String(), m.console.bytes}
	case <-m.started:
	}
	select {
	case err := <-done:
		return m.ended(err)
	case <-ctx.Done():
		stop()
		return status{}, errors.New("interrupted")
	}
}

// ended reads what the status line has brought: a word at the start, and the status in the end.
func (m *machine) ended(err error) (status, error) {
	lines := json.NewDecoder(&m.status)
	var word string
	var s status
	if lines.Decode(&word) != nil {
		return status{}, &bootError{fmt.Sprint(err), m.console.bytes}
	}
	if lines.Decode(&s) != nil {
		return status{}, fmt.Errorf("the guest ended before its command: %v; its console said:\n%s", err, m.console.bytes)
	}
	return s, nil
}

// tail keeps the last limit bytes that are written to it.
type tail struct {
	bytes []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.bytes = append(t.bytes, p...)
	if over := len(t.bytes) - t.limit; over > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[over:]...)
	}
	return len(p), nil
}
