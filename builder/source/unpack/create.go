package unpack

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Creator makes regular files with mode 0755 if they are executable, else 0644, whatever the umask. All of its directories are made
// alike, with the same default access control list if any, so the first file of each mode tells whether files get the mode that they are asked for.
//
// It makes its system calls itself. The files of package os are made for what can be waited for, too, which costs five more calls for
// each: more than the rest of a small file.
type Creator struct {
	kept map[uint32]bool // by mode; missing: none was made so far
}

// NewFile is an open file that a Creator made.
type NewFile struct {
	fd   int
	name string
}

// Create makes the file name, one element that is not there yet, in the open directory dir. The caller closes it.
func (c *Creator) Create(dir *os.File, name string, executable bool) (*NewFile, error) {
	perm := uint32(0o644)
	if executable {
		perm = 0o755
	}
	defer runtime.KeepAlive(dir)
	fd, err := again(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	f := &NewFile{fd, name}
	if err := c.chmod(f, perm); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// chmod makes sure that the file has its mode.
func (c *Creator) chmod(f *NewFile, perm uint32) error {
	kept, known := c.kept[perm]
	if !known {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return f.fail("fstat", err)
		}
		if c.kept == nil {
			c.kept = map[uint32]bool{}
		}
		kept = st.Mode&0o7777 == perm
		c.kept[perm] = kept
	}
	if kept {
		return nil
	}
	if err := unix.Fchmod(f.fd, perm); err != nil {
		return f.fail("fchmod", err)
	}
	return nil
}

// Write implements io.Writer.
func (f *NewFile) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := again(func() (int, error) { return unix.Write(f.fd, p[n:]) })
		if err != nil {
			return n, f.fail("write", err)
		}
		n += m
	}
	return n, nil
}

// Close closes the file.
func (f *NewFile) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return f.fail("close", err)
	}
	return nil
}

func (f *NewFile) fail(op string, err error) error {
	return &os.PathError{Op: op, Path: f.name, Err: err}
}

// again repeats a call that a signal interrupted, as package os does.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
