package source

import (
	"errors"
	"fmt"
	"slices"
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

// collect adds a MissingError of the named input to *all, and reports whether err is one.
func (*MissingError) collect(all **MissingError, input string, err error) bool {
	one, ok := errors.AsType[*MissingError](err)
	if !ok {
		return false
	}
	if *all == nil {
		*all = &MissingError{Cure: one.Cure}
	}
	for _, in := range one.Inputs {
		(*all).Inputs = append((*all).Inputs, fmt.Sprintf("%s (%s)", input, in))
	}
	if one.Cause != nil {
		(*all).Cause = errors.Join((*all).Cause, one.Cause)
	}
	return true
}

// gather adds what another MissingError misses to *all, and reports whether err is one.
func (*MissingError) gather(all **MissingError, err error) bool {
	one, ok := errors.AsType[*MissingError](err)
	if !ok {
		return false
	}
	if *all == nil {
		*all = &MissingError{Cure: one.Cure}
	}
	(*all).Inputs = append((*all).Inputs, one.Inputs...)
	slices.Sort((*all).Inputs)
	return true
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
