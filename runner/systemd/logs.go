package systemd

import (
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

// logs carries stdout and stderr of a unit to the Spec's writers. The inner layer keeps Limits.Log to the byte; here more
// than that is thrown away, should that layer be broken.
type logs struct {
	pumps []*pump
	done  sync.WaitGroup
	fail  func(error) // called when a writer fails
	left  atomic.Int64
	bytes atomic.Int64 // that came
}

// pump is one pipe and where it leads.
type pump struct {
	from *os.File
	near *os.File // our copy of the end that the unit writes to
	to   io.Writer
}

// open makes the pipes and returns the unit's ends: one if both writers are the same, which keeps the order of what is written.
func (l *logs) open(spec runner.Spec, fail func(error)) ([]*os.File, error) {
	limit := spec.Limits.Log
	if limit == 0 {
		limit = defaultLog
	}
	l.left.Store(limit)
	l.fail = fail
	writers := []io.Writer{spec.Stdout, spec.Stderr}
	if same(spec.Stdout, spec.Stderr) {
		writers = writers[:1]
	}
	var files []*os.File
	for _, to := range writers {
		if to == nil {
			to = io.Discard
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		l.pumps = append(l.pumps, &pump{r, w, to})
		files = append(files, w)
	}
	return files, nil
}

// same reports whether a and b are the same writer; writers that cannot be compared are not.
func same(a, b io.Writer) (equal bool) {
	defer func() { recover() }() // a type that is not comparable
	return a == b
}

// start copies until the other ends are closed.
func (l *logs) start() {
	for _, p := range l.pumps {
		p.near.Close()
		l.done.Go(func() { l.copy(p) })
	}
}

func (l *logs) copy(p *pump) {
	defer p.from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := p.from.Read(buf)
		l.bytes.Add(int64(n))
		if left := l.left.Add(int64(-n)); left < 0 {
			n = max(0, n+int(max(left, int64(-n))))
		}
		if n > 0 {
			if _, werr := p.to.Write(buf[:n]); werr != nil {
				l.fail(werr)
				p.to = io.Discard
			}
		}
		if err != nil {
			return
		}
	}
}

// wait returns when everything written has been copied.
func (l *logs) wait() { l.done.Wait() }

// abandon closes the pipes of a unit that did not get them.
func (l *logs) abandon() {
	for _, p := range l.pumps {
		p.from.Close()
		p.near.Close()
	}
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
