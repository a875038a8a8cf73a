package namespace

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// The values that zero fields of a Spec stand for; see runner.Spec.
const (
	defaultUID    = 1000
	defaultGID    = 100
	defaultUmask  = 0o022
	defaultHost   = "localhost"
	defaultLog    = 64 << 20 // bytes
	defaultOutput = 16 << 30 // bytes

	defaultPermissions = "rw" // of a device
)

// maxID is the largest user or group id; the one above is the kernel's "no id".
const maxID = 1<<32 - 2

// complete checks spec and fills in what its zero values stand for.
func complete(spec runner.Spec) (runner.Spec, error) {
	if err := check(spec); err != nil {
		return spec, &runner.SetupError{Act: "check spec", Err: err}
	}
	setDefault(&spec.UID, defaultUID)
	setDefault(&spec.GID, defaultGID)
	setDefault(&spec.Umask, defaultUmask)
	setDefault(&spec.Hostname, defaultHost)
	setDefault(&spec.Limits.Log, defaultLog)
	setDefault(&spec.Limits.Output, defaultOutput)
	spec.Devices = slices.Clone(spec.Devices)
	for n := range spec.Devices {
		d := &spec.Devices[n]
		setDefault(&d.Target, d.Source)
		setDefault(&d.Permissions, defaultPermissions)
	}
	return spec, nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func check(spec runner.Spec) error {
	if err := checkUnsupported(spec); err != nil {
		return err
	}
	if len(spec.Commands) == 0 {
		return fmt.Errorf("there is no command")
	}
	if !validName(spec.Name) {
		return fmt.Errorf("name %q is not 1 to 64 of a-z, 0-9 and '-'", spec.Name)
	}
	for n, c := range spec.Commands {
		if err := checkCommand(c); err != nil {
			return fmt.Errorf("command %d: %w", n, err)
		}
	}
	if err := checkMounts(spec.Mounts); err != nil {
		return err
	}
	if err := checkOutputs(spec); err != nil {
		return err
	}
	if err := egress.Validate(spec.Network); err != nil {
		return err
	}
	if err := checkDevices(spec.Devices); err != nil {
		return err
	}
	for name, id := range map[string]int{"uid": spec.UID, "gid": spec.GID} {
		if id < 0 || id > maxID {
			return fmt.Errorf("%s %d is not between 1 and %d", name, id, maxID)
		}
	}
	if spec.Umask < 0 || spec.Umask > 0o777 {
		return fmt.Errorf("umask %#o is not between 0 and 0777", spec.Umask)
	}
	if len(spec.Hostname) > 64 || strings.ContainsAny(spec.Hostname, "\x00/") {
		return fmt.Errorf("host name %q is not a name of at most 64 bytes", spec.Hostname)
	}
	return checkLimits(spec)
}

// checkUnsupported refuses what this driver does not do, before anything else is said about the Spec.
func checkUnsupported(spec runner.Spec) error {
	if spec.Module != nil {
		return fmt.Errorf("a driver runs no modules: give the Spec to runner/wasm")
	}
	return nil
}

// validName reports whether name is empty or one that runner.Spec allows.
func validName(name string) bool {
	return len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func checkLimits(spec runner.Spec) error {
	l := spec.Limits
	for _, n := range []int64{
		int64(spec.CPUs), int64(l.Wall), l.CPU, l.Memory, l.Scratch, int64(l.Processes), l.Log, l.Output, l.IORead, l.IOWrite,
	} {
		if n < 0 {
			return fmt.Errorf("a limit is negative")
		}
	}
	if !(l.Power >= 0) || math.IsInf(l.Power, 0) {
		return fmt.Errorf("power of %v watts is not a positive number", l.Power)
	}
	return nil
}

func checkCommand(c runner.Command) error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return fmt.Errorf("it names no program")
	}
	for _, s := range slices.Concat(c.Argv, c.Env, []string{c.Dir}) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q contains a zero byte", s)
		}
	}
	for _, kv := range c.Env {
		if strings.Index(kv, "=") < 1 {
			return fmt.Errorf("environment entry %q is not KEY=value", kv)
		}
	}
	if c.Dir != "" && !path.IsAbs(c.Dir) {
		return fmt.Errorf("directory %q is not absolute", c.Dir)
	}
	return nil
}

// The limits of Data, as runner.Mount says.
const (
	maxData    = 1 << 20 // bytes of one
	maxAllData = 4 << 20 // bytes of all in a Spec
)

