package systemd

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// Property is one property of a transient unit, by its name on the bus (org.freedesktop.systemd1(5)).
type Property struct {
	Name  string
	Value any // a Go value in the form that godbus sends
}

// String returns the property for a person to read.
func (p Property) String() string { return fmt.Sprintf("%s=%v", p.Name, p.Value) }

// The structures that properties are made of, with their D-Bus signatures.
type (
	list struct {
		Allow bool
		Names []string
	} // (bas)
	bindPath struct {
		Source, Target string
		IgnoreMissing  bool
		Flags          uint64
	} // (ssbt)
	tmpfs  struct{ Target, Options string }     // (ss)
	access struct{ Device, Permissions string } // (ss)
	rate   struct {
		Device         string
		BytesPerSecond uint64
	} // (st)
	prefix struct {
		Family  int32
		Address []byte
		Length  uint32
	} // (iayu)
	command struct {
		Path          string
		Argv          []string
		IgnoreFailure bool
	} // (sasb)
)

const (
	infinity  = ^uint64(0)
	recursive = uint64(unix.MS_REC) // a bind takes the mounts below along
	setIDs    = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
)

// Where things are in the root directory of a unit.
const (
	slots       = "/m" // a read-only file system in memory that holds the mount points
	programSlot = slots + "/init"
)

// slot returns the place of mount n of the Spec.
func slot(n int) string { return slots + "/" + strconv.Itoa(n) }

// deviceSlot returns the place of device n of the Spec.
func deviceSlot(n int) string { return slots + "/d" + strconv.Itoa(n) }

// ownTasks is how many threads of the unit's first two processes the limit of processes does not count.
const ownTasks = 48

// ownMemory is how much memory the unit's first two processes may need beside what a Spec allows to its commands: measured 5 to 7 MiB.
const ownMemory = 24 << 20

// common are the properties of every unit: what limits it, and what it never has.
func (o Options) common(spec runner.Spec) []Property {
	return []Property{
		{"Slice", o.Slice},
		{"Type", "exec"},
		{"CollectMode", "inactive-or-failed"},
		{"AddRef", true},
		{"StandardOutput", "null"},
		{"StandardError", "journal"},
		{"TimeoutStartUSec", uint64(busTimeout.Microseconds())},
		{"TimeoutStopUSec", uint64(10e6)},
		{"KillSignal", int32(unix.SIGKILL)}, // nothing here has an orderly end to come to
		{"KillMode", "control-group"},
		{"OOMPolicy", "kill"},
		{"LimitCORE", uint64(0)},
		{"UMask", uint32(0o077)},
		{"KeyringMode", "private"},
		{"NoNewPrivileges", true},
		{"LockPersonality", true},
		{"RestrictRealtime", true},
		{"SystemCallArchitectures", []string{"native"}},
		{"SystemCallErrorNumber", int32(unix.EPERM)},
		{"DevicePolicy", "strict"},
		{"CPUAccounting", true},
		{"MemoryAccounting", true},
		{"TasksAccounting", true},
		{"IOAccounting", true},
	}
}

// isolated are the properties of a unit without network.
var isolated = []Property{{"PrivateNetwork", true}, {"IPAddressDeny", anyAddress}}

// memoryDevices are those of the kernel's memory driver that every unit may use (Documentation/admin-guide/devices.txt, major 1).
var memoryDevices = []access{{"/dev/null", "rw"}, {"/dev/zero", "rw"}, {"/dev/full", "rw"}, {"/dev/random", "rw"}, {"/dev/urandom", "rw"}}

// anyAddress is every address of both families.
var anyAddress = []prefix{{unix.AF_INET, make([]byte, 4), 0}, {unix.AF_INET6, make([]byte, 16), 0}}

// limits are the properties that Limits turn into; overhead is what the driver's own processes may need on top.
func limits(l runner.Limits, overhead bool) []Property {
	var memory, tasks uint64
	if overhead {
		memory, tasks = ownMemory, ownTasks
	}
	var p []Property
	if l.Memory > 0 {
		p = append(p, Property{"MemoryMax", uint64(l.Memory) + memory}, Property{"MemorySwapMax", uint64(0)})
	}
	if l.Processes > 0 {
		p = append(p, Property{"TasksMax", uint64(l.Processes) + tasks})
	}
	if l.CPU > 0 {
		p = append(p, Property{"CPUQuotaPerSecUSec", uint64(l.CPU) * 1000})
	}
	return p
}

