package closure

import (
	"fmt"

	"arch.network/attest/digest"
)

// UnpinnedError says that nobody vouches for the content of a path.
type UnpinnedError struct {
	Path       string
	ReferredBy string // the path that refers to it
	Cause      error  // what Options.Verify says; nil: it was not asked, or knows nothing
}

func (e *UnpinnedError) Error() string {
	s := fmt.Sprintf("store path %s, which %s refers to, is neither pinned, content-addressed nor known to the store's database", e.Path, e.ReferredBy)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *UnpinnedError) Unwrap() error { return e.Cause }

// Hint tells the way out.
func (e *UnpinnedError) Hint() string {
	return "let the host's Nix or Guix daemon answer for its store, or name a closure list with the NAR hash of each path"
}

// HashError says that a path has other content than the one vouched for.
type HashError struct {
	Path  string
	Want  digest.SHA256
	Got   digest.SHA256
	Proof string // who vouched
}

func (e *HashError) Error() string {
	return fmt.Sprintf("store path %s has the NAR hash %s, but %s says %s", e.Path, e.Got.SRI(), e.Proof, e.Want.SRI())
}

// Hint tells the way out.
func (e *HashError) Hint() string {
	return fmt.Sprintf("it is damaged, or was built differently: `nix-store --repair-path %s` gets it again", e.Path)
}

// MissingError says that a path of the closure is not there.
type MissingError struct {
	Path       string
	ReferredBy string // the path that refers to it; empty: it is the one that was asked for
	Cause      error
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("store path %s is missing", e.Path)
	if e.ReferredBy != "" {
		s = fmt.Sprintf("store path %s, which %s refers to, is missing", e.Path, e.ReferredBy)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *MissingError) Unwrap() error { return e.Cause }

// Hint tells the way out.
func (e *MissingError) Hint() string {
	return fmt.Sprintf("`nix-store --realise %s`, or `guix build %s`, gets it", e.Path, e.Path)
}

// LimitError says that a closure is larger than allowed.
type LimitError struct {
	What string // "paths" or "bytes"
	Max  int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("closure exceeds the limit of %d %s", e.Max, e.What)
}
