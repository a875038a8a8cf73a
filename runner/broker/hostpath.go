package broker

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// checkHostPath sees to it that a path of the host, which a job is allowed, leads where it says and goes on doing so: that it has no
// symbolic link in it, and that nobody but root, or the broker's user, can replace a part of it. Otherwise whoever can would
// choose what the job gets, which the policy has not allowed. What lies below the path may be anybody's.
func checkHostPath(path string) error {
	fail := func(at, why string) error {
		return refuse(CodePath, "let root own the directories on the way, and nobody else write to them", "%s: %s %s", path, at, why)
	}
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /: %w", err)
	}
	defer func() { unix.Close(dir) }()
	var above, st unix.Stat_t
	if err := unix.Fstat(dir, &above); err != nil {
		return fmt.Errorf("look at /: %w", err)
	}
	at := ""
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		parent := at + "/"
		at += "/" + name
		next, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ENOENT):
			return refuse(CodePath, "make it, or leave it out of the job", "%s: %s does not exist", path, at)
		case err != nil:
			return fmt.Errorf("look at %s: %w", at, err)
		}
		unix.Close(dir)
		dir = next
		if err := unix.Fstat(dir, &st); err != nil {
			return fmt.Errorf("look at %s: %w", at, err)
		}
		sticky := above.Mode&unix.S_ISVTX != 0 && trusted(st.Uid)
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			return fail(at, "is a symbolic link")
		case !trusted(above.Uid):
			return fail(parent, fmt.Sprintf("belongs to user %d", above.Uid))
		case above.Mode&0o022 != 0 && !sticky:
			return fail(parent, fmt.Sprintf("may be written to by others (mode %04o)", above.Mode&0o7777))
		}
		above = st
	}
	return nil
}

// trusted reports whether a user may decide what a path is.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
