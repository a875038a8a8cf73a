package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"arch.network/attest"
	"arch.network/runner/program"
	"arch.network/runner/systemd"
)

// hostChecks look at the kernel and the machine.
func hostChecks(*app) []doctorCheck {
	return []doctorCheck{
		{"kernel", true, checkKernel, "use Linux 5.12 or later"},
		{"processor", true, checkProcessor, "use a 64-bit x86 processor with SSE4.1, or a 64-bit ARM one"},
		{"cgroups", false, checkCgroups, "mount cgroup version 2 at /sys/fs/cgroup"},
		{"Landlock", false, checkLandlock, "use Linux 6.12 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the kernel's lsm= list"},
		{"pressure", false, checkPressure, "boot with psi=1: without it, nobody notices that a job stalls the machine"},
		{"energy meter", false, checkEnergy, "let this user read /sys/class/powercap/*/energy_uj; without it energy is modelled, and marked as such"},
		{"clock", true, checkClock, "set the clock: signatures and policies are judged by it"},
		{"open files", false, checkFiles, "ulimit -n 4096"},
	}
}

func checkKernel(context.Context) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, errX := strconv.Atoi(major)
	y, errY := strconv.Atoi(strings.TrimRight(minor, "-+abcdefghijklmnopqrstuvwxyz"))
	if errX != nil || errY != nil || x < 5 || x == 5 && y < 12 {
		return "Linux " + release, errors.New("it is older than 5.12")
	}
	return "Linux " + release, nil
}

func checkProcessor(context.Context) (string, error) {
	switch runtime.GOARCH {
	case "amd64":
		if !cpu.X86.HasSSE41 {
			return runtime.GOARCH, errors.New("it lacks SSE4.1, which the module compiler uses")
		}
		return fmt.Sprintf("amd64 with SSE4.1, %s", count(runtime.NumCPU(), "processor", "processors")), nil
	case "arm64":
		return fmt.Sprintf("arm64, %s", count(runtime.NumCPU(), "processor", "processors")), nil
	}
	return runtime.GOARCH, errors.New("modules cannot be compiled for it")
}

func checkCgroups(context.Context) (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	var one, two []string
	for line := range strings.Lines(string(data)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if id == "0" {
			two = append(two, path)
		} else if controllers != "" {
			one = append(one, controllers)
		}
	}
	available, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	switch {
	case err == nil && len(two) > 0:
		return fmt.Sprintf("version 2, controllers %q at %s", strings.TrimSpace(string(available)), two[0]), nil
	case len(one) > 0:
		return "version 1: " + strings.Join(one, " "), errors.New("version 2 is not in use; its controllers account more, and end a job more surely")
	}
	return "", errors.New("there is no control group")
}

func checkLandlock(context.Context) (string, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errno != 0:
		return "", fmt.Errorf("landlock_create_ruleset: %w", errno)
	case abi < 6: // scopes of abstract sockets and signals
		return fmt.Sprintf("ABI %d", abi), errors.New("before ABI 6 it cannot keep abstract sockets and signals inside; the namespaces still do")
	}
	return fmt.Sprintf("ABI %d", abi), nil
}

func checkPressure(context.Context) (string, error) {
	data, err := os.ReadFile("/proc/pressure/memory")
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return "memory: " + line, nil
}

func checkEnergy(context.Context) (string, error) {
	files, err := filepath.Glob("/sys/class/powercap/*/energy_uj")
	if err != nil || len(files) == 0 {
		return "", errors.New("the machine shows no energy counter")
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			return fmt.Sprintf("%s: %s µJ", file, strings.TrimSpace(string(data))), nil
		}
	}
	return "", fmt.Errorf("%s cannot be read", files[0])
}

// checkClock holds the clock to what it cannot be earlier than, and asks the kernel whether something keeps it right.
func checkClock(context.Context) (string, error) {
	now := time.Now()
	seen := now.UTC().Format(time.RFC3339)
	if built := builtAt(); now.Before(built) {
		return seen, fmt.Errorf("that is before this program was made, %s", built.Format(time.RFC3339))
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err == nil && state != 5 { // TIME_ERROR: adjtimex(2)
		return seen + ", synchronised", nil
	}
	return seen + "; nothing tells the kernel that it is right", nil
}

// builtAt is the time of the commit that this program was made from, or of the first one that had this check.
func builtAt() time.Time {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return at
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(at) {
			at = t
		}
	}
	return at
}

func checkFiles(context.Context) (string, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%d may be open at once", limit.Cur)
	if limit.Cur < 1024 {
		return seen, errors.New("large trees and images need over 1000")
	}
	return seen, nil
}

// systemdChecks ask systemd, where it is the first process and this is root, what its properties really do.
func systemdChecks() []doctorCheck {
	return []doctorCheck{{"broker", false, checkBroker, "install arch-runnerd, so that an ordinary user's jobs are confined by systemd, too"}, {"systemd", false, checkSystemd, "run arch as root on a machine whose first process is systemd, or install the broker arch-runnerd; without it jobs are confined by namespaces"}}
}

