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

// resolvConf tells the gateway of the inner layer whom to ask for names. It never appears among what commands see.
const resolvConf = "/etc/resolv.conf"

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

// cureOwner tells how a job gets access to places of the host.
const cureOwner = "give all of them to one user (chown), as whom the job then works there, or open them to everyone (chmod)"

// arrange says where the Spec's mounts and devices are in the unit, and as whom the unit works on the host: as a user that no other
// unit and nobody on the host is, unless a source is closed to others; then as its owner. Root, too, is without power there.
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
	if !spec.Network.IsZero() {
		if _, err := look(resolvConf); err == nil { // without it there is nobody to ask for names
			l.readOnly = append(l.readOnly, bindPath{resolvConf, resolvConf, false, 0})
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
	uid, gid := s.uid, s.gid
	if uid == 0 {
		uid, gid = rootUser, rootUser
	}
	switch {
	case open:
		return nil
	case l.uid != 0 && l.uid != uid:
		return &ownerError{m.Source, fmt.Sprintf("it belongs to user %d and is closed to others, as is another source that does not", s.uid)}
	}
	l.uid, l.gid = uid, gid
	return nil
}

// rootUser is a unit's user that stays root, since zero stands for one of its own.
const rootUser = -1

// ownerError says that no user can be found who may use a source.
type ownerError struct{ path, why string }

func (e *ownerError) Error() string { return fmt.Sprintf("use %s: %s", e.path, e.why) }

// device binds a device node. The inner layer says what is wrong with a target.
func (l *layout) device(n int, d runner.Device, look lookup) error {
	if !path.IsAbs(d.Source) {
		l.nodes = append(l.nodes, d)
		return nil
	}
	s, err := look(d.Source)
	if err != nil {
		return err
	}
	if s.kind() != unix.S_IFCHR && s.kind() != unix.S_IFBLK {
		return errors.New("it is not a device")
	}
	permissions, err := permissions(d)
	if err != nil {
		return err
	}
	if d.Target == "" {
		d.Target = d.Source
	}
	l.devices = append(l.devices, access{d.Source, permissions})
	l.writable = append(l.writable, bindPath{d.Source, deviceSlot(n), false, 0})
	d.Source, d.Permissions = deviceSlot(n), "" // the unit keeps them
	l.nodes = append(l.nodes, d)
	return nil
}

// permissions returns those of d.
func permissions(d runner.Device) (string, error) {
	if d.Permissions == "" {
		return "rw", nil
	}
	rest := "rwm"
	for _, c := range d.Permissions {
		_, after, ok := strings.Cut(rest, string(c))
		if !ok {
			return "", fmt.Errorf("permissions %q are not some of rwm, in this order", d.Permissions)
		}
		rest = after
	}
	return d.Permissions, nil
}

// disks lists the block devices of the host that are not made of memory or of other devices: as nodes, or as directories of
// file systems on those that have none, which systemd takes as well.
func disks() []string {
	names, _ := filepath.Glob("/sys/block/*")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	var list []string
	for _, name := range names {
		base := filepath.Base(name)
		if slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(base, p) }) {
			continue
		}
		node := "/dev/" + strings.ReplaceAll(base, "!", "/")
		if _, err := os.Stat(node); err == nil {
			list = append(list, node)
			continue
		}
		number, _ := os.ReadFile(filepath.Join(name, "dev"))
		if dir := mountOf(strings.TrimSpace(string(number)), string(mounts)); dir != "" {
			list = append(list, dir)
		}
	}
	return list
}

// mountOf returns a directory on which the device of that number, "MAJOR:MINOR", is mounted (proc_pid_mountinfo(5)).
func mountOf(number, mounts string) string {
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 4 && f[2] == number && !strings.Contains(f[4], `\`) {
			return f[4]
		}
	}
	return ""
}
