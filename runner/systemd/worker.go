package systemd

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// poolUnit returns the properties of the units of a Pool but for their descriptors: one static program, in a root
// directory that holds nothing but what the class mounts. There is no /proc and no /dev. compile lets it make machine code.
func (o Options) poolUnit(class runner.Spec, root string, compile bool) []Property {
	p := []Property{
		{"Description", "arch pool " + class.Name},
		{"ExecStart", []command{{programSlot, workerArguments(class.Commands[0]), false}}},
		{"RootDirectory", root},
		{"MountAPIVFS", false},
		// No DynamicUser=: it brings a /tmp and a /var/tmp on the host's disk, whose size nothing limits. The unit's first process
		// becomes a user of its own instead, with these, and gives up all of them before it executes the program.
		{"CapabilityBoundingSet", uint64(setIDs | 1<<unix.CAP_SETPCAP)},
		{"RestrictNamespaces", uint64(0)},
		{"RestrictSUIDSGID", true},
		{"SystemCallFilter", list{true, workerCalls}},
		{"RestrictAddressFamilies", list{true, workerFamilies}},
	}
	if !compile {
		p = append(p, Property{"MemoryDenyWriteExecute", true})
	}
	binds := []bindPath{{o.Executable, programSlot, false, 0}}
	var empty []tmpfs
	for _, m := range class.Mounts {
		if m.Kind == runner.Bind {
			binds = append(binds, bindPath{m.Source, m.Target, false, recursive})
		} else {
			empty = append(empty, tmpfs{m.Target, "nosuid,nodev,mode=1777,size=" + strconv.FormatInt(scratch(m, class.Limits), 10)})
		}
	}
	p = append(p, Property{"BindReadOnlyPaths", binds})
	if len(empty) > 0 {
		p = append(p, Property{"TemporaryFileSystem", empty})
	}
	p = append(append(p, Property{"DeviceAllow", memoryDevices}), isolated...)
	if class.Limits.Memory == 0 {
		p = append(p, Property{"MemorySwapMax", uint64(0)}) // for the limit that Take sets
	}
	return append(append(p, o.common(class)...), limits(class.Limits, true)...)
}

// defaultScratch is the size of a file system in memory for which neither a Mount nor the Limits say one.
const defaultScratch = 64 << 20

// scratch returns the size of the tmpfs m: unlike in a Run, never what the host has.
func scratch(m runner.Mount, l runner.Limits) int64 {
	switch {
	case m.Size > 0:
		return m.Size
	case l.Scratch > 0:
		return l.Scratch
	default:
		return defaultScratch
	}
}

// checkClass says what a Pool cannot do for its class.
func checkClass(class runner.Spec) error {
	if err := checkSpec(class); err != nil {
		return err
	}
	switch {
	case len(class.Commands) != 1 || len(class.Commands[0].Argv) == 0:
		return errors.New("a class has one command")
	case !path.IsAbs(class.Commands[0].Argv[0]):
		return fmt.Errorf("program %q is not an absolute path", class.Commands[0].Argv[0])
	case len(class.Outputs) > 0 || class.Exchange != nil || class.ClockOffset != 0 || len(class.Devices) > 0 || class.Hostname != "" ||
		class.UID != 0 || class.GID != 0 || class.CPUs != 0 || class.Commands[0].Dir != "":
		return errors.New("a class has mounts, limits and one command with its environment, and nothing else")
	}
	for _, m := range class.Mounts {
		if m.Kind != runner.Tmpfs && (m.Kind != runner.Bind || m.Writable) || !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
			return fmt.Errorf("mount at %q: a class has read-only bind mounts and tmpfs below the root", m.Target)
		}
	}
	return nil
}

// makeRoot makes a root directory with a mount point for each mount of class, and locks it.
func makeRoot(root, executable string, class runner.Spec) (lock *os.File, err error) {
	if err := makeDirectory(root); err != nil {
		return nil, err
	}
	if lock, err = lockRoot(root); err != nil {
		return nil, fmt.Errorf("a pool of this name is there already: %w", err)
	}
	program := runner.Mount{Kind: runner.Bind, Source: executable, Target: programSlot}
	for _, m := range append([]runner.Mount{program}, class.Mounts...) {
		if err := makePoint(root, m); err != nil {
			os.RemoveAll(root)
			lock.Close()
			return nil, err
		}
	}
	return lock, nil
}

// lockRoot says that this process uses root, until the file is closed; it fails where another one does.
func lockRoot(root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return f, nil
}

// makePoint makes the mount point of m.
func makePoint(root string, m runner.Mount) error {
	file := false
	if m.Kind == runner.Bind {
		s, err := lstat(m.Source)
		if err != nil {
			return err
		}
		if !s.readable() {
			return &ownerError{m.Source, "it is closed to others"}
		}
		file = s.kind() == unix.S_IFREG
	}
	at := root
	names := strings.Split(strings.TrimPrefix(m.Target, "/"), "/")
	for n, name := range names {
		at = filepath.Join(at, name)
		if file && n == len(names)-1 {
			return os.WriteFile(at, nil, 0o644)
		}
		if err := makeDirectory(at); err != nil {
			return err
		}
	}
	return nil
}
