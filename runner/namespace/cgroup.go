package namespace

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// group is the control groups of one execution. A nil *group, or one without a controller, limits nothing.
//
// With version 2 it is one directory, with version 1 one for each controller. It lies below the
// caller's own group, so that the caller's limits go on holding; where version 2 forbids that, because the caller itself sits
// in its group, it lies beside it, if the caller's group has no memory limit of its own to escape from.
type group struct {
	paths   map[string]string // directories by controller, in the words of version 2
	version int               // 1 or 2
	highest int64             // bytes, read before the group is removed
	killed  bool              // the kernel killed a process for memory
	refused bool              // the kernel refused a fork
}

// The controllers, in the words of version 2.
const (
	memoryController = "memory"
	pidsController   = "pids"
	cpuController    = "cpu"
	ioController     = "io"
	// accountController is there in version 1 alone: in version 2 every group counts CPU time.
	accountController = "cpuacct"
	// devicesController is there in version 1 alone: with version 2 a BPF program does its work, which takes privileges.
	devicesController = "devices"
)

// serial tells the groups of this process apart.
var serial atomic.Int64

// groupPrefix starts the name of each group: "arch-<process id>-<number>", and "-<name>" if the Spec has one.
// Groups of dead processes are swept.
const groupPrefix = "arch-"

// ownThreads is how many threads of the first process the limit of processes does not count.
const ownThreads = 24

// newGroup makes groups for what spec asks, as far as the host lets it; it never fails, see has.
func newGroup(spec runner.Spec) *group {
	name := spec.Name
	wanted := append(wantedSettings(spec.Limits), deviceSetting(spec.Devices)...)
	if metered(spec.Limits) {
		wanted = append(wanted, setting{controller: accountController, legacy: "cpuacct"})
	}
	if len(wanted) == 0 {
		return nil
	}
	h, err := findHierarchies("/proc/self/mountinfo", "/proc/self/cgroup")
	if err != nil {
		return nil
	}
	full := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), serial.Add(1))
	if name != "" {
		full += "-" + name
	}
	if g := newGroup2(h, full, wanted); g != nil {
		return g
	}
	return newGroup1(h, full, wanted)
}

// setting is what one limit writes into the files of a group.
type setting struct {
	controller string
	legacy     string // the controller's name in version 1
	v1, v2     []entry
}

// entry is a value for a file. The first entry of a setting decides whether the limit is kept; others only add to it.
type entry struct{ file, value string }

// wantedSettings translates limits.
func wantedSettings(l runner.Limits) []setting {
	var list []setting
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	if l.Memory > 0 {
		list = append(list, setting{
			memoryController, "memory",
			// The second is not there without swap accounting.
			[]entry{{"memory.limit_in_bytes", number(l.Memory)}, {"memory.memsw.limit_in_bytes", number(l.Memory)}},
			[]entry{{"memory.max", number(l.Memory)}, {"memory.swap.max", "0"}, {"memory.oom.group", "1"}},
		})
	}
	if l.Processes > 0 {
		most := []entry{{"pids.max", number(int64(l.Processes + ownThreads))}}
		list = append(list, setting{pidsController, "pids", most, most})
	}
	if l.CPU > 0 || l.Power > 0 {
		v1, v2 := cpuEntries(l.CPU)
		list = append(list, setting{cpuController, "cpu", v1, v2})
	}
	if l.IORead > 0 || l.IOWrite > 0 {
		list = append(list, ioSetting(l, blockDevices("/sys/block")))
	}
	return list
}

// cpuEntries give a group thousandths of a processor's time; zero is no limit.
func cpuEntries(thousandths int64) (v1, v2 []entry) {
	quota, period := cpuQuota(thousandths)
	if thousandths == 0 {
		return []entry{{"cpu.cfs_quota_us", "-1"}}, []entry{{"cpu.max", "max"}}
	}
	q, p := strconv.FormatInt(quota, 10), strconv.FormatInt(period, 10)
	return []entry{{"cpu.cfs_period_us", p}, {"cpu.cfs_quota_us", q}}, []entry{{"cpu.max", q + " " + p}}
}

// setCPU changes how much processor time the group may use.
func (g *group) setCPU(thousandths int64) error {
	entries, v2 := cpuEntries(thousandths)
	if g.version == 2 {
		entries = v2
	}
	for _, e := range entries {
		if err := put(g.paths[cpuController], e.file, e.value); err != nil {
			return fmt.Errorf("limit CPU time: %w", err)
		}
	}
	return nil
}

