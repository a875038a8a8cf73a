package systemd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

func TestFindGroups(t *testing.T) {
	const unit = "/arch.slice/arch-jobs.slice/arch-job-x.service"
	for name, c := range map[string]struct {
		own, mounts string
		want        groups
	}{
		"version 2": {
			"0::" + unit + "\n",
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			groups{"": "/sys/fs/cgroup" + unit},
		},
		"both": {
			"8:pids:" + unit + "\n4:cpu,cpuacct:" + unit + "\n1:name=systemd:" + unit + "\n0::" + unit + "\n",
			"31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"32 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
				"33 30 0:29 /arch.slice /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
			groups{
				"": "/sys/fs/cgroup/unified" + unit, "pids": "/sys/fs/cgroup/pids" + unit,
				"cpu": "/sys/fs/cgroup/cpu/arch-jobs.slice/arch-job-x.service", "cpuacct": "/sys/fs/cgroup/cpu/arch-jobs.slice/arch-job-x.service",
			},
		},
		"the root holds everyone": {"4:memory:/\n", "33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", groups{}},
		"out of sight":            {"0::/a\n", "31 30 0:27 /b /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", groups{}},
		"nonsense":                {"x\n1:2\n", "1 2 3\n- - -\n", groups{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, findGroups(c.own, c.mounts)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplied(t *testing.T) {
	l := runner.Limits{Memory: 1 << 20, Processes: 10, CPU: 500, IORead: 1000, IOWrite: 2000}
	for name, c := range map[string]struct {
		files    map[string]string // by controller and name
		enforced []string
		missing  []string
	}{
		"version 2": {
			map[string]string{"/memory.max": "26214400", "/pids.max": "58", "/cpu.max": "50000 100000", "/io.max": "8:0 rbps=1000 wbps=2000"},
			[]string{"cpu:cgroup-v2", "io-read:cgroup-v2", "io-write:cgroup-v2", "memory:cgroup-v2", "processes:cgroup-v2"},
			nil,
		},
		"version 1": {
			map[string]string{
				"memory/memory.limit_in_bytes": "26214400", "pids/pids.max": "58", "cpu/cpu.cfs_quota_us": "50000",
				"blkio/blkio.throttle.read_bps_device": "8:0 1000", "blkio/blkio.throttle.write_bps_device": "8:0 2000",
			},
			[]string{"cpu:cgroup-v1", "io-read:cgroup-v1", "memory:cgroup-v1", "processes:cgroup-v1"},
			[]string{"io-write"},
		},
		"ignored": {
			map[string]string{"/memory.max": "max", "/pids.max": "max", "/cpu.max": "max 100000", "/io.max": ""},
			nil,
			[]string{"cpu", "io-read", "io-write", "memory", "processes"},
		},
		"no controllers": {nil, nil, []string{"cpu", "io-read", "io-write", "memory", "processes"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			g := groups{}
			for name, text := range c.files {
				controller := filepath.Dir(name)
				if controller == "/" {
					controller = ""
				}
				g[controller] = filepath.Join(dir, controller)
				if err := os.MkdirAll(g[controller], 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			enforced, missing := g.applied(l)
			got := sorted(runner.Confinement{Enforced: enforced, Missing: keys(missing)})
			if diff := cmp.Diff(c.enforced, got.Enforced); diff != "" {
				t.Errorf("enforced (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.missing, got.Missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func keys(m map[string]string) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	return list
}

func TestMountOf(t *testing.T) {
	const mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:16 / /data\\040x rw - ext4 /dev/sdb rw\n3 1 8:16 / /data rw - ext4 /dev/sdb rw\n"
	for number, want := range map[string]string{"8:1": "/", "8:16": "/data", "8:2": "", "": ""} {
		if got := mountOf(number, mounts); got != want {
			t.Errorf("%q: got %q, want %q", number, got, want)
		}
	}
}
