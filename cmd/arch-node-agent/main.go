// Command arch-node-agent is the agent of a node: it admits, schedules, records and answers, and has jobs run by the broker or, where
// there is none, in processes of their own. It is flags and wiring: what it does is in the packages below agent.
//
// It is meant to be started by systemd, as an unprivileged user with nothing but its state directory: package agent/unit has the units.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

func main() {
	if handled, code := inside(os.Args); handled {
		os.Exit(code)
	}
	tuneMemory(os.Getenv)
	os.Exit(run(context.Background(), connect, os.Args[1:], os.Stdout, os.Stderr))
}

// tuneMemory has garbage collected when the heap is four times what lives, and not twice: what lives in an agent is some megabytes, and short jobs make as
// much garbage in milliseconds. Above a soft limit, far below what its unit may use, it is collected as often as that takes. The Go runtime's
// own settings, GOGC and GOMEMLIMIT in the environment, count before these.
func tuneMemory(env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(300)
	}
	if env("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(256 << 20)
	}
}

// inside is the program where it is started again, as a part of a job's confinement.
func inside(args []string) (handled bool, code int) {
	if handled, code := namespace.Main(args); handled {
		return true, code
	}
	if handled, code := systemd.Main(args, unitInner); handled {
		return true, code
	}
	return wasm.Main(args)
}

// unitInner is what confines within a unit of the systemd driver.
func unitInner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// run is the whole program: it executes one command line and returns the exit status.
func run(ctx context.Context, w wiring, args []string, out, errout io.Writer) int {
	c := newCommand(w)
	c.SetArgs(args)
	c.SetOut(out)
	c.SetErr(errout)
	err := c.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(errout, "arch-node-agent: error: %v\n", err)
		if h, ok := errors.AsType[hinter](err); ok && h.Hint() != "" {
			fmt.Fprintf(errout, "arch-node-agent: hint: %s\n", h.Hint())
		}
	}
	return exitStatus(err)
}

type hinter interface {
	error
	Hint() string
}

// The exit statuses.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	exitTrust = 3 // the trust root or the policy cannot be relied on
)

// statusError is an error whose exit status its maker knows.
type statusError struct {
	error
	status int
	hint   string
}

func (e *statusError) Unwrap() error { return e.error }
func (e *statusError) Hint() string  { return e.hint }

// exitStatus is the only place that maps errors to statuses.
func exitStatus(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return exitError
}

// usage says that the command line is wrong.
func usage(hint, format string, args ...any) error {
	return &statusError{fmt.Errorf(format, args...), exitUsage, hint}
}
