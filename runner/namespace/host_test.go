package namespace_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
)

// helperVariable makes this test binary run a Spec, given as JSON, instead of tests; TestMain looks at it.
const helperVariable = "ARCH_TEST_HELPER"

// helper is what a helper process does.
type helper struct {
	Commands []runner.Command
	Mounts   []runner.Mount
	Limits   runner.Limits
	Degraded bool
	Offset   time.Duration
	Network  runner.Network

	Mask   bool // cover a part of /proc first, as container engines do it
	Refuse bool // set user.max_user_namespaces to 0 first: in a user namespace of its own, where that may be done
	Weak   bool // then give up all capabilities
	Tame   bool // refuse ptrace, as seccomp filters of container engines did
}

// answer is what a helper process prints.
type answer struct {
	Result runner.Result
	Error  string
	Setup  bool // the error is a *runner.SetupError
	Hint   string
	Out    string
}

// help runs in the helper process.
func help(text string) int {
	var h helper
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		panic(err)
	}
	if h.Mask {
		if err := unix.Mount("/dev/null", "/proc/keys", "", unix.MS_BIND, ""); err != nil {
			panic(err)
		}
	}
	if h.Refuse {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			panic(err)
		}
	}
	if h.Weak {
		if err := syscall.Setuid(nobody); err != nil {
			panic(err)
		}
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil { // as after a login
			panic(err)
		}
	}
	if h.Tame {
		filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: []string{"ptrace"}}},
		}}
		if err := seccomp.LoadFilter(filter); err != nil {
			panic(err)
		}
	}
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		panic(err)
	}
	var out bytes.Buffer
	spec := runner.Spec{Commands: h.Commands, Mounts: h.Mounts, Limits: h.Limits, Degraded: h.Degraded, ClockOffset: h.Offset, Network: h.Network, Stdout: &out}
	if !h.Refuse && !h.Mask && !h.Tame {
		spec.Stdout = os.Stdout
	}
	result, err := r.Run(context.Background(), spec)
	a := answer{Result: result, Out: out.String()}
	if err != nil {
		a.Error = err.Error()
		if setup, ok := errors.AsType[*runner.SetupError](err); ok {
			a.Setup, a.Hint = true, setup.Hint()
		}
	}
	json.NewEncoder(os.Stdout).Encode(a)
	return 0
}

func helperCommand(t *testing.T, spec runner.Spec, h helper) *exec.Cmd {
	t.Helper()
	h.Commands, h.Mounts, h.Limits, h.Degraded = spec.Commands, spec.Mounts, spec.Limits, spec.Degraded
	h.Offset, h.Network = spec.ClockOffset, spec.Network
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}

// onRefusingHost runs spec in a process whose user namespace may not have further ones.
func onRefusingHost(t *testing.T, spec runner.Spec, weak bool) answer {
	t.Helper()
	return onHost(t, spec, helper{Refuse: true, Weak: weak})
}

// onHost runs spec in a process in a user and mount namespace that h has changed.
func onHost(t *testing.T, spec runner.Spec, h helper) answer {
	t.Helper()
	cmd := helperCommand(t, spec, h)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 100000}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run helper: %v", err)
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("read answer %q: %v", out, err)
	}
	return a
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: a host that refuses user namespaces is made by root")
	}
}

// samePlace confines the probe at its own path, with a scratch directory at a host path: what the degraded mode can do.
func samePlace(t *testing.T, args ...string) runner.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "arch-namespace-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "probe")
	copyFile(t, runnertest.Probe(t), probe)
	return runner.Spec{
		Commands: []runner.Command{{Argv: append([]string{probe}, args...), Env: []string{"PATH=/"}, Dir: filepath.Join(dir, "scratch")}},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: probe, Target: probe},
			{Kind: runner.Tmpfs, Target: filepath.Join(dir, "scratch")},
		},
	}
}

