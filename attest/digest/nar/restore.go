package nar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RestoreOptions says how Restore makes a tree.
type RestoreOptions struct {
	Limits Limits

	// Writable gives files mode 0644 or 0755 and directories 0755, instead of 0444 or 0555 and 0555.
	Writable bool

	// ModTime is the modification time of everything in the tree. The zero time means one second after the
	// Unix epoch, as in a Nix store.
	ModTime time.Time
}

// Restore makes the tree of the NAR in r at dst, which must not exist; the directory that it is in must. It reads r
// to its end. On any error what was made is removed again; if the process dies it stays, with directories that only
// the owner can enter, so whoever needs more restores to a temporary name and renames.
//
// It works from directory to directory by file descriptor, creates everything exclusively and follows no link below the
// parent of dst. A name that the file system takes for another's (ignoring case) is thus an error.
// It does not sync. Errors of the archive are those of Reader.
func Restore(ctx context.Context, r io.Reader, dst string, opts RestoreOptions) error {
	parent, base, err := openParent(dst)
	if err != nil {
		return fmt.Errorf("restore %q: %w", dst, err)
	}
	defer unix.Close(parent)
	t := newRestorer(NewReader(r, opts.Limits), parent, base, opts)
	if err := t.run(ctx); err != nil {
		t.abandon()
		err = fmt.Errorf("restore %q: %w", dst, err)
		if t.made {
			err = errors.Join(err, removeAt(parent, base, dst))
		}
		return err
	}
	return nil
}

// openParent opens the directory that path is in, and returns the name of path there.
func openParent(path string) (fd int, base string, err error) {
	path = filepath.Clean(path)
	base = filepath.Base(path)
	if base == "." || base == ".." || base == "/" {
		return -1, "", fmt.Errorf("%q is no name of a new file", base)
	}
	dir := filepath.Dir(path)
	err = retry(func() (err error) {
		fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, "", fmt.Errorf("open %q: %w", dir, err)
	}
	return fd, base, nil
}

// restorer makes one tree.
type restorer struct {
	r      *Reader
	parent int // the directory that the root is in
	base   string
	made   bool      // the root exists and is ours
	dirs   []openDir // from the root down to the directory in work

	file, executable, dir uint32 // modes
	times                 []unix.Timespec
}

// openDir is a directory that is being filled.
type openDir struct {
	fd   int
	name string // in the directory above
}

func newRestorer(r *Reader, parent int, base string, opts RestoreOptions) *restorer {
	t := &restorer{r: r, parent: parent, base: base, file: 0o444, executable: 0o555, dir: 0o555}
	if opts.Writable {
		t.file, t.executable, t.dir = 0o644, 0o755, 0o755
	}
	when := unix.Timespec{Sec: 1}
	if !opts.ModTime.IsZero() {
		when = unix.Timespec{Sec: opts.ModTime.Unix(), Nsec: int64(opts.ModTime.Nanosecond())}
	}
	t.times = []unix.Timespec{when, when}
	return t
}

func (t *restorer) run(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := t.r.Next()
		if err == io.EOF {
			return t.finishTo(0)
		}
		if err != nil {
			return err
		}
		if err := t.entry(ctx, e); err != nil {
			return err
		}
	}
}

// entry makes one node.
func (t *restorer) entry(ctx context.Context, e Entry) error {
	depth := t.r.at.open
	if e.Type == Directory {
		depth-- // the reader has entered it already
	}
	if err := t.finishTo(depth); err != nil {
		return err
	}
	at, name := t.parent, t.base
	if depth > 0 {
		at, name = t.dirs[depth-1].fd, string(t.r.at.levels[depth-1].last)
	}
	var err error
	switch e.Type {
	case Regular:
		err = t.regular(ctx, at, name, e)
	case Directory:
		err = t.directory(at, name)
	case Symlink:
		err = t.symlink(at, name, e.Target)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", quotePath(e.Path), err)
	}
	return nil
}

func (t *restorer) regular(ctx context.Context, at int, name string, e Entry) error {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	t.made = true
	if err := t.fill(ctx, fd, e); err != nil {
		unix.Close(fd)
		return err
	}
	// Network file systems report a failed write as late as here.
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		return fmt.Errorf("close: %w", err)
	}
	return t.setTime(at, name)
}

// fill writes the content of a file and sets its mode.
func (t *restorer) fill(ctx context.Context, fd int, e Entry) error {
	for {
		p, err := t.r.chunk()
		if err != nil {
			return err
		}
		if len(p) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeAll(fd, p); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	mode := t.file
	if e.Executable {
		mode = t.executable
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		p = p[n:]
	}
	return nil
}

// directory makes a directory that only the owner can enter until it is finished.
func (t *restorer) directory(at int, name string) error {
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	t.made = true
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	t.dirs = append(t.dirs, openDir{fd, name})
	return nil
}

func (t *restorer) symlink(at int, name, target string) error {
	if err := unix.Symlinkat(target, at, name); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	t.made = true
	return t.setTime(at, name)
}

// finishTo gives the directories below depth their mode and time, innermost first.
func (t *restorer) finishTo(depth int) error {
	for len(t.dirs) > depth {
		last := len(t.dirs) - 1
		d := t.dirs[last]
		if err := unix.Fchmod(d.fd, t.dir); err != nil {
			return fmt.Errorf("set mode of directory %q: %w", d.name, err)
		}
		unix.Close(d.fd)
		t.dirs = t.dirs[:last]
		at := t.parent
		if last > 0 {
			at = t.dirs[last-1].fd
		}
		if err := t.setTime(at, d.name); err != nil {
			return fmt.Errorf("directory %q: %w", d.name, err)
		}
	}
	return nil
}

func (t *restorer) setTime(at int, name string) error {
	err := retry(func() error { return unix.UtimesNanoAt(at, name, t.times, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// abandon closes what is open.
func (t *restorer) abandon() {
	for _, d := range t.dirs {
		unix.Close(d.fd)
	}
	t.dirs = nil
}
