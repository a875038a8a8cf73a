// Command arch-runnerd is the broker: the privileged half of running jobs. It takes signed jobs on a Unix socket, verifies them
// against its own trust root and policy, and has them run in confinement. See package runner/broker.
//
// It is meant to be started by systemd, as uid 0 without any capability: arch-runnerd.socket and arch-runnerd.service
// lie beside this file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"arch.network/runner"
	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

func main() {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, unitInner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args, checkpoint.Extension()); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process where it stands
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// unitInner is what confines within a unit of the systemd driver.
func unitInner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// run is the whole program: it executes one command line and returns the exit status.
func run(ctx context.Context, args []string, out, errout io.Writer) int {
	c := newCommand()
	c.SetArgs(args)
	c.SetOut(out)
	c.SetErr(errout)
	err := c.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(errout, "arch-runnerd: error: %v\n", err)
		if h, ok := errors.AsType[hinter](err); ok && h.Hint() != "" {
			fmt.Fprintf(errout, "arch-runnerd: hint: %s\n", h.Hint())
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
	exitTrust = 3
)

// statusError is an error whose exit status its maker knows.
type statusError struct {
	error
	status int
}

func (e *statusError) Unwrap() error { return e.error }

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
func usage(format string, args ...any) error {
	return &statusError{fmt.Errorf(format, args...), exitUsage}
}