func TestRefusedUserNamespaceIsAnErrorWithTheCure(t *testing.T) {
	needRoot(t)
	a := onRefusingHost(t, samePlace(t, "exit", "0"), true)
	if !a.Setup || !strings.Contains(a.Error, "create user namespace: the host allows no more of them (ENOSPC: sysctl user.max_user_namespaces") {
		t.Errorf("got error %q", a.Error)
	}
	if want := "let the host's operator run: sysctl -w user.max_user_namespaces=15000"; a.Hint != want {
		t.Errorf("got hint %q, want %q", a.Hint, want)
	}
}

func TestRefusedUserNamespaceAsRootKeepsTheOthers(t *testing.T) {
	needRoot(t)
	a := onRefusingHost(t, samePlace(t, "exit", "5"), false)
	if a.Error != "" || a.Result.Exit != 5 || a.Result.Reason != runner.ReasonExit {
		t.Fatalf("got %+v", a)
	}
	missing := strings.Join(a.Result.Confinement.Missing, "; ")
	if missing != "user-namespace: create user namespace: the host allows no more of them (ENOSPC: sysctl user.max_user_namespaces, or another of user.max_*_namespaces)" {
		t.Errorf("missing: %q", missing)
	}
}

func TestMaskedProc(t *testing.T) {
	needRoot(t)
	t.Run("an ordinary user is told the cure", func(t *testing.T) {
		a := onHost(t, samePlace(t, "exit", "0"), helper{Mask: true, Weak: true})
		if !a.Setup || a.Error != "mount /proc: operation not permitted" || !strings.Contains(a.Hint, "systempaths=unconfined") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("root does without a user namespace", func(t *testing.T) {
		a := onHost(t, samePlace(t, "exit", "0"), helper{Mask: true})
		missing := strings.Join(a.Result.Confinement.Missing, "; ")
		if !a.Result.OK() || missing != "user-namespace: mount /proc: operation not permitted" {
			t.Errorf("got %+v", a)
		}
	})
}

func TestDegraded(t *testing.T) {
	needRoot(t)
	t.Run("files, sockets and capabilities are bounded", func(t *testing.T) {
		spec := samePlace(t, "open", "/etc/passwd", "/usr", "/dev/null")
		spec.Degraded = true
		spec.Commands = append(spec.Commands,
			command(spec, "write", filepath.Dir(spec.Mounts[0].Source), "."), command(spec, "connect", "127.0.0.1:1"), command(spec, "make", "out=1"))
		a := onRefusingHost(t, spec, true)
		if !a.Result.OK() {
			t.Fatalf("got %+v", a)
		}
		for _, want := range []string{
			"/etc/passwd: EACCES\n", "/usr: EACCES\n", "/dev/null: ok\n", " write: EACCES\n", ". write: ok\n", "address 0: EPERM\n",
		} {
			if !strings.Contains(a.Out, want) {
				t.Errorf("%q is not in\n%s", want, a.Out)
			}
		}
		if len(a.Result.Confinement.Missing) < 6 {
			t.Errorf("missing: %q", a.Result.Confinement.Missing)
		}
		if _, err := os.Stat(spec.Mounts[1].Target); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the scratch directory is left: %v", err)
		}
	})
	t.Run("data is a file for the time of the run", func(t *testing.T) {
		spec := samePlace(t)
		file := filepath.Join(filepath.Dir(spec.Mounts[0].Source), "data")
		spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Data, Target: file, Content: []byte("given")})
		spec.Commands = []runner.Command{command(spec, "size", file), command(spec, "write", file)}
		spec.Degraded = true
		a := onRefusingHost(t, spec, true)
		if !a.Result.OK() || !strings.HasPrefix(a.Out, "5\n") || !strings.Contains(a.Out, "data write: EACCES\n") {
			t.Errorf("got %+v", a)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is left: %v", err)
		}
	})
	t.Run("a network is refused", func(t *testing.T) {
		spec := samePlace(t, "exit", "0")
		spec.Degraded = true
		spec.Network.Egress = []runner.Egress{{Protocol: "tcp", Port: 443}}
		if a := onRefusingHost(t, spec, true); !a.Setup || !strings.Contains(a.Error, "cannot be limited without a network namespace") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("what is left behind is killed", func(t *testing.T) {
		const mark = "mark-of-degraded"
		spec := samePlace(t, "daemon", mark)
		spec.Degraded = true
		if a := onRefusingHost(t, spec, true); !a.Result.OK() {
			t.Errorf("got %+v", a)
		}
		if found := withMark(t, mark); len(found) > 0 {
			t.Errorf("processes %v are left", found)
		}
	})
	t.Run("another path is refused", func(t *testing.T) {
		spec := samePlace(t, "exit", "0")
		spec.Degraded = true
		spec.Mounts[0].Target = "/bin/probe"
		if a := onRefusingHost(t, spec, true); !a.Setup || !strings.Contains(a.Error, "cannot appear at another path") {
			t.Errorf("got %+v", a)
		}
	})
}

// TestClockThatCannotBeShifted must not hinder the run, and must be told apart from a weaker confinement.
func TestClockThatCannotBeShifted(t *testing.T) {
	needRoot(t)
	const offset = 10000 * time.Hour
	tests := []struct {
		name    string
		host    helper
		missing string
	}{
		{"ptrace is refused", helper{Tame: true}, "clock-offset: ptrace: operation not permitted"},
		{"no namespaces, no privilege", helper{Refuse: true, Weak: true}, "clock-offset: ptrace: operation not permitted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := samePlace(t, "time", "once")
			spec.Degraded, spec.ClockOffset = true, offset
			before := time.Now().Unix()
			a := onHost(t, spec, test.host)
			if !a.Result.OK() {
				t.Fatalf("got %+v", a)
			}
			if !slices.Contains(a.Result.Confinement.Missing, test.missing) {
				t.Errorf("missing: %q", a.Result.Confinement.Missing)
			}
			if slices.Contains(a.Result.Confinement.Enforced, "clock-offset") {
				t.Errorf("enforced: %q", a.Result.Confinement.Enforced)
			}
			first, _, _ := strings.Cut(a.Out, "\n")
			if got := atoi(t, strings.TrimPrefix(first, "once: time.Now: ")); int64(got) < before || int64(got) > time.Now().Unix() {
				t.Errorf("the probe's time is %d, the host's was %d", got, before)
			}
		})
	}
}

