package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// check refuses what makes no sense for a module. The driver checks the rest.
func check(spec runner.Spec) error {
	m := spec.Module
	if len(spec.Commands) > 0 {
		return errors.New("it has commands and a module")
	}
	if spec.Exchange != nil {
		return errors.New("a module has no exchange: it talks with its worker")
	}
	if !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path {
		return fmt.Errorf("module path %q is not absolute and clean", m.Path)
	}
	if m.Memory < 0 {
		return errors.New("the module's memory limit is negative")
	}
	for _, s := range append(append([]string{m.Entry}, m.Args...), m.Env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q contains a zero byte", s)
		}
	}
	if len(m.Dirs) > maxDirs {
		return fmt.Errorf("the module has %d directories, more than %d", len(m.Dirs), maxDirs)
	}
	for _, d := range m.Dirs {
		if !path.IsAbs(d.Path) || path.Clean(d.Path) != d.Path || d.As == "" {
			return fmt.Errorf("directory %q of the module, seen as %q: the path must be absolute and clean, the name not empty", d.Path, d.As)
		}
	}
	for _, mount := range spec.Mounts {
		if strings.HasPrefix(mount.Target+"/", path.Dir(insideWorker)+"/") {
			return fmt.Errorf("mount point %q is the worker's own", mount.Target)
		}
	}
	return nil
}

// place is where a path of the confined file system comes from.
type place struct {
	mount runner.Mount
	rel   string // below the mount's target; "." is the target itself
}

// locate finds the mount that a path lies on: the last one at or above it.
func locate(mounts []runner.Mount, p string) (place, bool) {
	for i := len(mounts) - 1; i >= 0; i-- {
		target := mounts[i].Target
		if p == target {
			return place{mounts[i], "."}, true
		}
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(target, "/")+"/"); ok {
			return place{mounts[i], rest}, true
		}
	}
	return place{}, false
}

// open opens a regular file of the host, or content that a Spec holds. Links are not followed out of the mount, and not at
// its source.
func (p place) open() (content io.ReadCloser, size int64, err error) {
	switch p.mount.Kind {
	case runner.Data:
		if p.rel != "." {
			return nil, 0, os.ErrNotExist
		}
		return io.NopCloser(bytes.NewReader(p.mount.Content)), int64(len(p.mount.Content)), nil
	case runner.Bind, runner.Copy:
		return openRegular(p.mount.Source, p.rel)
	default:
		return nil, 0, os.ErrNotExist
	}
}

// openRegular opens a file at or below a path of the host.
func openRegular(source, rel string) (*os.File, int64, error) {
	if rel == "." {
		if f, size, ok := openPlain(source); ok {
			return f, size, nil
		}
		source, rel = path.Dir(source), path.Base(source)
	}
	root, err := os.OpenRoot(source)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	return openIn(root, rel)
}

// openPlain is openRegular for the usual case, a path that is a regular file itself, with a third of the system calls.
func openPlain(path string) (*os.File, int64, bool) {
	var before, after unix.Stat_t
	if unix.Lstat(path, &before) != nil || before.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, false
	}
	if unix.Fstat(fd, &after) != nil || after.Dev != before.Dev || after.Ino != before.Ino || unix.SetNonblock(fd, false) != nil {
		unix.Close(fd)
		return nil, 0, false
	}
	return os.NewFile(uintptr(fd), path), after.Size, true
}

// openIn opens a regular file, and nothing else: opening a pipe or a device could wait, or do something.
func openIn(root *os.Root, rel string) (*os.File, int64, error) {
	info, err := root.Stat(rel)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", rel)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := root.Open(rel)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(info, after) {
		err = fmt.Errorf("%q was exchanged while it was opened", rel)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, after.Size(), nil
}

// readModule reads the module that spec names.
func readModule(spec runner.Spec) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &runner.SetupError{Act: fmt.Sprintf("read module %q", spec.Module.Path), Err: err}
	}
	p, ok := locate(spec.Mounts, spec.Module.Path)
	if !ok {
		return fail(os.ErrNotExist)
	}
	f, size, err := p.open()
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if size > maxModule {
		return fail(fmt.Errorf("it has %d bytes, more than %d", size, maxModule))
	}
	module, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err != nil {
		return fail(err)
	}
	if len(module) > maxModule {
		return fail(fmt.Errorf("it has more than %d bytes", maxModule))
	}
	if want := spec.Module.Digest; !want.IsZero() && digest.Of(module) != want {
		return fail(errDigest)
	}
	return module, nil
}
