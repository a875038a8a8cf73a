package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/cmd/manual"
)

// The exit statuses. exitStatuses documents them; classify is the only place that maps errors to them.
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

// exitStatuses says what each exit status means.
func exitStatuses() []manual.Status {
	return []manual.Status{
		{Status: exitOK, Meaning: "it worked, and what was to be checked was checked"},
		{Status: exitError, Meaning: "an error"},
		{Status: exitUsage, Meaning: "the command line is wrong; nothing was done"},
		{Status: exitDenied, Meaning: "denied by policy, or not enough of those who must agree did"},
		{Status: exitVerification, Meaning: "verification failed"},
		{Status: exitNotReproducible, Meaning: "not reproducible, or the two things compared differ"},
		{Status: exitExecution, Meaning: "a step of a build, or a job, failed"},
		{Status: exitInputsMissing, Meaning: "inputs are missing"},
		{Status: exitUnreachable, Meaning: "the node cannot be reached, or what answers is none"},
		{Status: exitTimeout, Meaning: "it took longer than --timeout"},
		{Status: exitInterrupted, Meaning: "interrupted"},
	}
}

// exitHelp documents the exit statuses, and the codes of errors that have each.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("The exit status of every arch command, and the codes of the errors that end with it:\n\n")
	for _, s := range exitStatuses() {
		fmt.Fprintf(&b, "  %3d  %s\n", s.Status, s.Meaning)
		var names []string
		for _, c := range ours() {
			if c.Status == s.Status {
				names = append(names, c.Name)
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(&b, "       %s\n", wrapWords(names, 90, "\n       "))
		}
	}
	b.WriteString(`
Any other status is a failure too. arch doctor ends with 1 if a guarantee that jobs need does not hold here. Every failure says why on stderr, with --json as
{"apiVersion":…,"kind":"Error","error":{"code":…,"message":…,"cause":…,"hint":…,"exitStatus":…}} in one line; arch explain CODE tells more.
`)
	return b.String()
}

// wrapWords joins words by spaces into lines of at most width bytes.
func wrapWords(words []string, width int, newline string) string {
	var b strings.Builder
	length := 0
	for _, w := range words {
		switch {
		case length == 0:
		case length+1+len(w) > width:
			b.WriteString(newline)
			length = 0
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(w)
		length += len(w)
	}
	return b.String()
}

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

// failure is how --json shows an error, on stderr.
type failure struct {
	Error errorResult `json:"error"`
}

func (failure) kind() string { return "Error" }

type errorResult struct {
	Code       string `json:"code"` // see arch explain
	Message    string `json:"message"`
	Cause      string `json:"cause,omitempty"` // what the message comes down to, if that is not all of it
	Hint       string `json:"hint,omitempty"`
	ExitStatus int    `json:"exitStatus"`
	Log        string `json:"log,omitempty"` // the last lines of a failed step
}

// causeOf returns what the innermost error that err wraps says; empty if that is all that err says, or if it wraps several.
func causeOf(err error) string {
	cause := err
	for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(cause) {
		cause = inner
	}
	if cause.Error() == err.Error() {
		return ""
	}
	return cause.Error()
}

// exit shows err to the person or program that called, and returns the exit status.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	kind := classify(ctx, err)
	status := kind.Status
	e := errorResult{Code: kind.Name, Message: err.Error(), Cause: causeOf(err), Hint: hintOf(err), ExitStatus: status}
	if failed, ok := errors.AsType[*builder.BuildError](err); ok {
		e.Log = failed.Tail
	}
	if failed, ok := errors.AsType[*derivation.BuildError](err); ok {
		e.Log = failed.Log
	}
	_, stopped := errors.AsType[*stoppedError](err)
	switch {
	case status == exitInterrupted && !stopped:
		e = errorResult{Code: kind.Name, Message: "interrupted; nothing half-written is left", ExitStatus: status}
	case e.Hint == "":
		e.Hint = kind.hint()
	}
	if a.json {
		a.jsonLine(failure{e})
		return status
	}
	color := a.colored(a.err)
	fmt.Fprintf(a.err, "%s %s\n", paint(color, "31", "arch: error:"), printable(e.Message))
	if e.Log != "" {
		fmt.Fprintf(a.err, "  | %s\n", strings.ReplaceAll(strings.TrimRight(printable(e.Log), "\n"), "\n", "\n  | "))
	}
	for hint := range strings.Lines(e.Hint) {
		fmt.Fprintf(a.err, "%s %s\n", paint(color, "33", "arch: hint:"), printable(strings.TrimSuffix(hint, "\n")))
	}
	return status
}
