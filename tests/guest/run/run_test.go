package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build compiles the launcher, static, in a directory where it is alone.
func build(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: only root can start a guest")
	}
	launcher := filepath.Join(t.TempDir(), "run")
	cmd := exec.Command("go", "build", "-trimpath", "-o", launcher, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return launcher
}

// host runs launchers whose temporary files lie in a directory of the test.
type host struct {
	launcher, tmp string
	mounts        string
}

func newHost(t *testing.T) *host {
	t.Helper()
	return &host{launcher: build(t), tmp: t.TempDir(), mounts: mountTable(t)}
}

func mountTable(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.launcher, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+h.tmp)
	cmd.Dir = "/" // which every guest has; a checkout in /tmp is hidden there
	return cmd
}

// clean fails the test if something of a guest is left.
func (h *host) clean(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(h.tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %q, %v", left, err)
	}
	if now := mountTable(t); now != h.mounts {
		t.Errorf("mounts changed:\n%s\n%s", h.mounts, now)
	}
}

// groups lists the control groups that the states in h.tmp name and that exist.
func (h *host) groups(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.tmp, statePrefix+"*", "groups"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if _, err := os.Stat(strings.TrimSpace(line)); err == nil {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

func modes() []string { return []string{modeNamespaces, modeUML} }

func TestCommand(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name   string
		args   []string
		stdout string
		stderr string
		exit   int
		signal syscall.Signal
		uml    bool // there as well, where each takes seconds
	}{
		{name: "exit status", args: []string{"sh", "-c", "exit 9"}, exit: 9},
		{name: "streams", args: []string{"sh", "-c", "printf 'a\\r\\nb'; printf c >&2"}, stdout: "a\r\nb", stderr: "c", uml: true},
		{name: "ended by a signal", args: []string{"sh", "-c", "kill -SEGV $$"}, signal: syscall.SIGSEGV, uml: true},
		{name: "killed", args: []string{"sh", "-c", "kill -KILL $$"}, signal: syscall.SIGKILL},
		{name: "no terminal", args: []string{"sh", "-c", "[ -t 1 ] || echo no"}, stdout: "no\n"},
		{name: "arguments", args: []string{"printf", "%s|", "a b", "", "'", "$HOME"}, stdout: "a b||'|$HOME|"},
		{name: "missing program", args: []string{"/no/such"}, exit: 127, stderr: "run: fork/exec /no/such: no such file or directory\n"},
	}
	for _, mode := range modes() {
		for _, test := range tests {
			if mode == modeUML && !test.uml {
				continue
			}
			t.Run(mode+"/"+test.name, func(t *testing.T) {
				var stdout, stderr bytes.Buffer
				cmd := h.command(append([]string{mode}, test.args...)...)
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				needMode(t, cmd, stderr.String())
				if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{test.stdout, test.stderr}, []string{stdout.String(), stderr.String()}); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				got := statusOf(cmd, err)
				if diff := cmp.Diff(status{Exit: test.exit, Signal: test.signal}, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				h.clean(t)
			})
		}
	}
}

// needMode skips the test where the launcher says that it cannot have a guest.
func needMode(t *testing.T, cmd *exec.Cmd, stderr string) {
	t.Helper()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitUnable {
		_, why, _ := strings.Cut(stderr, "cannot run here: ")
		t.Skip("cannot run here: " + why)
	}
}

func TestStandardInput(t *testing.T) {
	h := newHost(t)
	cmd := h.command(modeNamespaces, "cat")
	cmd.Stdin = strings.NewReader("text")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "text" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestShow(t *testing.T) {
	h := newHost(t)
	shown := t.TempDir() // below /tmp, which is new in a guest
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(shown, "file"), []byte("old\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := h.command(mode, "-s", shown, "sh", "-c", "cat file; echo new >file; cat file")
			cmd.Dir = shown
			out, err := cmd.CombinedOutput()
			needMode(t, cmd, string(out))
			if err != nil || string(out) != "old\nnew\n" {
				t.Errorf("got %q, %v", out, err)
			}
			if data, err := os.ReadFile(filepath.Join(shown, "file")); err != nil || string(data) != "old\n" {
				t.Errorf("afterwards: %q, %v", data, err)
			}
		})
	}
}

