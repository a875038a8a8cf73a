package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stageNamespaces is the argument that makes this program PID 1 of a guest in namespaces, until systemd takes its place.
const stageNamespaces = "stage-namespaces"

// bootLimit bounds how long systemd may take to start the command. It takes half a second on an idle machine.
const bootLimit = 2 * time.Minute

// runNamespaces runs a job in namespaces of this kernel.
func runNamespaces(ctx context.Context, j job) (s status, err error) {
	st, err := newState(j)
	if err != nil {
		return status{}, err
	}
	defer func() { err = errors.Join(err, st.remove()) }()
	hierarchies, err := readHierarchies()
	if err != nil {
		return status{}, err
	}
	groups, err := makeGroups(hierarchies, filepath.Base(st.dir), st.groups())
	if err != nil {
		return status{}, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(st.io(), socketName), Net: "unix"})
	if err != nil {
		return status{}, err
	}
	defer listener.Close()
	// The kernel sends the death signal when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := startGuest(st, j, groups)
	if err != nil {
		return status{}, err
	}
	return g.serve(ctx, listener)
}

// guest is one in namespaces, seen from the host.
type guest struct {
	init    *exec.Cmd
	console *os.File // of the launcher's end, with job.Debug
	gone    chan error
}

func startGuest(st *state, j job, groups []string) (*guest, error) {
	gate, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	defer release.Close()
	cmd := exec.Command("/proc/self/exe", stageNamespaces, st.dir)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{gate}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	g := &guest{init: cmd, gone: make(chan error, 1)}
	if j.Debug {
		slave, err := g.openConsole()
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, slave)
	}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		return nil, &unableError{"this root may not make namespaces: in a container, start that with --privileged"}
	} else if err != nil {
		return nil, err
	}
	go func() { g.gone <- cmd.Wait() }()
	if err := enter(groups, cmd.Process.Pid); err != nil {
		g.kill()
		return nil, err
	}
	_, err = release.Write([]byte{1})
	return g, err
}

// openConsole makes a terminal for the guest's /dev/console, and copies what is written to it to the standard error.
func (g *guest) openConsole() (slave *os.File, err error) {
	g.console, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(int(g.console.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetUint32(int(g.console.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		go io.Copy(os.Stderr, g.console)
	}
	return slave, err
}

// kill ends PID 1, and so everything in its process namespace, and waits for it.
func (g *guest) kill() {
	g.init.Process.Kill()
	<-g.gone
	g.gone <- nil
}

// serve hands the standard descriptors to the unit, and waits for the command's status and for the guest's end.
func (g *guest) serve(ctx context.Context, listener *net.UnixListener) (status, error) {
	listener.SetDeadline(time.Now().Add(bootLimit))
	got := make(chan answer, 1)
	go func() { got <- ask(listener) }()
	select {
	case <-ctx.Done():
		g.kill()
		return status{}, errors.New("interrupted")
	case err := <-g.gone:
		listener.Close()
		if a := <-got; a.err == nil { // it ended in the ordinary way, faster than its answer was read
			return a.status, nil
		}
		return status{}, fmt.Errorf("the guest ended before its command: %v; -d shows why", err)
	case a := <-got:
		if a.err != nil {
			g.kill()
			return status{}, fmt.Errorf("the guest did not start its command: %w; -d shows why", a.err)
		}
		g.shutDown(ctx)
		return a.status, nil
	}
}

// shutDown waits until systemd has ended. What a command leaves behind that cannot be stopped is killed.
func (g *guest) shutDown(ctx context.Context) {
	select {
	case <-g.gone:
		return
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
	g.kill()
}

// answer is what a unit says in the end.
type answer struct {
	status status
	err    error
}

// ask waits for the unit, gives it the standard descriptors, and waits for its answer, however long that takes.
func ask(listener *net.UnixListener) answer {
	conn, err := listener.AcceptUnix()
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	rights := unix.UnixRights(0, 1, 2)
	if _, _, err := conn.WriteMsgUnix([]byte{1}, rights, nil); err != nil {
		return answer{err: err}
	}
	var a answer
	a.err = json.NewDecoder(conn).Decode(&a.status)
	return a
}