// bandwidth are the properties of I/O limits, which name each device.
func bandwidth(l runner.Limits, devices []string) []Property {
	var p []Property
	add := func(name string, bytes int64) {
		if bytes == 0 {
			return
		}
		var rates []rate
		for _, d := range devices {
			rates = append(rates, rate{d, uint64(bytes)})
		}
		p = append(p, Property{name, rates})
	}
	add("IOReadBandwidthMax", l.IORead)
	add("IOWriteBandwidthMax", l.IOWrite)
	return p
}

// unit returns the properties of the unit for spec but for its descriptors.
func (o Options) unit(spec runner.Spec, l layout) []Property {
	p := []Property{
		{"Description", "arch job " + spec.Name},
		{"ExecStart", []command{{programSlot, []string{argument0, modeRun}, false}}},
		{"RootDirectory", o.root()},
		{"MountAPIVFS", true}, // the inner layer makes its own /proc and /dev from these
		{"TemporaryFileSystem", []tmpfs{{slots, "ro,nosuid,nodev,mode=0755,size=64k"}}},
		{"BindReadOnlyPaths", append([]bindPath{{o.Executable, programSlot, false, 0}}, l.readOnly...)},
		{"CapabilityBoundingSet", l.capabilities()},
		{"SystemCallFilter", list{true, innerCalls}},
		{"RestrictAddressFamilies", list{true, families(spec)}},
	}
	if len(l.writable) > 0 {
		p = append(p, Property{"BindPaths", l.writable})
	}
	p = append(p, Property{"DeviceAllow", append(slices.Clone(memoryDevices), l.devices...)})
	if spec.Network.IsZero() {
		p = append(p, isolated...)
	}
	if t := runtimeMax(spec); t != infinity {
		p = append(p, Property{"RuntimeMaxUSec", t})
	}
	p = append(p, o.common(spec)...)
	p = append(p, limits(spec.Limits, true)...)
	return append(p, bandwidth(spec.Limits, l.disks)...)
}

// Slack of the unit's own deadline over Limits.Wall, which the inner layer keeps to the millisecond: systemd's is for
// where that fails, and must leave time to start, and for a driver to come back and take what there is.
const slack = 30*time.Second + keepOutcome

// runtimeMax returns RuntimeMaxUSec for spec.
func runtimeMax(spec runner.Spec) uint64 {
	if spec.Limits.Wall == 0 {
		return infinity
	}
	return uint64((spec.Limits.Wall + slack).Microseconds())
}

// layout is how a Spec's mounts and devices become the unit's.
type layout struct {
	readOnly []bindPath
	writable []bindPath
	devices  []access
	disks    []string // block devices that I/O limits apply to

	mounts []runner.Mount  // the Spec's, with sources inside the unit
	nodes  []runner.Device // the same for devices
	uid    int             // of the host, that the unit becomes; zero: one of its own; rootUser: none
	gid    int
}

// add binds the source of mount n; link says that it is a symbolic link.
func (l *layout) add(n int, m runner.Mount, link bool) {
	place := slot(n)
	source := m.Source
	flags := recursive
	if link { // a link cannot be bound: its directory is, without the mounts below, which may be all of the host's
		flags = 0
		source = path.Dir(m.Source)
		m.Source = path.Join(place, path.Base(m.Source))
	} else {
		m.Source = place
	}
	b := bindPath{source, place, false, flags}
	if m.Writable && m.Kind == runner.Bind {
		l.writable = append(l.writable, b)
	} else {
		l.readOnly = append(l.readOnly, b)
	}
	l.mounts = append(l.mounts, m)
}

// capabilities returns what the unit's first process needs to become its user. They are gone before the Spec is looked at,
// but in a unit that stays root, where making a user namespace for root takes them, and one more (user_namespaces(7)).
func (l layout) capabilities() uint64 {
	if l.uid == rootUser {
		return setIDs | 1<<unix.CAP_SETFCAP
	}
	return setIDs
}

// toBus turns properties into what the bus takes.
func toBus(properties []Property) []sd.Property {
	var list []sd.Property
	for _, p := range properties {
		list = append(list, sd.Property{Name: p.Name, Value: dbus.MakeVariant(p.Value)})
	}
	return list
}

// descriptor is the property name with an open file.
func descriptor(name string, fd uintptr) sd.Property {
	return sd.Property{Name: name, Value: dbus.MakeVariant(dbus.UnixFD(fd))}
}