func checkMounts(mounts []runner.Mount) error {
	total := 0
	for _, m := range mounts {
		total += len(m.Content)
	}
	if total > maxAllData {
		return fmt.Errorf("data of %d bytes together is more than %d", total, maxAllData)
	}
	for n, m := range mounts {
		if err := checkMount(m, mounts[:n]); err != nil {
			return fmt.Errorf("mount %d at %q: %w", n, m.Target, err)
		}
	}
	return nil
}

func checkMount(m runner.Mount, before []runner.Mount) error {
	if !cleanPath(m.Target) {
		return fmt.Errorf("target is not an absolute, clean path")
	}
	for _, made := range []string{"/proc", "/dev"} {
		if m.Target == made || strings.HasPrefix(m.Target, made+"/") {
			return fmt.Errorf("%s is made by the driver", made)
		}
	}
	switch m.Kind {
	case runner.Bind, runner.Copy:
		if !path.IsAbs(m.Source) || strings.ContainsRune(m.Source, 0) {
			return fmt.Errorf("source %q is not an absolute path", m.Source)
		}
	case runner.Data:
		if m.Source != "" || m.Writable || m.Target == "/" {
			return fmt.Errorf("data is a read-only file without a source")
		}
		if len(m.Content) > maxData {
			return fmt.Errorf("data of %d bytes is larger than %d", len(m.Content), maxData)
		}
	case runner.Tmpfs:
		if m.Source != "" || m.Size < 0 {
			return fmt.Errorf("a tmpfs has no source and no negative size")
		}
	default:
		return fmt.Errorf("kind %q is none of bind, tmpfs, data and copy", m.Kind)
	}
	if m.Kind == runner.Copy {
		return checkCopy(m, before)
	}
	for _, b := range before {
		if b.Kind != runner.Copy && within(b.Target, m.Target) {
			return fmt.Errorf("it would hide the mount at %s, which comes before it", b.Target)
		}
	}
	return nil
}

// checkCopy sees to it that the innermost mount that holds the copy is writable.
func checkCopy(m runner.Mount, before []runner.Mount) error {
	var place runner.Mount
	for _, b := range before {
		if b.Kind != runner.Copy && within(m.Target, b.Target) && len(b.Target) >= len(place.Target) {
			place = b
		}
	}
	if place.Kind != runner.Tmpfs && !place.Writable {
		return fmt.Errorf("a copy must lie on a tmpfs or on a writable mount")
	}
	return nil
}

// maxDevices bounds the devices of a Spec: a machine with 16 GPUs has some 100 nodes.
const maxDevices = 512

func checkDevices(list []runner.Device) error {
	if len(list) > maxDevices {
		return fmt.Errorf("%d devices are more than %d", len(list), maxDevices)
	}
	taken := map[string]bool{}
	for _, d := range list {
		target := cmp.Or(d.Target, d.Source)
		switch {
		case !cleanPath(d.Source):
			return fmt.Errorf("device %q: source is not an absolute, clean path", d.Source)
		case !cleanPath(target) || !strings.HasPrefix(target, "/dev/"):
			return fmt.Errorf("device %q: target %q is not a clean path below /dev", d.Source, target)
		case ownDevice(target) || taken[target]:
			return fmt.Errorf("device %q: target %q is taken", d.Source, target)
		case !validPermissions(d.Permissions):
			return fmt.Errorf("device %q: permissions %q are not some of rwm, in this order", d.Source, d.Permissions)
		}
		taken[target] = true
	}
	return nil
}

func validPermissions(p string) bool {
	return slices.Contains([]string{"", "r", "w", "m", "rw", "rm", "wm", "rwm"}, p)
}

func checkOutputs(spec runner.Spec) error {
	seen := map[string]bool{}
	for _, o := range spec.Outputs {
		if o.Name == "" || seen[o.Name] {
			return fmt.Errorf("output name %q is empty or not unique", o.Name)
		}
		seen[o.Name] = true
		if !cleanPath(o.Path) {
			return fmt.Errorf("output %s: path %q is not an absolute, clean path", o.Name, o.Path)
		}
	}
	if len(spec.Outputs) > 0 && spec.Collect == nil {
		return fmt.Errorf("there are outputs, but nothing collects them")
	}
	return nil
}

func cleanPath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// within reports whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
