package meter

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxProcText bounds what is read of a process's cgroup and mountinfo files.
const maxProcText = 1 << 20

// Groups returns the control groups that a process is in, as this process sees them. Those that are the root of a hierarchy
// are left out: they hold the whole machine.
func Groups(pid int) (CgroupPaths, error) {
	mounts, err := readText("/proc/self/mountinfo")
	if err != nil {
		return CgroupPaths{}, fmt.Errorf("find control groups: %w", err)
	}
	own, err := readText(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return CgroupPaths{}, fmt.Errorf("find control groups of process %d: %w", pid, err)
	}
	return groupsOf(mounts, own), nil
}

func readText(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProcText))
	return string(text), err
}

// groupsOf joins where the hierarchies are mounted (proc_pid_mountinfo(5)) with the paths in them (cgroups(7)).
func groupsOf(mountinfo, cgroup string) CgroupPaths {
	paths := map[string]string{} // controller, "" for version 2 -> path in the hierarchy
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	var out CgroupPaths
	places := map[string]*string{"cpuacct": &out.CPU, "memory": &out.Memory, "blkio": &out.IO, "pids": &out.PIDs}
	for line := range strings.Lines(mountinfo) {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		if m.kind == "cgroup2" {
			m.join(paths[""], &out.Unified)
			continue
		}
		for controller := range strings.SplitSeq(m.options, ",") {
			if place, path := places[controller], paths[controller]; place != nil {
				m.join(path, place)
			}
		}
	}
	return out
}

// hierarchy is one mounted tree of groups, or a part of one.
type hierarchy struct{ root, point, kind, options string }

func parseMount(line string) (hierarchy, bool) {
	before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
		return hierarchy{}, false
	}
	return hierarchy{left[3], left[4], right[0], right[2]}, true
}

// join sets place to the directory of a path in the hierarchy, unless it is the root or lies outside of what is mounted.
func (h hierarchy) join(path string, place *string) {
	if path == "" || path == "/" {
		return
	}
	rel, err := filepath.Rel(h.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return
	}
	*place = filepath.Join(h.point, rel)
}
