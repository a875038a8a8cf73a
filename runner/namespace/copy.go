package namespace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// maxCopyDepth bounds the directories inside each other of a Copy; NARs have the same bound.
const maxCopyDepth = 256

// copy makes the private copy that m asks for. Its target may be an existing, empty directory.
func (t *tree) copy(m runner.Mount) error {
	source, err := unix.Open(m.Source, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", m.Source, err)
	}
	defer unix.Close(source)
	c := copier{owner: t.owner, reverse: m.Reverse, modTime: m.ModTime}
	kind, err := typeOf(source)
	if err != nil {
		return err
	}
	if kind == unix.S_IFDIR {
		return t.copyInto(m.Target, source, c)
	}
	parent, err := t.directory(path.Dir(m.Target), true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	from, err := unix.Open(path.Dir(m.Source), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", path.Dir(m.Source), err)
	}
	defer unix.Close(from)
	return c.entry(from, path.Base(m.Source), parent, path.Base(m.Target), 0)
}

// copyInto copies the entries of the directory source into the one at target.
func (t *tree) copyInto(target string, source int, c copier) error {
	into, err := t.directory(target, true)
	if err != nil {
		return err
	}
	defer unix.Close(into)
	if err := c.directory(source, into, 0); err != nil {
		return err
	}
	if i := slices.Index(t.stamped, target); i >= 0 { // its time is the copy's, not epoch
		t.stamped = slices.Delete(t.stamped, i, i+1)
	}
	return stampLink(into, ".", c.modTime)
}

// copier copies trees by descriptor: neither side's symbolic links are followed.
type copier struct {
	owner   owner
	reverse bool
	modTime int64 // Unix seconds
}

// directory copies what the directory from holds into the directory to.
func (c copier) directory(from, to, depth int) error {
	if depth > maxCopyDepth {
		return fmt.Errorf("copy: more than %d directories inside each other", maxCopyDepth)
	}
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	dir := fileOf(fd, ".")
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	slices.Sort(names)
	if c.reverse {
		slices.Reverse(names)
	}
	for _, name := range names {
		if err := c.entry(from, name, to, name, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry of the directory from to the directory to and gives it its owner and time.
func (c copier) entry(from int, name string, to int, as string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = c.subdirectory(from, name, to, as, depth)
	case unix.S_IFREG:
		err = c.file(from, name, to, as, st.Mode&0o111 != 0)
	case unix.S_IFLNK:
		err = c.link(from, name, to, as)
	default:
		err = errors.New("is neither a file, a directory nor a symbolic link")
	}
	if err == nil {
		err = unix.Fchownat(to, as, c.owner.uid, c.owner.gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = stampLink(to, as, c.modTime)
	}
	if err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	return nil
}

func (c copier) subdirectory(from int, name string, to int, as string, depth int) error {
	if err := unix.Mkdirat(to, as, 0o755); err != nil {
		return err
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	source, err := unix.Openat(from, name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	target, err := unix.Openat(to, as, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return c.directory(source, target, depth+1)
}

func (c copier) file(from int, name string, to int, as string, executable bool) error {
	perm := uint32(0o644)
	if executable {
		perm = 0o755
	}
	in, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	source := fileOf(in, name)
	defer source.Close()
	out, err := unix.Openat(to, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(out), as)
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

func (c copier) link(from int, name string, to int, as string) error {
	target, err := readLink(from, name)
	if err != nil {
		return err
	}
	return unix.Symlinkat(target, to, as)
}