func TestOnlyBindsKeep(t *testing.T) {
	h := newHost(t)
	kept := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			script := "mkdir -p $(dirname " + outside + ") && echo x >" + outside + " && echo x >/etc/arch-guest-test && echo x >/kept/" + mode
			cmd := h.command(mode, "-b", kept+":/kept", "sh", "-c", script)
			out, err := cmd.CombinedOutput()
			needMode(t, cmd, string(out))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if data, err := os.ReadFile(filepath.Join(kept, mode)); err != nil || string(data) != "x\n" {
				t.Errorf("kept: got %q, %v", data, err)
			}
			for _, name := range []string{outside, "/etc/arch-guest-test"} {
				if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is on the host: %v", name, err)
				}
			}
		})
	}
}

// startWaiting starts a guest whose command has started, and which only ends with the guest.
func (h *host) startWaiting(t *testing.T, mode string) *exec.Cmd {
	t.Helper()
	cmd := h.command(mode, "sh", "-c", "trap '' TERM INT HUP; setsid sh -c \"trap '' TERM; echo started; while :; do sleep 1000; done\"")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "started\n" {
		cmd.Process.Kill()
		cmd.Wait()
		needMode(t, cmd, "the guest did not start")
		t.Fatalf("got %q, %v", line, err)
	}
	go io.Copy(io.Discard, out)
	return cmd
}

func TestInterrupted(t *testing.T) {
	tests := []struct {
		mode   string
		signal syscall.Signal
	}{{modeNamespaces, syscall.SIGINT}, {modeNamespaces, syscall.SIGTERM}, {modeUML, syscall.SIGTERM}}
	for _, test := range tests {
		t.Run(test.mode+"/"+test.signal.String(), func(t *testing.T) {
			h := newHost(t)
			cmd := h.startWaiting(t, test.mode)
			groups := h.groups(t)
			if test.mode == modeNamespaces && len(groups) == 0 {
				t.Error("the guest has no control groups")
			}
			cmd.Process.Signal(test.signal)
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != exitInternal {
				t.Errorf("exit status %d, want %d", got, exitInternal)
			}
			h.clean(t)
			h.dead(t, groups)
		})
	}
}

// TestKilled kills the launcher: its processes end by that, and the next launcher removes the rest.
func TestKilled(t *testing.T) {
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t)
			cmd := h.startWaiting(t, mode)
			groups := h.groups(t)
			cmd.Process.Kill()
			cmd.Wait()
			if out, err := h.command(modeNamespaces, "true").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			h.clean(t)
			h.dead(t, groups)
		})
	}
}

// dead fails the test if one of the groups exists, or a process of a guest lives.
func (h *host) dead(t *testing.T, groups []string) {
	t.Helper()
	for _, g := range groups {
		if _, err := os.Stat(g); err == nil {
			t.Errorf("control group %s is left", g)
		}
	}
	if alive := mentioning(t, h.tmp); len(alive) > 0 {
		t.Errorf("processes are left: %q", alive)
	}
}

// mentioning lists the living processes whose command line or environment names dir.
func mentioning(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		line, _ := os.ReadFile(name)
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "environ"))
		if bytes.Contains(line, []byte(dir)) || bytes.Contains(env, []byte(dir)) {
			found = append(found, string(line))
		}
	}
	return found
}

