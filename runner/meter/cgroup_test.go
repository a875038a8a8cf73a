package meter

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// group writes the files of a control group.
func group(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const psi = "some avg10=1.00 avg60=0.00 avg300=0.00 total=3000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2000\n"

func TestCgroupFiles(t *testing.T) {
	v2 := map[string]string{
		"cpu.stat":        "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 0\n",
		"memory.current":  "6000\n",
		"memory.max":      "10000\n",
		"memory.peak":     "8000\n",
		"memory.events":   "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n",
		"memory.stat":     "anon 4000\nfile 2000\nkernel 10\nshmem 500\n",
		"io.stat":         "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=9 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n7:0 \n",
		"pids.current":    "3\n",
		"pids.events":     "max 5\n",
		"cpu.pressure":    psi,
		"memory.pressure": psi,
		"io.pressure":     psi,
	}
	cpuacct := map[string]string{"cpuacct.usage": "2500000000\n"}
	memory := map[string]string{
		"memory.usage_in_bytes": "700\n", "memory.max_usage_in_bytes": "900\n", "memory.failcnt": "2\n", "memory.limit_in_bytes": "1000\n",
		"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "memory.stat": "cache 1\nrss 2\ntotal_rss 300\ntotal_shmem 40\n",
	}
	blkio := map[string]string{
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n8:16 Read 1\nTotal 31\n",
		"blkio.throttle.io_service_bytes":           "8:0 Read 99\nTotal 99\n",
	}
	pids := map[string]string{"pids.current": "7\n", "pids.events": "max 8\n"}
	tests := []struct {
		name       string
		paths      CgroupPaths
		want       Sample
		accounting string
	}{
		{
			"version 2",
			CgroupPaths{Unified: group(t, v2)},
			Sample{
				Known: CPU | Memory | MemoryPeak | Unreclaimable | MemoryFull | Killed | IO | Processes | ForksRefused | PressureCPU | PressureMemory | PressureIO,
				CPU:   1500 * time.Millisecond, Memory: 6000, MemoryPeak: 8000, Unreclaimable: 4500, MemoryFull: 4, Killed: 1, IORead: 101, IOWrite: 22,
				Processes: 3, ForksRefused: 5, PressureCPU: 3 * time.Millisecond, PressureMemory: 2 * time.Millisecond, PressureIO: 2 * time.Millisecond,
			},
			"cgroup-v2",
		},
		{
			"version 1",
			CgroupPaths{CPU: group(t, cpuacct), Memory: group(t, memory), IO: group(t, blkio), PIDs: group(t, pids)},
			Sample{
				Known: CPU | Memory | MemoryPeak | Unreclaimable | MemoryFull | Killed | IO | Processes | ForksRefused,
				CPU:   2500 * time.Millisecond, Memory: 700, MemoryPeak: 900, Unreclaimable: 340, MemoryFull: 2, Killed: 1, IORead: 11, IOWrite: 20,
				Processes: 7, ForksRefused: 8,
			},
			"cgroup-v1",
		},
		{
			"both: a group of version 2 without controllers",
			CgroupPaths{Unified: group(t, map[string]string{"cpu.stat": "usage_usec 5\n", "io.pressure": psi}), Memory: group(t, memory)},
			Sample{
				Known: CPU | Memory | MemoryPeak | Unreclaimable | MemoryFull | Killed | PressureIO,
				CPU:   5 * time.Microsecond, Memory: 700, MemoryPeak: 900, Unreclaimable: 340, MemoryFull: 2, Killed: 1, PressureIO: 2 * time.Millisecond,
			},
			"cgroup-v1+cgroup-v2",
		},
		{
			"far from the limit, memory is not broken down",
			CgroupPaths{Memory: group(t, map[string]string{"memory.usage_in_bytes": "10\n", "memory.limit_in_bytes": "1000\n", "memory.stat": "total_rss 9\n"})},
			Sample{Known: Memory, Memory: 10},
			"cgroup-v1",
		},
		{
			"no limit",
			CgroupPaths{Memory: group(t, map[string]string{"memory.usage_in_bytes": "10\n", "memory.limit_in_bytes": "9223372036854771712\n", "memory.stat": "total_rss 9\n"})},
			Sample{Known: Memory, Memory: 10},
			"cgroup-v1",
		},
		{
			"files that say nothing",
			CgroupPaths{Unified: group(t, map[string]string{"cpu.stat": "usage_usec 7", "memory.current": "many", "memory.peak": "-1", "memory.events": "max", "cpu.pressure": "some total=x", "pids.current": ""})},
			Sample{Known: CPU, CPU: 7 * time.Microsecond},
			"cgroup-v2",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src, err := Cgroup(test.paths)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			for range 2 {
				got, err := src.Sample()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b Field) bool { return a&^IO == b&^IO || a == b })); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			if got := src.Accounting(); got != test.accounting {
				t.Errorf("accounting %q, want %q", got, test.accounting)
			}
		})
	}
}

