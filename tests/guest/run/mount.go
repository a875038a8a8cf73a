package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nosuid are the usual flags of file systems that are no place for programs.
const nosuid = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mounter builds the root of a guest in the directory base. It stops at the first error.
type mounter struct {
	base string
	err  error
}

func (m *mounter) root() string          { return filepath.Join(m.base, "root") }
func (m *mounter) at(name string) string { return filepath.Join(m.root(), name) }

func (m *mounter) mount(source, target, fstype string, flags uintptr, options string) {
	if m.err != nil {
		return
	}
	if err := unix.Mount(source, target, fstype, flags, options); err != nil {
		m.err = fmt.Errorf("mount %s%s at %s: %w", fstype, source, target, err)
	}
}

func (m *mounter) bind(source, target string) { m.mount(source, target, "", unix.MS_BIND, "") }

func (m *mounter) readOnly(target string) {
	m.mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func (m *mounter) mkdir(name string, perm os.FileMode) {
	if m.err == nil {
		m.err = os.MkdirAll(m.at(name), perm)
	}
}

func (m *mounter) node(name string, mode uint32, dev uint64) {
	if m.err != nil {
		return
	}
	if err := unix.Mknod(m.at(name), mode, int(dev)); err != nil {
		m.err = fmt.Errorf("make node %s: %w", name, err)
		return
	}
	m.err = os.Chmod(m.at(name), os.FileMode(mode&0o777)) // whatever the umask is
}

func (m *mounter) link(target, name string) {
	if m.err == nil {
		m.err = os.Symlink(target, m.at(name))
	}
}

// overlay mounts a throw-away copy of lower as the root: what is written stays in memory.
func (m *mounter) overlay(lower string) {
	m.mount("tmpfs", m.base, "tmpfs", 0, "mode=755")
	if m.err == nil {
		m.err = os.Mkdir(m.root(), 0o755)
	}
	m.copyUp(lower, m.root())
}

// copyUp mounts a throw-away copy of lower at target.
func (m *mounter) copyUp(lower, target string) {
	if m.err != nil {
		return
	}
	layer, err := os.MkdirTemp(m.base, "layer-")
	if err != nil {
		m.err = err
		return
	}
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, d := range []string{upper, work} {
		if m.err = os.Mkdir(d, 0o755); m.err != nil {
			return
		}
	}
	m.mount("overlay", target, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
}

// shows mounts throw-away copies of directories of the host.
func (m *mounter) shows(j job) {
	for _, dir := range j.Shows {
		m.mkdir(dir, 0o755)
		m.copyUp(dir, m.at(dir))
	}
}

// temporary mounts new /run and /tmp.
func (m *mounter) temporary() {
	m.mount("tmpfs", m.at("run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	m.mount("tmpfs", m.at("tmp"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}
