// Package guest runs tests under a real systemd, as PID 1 with its system bus, whatever the machine's own init is.
//
// A package whose code talks to systemd puts the tests that need one into a function, and has that run in guests:
//
//	func TestSystemd(t *testing.T) { guest.Suite(t, suite, guest.Namespaces, guest.UML) }
//
//	func suite(t *testing.T) {
//		t.Run("a unit starts", testStart)
//		…
//	}
//
// On the machine, TestSystemd compiles the package's tests, starts a guest of each kind, runs TestSystemd alone in it, and
// repeats its results as subtests: TestSystemd/ns/a_unit_starts and so on. A failure in a guest is a failure, a skip is a
// skip with its reason, and a guest that cannot be had is a skip that says why. In a guest, where ARCH_GUEST is set, Suite
// calls suite. So nothing runs outside that needs a guest, and nothing is left out without a word. Tests that differ
// by guest ask Inside.
//
// What such tests find in a guest: they are root in a service unit with Delegate=yes, in the package's directory; the
// machine's files, of which they have a copy that is thrown away; new /tmp, /run and /dev; no network but loopback; a probe
// for package runnertest, already built. Nothing should be compiled there: in UML that takes a minute. The test binary lies below
// /run, so that PrivateTmp does not hide it from units. It is static unless the outer tests run with -race; then it
// is so too in Namespaces.
//
// Namespaces starts in 0.3 seconds, on the machine's kernel, with its control groups: version 2, or the hybrid of both. With version 1, a
// unit that is killed for memory has Result=signal instead of oom-kill, and there is no CPUUsageNSec.
// UML takes 3 to 8 seconds, on Debian's User-Mode Linux 6.1 with version 2 of control groups: cpu, io, memory, pids. It has one slow
// processor, and no IPv6, Landlock or PSI; DevicePolicy= has no effect.
//
// Command run, below this package, is the launcher itself.
package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/runner/runnertest"
)

// Mode is a kind of guest.
type Mode string

// The kinds of guests.
const (
	Namespaces Mode = "ns"  // on this machine's kernel
	UML        Mode = "uml" // on a kernel of its own
)

// modeVariable is set by the launcher.
const modeVariable = "ARCH_GUEST"

// LauncherVariable names the environment variable that holds the path of a launcher that is already built.
const LauncherVariable = "ARCH_TEST_GUEST"

// Inside returns the kind of guest that this process runs in; empty: none.
func Inside() Mode { return Mode(os.Getenv(modeVariable)) }

// Suite runs tests once in a guest of each of modes. It must be the only thing that a top-level test function does.
func Suite(t *testing.T, tests func(t *testing.T), modes ...Mode) {
	t.Helper()
	if Inside() != "" {
		tests(t)
		return
	}
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) { Test(t, m, ".", "^"+top(t.Name())+"$") })
	}
}

// Test compiles the tests of the package in directory dir, runs those that match pattern (as of go test -run) in one guest,
// and repeats the results as subtests of t. env are further variables for them, each "KEY=value".
func Test(t *testing.T, mode Mode, dir, pattern string, env ...string) {
	t.Helper()
	Run(t, Config{Mode: mode, Dir: dir, Pattern: pattern, Env: env})
}

// Config says what Run runs.
type Config struct {
	Mode    Mode
	Dir     string   // of the package; empty: the current one
	Pattern string   // tests to run, as of go test -run; empty: all
	Env     []string // further variables, each "KEY=value"
	Files   []string // copied to InsideDir, with their permissions
	Static  bool     // the test binary is static also where the outer tests run with -race
}

// InsideDir is where a guest has the test binary, and Config.Files by their base names.
const InsideDir = "/run/arch-test"

// Run is Test with more to choose.
func Run(t *testing.T, c Config) {
	t.Helper()
	work := workDir(t)
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	compile(t, c, dir, filepath.Join(work, "test"))
	files := c.Files
	env := append(os.Environ(), c.Env...)
	if os.Getenv(runnertest.ProbeVariable) == "" {
		files = append(files, runnertest.Probe(t))
		env = append(env, runnertest.ProbeVariable+"="+InsideDir+"/probe")
	}
	for _, f := range files {
		copyFile(t, f, filepath.Join(work, filepath.Base(f)))
	}
	args := []string{
		string(c.Mode), "-s", moduleRoot(t, dir), "-b", work + ":" + InsideDir, "-o", filepath.Join(work, "outcome"),
		InsideDir + "/test", "-test.v=test2json", "-test.run=" + c.Pattern, "-test.timeout=" + timeout(t).String(),
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), Launcher(t), args...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	runErr := cmd.Run()
	o := readOutcome(t, filepath.Join(work, "outcome"), runErr, stderr.String())
	results := parse(t, stdout.Bytes())
	if len(results.tests) == 0 {
		t.Fatalf("no test ran, and it ended with %+v:\n%s%s", o.Status, results.rest, stderr.String())
	}
	results.repeat(t, top(t.Name()))
	if o.ok() || t.Failed() {
		return
	}
	t.Errorf("the tests ended with %+v, though none of them failed:\n%s%s", o.Status, results.rest, stderr.String())
}

// moduleRoot returns the directory of the module that dir belongs to.
func moduleRoot(t testing.TB, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "env", "GOMOD")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("find module of %s: %v", dir, err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, info.Mode()); err != nil {
		t.Fatal(err)
	}
}

// top returns the name of the top-level test of a subtest.
func top(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// workDir makes a directory that other users can look into, unlike t.TempDir.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "arch-guest-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// timeout leaves some of the time that t has for taking the guest down.
func timeout(t *testing.T) time.Duration {
	const reserve = 15 * time.Second
	deadline, ok := t.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline)-reserve, time.Second).Round(time.Second)
}

func compile(t *testing.T, c Config, dir, to string) {
	t.Helper()
	args, cgo := []string{"-trimpath"}, "0" // as all programs of tests: so most of it is compiled already
	if raceEnabled && c.Mode == Namespaces && !c.Static {
		args, cgo = []string{"-race"}, "1"
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-c", "-o", to}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile the tests of %s: %v\n%s", dir, err, out)
	}
}

// Launcher builds command run, unless LauncherVariable names one, and returns its path.
func Launcher(t testing.TB) string {
	t.Helper()
	if built := os.Getenv(LauncherVariable); built != "" {
		return built
	}
	launcher := filepath.Join(workDir(t), "run")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", launcher, "arch.network/tests/guest/run")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build launcher: %v\n%s", err, out)
	}
	return launcher
}

// outcome is what the launcher writes with -o.
type outcome struct {
	Status struct {
		Exit   int            `json:"exit"`
		Signal syscall.Signal `json:"signal"`
	} `json:"status"`
	Error  string `json:"error"`
	Unable string `json:"unable"`
}

func (o outcome) ok() bool { return o.Status.Exit == 0 && o.Status.Signal == 0 }

// readOutcome ends the test if there was no guest.
func readOutcome(t *testing.T, file string, runErr error, stderr string) outcome {
	t.Helper()
	var o outcome
	data, err := os.ReadFile(file)
	if err := errors.Join(err, json.Unmarshal(data, &o)); err != nil {
		t.Fatalf("run guest: %v; %v\n%s", runErr, err, stderr)
	}
	if o.Unable != "" {
		t.Skipf("cannot run here: %s", o.Unable)
	}
	if o.Error != "" {
		t.Fatalf("run guest: %s\n%s", o.Error, stderr)
	}
	return o
}
