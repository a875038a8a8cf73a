package namespace_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if text := os.Getenv(helperVariable); text != "" {
		os.Exit(help(text))
	}
	os.Exit(m.Run())
}

// driver returns what runnertest makes its runners with. At the end of a case nothing of it may be left.
func driver(options namespace.Options) func(t *testing.T) runner.Runner {
	return func(t *testing.T) runner.Runner {
		r, err := namespace.New(options)
		if err != nil {
			t.Fatal(err)
		}
		before := mounts(t)
		t.Cleanup(func() {
			for line := range strings.Lines(mounts(t)) {
				if !strings.Contains(before, line) && !strings.Contains(line, " arch-test ") { // such are of other packages' tests
					t.Errorf("a mount is left: %s", line)
				}
			}
			if left := groupsOf(os.Getpid()); len(left) > 0 {
				t.Errorf("control groups are left: %q", left)
			}
			if left := childrenOf(t, os.Getpid()); len(left) > 0 {
				t.Errorf("processes are left: %q", left)
			}
		})
		return r
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mounts(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// groupsOf lists the control groups that the process pid has made and not removed.
func groupsOf(pid int) []string {
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "arch-"+strconv.Itoa(pid)+"-") {
			found = append(found, p)
		}
		return nil
	})
	return found
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range lists {
		if data, err := os.ReadFile(name); err == nil {
			found = append(found, strings.Fields(string(data))...)
		}
	}
	return found
}

// TestSuite runs as whoever runs the tests. The suites start a first process that is built for it; the other tests start themselves.
func TestSuite(t *testing.T) {
	runnertest.Run(t, driver(namespace.Options{Executable: runnertest.First(t)}))
}

// TestSuiteWithoutCgroups keeps the limits by counting.
func TestSuiteWithoutCgroups(t *testing.T) {
	runnertest.Run(t, driver(namespace.Options{Executable: runnertest.First(t), NoCgroups: true, CountRefused: true}))
}

// TestSuiteWithoutUserNamespace is what root gets on a host that refuses user namespaces.
func TestSuiteWithoutUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: only root can do without a user namespace")
	}
	runnertest.Run(t, driver(namespace.Options{Executable: runnertest.First(t), NoUserNamespace: true}))
}

// TestSuiteWithoutVDSO runs the cases of the clock where every reading of it is a system call.
func TestSuiteWithoutVDSO(t *testing.T) {
	runnertest.RunClocks(t, driver(namespace.Options{Executable: runnertest.First(t), NoVDSO: true}))
}

const nobody = 65534

// TestAsOrdinaryUser runs this package's other tests again as a user without any privilege.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: only root can become another user; TestSuite runs as an ordinary user already")
	}
	out, err := asUser(t, nobody, "-test.run=^(TestSuite|TestSuiteWithoutCgroups|TestCallerKilled)", "-test.v").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestSuite ")) {
		t.Error("the suite did not run")
	}
}

// asUser returns a command that runs this test binary as uid, who can neither read the original nor build the probe.
func asUser(t *testing.T, uid int, args ...string) *exec.Cmd {
	t.Helper()
	home, err := os.MkdirTemp("", "arch-namespace-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(home, "test"))
	copyFile(t, runnertest.Probe(t), filepath.Join(home, "probe"))
	copyFile(t, runnertest.First(t), filepath.Join(home, "first"))
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(home, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(scratch, uid, uid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(home, "test"), args...)
	cmd.Dir = scratch
	cmd.Env = []string{
		"HOME=" + scratch, "TMPDIR=" + scratch,
		runnertest.ProbeVariable + "=" + filepath.Join(home, "probe"), runnertest.FirstVariable + "=" + filepath.Join(home, "first"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