// ioSetting limits bytes a second, for each of the devices, which are "MAJOR:MINOR".
func ioSetting(l runner.Limits, devices []string) setting {
	s := setting{controller: ioController, legacy: "blkio"}
	add := func(limit int64, file, key string) {
		for _, d := range devices {
			if limit > 0 {
				s.v1 = append(s.v1, entry{file, fmt.Sprintf("%s %d", d, limit)})
				s.v2 = append(s.v2, entry{"io.max", fmt.Sprintf("%s %s=%d", d, key, limit)})
			}
		}
	}
	add(l.IORead, "blkio.throttle.read_bps_device", "rbps")
	add(l.IOWrite, "blkio.throttle.write_bps_device", "wbps")
	return s
}

// blockDevices lists the numbers of the block devices below dir that hold something.
func blockDevices(dir string) (list []string) {
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		number, err := os.ReadFile(filepath.Join(name, "dev"))
		if err == nil && readNumber(filepath.Join(name, "size")) > 0 {
			list = append(list, strings.TrimSpace(string(number)))
		}
	}
	return list
}

// deviceSetting translates the permissions of devices, if one of them is less than what its node on the host may give.
func deviceSetting(list []runner.Device) []setting {
	if !limitsPermissions(list) {
		return nil
	}
	s := setting{controller: devicesController, legacy: "devices", v1: []entry{{"devices.deny", "a"}}}
	for _, d := range devices {
		s.v1 = append(s.v1, entry{"devices.allow", fmt.Sprintf("c %d:%d rw", d.major, d.minor)})
	}
	for _, d := range list {
		var st unix.Stat_t
		if unix.Lstat(d.Source, &st) != nil {
			continue // the first process will say so
		}
		kind := "c"
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			kind = "b"
		}
		number := fmt.Sprintf("%s %d:%d ", kind, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		s.v1 = append(s.v1, entry{"devices.allow", number + d.Permissions})
	}
	return []setting{s}
}

// limitsPermissions reports whether a device may not be both read and written.
func limitsPermissions(list []runner.Device) bool {
	return slices.ContainsFunc(list, func(d runner.Device) bool { return !strings.HasPrefix(d.Permissions, "rw") })
}

// cpuQuota returns how many microseconds of each period thousandths of a processor's time are. The kernel refuses
// quotas below a millisecond and periods above a second (Documentation/scheduler/sched-bwc.rst).
func cpuQuota(thousandths int64) (quota, period int64) {
	period = 100_000
	if thousandths < 10 {
		period = 1_000_000
	}
	return thousandths * period / 1000, period
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
func newGroup2(h hierarchies, name string, wanted []setting) *group {
	if h.unified == "" {
		return nil
	}
	for _, parent := range parents2(h.unified, wanted) {
		sweep(parent)
		dir := filepath.Join(parent, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if !joinable(dir) {
			os.Remove(dir)
			continue
		}
		g := &group{version: 2, paths: map[string]string{}}
		for _, s := range wanted {
			if len(s.v2) > 0 && s.apply(dir, s.v2) {
				g.paths[s.controller] = dir
			}
		}
		if len(g.paths) > 0 {
			return g
		}
		os.Remove(dir)
	}
	return nil
}

// apply writes entries and reports whether the limit is kept.
func (s setting) apply(dir string, entries []entry) bool {
	for n, e := range entries {
		if put(dir, e.file, e.value) != nil && n == 0 {
			return false
		}
	}
	return true
}

// parents2 lists where a group of version 2 may be made: where a wanted controller is enabled for children.
func parents2(own string, wanted []setting) []string {
	for _, s := range wanted {
		if len(s.v2) > 0 && mayEnable(own) && !enables(own, s.controller) {
			put(own, "cgroup.subtree_control", "+"+s.controller)
		}
	}
	enabled := func(dir string) bool {
		return slices.ContainsFunc(wanted, func(s setting) bool { return enables(dir, s.controller) })
	}
	var list []string
	if enabled(own) {
		list = append(list, own)
	}
	limit, err := os.ReadFile(filepath.Join(own, "memory.max"))
	if err == nil && strings.TrimSpace(string(limit)) == "max" && enabled(filepath.Dir(own)) {
		list = append(list, filepath.Dir(own))
	}
	return list
}

// mayEnable reports whether controllers may be enabled for the children of the group dir. A group with processes of its own refuses
// that for memory and io, while cpu and pids turn it into a threaded one, whose new children nobody can join
// (Documentation/admin-guide/cgroup-v2.rst, "Threads"). The root, which has no type, is free of that.
func mayEnable(dir string) bool {
	if _, err := os.ReadFile(filepath.Join(dir, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return true
	}
	processes, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && len(processes) == 0
}

// joinable reports whether processes can be put into the new group dir.
func joinable(dir string) bool {
	kind, err := os.ReadFile(filepath.Join(dir, "cgroup.type"))
	return err != nil || strings.TrimSpace(string(kind)) == "domain"
}

func enables(dir, controller string) bool {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(list))+" ", " "+controller+" ")
}

// newGroup1 makes groups of version 1.
func newGroup1(h hierarchies, name string, wanted []setting) *group {
	g := &group{version: 1, paths: map[string]string{}}
	for _, s := range wanted {
		parent := h.legacy[s.legacy]
		if parent == "" {
			continue
		}
		sweep(parent)
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // controllers may share a directory
			continue
		}
		if !s.apply(dir, s.v1) {
			os.Remove(dir)
			continue
		}
		g.paths[s.controller] = dir
	}
	return g
}

