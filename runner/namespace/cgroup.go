package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"arch.network/runner"
)

// group is the control groups of one execution. A nil *group, or one without a controller, limits nothing.
//
// With version 2 it is one directory, with version 1 one for each controller. It lies below the
// caller's own group, so that the caller's limits go on holding; where version 2 forbids that, because the caller itself sits
// in its group, it lies beside it, if the caller's group has no memory limit of its own to escape from.
type group struct {
	memory, pids string // directories; empty: that controller is not there
	version      int    // 1 or 2
	highest      int64  // bytes, read before the group is removed
	killed       bool   // the kernel killed a process for memory
	refused      bool   // the kernel refused a fork
}

// serial tells the groups of this process apart.
var serial atomic.Int64

// groupPrefix starts the name of each group: "arch-<process id>-<number>". Groups of dead processes are swept.
const groupPrefix = "arch-"

// ownThreads is how many threads of the first process the limit of processes does not count.
const ownThreads = 24

// newGroup makes groups for what limits ask, as far as the host lets it; it never fails, see limitsMemory.
func newGroup(limits runner.Limits) *group {
	if limits.Memory == 0 && limits.Processes == 0 {
		return nil
	}
	h, err := findHierarchies("/proc/self/mountinfo", "/proc/self/cgroup")
	if err != nil {
		return nil
	}
	name := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), serial.Add(1))
	if g := newGroup2(h, name, limits); g != nil {
		return g
	}
	return newGroup1(h, name, limits)
}

// hierarchies are the directories of the caller's own groups.
type hierarchies struct {
	unified string            // version 2; empty if it is not mounted
	legacy  map[string]string // version 1: by controller
}

// findHierarchies reads where control groups are mounted (proc_pid_mountinfo(5)) and which are the caller's (cgroups(7)).
func findHierarchies(mountinfo, cgroup string) (hierarchies, error) {
	mounts, err := os.ReadFile(mountinfo)
	if err != nil {
		return hierarchies{}, err
	}
	own, err := os.ReadFile(cgroup)
	if err != nil {
		return hierarchies{}, err
	}
	paths := map[string]string{} // controller, "" for version 2 -> path in the hierarchy
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	h := hierarchies{legacy: map[string]string{}}
	for line := range strings.Lines(string(mounts)) {
		h.add(line, paths)
	}
	return h, nil
}

// add takes one line of mountinfo.
func (h *hierarchies) add(line string, paths map[string]string) {
	before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return
	}
	root, point := left[3], left[4]
	place := func(path string) (string, bool) {
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			return "", false // the caller's group lies outside of what is mounted here
		}
		return filepath.Join(point, rel), true
	}
	switch right[0] {
	case "cgroup2":
		if dir, ok := place(paths[""]); ok {
			h.unified = dir
		}
	case "cgroup":
		for controller := range strings.SplitSeq(right[2], ",") {
			if path, known := paths[controller]; known && controller != "" {
				if dir, ok := place(path); ok {
					h.legacy[controller] = dir
				}
			}
		}
	}
}

// newGroup2 makes a group of version 2, or returns nil.
func newGroup2(h hierarchies, name string, limits runner.Limits) *group {
	if h.unified == "" {
		return nil
	}
	for _, parent := range parents2(h.unified) {
		sweep(parent)
		dir := filepath.Join(parent, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		g := &group{version: 2}
		if limits.Memory > 0 && put(dir, "memory.max", limits.Memory) == nil {
			put(dir, "memory.swap.max", 0)
			put(dir, "memory.oom.group", 1)
			g.memory = dir
		}
		if limits.Processes > 0 && put(dir, "pids.max", int64(limits.Processes+ownThreads)) == nil {
			g.pids = dir
		}
		if g.memory != "" || g.pids != "" {
			return g
		}
		os.Remove(dir)
	}
	return nil
}

// parents2 lists where a group of version 2 may be made: where the controllers are enabled for children.
func parents2(own string) []string {
	var list []string
	os.WriteFile(filepath.Join(own, "cgroup.subtree_control"), []byte("+memory +pids"), 0)
	if enables(own, "memory") {
		list = append(list, own)
	}
	limit, err := os.ReadFile(filepath.Join(own, "memory.max"))
	if err == nil && strings.TrimSpace(string(limit)) == "max" && enables(filepath.Dir(own), "memory") {
		list = append(list, filepath.Dir(own))
	}
	return list
}

func enables(dir, controller string) bool {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(list))+" ", " "+controller+" ")
}

