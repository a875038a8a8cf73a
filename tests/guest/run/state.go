package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// statePrefix starts the name of each guest's directory below the directory for temporary files.
const statePrefix = "arch-guest-"

// state is what a guest has on the host: a directory, locked while its launcher lives, and control groups that it names.
//
//	lock      held by the launcher
//	groups    the control groups, one a line
//	io/       mounted in the guest at ioDir: the job, this program, and a socket
//	mnt/      where a guest in namespaces builds its root
type state struct {
	dir  string
	lock *os.File
}

// ioDir is where a guest sees the state's io directory.
const ioDir = "/run/guest"

// newState sweeps what killed launchers have left, and makes a directory.
func newState(j job) (*state, error) {
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", statePrefix)
	if err != nil {
		return nil, err
	}
	s := &state{dir: dir}
	if err := s.fill(j); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *state) io() string     { return filepath.Join(s.dir, "io") }
func (s *state) groups() string { return filepath.Join(s.dir, "groups") }

func (s *state) fill(j job) error {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	for _, d := range []string{s.io(), filepath.Join(s.dir, "mnt")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := j.write(s.io()); err != nil {
		return err
	}
	return copySelf(filepath.Join(s.io(), "run"))
}

// copySelf puts this program where the guest finds it. It must be static: the guest's root may have other libraries.
func copySelf(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// remove takes away the control groups and the directory. The processes must be gone.
func (s *state) remove() error {
	err := removeGroups(s.groups())
	err = errors.Join(err, os.RemoveAll(s.dir))
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// sweep removes the states whose launcher is dead: its lock is free. A state without a lock is just being made, or removed.
func sweep(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, statePrefix+"*"))
	for _, d := range found {
		lock, err := os.OpenFile(filepath.Join(d, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		s := &state{dir: d, lock: lock}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			s.remove()
		} else {
			lock.Close()
		}
	}
}

// removeGroups removes the trees of control groups that a file lists. Groups of processes that have just ended are busy for a
// moment; ones whose processes live on are killed first, which only a sweep meets.
func removeGroups(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed error
	for dir := range strings.Lines(string(data)) {
		dir = strings.TrimSpace(dir)
		err := removeGroup(dir)
		for range 50 { // two and a half seconds
			if err == nil {
				break
			}
			killGroup(dir)
			time.Sleep(50 * time.Millisecond)
			err = removeGroup(dir)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// removeGroup removes a tree of control groups from below.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroup(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}

// killGroup kills every process of a tree of control groups.
func killGroup(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		data, _ := os.ReadFile(p)
		for line := range strings.Lines(string(data)) {
			var pid int
			if _, err := fmt.Sscan(line, &pid); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
}
