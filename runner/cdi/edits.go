package cdi

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// add adds what e says, or refuses it.
func (out *Edits) add(e edits) error {
	switch {
	case len(e.Hooks) > 0:
		return fmt.Errorf("hook %s (%q) cannot be applied: no program of the host runs for a job", e.Hooks[0].Name, e.Hooks[0].Path)
	case len(e.NetDevices) > 0:
		return fmt.Errorf("network device %q cannot be given to a job", e.NetDevices[0].Host)
	case e.IntelRDT != nil:
		return errors.New("intelRdt cannot be applied")
	case len(e.AdditionalGIDs) > 0:
		return fmt.Errorf("additional group %d cannot be given to a job", e.AdditionalGIDs[0])
	}
	for _, kv := range e.Env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("environment entry %q is not KEY=value", kv)
		}
		if !slices.Contains(out.Env, kv) {
			out.Env = append(out.Env, kv)
		}
	}
	for _, n := range e.DeviceNodes {
		d, err := n.device()
		if err != nil {
			return fmt.Errorf("device node %q: %w", n.Path, err)
		}
		if !slices.Contains(out.Devices, d) {
			out.Devices = append(out.Devices, d)
		}
	}
	for _, m := range e.Mounts {
		b, err := m.bind()
		if err != nil {
			return fmt.Errorf("mount %q: %w", m.ContainerPath, err)
		}
		if !slices.ContainsFunc(out.Mounts, func(o runner.Mount) bool { return reflect.DeepEqual(o, b) }) {
			out.Mounts = append(out.Mounts, b)
		}
	}
	return nil
}

// device checks the host's node against what the specification says of it.
func (n node) device() (runner.Device, error) {
	d := runner.Device{Source: n.HostPath, Target: n.Path, Permissions: n.Permissions}
	if d.Source == "" {
		d.Source = n.Path
	}
	if !clean(d.Source) || !clean(d.Target) || !strings.HasPrefix(d.Target, "/dev/") {
		return d, fmt.Errorf("host path %q must be absolute and clean, and path below /dev", d.Source)
	}
	if !slices.Contains([]string{"", "r", "w", "rw", "rm", "wm", "rwm"}, d.Permissions) {
		return d, fmt.Errorf("permissions %q are not some of rwm", d.Permissions)
	}
	var st unix.Stat_t
	if err := unix.Lstat(d.Source, &st); err != nil {
		return d, fmt.Errorf("look at %s: %w", d.Source, err)
	}
	return d, n.agrees(st)
}

// agrees compares the specification with the node that the job will see, which is the host's own: a Spec cannot change it.
func (n node) agrees(st unix.Stat_t) error {
	kinds := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}
	kind := kinds[st.Mode&unix.S_IFMT]
	number := n.Major != 0 || n.Minor != 0
	switch {
	case kind == "":
		return errors.New("it is not a device")
	case n.Type != "" && n.Type != kind && !(n.Type == "u" && kind == "c"): // "u" is a character device, too (mknod(1))
		return fmt.Errorf("its type is %q on the host, not %q", kind, n.Type)
	case number && (uint32(n.Major) != unix.Major(st.Rdev) || uint32(n.Minor) != unix.Minor(st.Rdev)):
		return fmt.Errorf("it is %d:%d on the host, not %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev), n.Major, n.Minor)
	case n.FileMode != nil && *n.FileMode&0o777 != st.Mode&0o777:
		return fmt.Errorf("fileMode %#o cannot be applied: it is %#o on the host", *n.FileMode, st.Mode&0o777)
	case n.UID != nil && *n.UID != st.Uid, n.GID != nil && *n.GID != st.Gid:
		return fmt.Errorf("uid and gid cannot be applied: they are %d and %d on the host", st.Uid, st.Gid)
	}
	return nil
}

// harmless are the options that every mount of a Spec has, that say what a bind is, or that only take away.
var harmless = []string{"bind", "rbind", "nosuid", "nodev", "noexec", "private", "rprivate", "slave", "rslave", "ro", "rw"}

func (m mount) bind() (runner.Mount, error) {
	b := runner.Mount{Kind: runner.Bind, Source: m.HostPath, Target: m.ContainerPath}
	if !clean(b.Source) || !clean(b.Target) {
		return b, fmt.Errorf("its paths, %q on the host, must be absolute and clean", m.HostPath)
	}
	if m.Type != "" && m.Type != "bind" && m.Type != "none" {
		return b, fmt.Errorf("type %q cannot be mounted", m.Type)
	}
	for _, o := range m.Options {
		if !slices.Contains(harmless, o) {
			return b, fmt.Errorf("option %q cannot be applied", o)
		}
	}
	b.Writable = slices.Contains(m.Options, "rw") && !slices.Contains(m.Options, "ro")
	return b, nil
}

func clean(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}
