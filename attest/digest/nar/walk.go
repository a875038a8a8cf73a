package nar

import (
	"context"
	"fmt"
	"path/filepath"

	"arch.network/attest/digest"

	"golang.org/x/sys/unix"
)

// dumpBuffer is the size of Dump's one buffer. It fits a core's second-level cache.
const dumpBuffer = 256 << 10

// minRead is the least room worth a read of a long content; with less, the buffer is handed over first.
const minRead = 32 << 10

// openFlags opens an entry of a tree that someone hostile may be changing: links are not followed, a named
// pipe does not block, a terminal does not become ours.
const openFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// dumper writes one tree as a NAR, depth first, into buffers that it hands over when they are full.
type dumper struct {
	ctx    context.Context
	filter func(string, bool) bool
	limits Limits

	buf   []byte // being filled
	sent  int64  // bytes handed over before buf
	flush func(full []byte) (empty []byte, err error)

	base    string // the host path of the root
	rel     []byte // the path of the entry in work, relative to the root
	entries int
	levels  []*names // levels[n] lists the directory in work at depth n; kept for reuse

	listing *Listing // nil: none is wanted
	digests bool
	file    digest.Writer

	stat   unix.Stat_t
	dirbuf []byte
	target [maxTarget + 1]byte
}

func newDumper(ctx context.Context, path string, opts Options, buf []byte, flush func([]byte) ([]byte, error)) *dumper {
	return &dumper{
		ctx:    ctx,
		filter: opts.Filter,
		limits: opts.Limits.withDefaults(),
		buf:    buf,
		flush:  flush,
		base:   filepath.Clean(path), // "link/" would be followed
		dirbuf: make([]byte, 32<<10),
	}
}

// run writes the whole tree.
func (d *dumper) run() error {
	if err := d.node(unix.AT_FDCWD, d.base, unix.DT_UNKNOWN, 0); err != nil {
		return err
	}
	if d.offset() > d.limits.Size {
		return d.limit("size", d.limits.Size)
	}
	return d.handOver()
}

// handOver gives away what is in the buffer.
func (d *dumper) handOver() error {
	if err := d.ctx.Err(); err != nil {
		return fmt.Errorf("read %q: %w", d.base, err)
	}
	d.sent += int64(len(d.buf))
	empty, err := d.flush(d.buf)
	if err != nil {
		return fmt.Errorf("write nar of %q: %w", d.base, err)
	}
	d.buf = empty
	return nil
}

// room makes sure that n more bytes fit into the buffer.
func (d *dumper) room(n int) error {
	if cap(d.buf)-len(d.buf) >= n {
		return nil
	}
	return d.handOver()
}

// offset is the number of bytes written.
func (d *dumper) offset() int64 { return d.sent + int64(len(d.buf)) }

// node writes the entry called name in the directory dirfd. Kind is what the directory says it is (DT_…).
func (d *dumper) node(dirfd int, name string, kind uint8, depth int) error {
	d.entries++
	switch {
	case depth > d.limits.Depth:
		return d.limit("depth", int64(d.limits.Depth))
	case d.entries > d.limits.Entries:
		return d.limit("entries", int64(d.limits.Entries))
	case d.offset() > d.limits.Size:
		return d.limit("size", d.limits.Size)
	}
	if kind == unix.DT_UNKNOWN {
		var err error
		if kind, err = d.kind(dirfd, name); err != nil {
			return err
		}
	}
	if err := d.room(maxFrame); err != nil {
		return err
	}
	d.buf = appendHead(d.buf, depth == 0, name)
	var err error
	switch kind {
	case unix.DT_REG:
		err = d.regular(dirfd, name)
	case unix.DT_DIR:
		err = d.directory(dirfd, name, depth)
	case unix.DT_LNK:
		err = d.symlink(dirfd, name)
	default:
		err = &TypeError{d.path(), kindName(kind)}
	}
	if err != nil {
		return err
	}
	if err := d.room(maxFrame); err != nil {
		return err
	}
	d.buf = appendTail(d.buf, depth == 0)
	return nil
}

// kind asks the file system for the type of an entry, as DT_….
func (d *dumper) kind(dirfd int, name string) (uint8, error) {
	err := retry(func() error { return unix.Fstatat(dirfd, name, &d.stat, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return 0, d.failed("stat", dirfd, err)
	}
	return uint8(d.stat.Mode & unix.S_IFMT >> 12), nil
}

// open opens an entry and checks that it is what the directory said.
func (d *dumper) open(dirfd int, name string, flags int, want uint32) (int, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(dirfd, name, flags, 0)
		return err
	})
	switch err {
	case nil:
	case unix.ELOOP, unix.ENOTDIR, unix.ENXIO:
		return -1, &ChangedError{d.path(), "it is of another type now", err}
	default:
		return -1, d.failed("open", dirfd, err)
	}
	if err := unix.Fstat(fd, &d.stat); err != nil {
		unix.Close(fd)
		return -1, d.failed("stat", dirfd, err)
	}
	if d.stat.Mode&unix.S_IFMT != want {
		unix.Close(fd)
		return -1, &ChangedError{d.path(), "it is of another type now", nil}
	}
	return fd, nil
}

