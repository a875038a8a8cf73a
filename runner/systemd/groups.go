package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"arch.network/runner"
)

// groups are the control groups of a unit: directories by controller, "" for version 2.
type groups map[string]string

// groupsOf returns those of a process for which /proc/PID/cgroup is own (cgroups(7)).
func groupsOf(own string) (groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return findGroups(own, string(mounts)), nil
}

// groupsAt returns those of a unit whose property ControlGroup is path: systemd gives it the same one for each controller.
func groupsAt(path string) (groups, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for line := range strings.Lines(string(own)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			fmt.Fprintf(&text, "%s:%s:%s\n", f[0], f[1], path)
		}
	}
	g, err := groupsOf(text.String())
	for c, dir := range g {
		if _, serr := os.Stat(dir); serr != nil {
			delete(g, c) // systemd does not use this controller
		}
	}
	return g, err
}

// findGroups joins what /proc/PID/cgroup and /proc/self/mountinfo (proc_pid_mountinfo(5)) say.
func findGroups(own, mounts string) groups {
	paths := map[string]string{}
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			paths[controller] = f[2]
		}
	}
	g := groups{}
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		var controllers []string
		switch right[0] {
		case "cgroup2":
			controllers = []string{""}
		case "cgroup":
			controllers = strings.Split(right[2], ",")
		}
		for _, c := range controllers {
			path, known := paths[c]
			rel, err := filepath.Rel(left[3], path)
			if known && err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") {
				g[c] = filepath.Join(left[4], rel)
			}
		}
	}
	return g
}

// setting is one limit as the kernel holds it.
type setting struct {
	controller string // of version 1
	file1      string // in its directory
	file2      string // in that of version 2
}

// settings are the limits that are read back, by the names under which they are recorded.
var settings = map[string]setting{
	"memory":    {"memory", "memory.limit_in_bytes", "memory.max"},
	"processes": {"pids", "pids.max", "pids.max"},
	"cpu":       {"cpu", "cpu.cfs_quota_us", "cpu.max"},
	"io-read":   {"blkio", "blkio.throttle.read_bps_device", "io.max"},
	"io-write":  {"blkio", "blkio.throttle.write_bps_device", "io.max"},
}

// read returns what the kernel holds, and the version of control groups that it is from.
func (g groups) read(s setting) (text, version string) {
	for _, at := range []struct{ dir, file, version string }{{g[""], s.file2, "cgroup-v2"}, {g[s.controller], s.file1, "cgroup-v1"}} {
		if at.dir == "" {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(at.dir, at.file)); err == nil {
			return strings.TrimSpace(string(data)), at.version
		}
	}
	return "", ""
}

// wants says for each limit of l what the kernel must hold for it.
func wants(l runner.Limits) map[string]func(text string) bool {
	m := map[string]func(string) bool{}
	atMost := func(name string, limit int64) {
		if limit > 0 {
			m[name] = func(text string) bool {
				first, _, _ := strings.Cut(text, " ")
				n, err := strconv.ParseInt(first, 10, 64)
				return err == nil && n >= 0 && n <= limit
			}
		}
	}
	if l.Memory > 0 {
		atMost("memory", l.Memory+ownMemory)
	}
	if l.Processes > 0 {
		atMost("processes", int64(l.Processes)+ownTasks)
	}
	if l.CPU > 0 {
		m["cpu"] = func(text string) bool { return text != "" && text != "-1" && !strings.HasPrefix(text, "max") }
	}
	if l.IORead > 0 {
		m["io-read"] = func(text string) bool { return strings.Contains(text, strconv.FormatInt(l.IORead, 10)) }
	}
	if l.IOWrite > 0 {
		m["io-write"] = func(text string) bool { return strings.Contains(text, strconv.FormatInt(l.IOWrite, 10)) }
	}
	return m
}

// mustHold reports whether a Spec is refused if its limit of that name does not hold. Limits of I/O are about sharing a host
// fairly; that they are missing is recorded.
func mustHold(name string) bool { return name != "io-read" && name != "io-write" }

// applied reads back the limits of l. Those that hold are enforced, as "NAME:cgroup-vN"; of the others it tells what the
// kernel has instead.
func (g groups) applied(l runner.Limits) (enforced []string, missing map[string]string) {
	missing = map[string]string{}
	for name, holds := range wants(l) {
		text, version := g.read(settings[name])
		switch {
		case version == "":
			missing[name] = "the unit has no control group with this controller"
		case name == "io-write" && version == "cgroup-v1":
			missing[name] = "control groups of version 1 slow down direct writes alone"
		case !holds(text):
			missing[name] = fmt.Sprintf("systemd was asked for it, but the kernel has %q", text)
		default:
			enforced = append(enforced, name+":"+version)
		}
	}
	return enforced, missing
}
