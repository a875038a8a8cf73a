package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"arch.network/builder"
	"arch.network/builder/source"
)

// The exit statuses. exitHelp documents them; exitStatus is the only place that maps errors to them.
const (
	exitOK              = 0
	exitError           = 1
	exitUsage           = 2
	exitDenied          = 3
	exitVerification    = 4
	exitNotReproducible = 5
	exitBuildFailed     = 6
	exitInputsMissing   = 7
	exitInterrupted     = 130
)

const exitHelp = `The exit status of every arch command:

    0  it worked, and what was to be checked was checked
    1  an error
    2  the command line is wrong
    3  denied by policy
    4  verification failed
    5  not reproducible, or the two things compared differ
    6  a step of a build failed
    7  inputs are missing
  130  interrupted

Any other status is a failure too.
`

// statusError is an error whose exit status its command knows.
type statusError struct {
	error
	status int
}

func (e *statusError) Unwrap() error { return e.error }

// withStatus gives err an exit status.
func withStatus(status int, err error) error { return &statusError{err, status} }

// usage says that the command line is wrong.
func usage(format string, args ...any) error {
	return withStatus(exitUsage, fmt.Errorf(format, args...))
}

// errSilent is returned when the command has already shown why it failed.
var errSilent = errors.New("the result says why")

// exitStatus maps an error to the exit status.
func exitStatus(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	if _, ok := errors.AsType[*builder.NotReproducibleError](err); ok {
		return exitNotReproducible
	}
	if _, ok := errors.AsType[*builder.BuildError](err); ok {
		return exitBuildFailed
	}
	if _, ok := errors.AsType[*source.MissingError](err); ok {
		return exitInputsMissing
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if isUsage(err) {
		return exitUsage
	}
	return exitError
}

// isUsage recognises the errors cobra and pflag make of a wrong command line; they have no types.
func isUsage(err error) bool {
	for _, prefix := range []string{
		"unknown command", "unknown flag", "unknown shorthand flag", "flag needs an argument", "invalid argument",
		"accepts ", "requires at least", "requires at most", "required flag(s)", "if any flags in the group",
		"at least one of the flags", "bad flag syntax",
	} {
		if strings.HasPrefix(err.Error(), prefix) {
			return true
		}
	}
	return false
}

// exit shows err to the person or program that called, and returns the exit status.
func (a *app) exit(ctx context.Context, err error) int {
	status := exitStatus(ctx, err)
	if err == nil || errors.Is(err, errSilent) {
		return status
	}
	text, hint := err.Error(), hintOf(err)
	if status == exitInterrupted {
		text = "interrupted; nothing half-written is left"
	}
	if hint == "" && status == exitUsage {
		hint = "see arch help, or add --help to the command"
	}
	if a.json {
		line, _ := json.Marshal(map[string]any{"error": map[string]any{"message": text, "hint": hint, "exitStatus": status}})
		fmt.Fprintf(a.err, "%s\n", line)
		return status
	}
	fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, "31", "arch: error:"), printable(text))
	if e, ok := errors.AsType[*builder.BuildError](err); ok && e.Tail != "" {
		fmt.Fprintf(a.err, "  | %s\n", strings.ReplaceAll(strings.TrimRight(printable(e.Tail), "\n"), "\n", "\n  | "))
	}
	if hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, "33", "arch: hint:"), printable(hint))
	}
	return status
}
