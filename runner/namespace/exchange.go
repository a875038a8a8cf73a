package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// talk is the driver's side of runner.Spec.Exchange: a pair of stream sockets, and the goroutine that has the near one.
// The zero value is that of a Spec without Exchange.
type talk struct {
	exchange  func(*os.File) error
	near, far *os.File
	number    int // of the far one in the first process
	done      sync.WaitGroup
	err       error // of exchange
}

// open makes the sockets and gives the far one to cmd as its next descriptor.
func (t *talk) open(spec runner.Spec, cmd *exec.Cmd) error {
	if spec.Exchange == nil {
		return nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &runner.SetupError{Act: "make exchange socket", Err: err}
	}
	if err := unix.SetNonblock(pair[0], true); err != nil { // so that the near end waits in Go's poller
		return &runner.SetupError{Act: "make exchange socket", Err: errors.Join(err, unix.Close(pair[0]), unix.Close(pair[1]))}
	}
	t.exchange = spec.Exchange
	t.near, t.far = os.NewFile(uintptr(pair[0]), "exchange"), os.NewFile(uintptr(pair[1]), "exchange")
	t.number = extraFile(cmd, t.far)
	return nil
}

// extraFile gives file to cmd and returns the number that it will have there.
func extraFile(cmd *exec.Cmd, file *os.File) int {
	cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	return controlFD + len(cmd.ExtraFiles) - 1
}

// started is called when the first process has the far end.
func (t *talk) started() {
	if t.far != nil {
		t.far.Close()
	}
}

// begin starts the exchange, the first time that it is called. An error of it goes to failed as well.
func (t *talk) begin(failed func(error)) {
	if t.exchange == nil {
		return
	}
	exchange := t.exchange
	t.exchange = nil
	t.done.Go(func() {
		if err := exchange(t.near); err != nil {
			t.err = fmt.Errorf("exchange with commands: %w", err)
			failed(t.err)
		}
	})
}

// shut ends the conversation: what was sent can still be read, and then the end comes. The commands cannot prevent
// that, not even by having sent their end through the socket itself.
func (t *talk) shut() {
	if t.near == nil {
		return
	}
	if conn, err := t.near.SyscallConn(); err == nil { // an error says that Exchange has closed it
		conn.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// end returns when the exchange has, with its error.
func (t *talk) end() error {
	if t.near == nil {
		return nil
	}
	t.shut()
	t.done.Wait()
	t.near.Close()
	return t.err
}

// abandon closes the sockets of a first process that did not start.
func (t *talk) abandon() {
	if t.near != nil {
		t.near.Close()
		t.far.Close()
	}
}