// newGroup1 makes groups of version 1.
func newGroup1(h hierarchies, name string, limits runner.Limits) *group {
	g := &group{version: 1}
	if parent := h.legacy["memory"]; parent != "" && limits.Memory > 0 {
		g.memory = newGroup1At(parent, name, "memory.limit_in_bytes", limits.Memory)
		if g.memory != "" {
			put(g.memory, "memory.memsw.limit_in_bytes", limits.Memory) // not there without swap accounting
		}
	}
	if parent := h.legacy["pids"]; parent != "" && limits.Processes > 0 {
		g.pids = newGroup1At(parent, name, "pids.max", int64(limits.Processes+ownThreads))
	}
	return g
}

func newGroup1At(parent, name, file string, limit int64) string {
	sweep(parent)
	dir := filepath.Join(parent, name)
	if os.Mkdir(dir, 0o755) != nil {
		return ""
	}
	if put(dir, file, limit) != nil {
		os.Remove(dir)
		return ""
	}
	return dir
}

// sweep removes groups that callers left which were killed. A group that still has processes cannot be removed.
func sweep(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, groupPrefix+"*-*"))
	for _, dir := range left {
		fields := strings.Split(filepath.Base(dir), "-")
		if len(fields) != 3 {
			continue
		}
		pid, err := strconv.Atoi(fields[1])
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.Remove(dir)
		}
	}
}

func put(dir, file string, value int64) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(value, 10)), 0)
}

func (g *group) limitsMemory() bool    { return g != nil && g.memory != "" }
func (g *group) limitsProcesses() bool { return g != nil && g.pids != "" }

// dirs lists the directories once each.
func (g *group) dirs() []string {
	if g == nil {
		return nil
	}
	var list []string
	for _, dir := range []string{g.memory, g.pids} {
		if dir != "" && (len(list) == 0 || list[0] != dir) {
			list = append(list, dir)
		}
	}
	return list
}

// add moves the process pid into the groups.
func (g *group) add(pid int) error {
	for _, dir := range g.dirs() {
		if err := put(dir, "cgroup.procs", int64(pid)); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// watch looks for a process that the kernel killed for memory, and calls found once when there is one. The function it
// returns ends the watch and takes the last readings.
func (g *group) watch(found func(detail string)) (stop func()) {
	if g == nil {
		return func() {}
	}
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if g.limitsMemory() && g.countKills() > 0 {
				found("memory: the kernel killed a process at the limit")
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
		g.read()
	}
}

// read takes the counters, for which the group must still exist.
func (g *group) read() {
	if g.limitsMemory() {
		g.killed = g.countKills() > 0
		file := "memory.peak" // since Linux 5.19
		if g.version == 1 {
			file = "memory.max_usage_in_bytes"
		}
		g.highest = readNumber(filepath.Join(g.memory, file))
	}
	if g.limitsProcesses() {
		g.refused = readKey(filepath.Join(g.pids, "pids.events"), "max") > 0
	}
}

func (g *group) countKills() int64 {
	file := "memory.events"
	if g.version == 1 {
		file = "memory.oom_control"
	}
	return readKey(filepath.Join(g.memory, file), "oom_kill")
}

// readKey returns the number after key in a file of lines "key number"; zero if there is none.
func readKey(name, key string) int64 {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

func readNumber(name string) int64 {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

func (g *group) outOfMemory() bool    { return g != nil && g.killed }
func (g *group) outOfProcesses() bool { return g != nil && g.refused }

func (g *group) peak() int64 {
	if g == nil {
		return 0
	}
	return g.highest
}

func (g *group) memoryBy() string {
	if !g.limitsMemory() {
		return "watchdog"
	}
	return fmt.Sprintf("cgroup-v%d", g.version)
}

// processesBy returns the mechanism that limits processes, or "" if it is none of the group's.
func (g *group) processesBy() string {
	if !g.limitsProcesses() {
		return ""
	}
	return fmt.Sprintf("cgroup-v%d", g.version)
}

// remove removes the groups. The kernel may need a moment after the last process has been waited for.
func (g *group) remove() {
	for _, dir := range g.dirs() {
		for range 100 {
			if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}
