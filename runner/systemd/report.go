package systemd

import (
	"fmt"

	"arch.network/runner"
)

// Report is what the effect probes found on a host: which of systemd's guarantees are kept by it and its kernel.
type Report struct {
	Systemd string // version
	Boot    string // the kernel's boot id: nothing of the report is older
	Effects []Effect
}

// Effect is one guarantee.
type Effect struct {
	Name     string // as in runner.Confinement.Enforced
	Property string // how systemd is asked for it
	Holds    bool
	Seen     string // what the probe saw
	Cure     string // what can be done if it does not hold
}

// effect describes a guarantee before it is probed.
type effect struct {
	property string
	cure     string
	need     func(runner.Spec) bool // whether a Spec is refused without it; nil: never
	alone    bool                   // it is said of every unit, not only of those that need it
	worker   bool                   // only units of a Pool have it
}

func always(runner.Spec) bool { return true }

const (
	cureSeccomp   = "boot a kernel with CONFIG_SECCOMP_FILTER, and a systemd built with it (systemctl --version shows +SECCOMP)"
	cureNamespace = "let systemd make mount namespaces: in a container, give it CAP_SYS_ADMIN"
	cureBPF       = "let systemd load BPF programs into cgroups (CONFIG_CGROUP_BPF and version 2 mounted, perhaps beside version 1)"
)

// effects are all guarantees that are probed.
var effects = map[string]effect{
	"unit-root":           {"RootDirectory=", cureNamespace, always, true, false},
	"unit-read-only":      {"TemporaryFileSystem=…:ro", cureNamespace, always, true, false},
	"unit-capabilities":   {"CapabilityBoundingSet=", "use systemd 252 or later", always, true, false},
	"unit-privileges":     {"NoNewPrivileges=", "use systemd 252 or later", always, true, false},
	"unit-system-calls":   {"SystemCallFilter=", cureSeccomp, always, true, false},
	"unit-personality":    {"LockPersonality=", cureSeccomp, nil, true, false},
	"unit-families":       {"RestrictAddressFamilies=", cureSeccomp, always, true, false},
	"unit-network":        {"PrivateNetwork=", "let systemd make network namespaces (CONFIG_NET_NS; in a container, CAP_SYS_ADMIN)", always, true, false},
	"unit-addresses":      {"IPAddressDeny=", cureBPF, nil, true, false},
	"unit-devices":        {"DevicePolicy=strict", cureBPF, func(s runner.Spec) bool { return len(s.Devices) > 0 }, true, false},
	"unit-user":           {"CapabilityBoundingSet=CAP_SETUID CAP_SETGID", "let units change to user ids up to 2147483647: in a container, map them", always, false, false},
	"unit-inner":          {"(none: unprivileged user namespaces)", "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0", always, false, false},
	"memory":              {"MemoryMax=", cureGroups, func(s runner.Spec) bool { return s.Limits.Memory > 0 }, false, false},
	"processes":           {"TasksMax=", cureGroups, func(s runner.Spec) bool { return s.Limits.Processes > 0 }, false, false},
	"cpu":                 {"CPUQuota=", cureGroups, func(s runner.Spec) bool { return s.Limits.CPU > 0 }, false, false},
	"worker-namespaces":   {"RestrictNamespaces=", cureSeccomp, nil, false, true},
	"worker-families":     {"RestrictAddressFamilies=AF_UNIX", cureSeccomp, nil, false, true},
	"worker-executable":   {"MemoryDenyWriteExecute=", cureSeccomp, nil, false, true},
	"worker-system-calls": {"SystemCallFilter=", cureSeccomp, nil, false, true},
}

// Find returns the effect of that name.
func (r Report) Find(name string) (Effect, bool) {
	for _, e := range r.Effects {
		if e.Name == name {
			return e, true
		}
	}
	return Effect{}, false
}

// enforced names the guarantees that the unit for spec has, of those that hold.
func (r Report) enforced(spec runner.Spec) []string {
	var list []string
	for _, e := range r.Effects {
		if !e.Holds || !asked(e.Name, spec) {
			continue
		}
		if effects[e.Name].alone {
			list = append(list, e.Name)
		}
		if e.Name == "unit-devices" && len(spec.Devices) > 0 {
			list = append(list, "device-permissions:cgroup")
		}
	}
	return list
}

// asked reports whether the unit for spec has the property: one with a network is in that of the host, where only the gateway of
// the inner layer uses it.
func asked(name string, spec runner.Spec) bool {
	return spec.Network.IsZero() || name != "unit-network" && name != "unit-addresses"
}

// require refuses spec if it needs what does not hold here, or says what will be missing.
func (r Report) require(spec runner.Spec) (missing []string, err error) {
	for _, e := range r.Effects {
		d := effects[e.Name]
		if e.Holds || d.worker || !asked(e.Name, spec) {
			continue
		}
		needed := d.need != nil && d.need(spec)
		if needed && !spec.Degraded {
			return nil, e.refusal()
		}
		if needed || d.alone {
			missing = append(missing, e.lack(e.Name))
		}
		if e.Name == "unit-devices" && len(spec.Devices) > 0 {
			missing = append(missing, e.lack("device-permissions"))
		}
	}
	return missing, nil
}

// requireWorker refuses a Pool if one of the guarantees of its units does not hold.
func (r Report) requireWorker(class runner.Spec) error {
	for _, e := range r.Effects {
		d := effects[e.Name]
		if e.Name == "worker-executable" || e.Name == "unit-inner" || e.Holds || !d.worker && (d.need == nil || !d.need(class)) || class.Degraded {
			continue
		}
		return e.refusal()
	}
	return nil
}

// lack says what is missing for want of the effect.
func (e Effect) lack(name string) string {
	return name + ": " + e.Property + " has no effect here: " + e.Seen
}

func (e Effect) refusal() error {
	return &runner.SetupError{
		Act: "confine by systemd", Err: fmt.Errorf("%s: %s has no effect here: %s", e.Name, e.Property, e.Seen), Cure: e.Cure,
	}
}