func command(spec runner.Spec, args ...string) runner.Command {
	c := spec.Commands[0]
	c.Argv = append([]string{c.Argv[0]}, args...)
	return c
}

// withMark lists the processes that have mark in their command lines.
func withMark(t *testing.T, mark string) []int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(name, "cmdline"))
		if err == nil && bytes.Contains(data, []byte(mark)) {
			found = append(found, atoi(t, filepath.Base(name)))
		}
	}
	return found
}

// TestCallerKilled kills the caller of the driver. What it had confined must die of that; the test waits for it.
func TestCallerKilled(t *testing.T) {
	const mark = "mark-of-killed-caller"
	spec := runner.Spec{
		Commands: []runner.Command{{Argv: []string{"probe", "children", mark}, Env: []string{"PATH=/bin"}}},
		Mounts:   []runner.Mount{{Kind: runner.Bind, Source: runnertest.Probe(t), Target: "/bin/probe"}},
		Limits:   runner.Limits{Memory: 1 << 30, Processes: 1000},
	}
	cmd := helperCommand(t, spec, helper{})
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // the grandchild has started
		t.Fatal(err)
	}
	var confined []unix.PollFd
	for _, pid := range withMark(t, mark) {
		if pid == cmd.Process.Pid {
			continue
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			defer unix.Close(fd)
			confined = append(confined, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if len(confined) < 2 {
		t.Fatalf("only %d processes were confined", len(confined))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for i := range confined {
		for {
			_, err := unix.Poll(confined[i:i+1], -1) // until the process is dead
			if err != unix.EINTR {
				break
			}
		}
	}
	t.Run("the next run sweeps its control groups", func(t *testing.T) {
		r := driver(namespace.Options{})(t)
		spec.Commands[0].Argv = []string{"probe", "exit", "0"}
		for range 100 { // a group is busy until the kernel has finished with its last process
			if _, err := r.Run(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			if len(groupsOf(cmd.Process.Pid)) == 0 {
				return
			}
		}
		t.Errorf("control groups are left: %q", groupsOf(cmd.Process.Pid))
	})
}
