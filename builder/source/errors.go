package source

import (
	"errors"
	"fmt"
	"strings"

	"arch.network/attest/digest"
)

// MissingError says which inputs are nowhere to be had without a network, or from anywhere that is known.
type MissingError struct {
	Inputs []string // references, or input names with them, in the order of the manifest
	Cause  error    // what was tried in vain; nil if there was nothing to try
	Cure   string
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("%d inputs are missing: %s", len(e.Inputs), strings.Join(e.Inputs, ", "))
	if len(e.Inputs) == 1 {
		s = e.Inputs[0] + " is missing"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *MissingError) Unwrap() error { return e.Cause }

// Hint tells the way out.
func (e *MissingError) Hint() string { return e.Cure }

const offlineCure = "run once without --offline, or name a directory that holds it with --archive"

// missingList gathers what several fetches miss.
type missingList struct {
	inputs []string
	causes triedError
	cure   string
}

// add takes a MissingError, and reports whether err is one. It names the input where one is given.
func (l *missingList) add(input string, err error) bool {
	one, ok := errors.AsType[*MissingError](err)
	if !ok {
		return false
	}
	for _, in := range one.Inputs {
		if input != "" {
			in = fmt.Sprintf("%s (%s)", input, in)
		}
		l.inputs = append(l.inputs, in)
	}
	if one.Cause != nil {
		l.causes = append(l.causes, one.Cause)
	}
	l.cure = one.Cure
	return true
}

// err returns everything as one error; nil if nothing is missing.
func (l *missingList) err() error {
	if len(l.inputs) == 0 {
		return nil
	}
	return &MissingError{Inputs: l.inputs, Cause: l.causes.err(), Cure: l.cure}
}

// triedError is what was tried in vain, on one line.
type triedError []error

func (t triedError) Error() string {
	texts := make([]string, len(t))
	for i, err := range t {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (t triedError) Unwrap() []error { return t }

// err returns nil for none, and a single error as itself.
func (t triedError) err() error {
	switch len(t) {
	case 0:
		return nil
	case 1:
		return t[0]
	}
	return t
}

// PinError says that what was fetched is not what its pin names. Nothing of it was kept.
type PinError struct {
	Ref  string // reference or URL
	Want string // in the spelling of the pin
	Got  string
}

func (e *PinError) Error() string {
	return fmt.Sprintf("%s: the pin says %s, but what came is %s", e.Ref, e.Want, e.Got)
}

// Hint tells the way out.
func (e *PinError) Hint() string {
	return "the origin changed it, or somebody on the way did: compare with a second source, and change the pin only if you trust the new content"
}

func pinMismatch(ref string, want, got digest.SHA256) error {
	return &PinError{Ref: ref, Want: want.SRI(), Got: got.SRI()}
}

// sourceError is an error with a way out that needs no type of its own.
type sourceError struct {
	msg  string
	cure string
}

func (e *sourceError) Error() string { return e.msg }

// Hint tells the way out.
func (e *sourceError) Hint() string { return e.cure }
