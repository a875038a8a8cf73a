package derivation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	maxOutput = 64 << 20 // bytes that a program may print
	maxTail   = 8 << 10  // bytes of its messages that are kept
)

// ExitError says that a program of a backend failed.
type ExitError struct {
	Act    string // what it was to do
	Status int    // exit status; -1: it was killed
	Output string // the end of what it wrote to its standard error; untrusted
}

func (e *ExitError) Error() string { return fmt.Sprintf("%s: exit status %d", e.Act, e.Status) }

// Run runs a program that does act, such as "evaluate X", and returns what it printed, of at most 64 MiB, unless c.Stdout is set. c.Stderr must not be.
// When ctx ends, the program is told to end, too: it ends its builders and unlocks what it holds. start starts it; nil: c.Start. That the program fails
// is an *ExitError.
func Run(ctx context.Context, act string, c *exec.Cmd, start func() error) ([]byte, error) {
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	out, messages := limited{left: maxOutput}, Tail{}
	if c.Stdout == nil {
		c.Stdout = &out
	}
	c.Stderr = &messages
	if start == nil {
		start = c.Start
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	err := c.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", act, context.Cause(ctx))
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, &ExitError{Act: act, Status: exit.ExitCode(), Output: messages.String()}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	return out.Bytes(), nil
}

// errTooMuch says that a limited is full.
var errTooMuch = errors.New("more than is kept")

// limited keeps what is written to it, up to a limit.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooMuch
	}
	return l.Buffer.Write(p)
}

// Tail is an io.Writer that keeps the last 8 KiB of what is written to it.
type Tail struct{ kept []byte }

func (t *Tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*maxTail {
		t.kept = append([]byte(nil), t.kept[len(t.kept)-maxTail:]...)
	}
	return len(p), nil
}

// String returns what is kept, as valid UTF-8.
func (t *Tail) String() string {
	return strings.ToValidUTF8(string(t.kept[max(0, len(t.kept)-maxTail):]), "\uFFFD")
}