// checkBroker connects: that it is answered at all is the broker's word that this user may ask.
func checkBroker(context.Context) (string, error) {
	conn, err := net.DialTimeout("unix", brokerSocket(), 2*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return "something listens at " + brokerSocket(), nil
}

func checkSystemd(ctx context.Context) (string, error) {
	if err := fitsSystemd(); err != nil {
		return "", err
	}
	report, err := systemd.Probe(ctx, systemd.Options{})
	if err != nil {
		return "", err
	}
	var kept, lost []string
	cure := ""
	for _, e := range report.Effects {
		if e.Holds {
			kept = append(kept, e.Name)
			continue
		}
		lost = append(lost, fmt.Sprintf("%s (%s): %s", e.Name, e.Property, e.Seen))
		if cure == "" {
			cure = e.Cure
		}
	}
	seen := fmt.Sprintf("version %s keeps %s", report.Systemd, strings.Join(kept, ", "))
	if len(lost) > 0 {
		return seen, hinted(fmt.Errorf("has no effect here: %s", strings.Join(lost, "; ")), cure)
	}
	return seen, nil
}

// ownChecks look at what is the user's: program, store, keys, tools.
func ownChecks(a *app) []doctorCheck {
	return []doctorCheck{
		{"program", false, checkProgram, "build arch with CGO_ENABLED=0, or name such a build in ARCH_WORKER"},
		{"store", true, a.checkStore, "name another directory with --store or ARCH_STORE"},
		{"cache", true, a.checkCache, "name another directory with ARCH_CACHE"},
		{"key", false, a.checkKey, "arch key new makes a key; without one nothing is signed"},
		{"trust root", false, a.checkTrustRoot, "arch trust add KEY --name NAME makes one; without one nobody else's documents count"},
		{"Go toolchain", false, checkToolchain, "install Go " + builtWith() + " to save the download of a pinned toolchain"},
		{"Git", false, checkProgramOf("git", "--version"), "install Git, to fetch from its repositories"},
		{"Nix", false, checkProgramOf("nix-store", "--version"), "install Nix, for jobs of runtime nix whose closure no receipt pins"},
		{"Guix", false, checkProgramOf("guix", "--version"), "install Guix, for jobs of runtime guix whose closure no receipt pins"},
	}
}

func checkProgram(context.Context) (string, error) {
	self, err := probeProgram()
	if err != nil {
		return "", err
	}
	static, err := program.Static(self.Path)
	if err == nil && !static {
		err = errors.New("it is linked dynamically: units of systemd have no libraries")
	}
	return self.Path, err
}

// minFree is how much room a store should have: bytes. A toolchain with its sources needs about that.
const minFree = 2 << 30

func (a *app) checkStore(context.Context) (string, error) {
	s, err := a.openStore()
	if err != nil {
		return "", err
	}
	defer s.Close()
	f, err := os.CreateTemp(filepath.Join(s.Dir(), "tmp"), "doctor-*")
	if err != nil {
		return s.Dir(), err
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return s.Dir(), err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir(), &st); err != nil {
		return s.Dir(), err
	}
	free := int64(st.Bavail) * st.Bsize
	seen := fmt.Sprintf("%s can be written, %s are free", s.Dir(), size(free))
	if free < minFree {
		return seen, hinted(fmt.Errorf("less than %s", size(minFree)), "arch store gc gives back what nothing keeps")
	}
	return seen, nil
}

func (a *app) checkCache(context.Context) (string, error) {
	dir, err := a.cacheDir("")
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "doctor-*")
	if err != nil {
		return dir, err
	}
	f.Close()
	return dir + " can be written", os.Remove(f.Name())
}

func (a *app) checkKey(context.Context) (string, error) {
	path, err := a.keyPath(nil)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%s, mode %04o", path, info.Mode().Perm())
	if info.Mode().Perm()&0o077 != 0 {
		return seen, hinted(errors.New("others may read it"), "chmod 600 "+path+", and make a new key if somebody else was here")
	}
	return seen, nil
}

func (a *app) checkTrustRoot(context.Context) (string, error) {
	path, err := a.trustPath()
	if err != nil {
		return "", err
	}
	root, trust, err := a.openTrust(path)
	if err != nil {
		return "", err
	}
	for _, c := range []trustCheck{checkExpiry(trust.Root(), time.Now()), checkOwner(path), checkGovernance(root, trust.Root(), time.Now())} {
		if c.Result == attest.Fail {
			return path, hinted(fmt.Errorf("%s: %s", c.Name, c.Detail), c.Hint)
		}
	}
	return fmt.Sprintf("%s, version %d, until %s, roles %s", path, root.Spec.Version, trust.Root().Expires().Format(time.RFC3339), strings.Join(rolesOf(root), ", ")), nil
}

// builtWith is the Go version that this program was built with, which is the one that its own example pins.
func builtWith() string { return strings.TrimPrefix(runtime.Version(), "go") }

func checkToolchain(context.Context) (string, error) {
	var seen []string
	for _, dir := range toolchains() {
		data, err := os.ReadFile(filepath.Join(dir, "VERSION"))
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(string(data), "\n")
		seen = append(seen, name+" in "+dir)
		if name == runtime.Version() {
			return seen[len(seen)-1], nil
		}
	}
	return strings.Join(seen, ", "), fmt.Errorf("%s is not installed", runtime.Version())
}

func checkProgramOf(name string, args ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("%s is not in PATH", name)
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, args...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		return path + ": " + line, err
	}
}
