package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"arch.network/attest"
	"arch.network/attest/ledger"
	"arch.network/attest/quorum"
	"arch.network/builder"
	"arch.network/builder/derivation"
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
	exitExecution       = 6
	exitInputsMissing   = 7
	exitUnreachable     = 8
	exitTimeout         = 9
	exitInterrupted     = 130
)

const exitHelp = `The exit status of every arch command:

    0  it worked, and what was to be checked was checked
    1  an error
    2  the command line is wrong; nothing was done
    3  denied by policy, or not enough of those who must agree did
    4  verification failed
    5  not reproducible, or the two things compared differ
    6  a step of a build, or a job, failed
    7  inputs are missing
    8  the node cannot be reached, or what answers is none
    9  it took longer than --timeout
  130  interrupted

Any other status is a failure too. arch doctor ends with 1 if a guarantee that jobs need does not hold here. Every failure says why on stderr, with --json as
{"error":{"message":…,"hint":…,"exitStatus":…}} in one line.
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

// exitStatus maps an error to the exit status.
func exitStatus(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	if interrupted(ctx) { // whatever it broke
		return exitInterrupted
	}
	if _, ok := errors.AsType[*builder.NotReproducibleError](err); ok {
		return exitNotReproducible
	}
	if _, ok := errors.AsType[*builder.BuildError](err); ok {
		return exitExecution
	}
	if _, ok := asNotReproducible(err); ok {
		return exitNotReproducible
	}
	if _, ok := errors.AsType[*derivation.BuildError](err); ok {
		return exitExecution
	}
	if status, ok := storeVerification(err); ok {
		return status
	}
	if _, ok := errors.AsType[*JobError](err); ok {
		return exitExecution
	}
	if _, ok := errors.AsType[*builder.ClaimError](err); ok {
		return exitVerification
	}
	if _, ok := errors.AsType[*source.MissingError](err); ok {
		return exitInputsMissing
	}
	if _, ok := errors.AsType[*quorum.UpdateError](err); ok {
		return exitDenied
	}
	if _, ok := errors.AsType[*ledger.QuorumError](err); ok {
		return exitDenied
	}
	if e, ok := errors.AsType[*attest.VerifyError](err); ok {
		return verifyStatus(e.Class)
	}
	if status := remoteStatus(err); status != 0 {
		return status
	}
	return exitError
}

// verifyStatus maps the class of a failed report to the exit status.
func verifyStatus(c attest.Class) int {
	switch c {
	case attest.ClassPolicy:
		return exitDenied
	case attest.ClassDiffers:
		return exitNotReproducible
	}
	return exitVerification
}

// errorResult is how --json shows an error.
type errorResult struct {
	Message    string `json:"message"`
	Hint       string `json:"hint,omitempty"`
	ExitStatus int    `json:"exitStatus"`
	Log        string `json:"log,omitempty"` // the last lines of a failed step
}

// exit shows err to the person or program that called, and returns the exit status.
func (a *app) exit(ctx context.Context, err error) int {
	status := exitStatus(ctx, err)
	if err == nil {
		return status
	}
	e := errorResult{Message: err.Error(), Hint: hintOf(err), ExitStatus: status}
	if failed, ok := errors.AsType[*builder.BuildError](err); ok {
		e.Log = failed.Tail
	}
	if failed, ok := errors.AsType[*derivation.BuildError](err); ok {
		e.Log = failed.Log
	}
	_, stopped := errors.AsType[*stoppedError](err)
	switch {
	case status == exitInterrupted && !stopped:
		e = errorResult{Message: "interrupted; nothing half-written is left", ExitStatus: status}
	case e.Hint == "" && status == exitUsage:
		e.Hint = "--help tells how the command is used"
	case e.Hint == "":
		e.Hint = systemHint(err)
	}
	if a.json {
		a.jsonLine(map[string]errorResult{"error": e})
		return status
	}
	color := a.colored(a.err)
	fmt.Fprintf(a.err, "%s %s\n", paint(color, "31", "arch: error:"), printable(e.Message))
	if e.Log != "" {
		fmt.Fprintf(a.err, "  | %s\n", strings.ReplaceAll(strings.TrimRight(printable(e.Log), "\n"), "\n", "\n  | "))
	}
	if e.Hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", paint(color, "33", "arch: hint:"), printable(e.Hint))
	}
	return status
}
