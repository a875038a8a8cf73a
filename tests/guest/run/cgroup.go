package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// hierarchy is one tree of control groups of the host (cgroups(7)).
type hierarchy struct {
	controllers string // such as "cpu,cpuacct" or "name=systemd"; empty: version 2
	point       string // where it is mounted
	path        string // of this process's group, below point
}

// readHierarchies lists the mounted ones.
func readHierarchies() ([]hierarchy, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(string(own), string(mountinfo)), nil
}

func parseHierarchies(own, mountinfo string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		h := hierarchy{controllers: fields[1]}
		if h.place(fields[2], mountinfo) {
			found = append(found, h)
		}
	}
	return found
}

// place finds where the hierarchy is mounted, and the group with this path in it.
func (h *hierarchy) place(path, mountinfo string) bool {
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || !h.matches(right[0], right[2]) {
			continue
		}
		rel, err := filepath.Rel(left[3], path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		h.point, h.path = left[4], rel
		return true
	}
	return false
}

func (h *hierarchy) matches(fstype, options string) bool {
	if h.controllers == "" {
		return fstype == "cgroup2"
	}
	if fstype != "cgroup" {
		return false
	}
	have := strings.Split(options, ",")
	for c := range strings.SplitSeq(h.controllers, ",") {
		if !slices.Contains(have, c) {
			return false
		}
	}
	return true
}

// makeGroups makes a group in every hierarchy, and notes them in file before, so that a sweep finds them.
func makeGroups(hierarchies []hierarchy, name, file string) ([]string, error) {
	var groups []string
	for _, h := range hierarchies {
		groups = append(groups, filepath.Join(h.parent(), name))
	}
	if err := os.WriteFile(file, []byte(strings.Join(groups, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	var made []string
	for i, dir := range groups {
		if err := os.Mkdir(dir, 0o755); err != nil {
			if hierarchies[i].controllers == "" || errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
				continue // read-only here: the guest does without
			}
			return nil, fmt.Errorf("make control group: %w", err)
		}
		if err := hierarchies[i].prepare(dir); err != nil {
			return nil, err
		}
		made = append(made, dir)
	}
	return made, nil
}

// parent is where a guest's group goes. In version 2 a group with processes of its own cannot hand controllers to groups
// below it, so the group lies below the nearest one above that has handed any down; the root can always be made to.
func (h *hierarchy) parent() string {
	own := filepath.Join(h.point, h.path)
	if h.controllers != "" {
		return own
	}
	for dir := own; len(dir) >= len(h.point); dir = filepath.Dir(dir) {
		enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err == nil && len(strings.TrimSpace(string(enabled))) > 0 {
			return dir
		}
	}
	available, err := os.ReadFile(filepath.Join(h.point, "cgroup.controllers"))
	if err != nil {
		return own
	}
	for c := range strings.FieldsSeq(string(available)) {
		os.WriteFile(filepath.Join(h.point, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
	return h.point
}

// prepare fills in what a new cpuset group lacks: nothing may run in it before.
func (h *hierarchy) prepare(dir string) error {
	if !slices.Contains(strings.Split(h.controllers, ","), "cpuset") {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0); err != nil {
			return err
		}
	}
	return nil
}

// enter puts a process into the groups.
func enter(groups []string, pid int) error {
	for _, dir := range groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter control group %s: %w", dir, err)
		}
	}
	return nil
}