// regular writes a file.
func (d *dumper) regular(dirfd int, name string) error {
	fd, err := d.open(dirfd, name, openFlags, unix.S_IFREG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	size, executable := d.stat.Size, d.stat.Mode&unix.S_IXUSR != 0
	if size > d.limits.Size-d.offset() {
		return d.limit("size", d.limits.Size)
	}
	d.buf = appendFile(d.buf, executable, size)
	offset := d.offset()
	if err := d.content(fd, size); err != nil {
		return err
	}
	if err := d.room(8); err != nil {
		return err
	}
	d.buf = append(d.buf, tokEmpty[:padding(size)]...)
	if d.listing == nil {
		return nil
	}
	e := Entry{Path: string(d.rel), Type: Regular, Executable: executable, Size: size, Offset: offset}
	if d.digests {
		e.Digest = d.file.Sum()
		d.file.Reset()
	}
	*d.listing = append(*d.listing, e)
	return nil
}

// content reads exactly size bytes from fd into the buffers, and makes sure that the file ends there: every read
// asks for one byte more than is due, so that for most files one read tells both.
func (d *dumper) content(fd int, size int64) error {
	for left, ended := size, false; !ended; {
		if err := d.room(int(min(left+1, minRead))); err != nil {
			return err
		}
		space := d.buf[len(d.buf):cap(d.buf)]
		if int64(len(space)) > left+1 {
			space = space[:left+1]
		}
		n, err := read(fd, space)
		switch {
		case err != nil:
			return fmt.Errorf("read %q: %w", d.path(), err)
		case int64(n) > left:
			return &ChangedError{d.path(), fmt.Sprintf("it grew beyond %d bytes", size), nil}
		case n == 0 && left > 0:
			return &ChangedError{d.path(), fmt.Sprintf("it shrank to %d of %d bytes", size-left, size), nil}
		}
		if d.digests {
			d.file.Write(space[:n])
		}
		d.buf = d.buf[:len(d.buf)+n]
		left -= int64(n)
		// A read that returns less than it asked for has met the end.
		ended = left == 0 && n < len(space)
	}
	return nil
}

// symlink writes a symbolic link.
func (d *dumper) symlink(dirfd int, name string) error {
	var n int
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(dirfd, name, d.target[:])
		return err
	})
	switch {
	case err == unix.EINVAL:
		return &ChangedError{d.path(), "it is no symbolic link any more", nil}
	case err != nil:
		return d.failed("read link", dirfd, err)
	case n > d.limits.Target:
		return d.limit("target", int64(d.limits.Target))
	}
	target := string(d.target[:n])
	if reason := badTarget(target, d.limits.Target); reason != "" {
		return fmt.Errorf("read %q: it has %s", d.path(), reason)
	}
	d.buf = append(d.buf, seqSymlink...)
	d.buf = appendString(d.buf, target)
	if d.listing != nil {
		*d.listing = append(*d.listing, Entry{Path: string(d.rel), Type: Symlink, Target: target})
	}
	return nil
}

// directory writes a directory and everything in it.
func (d *dumper) directory(dirfd int, name string, depth int) error {
	fd, err := d.open(dirfd, name, openFlags|unix.O_DIRECTORY, unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := d.ctx.Err(); err != nil {
		return fmt.Errorf("read %q: %w", d.path(), err)
	}
	if depth == len(d.levels) {
		d.levels = append(d.levels, &names{})
	}
	list := d.levels[depth]
	if err := list.read(fd, d.dirbuf, d.limits.Entries-d.entries); err != nil {
		if err == errTooMany {
			return d.limit("entries", int64(d.limits.Entries))
		}
		return fmt.Errorf("list %q: %w", d.path(), err)
	}
	d.buf = append(d.buf, tokDirectory...)
	if d.listing != nil {
		*d.listing = append(*d.listing, Entry{Path: string(d.rel), Type: Directory})
	}
	parent := len(d.rel)
	for i := range list.entries {
		name, kind := list.at(i)
		if parent > 0 {
			d.rel = append(d.rel, '/')
		}
		d.rel = append(d.rel, name...)
		if err := d.child(fd, name, kind, depth+1); err != nil {
			return err
		}
		d.rel = d.rel[:parent]
	}
	return nil
}

// child writes an entry of a directory unless it is filtered out.
func (d *dumper) child(dirfd int, name string, kind uint8, depth int) error {
	if len(name) > d.limits.Name {
		return d.limit("name", int64(d.limits.Name))
	}
	if d.filter != nil {
		if kind == unix.DT_UNKNOWN {
			var err error
			if kind, err = d.kind(dirfd, name); err != nil {
				return err
			}
		}
		if d.filter(string(d.rel), kind == unix.DT_DIR) {
			return nil
		}
	}
	return d.node(dirfd, name, kind, depth)
}

// path is the host path of the entry in work.
func (d *dumper) path() string {
	if len(d.rel) == 0 {
		return d.base
	}
	return d.base + "/" + string(d.rel)
}

func (d *dumper) limit(what string, limit int64) error {
	return &LimitError{string(d.rel), what, limit}
}

// failed wraps the error of a call on an entry. Below the root, an entry that was listed but is not there
// has vanished since.
func (d *dumper) failed(act string, dirfd int, err error) error {
	if err == unix.ENOENT && dirfd != unix.AT_FDCWD {
		return &ChangedError{d.path(), "it vanished", err}
	}
	return fmt.Errorf("%s %q: %w", act, d.path(), err)
}

// kindName names a DT_… that a tree cannot hold.
func kindName(kind uint8) string {
	switch kind {
	case unix.DT_SOCK:
		return "socket"
	case unix.DT_FIFO:
		return "named pipe"
	case unix.DT_BLK:
		return "block device"
	case unix.DT_CHR:
		return "character device"
	}
	return fmt.Sprintf("file of unknown type %d", kind)
}

// read is read(2), again when a signal came.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// retry calls f again while a signal interrupted it, as happens on network and user-space file systems.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
