package namespace

import (
	"io"
	"os"
	"os/exec"
	"sync"

	"arch.network/runner"
)

// logs carries stdout and stderr of the commands to the Spec's writers and counts their bytes together.
type logs struct {
	pumps    []*pump
	done     sync.WaitGroup
	overflow func(error) // called once at most with nil when the limit is passed, or with a writer's error

	mu    sync.Mutex // guards left and over
	limit int64
	left  int64
	over  bool
}

// pump is one pipe and where it leads.
type pump struct {
	from *os.File
	near *os.File // our copy of the end that the commands write to
	to   io.Writer
}

// open makes the pipes and gives them to cmd. If both writers are the same, one pipe keeps the order of what is written.
func (l *logs) open(spec runner.Spec, cmd *exec.Cmd, overflow func(error)) error {
	l.limit, l.left, l.overflow = spec.Limits.Log, spec.Limits.Log, overflow
	out, err := l.pipe(spec.Stdout)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if same(spec.Stdout, spec.Stderr) {
		return nil
	}
	if cmd.Stderr, err = l.pipe(spec.Stderr); err != nil {
		l.abandon()
		return err
	}
	return nil
}

func (l *logs) pipe(to io.Writer) (*os.File, error) {
	if to == nil {
		to = io.Discard
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.pumps = append(l.pumps, &pump{from: r, near: w, to: to})
	return w, nil
}

// same reports whether a and b are the same writer; writers that cannot be compared are not.
func same(a, b io.Writer) (equal bool) {
	defer func() { recover() }() // a type that is not comparable
	return a == b
}

// start copies until every process that holds the other ends is gone.
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
		if n = l.allow(n); n > 0 {
			if _, werr := p.to.Write(buf[:n]); werr != nil {
				l.overflow(werr)
				p.to = io.Discard
			}
		}
		if err != nil {
			return
		}
	}
}

// allow returns how many of n bytes are within the limit.
func (l *logs) allow(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(n) <= l.left {
		l.left -= int64(n)
		return n
	}
	n, l.left = int(l.left), 0
	if !l.over {
		l.over = true
		l.overflow(nil)
	}
	return n
}

// written returns how many bytes have come so far.
func (l *logs) written() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit - l.left
}

// wait returns when everything written has been copied.
func (l *logs) wait() { l.done.Wait() }

// abandon closes the pipes of a command that did not start.
func (l *logs) abandon() {
	for _, p := range l.pumps {
		p.from.Close()
		p.near.Close()
	}
}