// TestNested starts a guest in namespaces on a host that has version 2 of control groups alone.
func TestNested(t *testing.T) {
	h := newHost(t)
	cmd := h.command(modeUML, "-b", filepath.Dir(h.launcher)+":/run/launcher", "/run/launcher/run", modeNamespaces,
		"sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers; exit 4")
	out, err := cmd.CombinedOutput()
	needMode(t, cmd, string(out))
	if diff := cmp.Diff("cpu io memory pids\n", string(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := statusOf(cmd, err); got.Exit != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestParallel(t *testing.T) {
	h := newHost(t)
	for range 4 {
		t.Run("guest", func(t *testing.T) {
			t.Parallel()
			if out, err := h.command(modeNamespaces, "systemctl", "is-active", "dbus.socket").CombinedOutput(); err != nil || string(out) != "active\n" {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}

func TestOrdinaryUser(t *testing.T) {
	h := newHost(t)
	dir := filepath.Dir(h.launcher)
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := h.command(modeNamespaces, "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUnable || string(out) != "run: cannot run here: only root can start a guest\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestWeakRoot runs as a root without the capability to make namespaces, as in an ordinary container.
func TestWeakRoot(t *testing.T) {
	h := newHost(t)
	cmd := h.command("--bounding-set=-sys_admin", "--inh-caps=-sys_admin", h.launcher, modeNamespaces, "true")
	var err error
	if cmd.Path, err = exec.LookPath("setpriv"); err != nil {
		t.Skip("cannot run here: " + err.Error() + ": apt-get install util-linux")
	}
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUnable || !strings.Contains(string(out), "--privileged") {
		t.Errorf("exit status %d: %q", cmd.ProcessState.ExitCode(), out)
	}
	h.clean(t)
}

func TestParseCommandLine(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args  []string
		want  job
		error string
	}{
		{args: []string{"ns", "id"}, want: job{Mode: "ns", Root: "/", Argv: []string{"id"}}},
		{args: []string{"uml", "-d", "-b", dir, "-b", dir + ":/a", "-s", dir, "id", "-b"}, want: job{
			Mode: "uml", Root: "/", Debug: true, Binds: []bind{{dir, dir}, {dir, "/a"}}, Shows: []string{dir}, Argv: []string{"id", "-b"},
		}},
		{args: nil, error: "want a mode first"},
		{args: []string{"kvm", "id"}, error: "want a mode first"},
		{args: []string{"ns"}, error: "want a command"},
		{args: []string{"ns", "-b", dir + ":a", "id"}, error: `"a" is no clean, absolute path below /`},
		{args: []string{"ns", "-b", dir + ":/a/../b", "id"}, error: `"/a/../b" is no clean, absolute path below /`},
		{args: []string{"ns", "-b", dir + "/none", "id"}, error: "lstat " + dir + "/none: no such file or directory"},
	}
	for _, test := range tests {
		got, _, err := parse(test.args)
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			got.Dir, got.Env = "", nil
		}
		if diff := cmp.Diff(test.want, got); diff != "" && test.error == "" || text != test.error {
			t.Errorf("%q: error %q, want %q (-want +got):\n%s", test.args, text, test.error, diff)
		}
	}
}

func TestKeptEnvironment(t *testing.T) {
	got := keptEnvironment([]string{"PATH=/bin", "SECRET=x", "GOFLAGS=-v", "ARCH_A=1", "ARCH_GUEST=other", "LD_PRELOAD=x", "CI=1"}, modeUML)
	want := []string{"ARCH_GUEST=uml", "PATH=/bin", "GOFLAGS=-v", "ARCH_A=1", "CI=1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseHierarchies(t *testing.T) {
	const mountinfo = `30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:31 /other /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
`
	const own = `5:pids:/elsewhere
4:memory:/docker/x/y
3:cpu,cpuacct:/
2:name=systemd:/user
1:freezer:/
0::/a/b
`
	want := []hierarchy{
		{"memory", "/sys/fs/cgroup/memory", "y"},
		{"cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "."},
		{"name=systemd", "/sys/fs/cgroup/systemd", "user"},
		{"", "/sys/fs/cgroup/unified", "a/b"},
	}
	if diff := cmp.Diff(want, parseHierarchies(own, mountinfo), cmp.AllowUnexported(hierarchy{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMaskedHasNoTwins(t *testing.T) {
	sorted := slices.Sorted(slices.Values(masked))
	if len(slices.Compact(sorted)) != len(masked) {
		t.Errorf("a service is named twice: %q", masked)
	}
}

// FuzzParseHierarchies reads files of the kernel, or of a test that has made some up.
func FuzzParseHierarchies(f *testing.F) {
	f.Add("0::/a\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	f.Add("3:cpu,cpuacct:/\n", "31 30 0:27 /../.. /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n")
	f.Add("::\n:\n", " - \n")
	f.Fuzz(func(t *testing.T, own, mountinfo string) {
		for _, h := range parseHierarchies(own, mountinfo) {
			if h.path == ".." || strings.HasPrefix(h.path, "../") {
				t.Errorf("group %q lies outside of %q", h.path, h.point)
			}
		}
	})
}

// TestKernelCannotBeFetched shows what is said on a machine without apt.
func TestKernelCannotBeFetched(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", "")
	_, err := findKernel(t.Context())
	if _, ok := errors.AsType[*unableError](err); !ok || !strings.Contains(err.Error(), "fetch User-Mode Linux: apt-get") {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "arch-guest", "*"))
	if err != nil || len(left) != 1 { // the lock
		t.Errorf("left: %q, %v", left, err)
	}
}
