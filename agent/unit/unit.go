// Package unit is the one place where the systemd units of a node are written down: of the agent, its socket, and the broker with its
// own. Settings are typed; Render turns them into unit files, and whoever packages a node (Nix, Guix, Debian) takes the same properties
// from Unit.Properties. It only writes text: it starts and installs nothing.
//
// What the units promise, tests check with systemd itself: they are well-formed, and systemd-analyze security finds at most 1.5 of 10
// exposed.
package unit

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Property is one line of a unit. A property that is there several times adds up, as in systemd.
type Property struct{ Name, Value string }

// Section is a section of a unit.
type Section struct {
	Name       string
	Properties []Property
}

// Unit is one unit file.
type Unit struct {
	Name     string // with its suffix
	Comment  string // lines without their marks
	Sections []Section
}

// Properties returns the values of a property, in order.
func (u Unit) Properties(section, name string) []string {
	var values []string
	for _, s := range u.Sections {
		for _, p := range s.Properties {
			if s.Name == section && p.Name == name {
				values = append(values, p.Value)
			}
		}
	}
	return values
}

// String returns the unit file.
func (u Unit) String() string {
	var b strings.Builder
	for line := range strings.Lines(u.Comment) {
		fmt.Fprintf(&b, "# %s\n", strings.TrimSuffix(line, "\n"))
	}
	for i, s := range u.Sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", s.Name)
		for _, p := range s.Properties {
			fmt.Fprintf(&b, "%s=%s\n", p.Name, p.Value)
		}
	}
	return b.String()
}

// Settings are what differs between machines.
type Settings struct {
	Bin       string   // directory of the programs; empty: /usr/bin
	User      string   // that the agent runs as; empty: archagent
	Policy    string   // empty: /etc/arch/policy.yaml
	TrustRoot string   // empty: /etc/arch/trust.yaml
	Key       string   // of the agent, which systemd hands over as the credential "key"; empty: /etc/arch/key
	Listen    []string // addresses, HOST:PORT; none: only the socket
	Read      bool     // everybody who can connect may read
	Hosts     []string // names by which the node is called
	// LedgerPolicy says how others verify the node's ledger (C2SP tlog-policy): the witnesses that it names are asked to cosign it. WitnessFor
	// names the ledgers of others that the node cosigns. Empty: none.
	LedgerPolicy, WitnessFor string
	MemoryMax                string // of the agent itself, without the jobs; empty: 1G
}

func (s Settings) filled() Settings {
	for _, f := range []struct {
		at       *string
		fallback string
	}{
		{&s.Bin, "/usr/bin"}, {&s.User, "archagent"}, {&s.Policy, "/etc/arch/policy.yaml"}, {&s.TrustRoot, "/etc/arch/trust.yaml"}, {&s.Key, "/etc/arch/key"}, {&s.MemoryMax, "1G"},
	} {
		if *f.at == "" {
			*f.at = f.fallback
		}
	}
	return s
}

// Validate refuses what a unit file cannot say, or would say differently.
func (s Settings) Validate() error {
	s = s.filled()
	for _, p := range []struct{ name, value string }{{"bin", s.Bin}, {"policy", s.Policy}, {"trust root", s.TrustRoot}, {"key", s.Key}} {
		if !path.IsAbs(p.value) || path.Clean(p.value) != p.value {
			return fmt.Errorf("settings: %s: %q is no clean absolute path", p.name, p.value)
		}
	}
	optional := []string{}
	for _, p := range []struct{ name, value string }{{"ledger policy", s.LedgerPolicy}, {"witness for", s.WitnessFor}} {
		if p.value == "" {
			continue
		}
		if !path.IsAbs(p.value) || path.Clean(p.value) != p.value {
			return fmt.Errorf("settings: %s: %q is no clean absolute path", p.name, p.value)
		}
		optional = append(optional, p.value)
	}
	for _, v := range slices.Concat([]string{s.Bin, s.User, s.Policy, s.TrustRoot, s.Key, s.MemoryMax}, s.Listen, s.Hosts, optional) {
		for _, r := range v {
			if r <= ' ' || r == 0x7f || strings.ContainsRune(`"'\%$;`, r) {
				return fmt.Errorf("settings: %q holds %q, which unit files read differently", v, r)
			}
		}
		if v == "" || strings.HasPrefix(v, "-") {
			return fmt.Errorf("settings: %q is no value", v)
		}
	}
	return nil
}

