package wasi

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// OpenHost returns the tree of files at a directory of the process's own file system. Links in it are followed inside it
// only (os.Root). Devices, pipes and sockets in it can be seen but not opened.
func OpenHost(dir string) (Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &hostTree{root}, nil
}

type hostTree struct {
	root *os.Root
}

func (t *hostTree) Close() error { return t.root.Close() }

// name is path for package os, which has no empty names.
func name(path string) string {
	if path == "" {
		return "."
	}
	return path
}

func (t *hostTree) stat(path string, follow bool) (stat, errno) {
	look := t.root.Lstat
	if follow {
		look = t.root.Stat
	}
	info, err := look(name(path))
	if err != nil {
		return stat{}, errorNumber(err)
	}
	return hostStat(info), success
}

// hostStat translates what the system says. Device and inode stay zero: a System has numbers of its own.
func hostStat(info fs.FileInfo) stat {
	s := stat{links: 1, size: uint64(info.Size()), kind: kindOf(info.Mode()), modified: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.links = uint64(sys.Nlink)
		s.accessed, s.status = sys.Atim.Nano(), sys.Ctim.Nano()
	}
	return s
}

func kindOf(mode fs.FileMode) fileType {
	switch mode.Type() {
	case 0:
		return typeRegular
	case fs.ModeDir:
		return typeDirectory
	case fs.ModeSymlink:
		return typeLink
	default:
		return typeUnknown
	}
}

func (t *hostTree) open(path string, how opening) (file, stat, errno) {
	found, e := t.stat(path, how.follow)
	if e != success && (e != errNoEntry || !how.create || how.directory) {
		return nil, stat{}, e
	}
	if e == success {
		if e := how.refuse(found.kind); e != success {
			return nil, stat{}, e
		}
		if found.kind == typeDirectory {
			return nil, found, success
		}
	}
	f, err := t.root.OpenFile(name(path), how.flags(), 0o666)
	if err != nil {
		return nil, stat{}, errorNumber(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() { // it was exchanged meanwhile
		err = syscall.ENXIO
	}
	if err != nil {
		f.Close()
		return nil, stat{}, errorNumber(err)
	}
	return &hostFile{f}, hostStat(info), success
}

// refuse says why an existing node of this kind cannot be opened so.
func (o opening) refuse(kind fileType) errno {
	switch {
	case o.create && o.exclusive:
		return errExist
	case kind == typeLink: // not followed
		return errLoop
	case o.directory && kind != typeDirectory:
		return errNotDir
	case kind == typeDirectory && (o.write || o.truncate || o.create):
		return errIsDir
	case kind == typeUnknown:
		return errNotSup
	default:
		return success
	}
}

func (o opening) flags() int {
	flags := syscall.O_NONBLOCK // should it be a pipe by now, opening it must not wait
	switch {
	case o.write && o.read:
		flags |= os.O_RDWR
	case o.write:
		flags |= os.O_WRONLY
	default:
		flags |= os.O_RDONLY
	}
	if o.create {
		flags |= os.O_CREATE
	}
	if o.exclusive {
		flags |= os.O_EXCL
	}
	if o.truncate {
		flags |= os.O_TRUNC
	}
	if !o.follow {
		flags |= syscall.O_NOFOLLOW
	}
	return flags
}

func (t *hostTree) list(path string) ([]entry, errno) {
	d, err := t.root.Open(name(path))
	if err != nil {
		return nil, errorNumber(err)
	}
	defer d.Close()
	var list []entry
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			list = append(list, entry{e.Name(), kindOf(e.Type())})
		}
		if len(list) > maxEntries {
			return nil, errOverflow
		}
		if errors.Is(err, io.EOF) {
			return list, success
		}
		if err != nil {
			return nil, errorNumber(err)
		}
	}
}

func (t *hostTree) mkdir(path string) errno { return errorNumber(t.root.Mkdir(name(path), 0o777)) }

func (t *hostTree) rmdir(path string) errno {
	return t.remove(path, func(kind fileType) errno {
		if kind != typeDirectory {
			return errNotDir
		}
		return success
	})
}

func (t *hostTree) unlink(path string) errno {
	return t.remove(path, func(kind fileType) errno {
		if kind == typeDirectory {
			return errIsDir
		}
		return success
	})
}

func (t *hostTree) remove(path string, check func(fileType) errno) errno {
	s, e := t.stat(path, false)
	if e == success {
		e = check(s.kind)
	}
	if e != success {
		return e
	}
	return errorNumber(t.root.Remove(name(path)))
}

func (t *hostTree) rename(from, to string) errno {
	err := t.root.Rename(name(from), name(to))
	if errors.Is(err, fs.ErrExist) { // package os never replaces a directory
		return t.replace(from, to)
	}
	return errorNumber(err)
}

// replace renames a directory to the name of another, which must be empty.
func (t *hostTree) replace(from, to string) errno {
	source, err := t.root.Lstat(name(from))
	if err != nil {
		return errorNumber(err)
	}
	target, err := t.root.Lstat(name(to))
	switch {
	case err != nil:
		return errorNumber(err)
	case !target.IsDir():
		return errNotDir
	case !source.IsDir():
		return errIsDir
	case os.SameFile(source, target):
		return success
	}
	if err := t.root.Remove(name(to)); err != nil {
		return errorNumber(err)
	}
	if err = t.root.Rename(name(from), name(to)); err != nil {
		t.root.Mkdir(name(to), target.Mode().Perm()) // as it was
	}
	return errorNumber(err)
}

func (t *hostTree) link(from, to string) errno {
	return errorNumber(t.root.Link(name(from), name(to)))
}

func (t *hostTree) symlink(target, path string) errno {
	return errorNumber(t.root.Symlink(target, name(path)))
}

func (t *hostTree) readlink(path string) (string, errno) {
	target, err := t.root.Readlink(name(path))
	return target, errorNumber(err)
}

func (t *hostTree) setTimes(path string, follow bool, accessed, modified *int64) errno {
	s, e := t.stat(path, follow)
	if e != success {
		return e
	}
	if s.kind == typeLink {
		return errNotSup // package os cannot
	}
	return errorNumber(t.root.Chtimes(name(path), instant(accessed), instant(modified)))
}

// instant is t for package os, to which the zero time means no change.
func instant(t *int64) time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Unix(0, *t)
}

type hostFile struct {
	f *os.File
}

func (h *hostFile) readAt(b []byte, off int64) (int, errno) {
	n, err := h.f.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, errorNumber(err)
	}
	return n, success
}

func (h *hostFile) writeAt(b []byte, off int64) (int, errno) {
	n, err := h.f.WriteAt(b, off)
	if n > 0 {
		return n, success // as write(2): what was written counts, the next call meets the error
	}
	return n, errorNumber(err)
}

func (h *hostFile) stat() (stat, errno) {
	info, err := h.f.Stat()
	if err != nil {
		return stat{}, errorNumber(err)
	}
	return hostStat(info), success
}

func (h *hostFile) truncate(size int64) errno { return errorNumber(h.f.Truncate(size)) }
func (h *hostFile) sync() errno               { return errorNumber(h.f.Sync()) }
func (h *hostFile) close() errno              { return errorNumber(h.f.Close()) }

func (h *hostFile) setTimes(accessed, modified *int64) errno {
	var times [2]syscall.Timespec
	for i, t := range []*int64{accessed, modified} {
		times[i] = syscall.Timespec{Nsec: utimeOmit}
		if t != nil {
			times[i] = syscall.NsecToTimespec(*t)
		}
	}
	return errorNumber(futimens(int(h.f.Fd()), &times))
}
