package systemd

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// host is what a made-up host has.
var host = map[string]source{
	"/store/file":    {unix.S_IFREG | 0o444, 0, 0},
	"/store/tree":    {unix.S_IFDIR | 0o555, 0, 0},
	"/store/link":    {unix.S_IFLNK | 0o777, 0, 0},
	"/store/private": {unix.S_IFDIR | 0o700, 0, 0},
	"/home/a":        {unix.S_IFDIR | 0o700, 1001, 1002},
	"/home/b":        {unix.S_IFDIR | 0o755, 1003, 1004},
	"/shared":        {unix.S_IFDIR | 0o777, 0, 0},
	"/dev/zero":      {unix.S_IFCHR | 0o666, 0, 0},
	"/dev/sda":       {unix.S_IFBLK | 0o660, 0, 6},
	resolvConf:       {unix.S_IFREG | 0o644, 0, 0},
}

func lookAtHost(path string) (source, error) {
	s, ok := host[path]
	if !ok {
		return source{}, &fs.PathError{Op: "lstat", Path: path, Err: fs.ErrNotExist}
	}
	return s, nil
}

var testOptions = Options{Slice: "s.slice", State: "/state", Executable: "/usr/bin/arch"}

// derived returns the properties of the unit for spec that differ from those for an empty one.
func derived(t *testing.T, spec runner.Spec) map[string]any {
	t.Helper()
	l, err := arrange(spec, lookAtHost, []string{"/dev/sda"})
	if err != nil {
		t.Fatal(err)
	}
	base := map[string]any{}
	for _, p := range testOptions.unit(runner.Spec{Name: "x"}, layout{}) {
		base[p.Name] = p.Value
	}
	spec.Name = "x"
	changed := map[string]any{}
	seen := map[string]bool{}
	for _, p := range testOptions.unit(spec, l) {
		if seen[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		seen[p.Name] = true
		if !cmp.Equal(p.Value, base[p.Name]) {
			changed[p.Name] = p.Value
		}
	}
	for name := range base {
		if !seen[name] {
			changed[name] = nil
		}
	}
	return changed
}

func bind(source, target string) runner.Mount {
	return runner.Mount{Kind: runner.Bind, Source: source, Target: target}
}

func TestUnitOfSpec(t *testing.T) {
	program := bindPath{"/usr/bin/arch", "/m/init", false, 0}
	writable := bind("/shared", "/out")
	writable.Writable = true
	for name, c := range map[string]struct {
		spec runner.Spec
		want map[string]any
	}{
		"nothing": {runner.Spec{}, map[string]any{}},
		"limits": {
			runner.Spec{Limits: runner.Limits{
				Wall: 2 * time.Second, CPU: 1500, Memory: 1 << 30, Processes: 100, Scratch: 5, Log: 6, Output: 7, IORead: 8, IOWrite: 9,
			}},
			map[string]any{
				"MemoryMax": uint64(1<<30 + ownMemory), "MemorySwapMax": uint64(0), "TasksMax": uint64(100 + ownTasks),
				"CPUQuotaPerSecUSec": uint64(1500000), "RuntimeMaxUSec": uint64(3632e6),
				"IOReadBandwidthMax": []rate{{"/dev/sda", 8}}, "IOWriteBandwidthMax": []rate{{"/dev/sda", 9}},
			},
		},
		"mounts": {
			runner.Spec{Mounts: []runner.Mount{
				bind("/store/tree", "/in"),
				{Kind: runner.Tmpfs, Target: "/tmp"},
				writable, bind("/store/link", "/link"),
				{Kind: runner.Copy, Source: "/store/file", Target: "/tmp/copy"},
				{Kind: runner.Data, Target: "/etc/x", Content: []byte("x")},
			}},
			map[string]any{
				"BindReadOnlyPaths": []bindPath{program, {"/store/tree", "/m/0", false, recursive}, {"/store", "/m/3", false, 0}, {"/store/file", "/m/4", false, recursive}},
				"BindPaths":         []bindPath{{"/shared", "/m/2", false, recursive}},
			},
		},
		"root's own": {
			runner.Spec{Mounts: []runner.Mount{bind("/store/private", "/in")}},
			map[string]any{
				"BindReadOnlyPaths":     []bindPath{program, {"/store/private", "/m/0", false, recursive}},
				"CapabilityBoundingSet": uint64(1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETFCAP),
			},
		},
		"devices": {
			runner.Spec{Devices: []runner.Device{{Source: "/dev/zero"}, {Source: "/dev/sda", Target: "/dev/disk", Permissions: "r"}}},
			map[string]any{
				"BindPaths":   []bindPath{{"/dev/zero", "/m/d0", false, 0}, {"/dev/sda", "/m/d1", false, 0}},
				"DeviceAllow": append(memoryDevices[:5:5], access{"/dev/zero", "rw"}, access{"/dev/sda", "r"}),
			},
		},
		"network": {
			runner.Spec{Network: runner.Network{Egress: []runner.Egress{{Protocol: "tcp", Port: 443}}}},
			map[string]any{
				"PrivateNetwork": nil, "IPAddressDeny": nil,
				"RestrictAddressFamilies": list{true, append(innerFamilies[:4:4], "AF_PACKET")},
				"BindReadOnlyPaths":       []bindPath{program, {resolvConf, resolvConf, false, 0}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, derived(t, c.spec)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestNothingIsAllowedByDefault holds the properties that no Spec may change.
func TestNothingIsAllowedByDefault(t *testing.T) {
	want := map[string]any{
		"NoNewPrivileges": true, "CapabilityBoundingSet": uint64(1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID), "KeyringMode": "private",
		"DevicePolicy": "strict", "PrivateNetwork": true, "LockPersonality": true, "RestrictRealtime": true, "RootDirectory": "/state/root",
		"SystemCallArchitectures": []string{"native"}, "SystemCallErrorNumber": int32(unix.EPERM), "OOMPolicy": "kill", "Slice": "s.slice",
		"KillSignal": int32(unix.SIGKILL), "CollectMode": "inactive-or-failed", "LimitCORE": uint64(0),
	}
	got := map[string]any{}
	for _, p := range testOptions.unit(runner.Spec{Name: "x"}, layout{}) {
		if _, ok := want[p.Name]; ok {
			got[p.Name] = p.Value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnitOfPool(t *testing.T) {
	class := runner.Spec{
		Name:     "wasm",
		Commands: []runner.Command{{Argv: []string{"/w", "arg"}, Env: []string{"A=1"}}},
		Mounts:   []runner.Mount{bind("/store/file", "/w"), {Kind: runner.Tmpfs, Target: "/tmp"}},
		Limits:   runner.Limits{Memory: 1 << 20},
	}
	got := map[string]any{}
	for _, p := range testOptions.poolUnit(class, "/state/pool", false) {
		if _, twice := got[p.Name]; twice {
			t.Errorf("%s is there twice", p.Name)
		}
		got[p.Name] = p.Value
	}
	for _, p := range testOptions.common(class) {
		delete(got, p.Name)
	}
	want := map[string]any{
		"Description": "arch pool wasm", "ExecStart": []command{{"/m/init", []string{argument0, modeWorker, "1", "A=1", "/w", "arg"}, false}},
		"RootDirectory": "/state/pool", "MountAPIVFS": false, "CapabilityBoundingSet": uint64(setIDs | 1<<unix.CAP_SETPCAP), "RestrictNamespaces": uint64(0),
		"RestrictSUIDSGID": true, "SystemCallFilter": list{true, workerCalls}, "RestrictAddressFamilies": list{true, workerFamilies},
		"MemoryDenyWriteExecute": true, "BindReadOnlyPaths": []bindPath{{"/usr/bin/arch", "/m/init", false, 0}, {"/store/file", "/w", false, recursive}},
		"TemporaryFileSystem": []tmpfs{{"/tmp", "nosuid,nodev,mode=1777,size=67108864"}}, "DeviceAllow": memoryDevices,
		"PrivateNetwork": true, "IPAddressDeny": anyAddress, "MemoryMax": uint64(1<<20 + ownMemory), "MemorySwapMax": uint64(0),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if hasProperty(testOptions.poolUnit(class, "/state/pool", true), "MemoryDenyWriteExecute") {
		t.Error("a compiler cannot work")
	}
}

func TestUserOfUnit(t *testing.T) {
	into := func(source string) runner.Mount {
		m := bind(source, "/out")
		m.Writable = true
		return m
	}
	for name, c := range map[string]struct {
		mounts []runner.Mount
		uid    int
		err    string
	}{
		"one of its own":                 {[]runner.Mount{bind("/store/tree", "/a"), into("/shared")}, 0, ""},
		"the owner of what it writes":    {[]runner.Mount{into("/home/b")}, 1003, ""},
		"the owner of what is closed":    {[]runner.Mount{bind("/home/a", "/a")}, 1001, ""},
		"root, to read":                  {[]runner.Mount{bind("/store/private", "/a")}, rootUser, ""},
		"root, to write":                 {[]runner.Mount{into("/store/tree")}, rootUser, ""},
		"not two":                        {[]runner.Mount{bind("/home/a", "/a"), into("/home/b")}, 0, "bind mount /out: use /home/b: it belongs to user 1003 and is closed to others, as is another source that does not"},
		"not root and another":           {[]runner.Mount{bind("/home/a", "/a"), into("/store/tree")}, 0, "bind mount /out: use /store/tree: it belongs to user 0 and is closed to others, as is another source that does not"},
		"a source that is not there":     {[]runner.Mount{bind("/gone", "/a")}, 0, "bind mount /a: lstat /gone: file does not exist"},
		"a relative source is the inner": {[]runner.Mount{bind("x", "/a")}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := arrange(runner.Spec{Mounts: c.mounts}, lookAtHost, nil)
			if text := errorText(err); text != c.err {
				t.Errorf("got %q, want %q", text, c.err)
			}
			if err == nil && l.uid != c.uid {
				t.Errorf("got user %d, want %d", l.uid, c.uid)
			}
		})
	}
	_, err := new(Runner).Properties(runner.Spec{Mounts: []runner.Mount{bind("/gone", "/a")}})
	if _, ok := errors.AsType[*runner.SetupError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestInnerMounts(t *testing.T) {
	l, err := arrange(runner.Spec{
		Mounts:  []runner.Mount{bind("/store/tree", "/in"), bind("/store/link", "/link"), bind("x", "/x")},
		Devices: []runner.Device{{Source: "/dev/zero"}, {Source: "/dev/sda", Target: "/dev/disk", Permissions: "rm"}},
	}, lookAtHost, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]runner.Mount{bind("/m/0", "/in"), bind("/m/1/link", "/link"), bind("x", "/x")}, l.mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]runner.Device{{Source: "/m/d0", Target: "/dev/zero"}, {Source: "/m/d1", Target: "/dev/disk"}}, l.nodes); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	for _, d := range []runner.Device{{Source: "/store/file"}, {Source: "/dev/gone"}, {Source: "/dev/zero", Permissions: "wr"}} {
		if _, err := arrange(runner.Spec{Devices: []runner.Device{d}}, lookAtHost, nil); err == nil {
			t.Errorf("%+v is accepted", d)
		}
	}
}

func TestRequire(t *testing.T) {
	var all Report
	for name, e := range effects {
		all.Effects = append(all.Effects, Effect{Name: name, Property: e.property, Holds: true})
	}
	without := func(names ...string) Report {
		r := Report{Effects: append([]Effect(nil), all.Effects...)}
		for n := range r.Effects {
			for _, name := range names {
				if r.Effects[n].Name == name {
					r.Effects[n].Holds, r.Effects[n].Seen, r.Effects[n].Cure = false, "seen", "cure"
				}
			}
		}
		return r
	}
	memory := runner.Spec{Limits: runner.Limits{Memory: 1}}
	degraded := memory
	degraded.Degraded = true
	network := runner.Spec{Network: runner.Network{Egress: []runner.Egress{{}}}}
	for name, c := range map[string]struct {
		report  Report
		spec    runner.Spec
		missing string
		refused bool
	}{
		"all hold":                   {all, memory, "", false},
		"not needed":                 {without("memory", "cpu"), runner.Spec{}, "", false},
		"needed":                     {without("memory"), memory, "", true},
		"needed, but degraded":       {without("memory"), degraded, "memory: MemoryMax= has no effect here: seen", false},
		"always needed":              {without("unit-root"), runner.Spec{}, "", true},
		"good to have":               {without("unit-addresses"), runner.Spec{}, "unit-addresses: IPAddressDeny= has no effect here: seen", false},
		"not of a unit with network": {without("unit-addresses", "unit-network"), network, "", false},
		"only of workers":            {without("worker-families"), runner.Spec{}, "", false},
		"permissions of devices":     {without("unit-devices"), runner.Spec{Devices: []runner.Device{{}}}, "", true},
		"devices, if there are none": {without("unit-devices"), runner.Spec{}, "unit-devices: DevicePolicy=strict has no effect here: seen", false},
	} {
		t.Run(name, func(t *testing.T) {
			missing, err := c.report.require(c.spec)
			if s, ok := errors.AsType[*runner.SetupError](err); ok != c.refused || ok && s.Hint() != "cure" {
				t.Fatalf("got %v", err)
			}
			if got := strings.Join(missing, "\n"); got != c.missing {
				t.Errorf("got %q, want %q", got, c.missing)
			}
		})
	}
}

func TestChangesOfWorker(t *testing.T) {
	class := runner.Limits{Memory: 1, Processes: 2, CPU: 3, Wall: 4}
	for name, c := range map[string]struct {
		limits runner.Limits
		want   []Property
	}{
		"none":   {runner.Limits{}, []Property{}},
		"same":   {class, []Property{}},
		"others": {runner.Limits{Memory: 10, Processes: 20, CPU: 3}, []Property{{"MemoryMax", uint64(10 + ownMemory)}, {"TasksMax", uint64(20 + ownTasks)}}},
	} {
		got := changes(class, c.limits)
		if diff := cmp.Diff(c.want, append([]Property{}, got...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
