package systemd

import (
	"arch.network/runner"
)

// worker returns the properties of a unit of a Pool but for its descriptors: one static program, in a root directory that
// holds nothing but what the class mounts: no /proc and no /dev. executable lets it make machine code.
func (o Options) worker(class runner.Spec, l layout, executable bool) []Property {
	p := []Property{
		{"Description", "arch pool " + class.Name},
		{"RootDirectory", o.root()},
		{"TemporaryFileSystem", []tmpfs{{slots, "ro,nosuid,nodev,mode=0755,size=64k"}}},
		{"BindReadOnlyPaths", append([]bindPath{{o.Executable, programSlot, false, 0}}, l.readOnly...)},
		{"DynamicUser", true},
		{"PrivateUsers", true},
		{"CapabilityBoundingSet", uint64(0)},
		{"RestrictNamespaces", uint64(0)},
		{"SystemCallFilter", list{true, workerCalls}},
		{"RestrictAddressFamilies", list{true, workerFamilies}},
	}
	if !executable {
		p = append(p, Property{"MemoryDenyWriteExecute", true})
	}
	p = append(p, o.common(class)...)
	return append(p, limits(class.Limits, false)...)
}
