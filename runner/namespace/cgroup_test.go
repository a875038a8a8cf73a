package namespace

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/runner"
)

func TestFindHierarchies(t *testing.T) {
	tests := []struct {
		name              string
		mountinfo, cgroup string
		want              hierarchies
	}{
		{
			"version 2 alone",
			"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/user-1000.slice/session-2.scope\n",
			hierarchies{unified: "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope", legacy: map[string]string{}},
		},
		{
			"both versions",
			"31 24 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n32 24 0:28 / /cg/cpu rw - cgroup none rw,cpu,cpuacct\n33 24 0:29 / /cg/unified rw - cgroup2 none rw\n",
			"4:memory:/a/b\n2:cpu,cpuacct:/\n0::/c\n",
			hierarchies{unified: "/cg/unified/c", legacy: map[string]string{"memory": "/cg/memory/a/b", "cpu": "/cg/cpu", "cpuacct": "/cg/cpu"}},
		},
		{
			"a container that sees its own part",
			"31 24 0:27 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"4:memory:/docker/1/job\n",
			hierarchies{legacy: map[string]string{"memory": "/sys/fs/cgroup/memory/job"}},
		},
		{
			"a group outside of what is mounted",
			"31 24 0:27 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"4:memory:/docker/2\n",
			hierarchies{legacy: map[string]string{}},
		},
		{"lines that make no sense", "x\n- cgroup2\n1 2 3 4 5 - cgroup2\n", "0\n::\n", hierarchies{legacy: map[string]string{}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "mountinfo"), test.mountinfo)
			write(t, filepath.Join(dir, "cgroup"), test.cgroup)
			got, err := findHierarchies(filepath.Join(dir, "mountinfo"), filepath.Join(dir, "cgroup"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(hierarchies{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGroupVersion2 works on plain directories: what is written and read is checked, not what the kernel makes of it.
func TestGroupVersion2(t *testing.T) {
	limits := runner.Limits{Memory: 1000, Processes: 10}
	t.Run("below the caller's group where controllers are enabled", func(t *testing.T) {
		own := t.TempDir()
		write(t, filepath.Join(own, "cgroup.subtree_control"), "")
		g := newGroup2(hierarchies{unified: own}, "arch-1-1", wantedSettings(limits)) // the write of +memory is the file's content now
		if g != nil {
			t.Fatalf("got %+v although the kernel has not enabled memory", g)
		}
		write(t, filepath.Join(own, "cgroup.subtree_control"), "cpu memory pids\n")
		if !enables(own, "memory") || enables(own, "mem") {
			t.Error("enabled controllers are misread")
		}
	})
	t.Run("a group with processes is left as it is", func(t *testing.T) {
		own := filepath.Join(t.TempDir(), "own")
		if err := os.Mkdir(own, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(own, "cgroup.subtree_control"), "")
		write(t, filepath.Join(own, "cgroup.type"), "domain\n")
		write(t, filepath.Join(own, "cgroup.procs"), "1\n")
		newGroup2(hierarchies{unified: own}, "arch-1-1", wantedSettings(limits))
		if got, _ := os.ReadFile(filepath.Join(own, "cgroup.subtree_control")); len(got) > 0 {
			t.Errorf("enabled %q", got)
		}
		write(t, filepath.Join(own, "cgroup.procs"), "")
		newGroup2(hierarchies{unified: own}, "arch-1-1", wantedSettings(limits))
		if got, _ := os.ReadFile(filepath.Join(own, "cgroup.subtree_control")); len(got) == 0 {
			t.Error("nothing was enabled in a group without processes")
		}
		if !joinable(own) {
			t.Error("a domain cannot be joined")
		}
		write(t, filepath.Join(own, "cgroup.type"), "domain invalid\n")
		if joinable(own) {
			t.Error("an invalid domain can be joined")
		}
	})
	t.Run("readings", func(t *testing.T) {
		dir := t.TempDir()
		g := &group{version: 2, paths: map[string]string{memoryController: dir, pidsController: dir}}
		if diff := cmp.Diff([]string{dir}, g.dirs()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		g.watch(nil, func(string) {})()
		if g.outOfMemory() || g.outOfProcesses() || g.peak() != 0 {
			t.Errorf("got %+v without files", g)
		}
		write(t, filepath.Join(dir, "memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
		write(t, filepath.Join(dir, "memory.peak"), "4096\n")
		write(t, filepath.Join(dir, "pids.events"), "max 5\n")
		g.watch(nil, func(string) {})()
		if !g.outOfMemory() || !g.outOfProcesses() || g.peak() != 4096 {
			t.Errorf("got %+v", g)
		}
		if err := g.add(42); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")); string(data) != "42" {
			t.Errorf("got process %q", data)
		}
	})
	t.Run("no group limits nothing", func(t *testing.T) {
		var g *group
		g.watch(nil, nil)()
		g.remove()
		if err := g.add(1); err != nil || g.limitsMemory() || g.limitsProcesses() || g.outOfMemory() || g.peak() != 0 {
			t.Errorf("got error %v", err)
		}
		if g.by(memoryController) != "" || g.by(pidsController) != "" {
			t.Errorf("got %q, %q", g.by(memoryController), g.by(pidsController))
		}
	})
}

func TestCPUQuota(t *testing.T) {
	tests := []struct{ thousandths, quota, period int64 }{
		{1, 1000, 1_000_000}, {9, 9000, 1_000_000}, {10, 1000, 100_000}, {250, 25_000, 100_000}, {1500, 150_000, 100_000},
	}
	for _, test := range tests {
		if quota, period := cpuQuota(test.thousandths); quota != test.quota || period != test.period {
			t.Errorf("%d: got %d of %d, want %d of %d", test.thousandths, quota, period, test.quota, test.period)
		}
	}
}

func TestSweepRemovesGroupsOfDeadCallersOnly(t *testing.T) {
	parent := t.TempDir()
	const dead = "arch-4194305-1" // above the kernel's largest process id (PID_MAX_LIMIT)
	alive := groupPrefix + "1-1"
	for _, name := range []string{dead, dead + "-job-of-a-name", alive, "arch-x-1", "other"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(parent)
	list, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{alive, "arch-x-1", "other"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCure(t *testing.T) {
	tests := []struct {
		name     string
		settings map[string]string
		want     string
	}{
		{"forbidden to all", map[string]string{"user/max_user_namespaces": "0\n"}, "sysctl -w user.max_user_namespaces=15000"},
		{"Debian", map[string]string{"user/max_user_namespaces": "9\n", "kernel/unprivileged_userns_clone": "0\n"}, "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu", map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"a container", map[string]string{"user/max_user_namespaces": "9\n"}, "docker run --security-opt seccomp=unconfined"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for name, value := range test.settings {
				p := filepath.Join(root, "proc/sys", name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, p, value)
			}
			if got := cure(root, os.ErrPermission); !strings.Contains(got+cure(root, refusals[0]), test.want) {
				t.Errorf("got %q, want it to contain %q", got, test.want)
			}
		})
	}
}
