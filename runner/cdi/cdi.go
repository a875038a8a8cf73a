// Package cdi turns the names of devices, such as nvidia.com/gpu=0, into what a runner.Spec must hold for them, as the host's
// files of the Container Device Interface say (https://github.com/cncf-tags/container-device-interface, SPEC.md, up to version 1.1).
//
// It reads the files whole and strictly: what it does not know is an error, and so is what a Spec cannot express, by name. Nothing
// of a file is left out silently, with three exceptions that take nothing away: annotations; mount options that every mount of a Spec has
// anyway; and noexec, which no Spec can say. A mount is read-only unless its options say "rw".
//
// It runs no hook, makes no device node, and changes nothing.
package cdi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"arch.network/runner"
)

// Directories returns where specifications lie, in rising order of priority (SPEC.md, "CDI JSON Specification").
func Directories() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// MaxDevices bounds how many devices one job may name.
const MaxDevices = 64

// Edits is what devices add to a runner.Spec.
type Edits struct {
	Devices []runner.Device
	Mounts  []runner.Mount // binds
	Env     []string       // "KEY=value"
}

// UnknownDeviceError says that no file names the device.
type UnknownDeviceError struct {
	Name    string
	Similar string   // the name that is most like it; empty: none is
	Known   []string // sorted; at most 8
	Dirs    []string
}

func (e *UnknownDeviceError) Error() string {
	return fmt.Sprintf("device %q: no specification in %s names it", e.Name, strings.Join(e.Dirs, ", "))
}

// Hint tells the way out.
func (e *UnknownDeviceError) Hint() string {
	switch {
	case e.Similar != "":
		return fmt.Sprintf("did you mean %q?", e.Similar)
	case len(e.Known) > 0:
		return "this host has " + strings.Join(e.Known, ", ")
	default:
		return "this host has no CDI devices; their vendor's tool writes the specification, such as `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
	}
}

// Resolve reads the specifications in dirs, in rising order of priority, and returns what the named devices need, in their order. A directory
// that does not exist holds nothing. A name that two files of one directory have is an error.
func Resolve(names []string, dirs []string) (Edits, error) {
	if len(names) == 0 {
		return Edits{}, nil
	}
	if len(names) > MaxDevices {
		return Edits{}, fmt.Errorf("resolve devices: %d names are more than %d", len(names), MaxDevices)
	}
	all, err := readDirs(dirs)
	if err != nil {
		return Edits{}, err
	}
	var out Edits
	used := map[*file]bool{}
	for _, name := range names {
		if err := checkQualified(name); err != nil {
			return Edits{}, fmt.Errorf("device %q: %w", name, err)
		}
		found, ok := all[name]
		if !ok {
			return Edits{}, unknown(name, all, dirs)
		}
		if found.other != "" {
			return Edits{}, fmt.Errorf("device %q: both %s and %s name it", name, found.file.path, found.other)
		}
		if !used[found.file] {
			used[found.file] = true
			if err := out.add(found.file.Edits); err != nil {
				return Edits{}, fmt.Errorf("device %q: %s: %w", name, found.file.path, err)
			}
		}
		if err := out.add(found.device.Edits); err != nil {
			return Edits{}, fmt.Errorf("device %q: %s: %w", name, found.file.path, err)
		}
	}
	return out, nil
}

// Names returns the names that Resolve finds in dirs, sorted, and never nil. A name that it would refuse because two files have it is left out.
func Names(dirs []string) ([]string, error) {
	all, err := readDirs(dirs)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(all))
	for name, e := range all {
		if e.other == "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// unknown finds what may have been meant.
func unknown(name string, all map[string]entry, dirs []string) error {
	e := &UnknownDeviceError{Name: name, Dirs: dirs}
	best := 4 // more changes than that are another name
	known := make([]string, 0, len(all))
	for other := range all {
		known = append(known, other)
	}
	slices.Sort(known)
	for _, other := range known {
		if d := distance(name, other); d < best {
			best, e.Similar = d, other
		}
	}
	e.Known = known[:min(len(known), 8)]
	return e
}

// distance is Levenshtein's: how many letters must be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// checkQualified checks the form VENDOR/CLASS=NAME.
func checkQualified(name string) error {
	kind, device, ok := strings.Cut(name, "=")
	if !ok {
		return fmt.Errorf("it has not the form VENDOR/CLASS=NAME, such as nvidia.com/gpu=0")
	}
	return cmp.Or(checkKind(kind), checkDeviceName(device))
}

// checkKind checks VENDOR/CLASS (SPEC.md, "Kind").
func checkKind(kind string) error {
	vendor, class, ok := strings.Cut(kind, "/")
	if !ok || !isWord(vendor, "_-.", true) || !isWord(class, "_-", true) {
		return fmt.Errorf("kind %q has not the form VENDOR/CLASS", kind)
	}
	return nil
}

func checkDeviceName(name string) error {
	if !isWord(name, "_-.:", false) {
		return fmt.Errorf("name %q is not letters and digits with _ - . : between them", name)
	}
	return nil
}

// isWord reports whether s is letters and digits, and others of more between them; it starts with a letter if letter is set.
func isWord(s, more string, letter bool) bool {
	isLetter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	isDigit := func(c byte) bool { return '0' <= c && c <= '9' }
	if s == "" || len(s) > 253 || letter && !isLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		inside := i > 0 && i < len(s)-1
		if !isLetter(s[i]) && !isDigit(s[i]) && !(inside && strings.IndexByte(more, s[i]) >= 0) {
			return false
		}
	}
	return true
}
