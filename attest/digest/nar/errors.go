package nar

import (
	"fmt"
	"strconv"
)

// A SyntaxError says where a stream stops being a NAR. A stream that ends too early is one whose Err is
// io.ErrUnexpectedEOF.
type SyntaxError struct {
	Offset int64  // bytes before the fault
	Path   string // the entry that was being read; empty for the root
	Reason string
	Err    error // nil, or io.ErrUnexpectedEOF
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read nar: byte %d, %s: %s", e.Offset, quotePath(e.Path), e.Reason)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *SyntaxError) Hint() string {
	if e.Err != nil {
		return "it was cut off or is still being written: get it again"
	}
	return "it was damaged, or is no uncompressed Nix archive"
}

// A LimitError says that a tree or a NAR is over one of the Limits.
type LimitError struct {
	Path  string // the entry that is over the limit; empty for the root
	What  string // "depth", "name", "target", "entries" or "size"
	Limit int64
}

func (e *LimitError) Error() string {
	unit := "bytes"
	switch e.What {
	case "depth":
		unit = "levels"
	case "entries":
		unit = "files"
	}
	return fmt.Sprintf("nar: %s: over the %s limit of %d %s", quotePath(e.Path), e.What, e.Limit, unit)
}

// A ChangedError says that a tree changed while it was read.
type ChangedError struct {
	Path   string // on the host
	Reason string
	Err    error // the system's error, or nil
}

func (e *ChangedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("read %s: it changed meanwhile: %s: %v", strconv.Quote(e.Path), e.Reason, e.Err)
	}
	return fmt.Sprintf("read %s: it changed meanwhile: %s", strconv.Quote(e.Path), e.Reason)
}

func (e *ChangedError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ChangedError) Hint() string {
	return "make sure that nothing writes to the tree, and try again"
}

// A TypeError says that a tree holds something that a NAR cannot.
type TypeError struct {
	Path string // on the host
	Kind string // "socket", "named pipe", …
}

func (e *TypeError) Error() string {
	return fmt.Sprintf("read %s: a tree cannot hold a %s", strconv.Quote(e.Path), e.Kind)
}

// Hint says what to do.
func (e *TypeError) Hint() string {
	return "remove it or leave it out: a tree holds regular files, directories and symbolic links"
}

func quotePath(rel string) string {
	if rel == "" {
		return "the root"
	}
	return strconv.Quote(rel)
}
