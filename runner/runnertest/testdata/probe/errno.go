package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// word names an error as errno(3) does; "ok" if there is none.
func word(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno) && errno == 0:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}
