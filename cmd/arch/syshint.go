package main

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"syscall"
)

// systemHint returns the way out of what the operating system or the network refused, for errors that know none themselves; "" if
// there is no general one.
func systemHint(err error) string {
	_, request := errors.AsType[*url.Error](err)
	_, socket := errors.AsType[*net.OpError](err)
	if request || socket { // first: they may wrap what the others look for
		return "check the address and the network"
	}
	for _, known := range []struct {
		err  error
		hint string
	}{
		{fs.ErrNotExist, "check the path; a relative one begins at the current directory"},
		{fs.ErrExist, "name a path where nothing is yet; what is there was not changed"},
		{fs.ErrPermission, "check whose it is with `ls -ld`, and run arch as a user who may"},
		{syscall.ENOSPC, "free some space: `arch store gc` removes what nothing needs any more"},
		{syscall.EROFS, "name a place that can be written to"},
		{syscall.ENOTDIR, "check the path: something in the middle of it is a file"},
	} {
		if errors.Is(err, known.err) {
			return known.hint
		}
	}
	return ""
}