// sweep removes groups that callers left which were killed. A group that still has processes cannot be removed.
func sweep(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, groupPrefix+"*-*"))
	for _, dir := range left {
		fields := strings.SplitN(filepath.Base(dir), "-", 4)
		if len(fields) < 3 {
			continue
		}
		pid, err := strconv.Atoi(fields[1])
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.Remove(dir)
		}
	}
}

func put(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

// has reports whether the kernel keeps the limit of that controller.
func (g *group) has(controller string) bool { return g != nil && g.paths[controller] != "" }

func (g *group) limitsMemory() bool    { return g.has(memoryController) }
func (g *group) limitsProcesses() bool { return g.has(pidsController) }

// dirs lists the directories once each.
func (g *group) dirs() []string {
	if g == nil {
		return nil
	}
	return slices.Compact(slices.Sorted(maps.Values(g.paths)))
}

// add moves the process pid into the groups.
func (g *group) add(pid int) error {
	for _, dir := range g.dirs() {
		if err := put(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// watch looks for a process that the kernel killed for memory, and calls found once when there is one. The function it
// returns ends the watch and takes the last readings.
func (g *group) watch(rest *meter.Rest, found func(detail string)) (stop func()) {
	if g == nil {
		return func() {}
	}
	var done sync.WaitGroup
	quit := make(chan struct{})
	if g.limitsMemory() {
		done.Go(func() { g.watchKills(rest, found, quit) })
	}
	return func() {
		close(quit)
		done.Wait()
		g.read()
	}
}

// watchKills looks for kills until quit is closed, but not during a rest: read finds those.
func (g *group) watchKills(rest *meter.Rest, found func(detail string), quit <-chan struct{}) {
	fd, err := unix.Open(g.killsFile(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // read finds them at the end
	}
	defer unix.Close(fd)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var text [1024]byte // a few short lines: Documentation/admin-guide/cgroup-v2.rst, memory.events
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		rest.Wait(quit)
		if n, err := unix.Pread(fd, text[:], 0); err == nil && findKey(string(text[:n]), killsKey) > 0 {
			found("memory: the kernel killed a process at the limit")
			return
		}
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
		g.highest = readNumber(filepath.Join(g.paths[memoryController], file))
	}
	if g.limitsProcesses() {
		g.refused = readKey(filepath.Join(g.paths[pidsController], "pids.events"), "max") > 0
	}
}

// killsKey is what counts processes that the kernel killed, in killsFile.
const killsKey = "oom_kill"

func (g *group) killsFile() string {
	file := "memory.events"
	if g.version == 1 {
		file = "memory.oom_control"
	}
	return filepath.Join(g.paths[memoryController], file)
}

func (g *group) countKills() int64 { return readKey(g.killsFile(), killsKey) }

// readKey returns the number after key in a file of lines "key number"; zero if there is none.
func readKey(name, key string) int64 {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	return findKey(string(data), key)
}

// findKey returns the number after a key at the beginning of a line; zero: there is none.
func findKey(text, key string) int64 {
	for line := range strings.Lines(text) {
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

// by names the mechanism that keeps the limit of that controller, or "" if it is none of the group's.
func (g *group) by(controller string) string {
	if !g.has(controller) {
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
