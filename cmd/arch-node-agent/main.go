// Command arch-node-agent is the agent of a node: it admits, schedules, records and answers, and runs no job itself. It is flags and
// wiring: what it does is in the packages below agent.
//
// It is meant to be started by systemd, as an unprivileged user with nothing but its state directory: package agent/unit has the units.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(context.Background(), wire, os.Args[1:], os.Stdout, os.Stderr))
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
