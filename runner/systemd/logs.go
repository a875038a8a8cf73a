package systemd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// defaultLog is what a Limits.Log of zero stands for.
const defaultLog = 64 << 20

// logs carries what a unit says that its commands print to the Spec's writers. The inner layer keeps Limits.Log to the byte; here more
// than that is thrown away, should that layer be broken.
type logs struct {
	to    [2]io.Writer
	left  int64
	kept  [2]int64     // bytes of each stream that the writers have
	told  [2]int64     // of which the unit knows
	bytes atomic.Int64 // that came
}

// newLogs starts after what an earlier driver has kept.
func newLogs(spec runner.Spec, had runner.Kept) *logs {
	limit := spec.Limits.Log
	if limit == 0 {
		limit = defaultLog
	}
	l := &logs{to: [2]io.Writer{spec.Stdout, spec.Stderr}, left: limit - had.Stdout - had.Stderr, kept: [2]int64{had.Stdout, had.Stderr}}
	l.told = l.kept
	for n := range l.to {
		if l.to[n] == nil {
			l.to[n] = io.Discard
		}
	}
	return l
}

// same reports whether a and b are the same writer; writers that cannot be compared are not.
func same(a, b io.Writer) (equal bool) {
	defer func() { recover() }() // a type that is not comparable
	return a == b
}

// take writes what a frame brings. It returns what the unit is to be told: nil if not yet.
func (l *logs) take(body []byte) (kept []byte, err error) {
	if len(body) == 0 || body[0] > 1 {
		return nil, errors.New("read control socket: a log of no stream")
	}
	n, p := int(body[0]), body[1:]
	l.bytes.Add(int64(len(p)))
	l.kept[n] += int64(len(p))
	if allowed := p[:min(int64(len(p)), max(l.left, 0))]; len(allowed) > 0 {
		if _, err := l.to[n].Write(allowed); err != nil {
			l.to[n] = io.Discard
			return nil, fmt.Errorf("write log: %w", err)
		}
	}
	l.left -= int64(len(p))
	if l.kept[n]-l.told[n] < keptEvery {
		return nil, nil
	}
	l.told[n] = l.kept[n]
	return keptBody(n, l.kept[n]), nil
}

// talk is the driver's side of runner.Spec.Exchange. The zero value is that of a Spec without one.
type talk struct {
	exchange  func(*os.File) error
	near, far *os.File
	done      sync.WaitGroup
	err       error // of exchange; read after done
}

// open makes the sockets and returns the unit's; nil if there is no exchange.
func (t *talk) open(spec runner.Spec) (*os.File, error) {
	if spec.Exchange == nil {
		return nil, nil
	}
	var err error
	t.exchange = spec.Exchange
	t.near, t.far, err = socketPair()
	return t.far, err
}

// socketPair makes two connected stream sockets.
func socketPair() (a, b *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "exchange"), os.NewFile(uintptr(pair[1]), "exchange"), nil
}

// started is called when the unit has its socket.
func (t *talk) started() {
	if t.far != nil {
		t.far.Close()
	}
}

// begin starts the exchange, once. An error of it goes to failed as well.
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

// end returns when the exchange has. The unit is gone, so that reads end.
func (t *talk) end() {
	if t.near == nil {
		return
	}
	shut(t.near, unix.SHUT_RDWR)
	t.done.Wait()
	t.near.Close()
}

// abandon closes the sockets of a unit that did not get its own.
func (t *talk) abandon() {
	if t.near != nil {
		t.near.Close()
		t.far.Close()
	}
}
