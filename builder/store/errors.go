package store

import (
	"fmt"

	"arch.network/attest/digest"
)

// Kind says what sort of object a digest names.
type Kind string

// The kinds of objects.
const (
	Blob Kind = "blob" // bytes, named by their SHA-256
	Tree Kind = "tree" // a file, directory or link, named by the SHA-256 of its NAR
)

// NotFoundError says that the store has no such object.
type NotFoundError struct {
	Kind   Kind
	Digest digest.SHA256
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find %s %s in the store: not there", e.Kind, e.Digest)
}

// MismatchError says that content is not what its digest promised. Nothing of it was kept.
type MismatchError struct {
	Kind      Kind
	Want, Got digest.SHA256
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("add %s %s to the store: the content is %s", e.Kind, e.Want, e.Got)
}

// Hint tells the way out.
func (e *MismatchError) Hint() string {
	return "what was fetched or made is not what the pin names: check where it comes from, and change the pin only if that is trusted"
}

// CorruptError says that a file of the store is not what the store wrote.
type CorruptError struct {
	Path  string // inside the store's directory
	Cause string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read %s of the store: %s", e.Path, e.Cause)
}

// Hint tells the way out.
func (e *CorruptError) Hint() string {
	return "`arch store verify --repair` moves damaged files away; what they held is then fetched or made again"
}

// FormatError says that a directory is not a store that this program can use.
type FormatError struct {
	Dir   string
	Cause string
	Cure  string
}

func (e *FormatError) Error() string { return fmt.Sprintf("open store %s: %s", e.Dir, e.Cause) }

// Hint tells the way out.
func (e *FormatError) Hint() string { return e.Cure }