// Units returns every unit of a node. The settings must be valid.
func Units(s Settings) []Unit {
	return []Unit{Agent(s), AgentSocket(s), Broker(s), BrokerSocket(s)}
}

// Agent is the service that talks to the world and decides. It has no privilege: jobs are started by systemd, whom the broker asks.
func Agent(s Settings) Unit {
	s = s.filled()
	args := []string{path.Join(s.Bin, "arch-node-agent"), "--policy", s.Policy, "--trust", s.TrustRoot, "--key", "credential:key", "--state", "/var/lib/arch-node-agent", "--log-format", "journal"}
	for _, l := range s.Listen {
		args = append(args, "--listen", l)
	}
	for _, h := range s.Hosts {
		args = append(args, "--host", h)
	}
	if s.Read {
		args = append(args, "--read")
	}
	if s.LedgerPolicy != "" {
		args = append(args, "--ledger-policy", s.LedgerPolicy)
	}
	if s.WitnessFor != "" {
		args = append(args, "--witness-for", s.WitnessFor)
	}
	return Unit{
		Name: "arch-node-agent.service",
		Comment: "The agent of an arch node: it admits, schedules and records jobs, and runs none of them itself.\n" +
			"PrivateUsers= is left out: with it the kernel would report every operator but root as nobody.\n" +
			"MemoryDenyWriteExecute= holds since no module is ever compiled in this process.\n" +
			"The policy and the trust root are read-only to it: ProtectSystem=strict.",
		Sections: []Section{
			{"Unit", []Property{
				{"Description", "arch node agent"},
				{"Documentation", "man:arch-node-agent(8)"},
				{"Wants", "network-online.target arch-runnerd.socket"},
				{"Requires", "arch-node-agent.socket"},
				{"After", "network-online.target arch-node-agent.socket arch-runnerd.socket"},
			}},
			{"Service", append([]Property{
				{"Type", "notify"},
				{"NotifyAccess", "main"},
				{"ExecStart", strings.Join(args, " ")},
				{"ExecReload", "kill -HUP $MAINPID"},
				{"Restart", "on-failure"},
				{"RestartSec", "2s"},
				{"WatchdogSec", "30s"},
				{"TimeoutStopSec", "90s"},
				{"User", s.User},
				{"Group", s.User},
				{"StateDirectory", "arch-node-agent"},
				{"StateDirectoryMode", "0700"},
				{"LoadCredential", "key:" + s.Key},
				{"UMask", "0077"},
				{"ProtectHome", "yes"},
				{"ProcSubset", "pid"},
				{"RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"},
				{"InaccessiblePaths", "-/run/dbus -/run/systemd/private"},
			}, append(hardening(), Property{"MemoryMax", s.MemoryMax}, Property{"TasksMax", "256"}, Property{"LimitNOFILE", "8192"}, Property{"LimitCORE", "0"})...)},
			{"Install", []Property{{"WantedBy", "multi-user.target"}, {"Also", "arch-node-agent.socket"}}},
		},
	}
}

// AgentSocket is where operators and other users of the machine talk to the agent. Everybody may connect; the kernel says who it is, and
// the agent what they may.
func AgentSocket(Settings) Unit {
	return Unit{
		Name:    "arch-node-agent.socket",
		Comment: "The socket of the agent. Everybody may connect: the kernel tells the agent who it is.",
		Sections: []Section{
			{"Unit", []Property{{"Description", "Socket of the arch node agent"}}},
			{"Socket", []Property{
				{"ListenStream", "/run/arch-node-agent/socket"},
				{"FileDescriptorName", "control"},
				{"SocketMode", "0666"},
				{"DirectoryMode", "0755"},
				{"Backlog", "128"},
				{"RemoveOnStop", "yes"},
			}},
			{"Install", []Property{{"WantedBy", "sockets.target"}}},
		},
	}
}