func TestCgroupWithoutAnythingToRead(t *testing.T) {
	_, err := Cgroup(CgroupPaths{Unified: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "neither CPU time nor memory") {
		t.Errorf("got error %v", err)
	}
}

func TestLongFilesAreReadToTheEnd(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "8:%d rbytes=1 wbytes=2 rios=0 wios=0 dbytes=0 dios=0\n", i)
	}
	src, err := Cgroup(CgroupPaths{Unified: group(t, map[string]string{"io.stat": text.String(), "cpu.stat": "usage_usec 1\n"})})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if got, _ := src.Sample(); got.IORead != 1000 || got.IOWrite != 2000 {
		t.Errorf("got %d read, %d written", got.IORead, got.IOWrite)
	}
}

func TestGroupsOf(t *testing.T) {
	tests := []struct {
		name              string
		mountinfo, cgroup string
		want              CgroupPaths
	}{
		{
			"version 2", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "0::/system.slice/a.service\n",
			CgroupPaths{Unified: "/sys/fs/cgroup/system.slice/a.service"},
		},
		{
			"both versions",
			"31 24 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n32 24 0:28 / /cg/cpu rw - cgroup none rw,cpu,cpuacct\n33 24 0:29 / /cg/unified rw - cgroup2 none rw\n" +
				"34 24 0:30 / /cg/blkio rw - cgroup none rw,blkio\n35 24 0:31 / /cg/pids rw - cgroup none rw,pids\n",
			"5:blkio:/\n4:memory:/a/b\n3:pids:/a\n2:cpu,cpuacct:/x\n0::/c\n",
			CgroupPaths{Unified: "/cg/unified/c", CPU: "/cg/cpu/x", Memory: "/cg/memory/a/b", PIDs: "/cg/pids/a"},
		},
		{
			"a container that sees its own part", "31 24 0:27 /docker/1 /cg/memory ro - cgroup cgroup rw,memory\n", "4:memory:/docker/1/job\n",
			CgroupPaths{Memory: "/cg/memory/job"},
		},
		{"outside of what is mounted", "31 24 0:27 /docker/1 /cg/memory ro - cgroup cgroup rw,memory\n", "4:memory:/docker/2\n", CgroupPaths{}},
		{"lines that make no sense", "x\n- cgroup2\n1 2 3 4 5 - cgroup2\n", "0\n::\n", CgroupPaths{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, groupsOf(test.mountinfo, test.cgroup)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// ownGroups makes a group below (or, in the unified hierarchy, beside) this process's own in each hierarchy. Empty where
// that is not allowed.
func ownGroups(t testing.TB) CgroupPaths {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	// A path for every controller, so that roots are not left out: the group that is made below is none.
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	name := fmt.Sprintf("meter-%d", os.Getpid())
	var at strings.Builder
	for line := range strings.Lines(string(own)) {
		fmt.Fprintf(&at, "%s/%s\n", strings.TrimSuffix(strings.TrimSpace(line), "/"), name)
	}
	p := groupsOf(string(mounts), at.String())
	if os.Getenv("ARCH_GUEST") != "" && p.Memory == "" {
		// This process sits in its group, so that has no controllers for others; in a guest the root's may be used.
		p.Unified = filepath.Join("/sys/fs/cgroup", name)
		os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +memory +io +pids"), 0)
	}
	for _, dir := range []*string{&p.Unified, &p.CPU, &p.Memory, &p.IO, &p.PIDs} {
		if *dir == "" {
			continue
		}
		d := *dir
		if err := os.Mkdir(d, 0o755); err != nil {
			*dir = ""
			continue
		}
		t.Cleanup(func() {
			for range 200 {
				if os.Remove(d) == nil {
					return
				}
				exec.Command("true").Run() // the kernel may need a moment after the last process
			}
			t.Errorf("cannot remove %s", d)
		})
	}
	if p.Memory == "" && p.Unified == "" {
		t.Skip("cannot run here: control groups cannot be made")
	}
	return p
}

// shell runs a script in the groups.
func shell(t *testing.T, p CgroupPaths, script string) *exec.Cmd {
	t.Helper()
	var join strings.Builder
	for _, dir := range []string{p.Unified, p.CPU, p.Memory, p.IO, p.PIDs} {
		if dir != "" {
			fmt.Fprintf(&join, "echo $$ > %s/cgroup.procs || exit 99\n", dir)
		}
	}
	return exec.CommandContext(t.Context(), "sh", "-c", join.String()+script)
}

func TestRealGroups(t *testing.T) {
	p := ownGroups(t)
	src, err := Cgroup(p)
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	m := Start(src, Options{})
	// 200,000 rounds take some tens of milliseconds of CPU time; the string takes memory.
	c := shell(t, p, `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; x=$(head -c 8000000 /dev/zero | tr '\0' x); echo ${#x}`)
	out, err := c.CombinedOutput()
	got := m.Stop()
	if err != nil || strings.TrimSpace(string(out)) != "8000000" {
		t.Fatalf("%v: %s", err, out)
	}
	used := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	t.Logf("%s: CPU %v (rusage %v), peak %d, processes known %v, pressure known %v, energy %+v", got.Usage.Accounting, got.Usage.CPU, used, got.Usage.MemoryPeak,
		got.Last.Knows(Processes), got.Last.Knows(PressureMemory), got.Usage.Energy)
	// The shell ran a moment before it joined; rusage counts in whole ticks on some kernels.
	if low, high := used/2, 2*used+50*time.Millisecond; got.Usage.CPU < low || got.Usage.CPU > high {
		t.Errorf("CPU time %v, want about %v", got.Usage.CPU, used)
	}
	if got.Last.Knows(Memory) && got.Usage.MemoryPeak < 8_000_000 {
		t.Errorf("memory peak %d, want more than 8000000", got.Usage.MemoryPeak)
	}
	if len(got.Anomalies) != 0 {
		t.Errorf("anomalies: %v", got.Anomalies)
	}
	if got.Usage.Energy == nil || got.Usage.Energy.Joules <= 0 {
		t.Errorf("energy %+v", got.Usage.Energy)
	}
}

// TestRealLimits lets the kernel refuse forks and kill for memory.
func TestRealLimits(t *testing.T) {
	p := ownGroups(t)
	memory, pids := p.Memory, p.PIDs
	limit := "memory.limit_in_bytes"
	if memory == "" {
		memory, limit = p.Unified, "memory.max"
	}
	if pids == "" {
		pids = p.Unified
	}
	for name, value := range map[string]string{filepath.Join(memory, limit): "33554432", filepath.Join(pids, "pids.max"): "40"} {
		if err := os.WriteFile(name, []byte(value), 0); err != nil {
			t.Skipf("cannot run here: %v", err)
		}
	}
	os.WriteFile(filepath.Join(memory, "memory.swap.max"), []byte("0"), 0)
	src, err := Cgroup(p)
	if err != nil {
		t.Fatal(err)
	}
	c := shell(t, p, `exec 3<&0; i=0; while [ $i -lt 30 ]; do read x <&3 & i=$((i+1)); done; wait`)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Only the counters are tried here: a machine may be so slow that the forks take longer than the default window.
	m := Start(src, Options{Thresholds: Thresholds{ForkWindow: 3 * time.Minute}, Limits: runner.Limits{Memory: 33554432, Processes: 40}, Found: func(a runner.Anomaly) {
		if a.Kind == runner.AnomalyForkBurst {
			in.Close() // the processes were seen: they may end
		}
	}})
	defer time.AfterFunc(3*time.Minute, func() { in.Close() }).Stop() // so that a detector that finds nothing fails, instead of hanging
	// The kernel may kill whichever process of the group it likes, so another shell makes the forks.
	shell(t, p, `head -c 90000000 /dev/zero | tail -c 80000000 | wc -c`).Run()
	out, _ := c.CombinedOutput()
	got := m.Stop()
	kinds := map[runner.AnomalyKind]bool{}
	for _, a := range got.Anomalies {
		kinds[a.Kind] = true
		t.Logf("%v %s: %s", a.At, a.Kind, a.Evidence)
	}
	if !kinds[runner.AnomalyMemoryGrowth] || !kinds[runner.AnomalyForkBurst] {
		t.Errorf("anomalies %v, last %+v, output %s", got.Anomalies, got.Last, out)
	}
}

func BenchmarkSampleOfGroups(b *testing.B) {
	src, err := Cgroup(ownGroups(b))
	if err != nil {
		b.Skipf("cannot run here: %v", err)
	}
	defer src.Close()
	for b.Loop() {
		if _, err := src.Sample(); err != nil {
			b.Fatal(err)
		}
	}
}
