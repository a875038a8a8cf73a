package systemd

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// source is what the host has at a place that a Spec names.
type source struct {
	mode uint32 // as in struct stat
	uid  int
	gid  int
}

// lookup returns what the host has at path, without following a link at its end.
type lookup func(path string) (source, error)

func lstat(name string) (source, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return source{}, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return source{st.Mode, int(st.Uid), int(st.Gid)}, nil
}

func (s source) kind() uint32 { return s.mode & unix.S_IFMT }

// readable reports whether others than the owner may read the file or list the directory.
func (s source) readable() bool {
	if s.kind() == unix.S_IFDIR {
		return s.mode&0o005 == 0o005
	}
	return s.mode&0o004 != 0
}

// cureOwner tells how a job gets access to a place of the host.
const cureOwner = "give it to an ordinary user (chown), as whom the job then works there, or open it to everyone (chmod)"

// arrange says where the Spec's mounts and devices are in the unit, and as whom the unit works on the host: as a user that no other
// unit and nobody on the host is, unless a source is closed to others; then as its owner, but never as root.
func arrange(spec runner.Spec, look lookup, disks []string) (layout, error) {
	l := layout{}
	for n, m := range spec.Mounts {
		if m.Kind != runner.Bind && m.Kind != runner.Copy || !path.IsAbs(m.Source) {
			l.mounts = append(l.mounts, m) // the inner layer says what is wrong with one that has no such source
			continue
		}
		s, err := look(m.Source)
		if err != nil {
			return l, fmt.Errorf("%s mount %s: %w", m.Kind, m.Target, err)
		}
		if err := l.own(m, s); err != nil {
			return l, fmt.Errorf("%s mount %s: %w", m.Kind, m.Target, err)
		}
		l.add(n, m, s.kind() == unix.S_IFLNK)
	}
	for n, d := range spec.Devices {
		if err := l.device(n, d, look); err != nil {
			return l, fmt.Errorf("device %s: %w", d.Source, err)
		}
	}
	if spec.Limits.IORead > 0 || spec.Limits.IOWrite > 0 {
		l.disks = disks
	}
	return l, nil
}

// own chooses the user for a mount whose source others may not use.
func (l *layout) own(m runner.Mount, s source) error {
	open := s.kind() == unix.S_IFLNK || s.readable()
	if m.Writable && m.Kind == runner.Bind {
		open = s.mode&0o002 != 0
	}
	switch {
	case open:
		return nil
	case s.uid == 0:
		return &ownerError{m.Source, "it belongs to root and is closed to others"}
	case l.uid != 0 && l.uid != s.uid:
		return &ownerError{m.Source, fmt.Sprintf("it belongs to user %d, and another source to user %d", s.uid, l.uid)}
	}
	l.uid, l.gid = s.uid, s.gid
	return nil
}

// ownerError says that no user can be found who may use a source.
type ownerError struct{ path, why string }

func (e *ownerError) Error() string { return fmt.Sprintf("use %s: %s", e.path, e.why) }

func (l *layout) device(n int, d runner.Device, look lookup) error {
	if !path.IsAbs(d.Source) {
		return errors.New("its source is not an absolute path")
	}
	s, err := look(d.Source)
	if err != nil {
		return err
	}
	if s.kind() != unix.S_IFCHR && s.kind() != unix.S_IFBLK {
		return errors.New("it is no device")
	}
	permissions := d.Permissions
	if permissions == "" {
		permissions = "rw"
	}
	if strings.Trim(permissions, "rwm") != "" {
		return fmt.Errorf("permissions %q are not some of rwm", permissions)
	}
	if d.Target == "" {
		d.Target = d.Source
	}
	l.devices = append(l.devices, access{d.Source, permissions})
	l.writable = append(l.writable, bindPath{d.Source, deviceSlot(n), false, 0})
	d.Source = deviceSlot(n)
	l.nodes = append(l.nodes, d)
	return nil
}

// disks lists the block devices of the host that are not made of memory or of other devices.
func disks() []string {
	names, _ := filepath.Glob("/sys/block/*")
	var list []string
	for _, name := range names {
		base := filepath.Base(name)
		if slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(base, p) }) {
			continue
		}
		list = append(list, "/dev/"+strings.ReplaceAll(base, "!", "/"))
	}
	return list
}