// Broker is the privileged half: uid 0 without any capability, which is authority enough to ask systemd for units over the bus.
func Broker(s Settings) Unit {
	s = s.filled()
	return Unit{
		Name: "arch-runnerd.service",
		Comment: "The broker: uid 0 without any capability. That is authority enough to ask systemd for units over the bus, and for nothing else.\n" +
			"PrivateUsers= is left out: with it the kernel would report the agent, who connects, as nobody.\n" +
			"ProcSubset=pid is left out: the boot id is read below /proc/sys.\n" +
			"UMask= is 0022: the users that jobs run as must be able to read what was received for them.",
		Sections: []Section{
			{"Unit", []Property{{"Description", "Broker of arch jobs"}, {"Requires", "arch-runnerd.socket dbus.socket"}, {"After", "arch-runnerd.socket dbus.socket"}}},
			{"Service", append([]Property{
				{"Type", "notify"},
				{"NotifyAccess", "main"},
				{"ExecStart", path.Join(s.Bin, "arch-runnerd") + " --trust " + s.TrustRoot + " --policy " + s.Policy},
				{"Restart", "on-failure"},
				{"RestartSec", "1s"},
				{"WatchdogSec", "30s"},
				{"TimeoutStartSec", "5min"}, // the first start after a boot tries what systemd's properties do
				{"TimeoutStopSec", "30s"},
				{"StateDirectory", "arch-runnerd"},
				{"RuntimeDirectory", "arch-jobs"},
				{"RuntimeDirectoryPreserve", "yes"},
				{"UMask", "0022"},
				{"PrivateNetwork", "yes"},
				{"IPAddressDeny", "any"},
				{"ProtectHome", "read-only"},
				{"RestrictAddressFamilies", "AF_UNIX"},
			}, append(hardening(), Property{"MemoryMax", "1G"}, Property{"TasksMax", "512"}, Property{"LimitNOFILE", "4096"}, Property{"LimitCORE", "0"})...)},
			{"Install", []Property{{"WantedBy", "multi-user.target"}}},
		},
	}
}

// BrokerSocket is where the agent, and nobody else, talks to the broker.
func BrokerSocket(s Settings) Unit {
	s = s.filled()
	return Unit{
		Name:    "arch-runnerd.socket",
		Comment: "The socket of the broker. Its owner is who may ask; the broker checks the user of each connection by itself, too.",
		Sections: []Section{
			{"Unit", []Property{{"Description", "Socket of the arch job broker"}}},
			{"Socket", []Property{
				{"ListenStream", "/run/arch-runnerd/socket"},
				{"SocketUser", s.User},
				{"SocketMode", "0600"},
				{"DirectoryMode", "0755"},
				{"Backlog", "128"},
				{"RemoveOnStop", "yes"},
			}},
			{"Install", []Property{{"WantedBy", "sockets.target"}}},
		},
	}
}

// hardening is what both services share.
func hardening() []Property {
	return []Property{
		{"CapabilityBoundingSet", ""},
		{"AmbientCapabilities", ""},
		{"NoNewPrivileges", "yes"},
		{"ProtectSystem", "strict"},
		{"PrivateTmp", "yes"},
		{"PrivateDevices", "yes"},
		{"DevicePolicy", "closed"},
		{"PrivateMounts", "yes"},
		{"ProtectKernelTunables", "yes"},
		{"ProtectKernelModules", "yes"},
		{"ProtectKernelLogs", "yes"},
		{"ProtectControlGroups", "yes"},
		{"ProtectClock", "yes"},
		{"ProtectHostname", "yes"},
		{"ProtectProc", "invisible"},
		{"RestrictNamespaces", "yes"},
		{"RestrictRealtime", "yes"},
		{"RestrictSUIDSGID", "yes"},
		{"LockPersonality", "yes"},
		{"MemoryDenyWriteExecute", "yes"},
		{"RemoveIPC", "yes"},
		{"KeyringMode", "private"},
		{"SystemCallArchitectures", "native"},
		{"SystemCallFilter", "@system-service"},
		{"SystemCallFilter", "~@privileged @resources"},
		{"SystemCallErrorNumber", "EPERM"},
	}
}
