package systemd_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
	"arch.network/runner/systemd/testdata/peer"
	"arch.network/runner/wasm"
	"arch.network/tests/guest"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := peer.Main(os.Args); handled {
		os.Exit(code)
	}
	if parentOf := os.Getenv(parentVariable); parentOf != "" {
		os.Exit(parent(parentOf))
	}
	os.Exit(m.Run())
}

func inner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// TestSystemd runs everything that needs a systemd.
func TestSystemd(t *testing.T) { guest.Suite(t, suite, guest.Namespaces) }

// TestVersion2 runs what depends on the version of control groups, on a kernel that has version 2 alone. The
// contract's other cases would say more about that kernel, in which some of what they look at is not there, than about this driver.
func TestVersion2(t *testing.T) {
	if guest.Inside() != "" {
		suite(t)
		return
	}
	guest.Test(t, guest.UML, ".", "^TestVersion2$/^(probes|pool|adoption|contract)$/^(memory|exit|exit_status.*|processes|what_was_used.*|outputs_arrive.*)$")
}

const (
	privateVariable = "ARCH_TEST_PRIVATE"     // use systemd's private socket
	binaryVariable  = "ARCH_TEST_UNIT_BINARY" // the program of units, if it is built already
)

func suite(t *testing.T) {
	options := systemd.Options{Executable: unitBinary(t), Private: os.Getenv(privateVariable) != ""}
	t.Run("probes", func(t *testing.T) { testProbes(t, options) })
	t.Run("as listed", func(t *testing.T) { testApplied(t, options) })
	t.Run("pool", func(t *testing.T) { testPool(t, options) })
	t.Run("broken pool", func(t *testing.T) { testBrokenPool(t, options) })
	t.Run("adoption", func(t *testing.T) { testAdoption(t, options) })
	t.Run("no adoption", func(t *testing.T) { testNoAdoption(t, options) })
	t.Run("stop all", func(t *testing.T) { testStopAll(t, options) })
	t.Run("broken connection", func(t *testing.T) { testBrokenConnection(t, options) })
	t.Run("failed start", func(t *testing.T) { testFailedStart(t, options) })
	t.Run("without capabilities", func(t *testing.T) { testWithoutCapabilities(t, options) })
	t.Run("modules", func(t *testing.T) { testModules(t, options) })
	t.Run("contract", func(t *testing.T) {
		runnertest.Run(t, func(t *testing.T) runner.Runner { return driver(t, options) })
	})
}

// driver returns a Runner. At the end of a test nothing of it may be left.
func driver(t *testing.T, options systemd.Options) *systemd.Runner {
	t.Helper()
	r, err := systemd.New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	before := mounts(t)
	t.Cleanup(func() {
		r.Close()
		if after := mounts(t); after != before {
			t.Errorf("mounts changed:\n%s\n%s", before, after)
		}
		leftovers(t)
	})
	return r
}

func mounts(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// leftovers fails the test if a unit, a control group or a file is left.
func leftovers(t *testing.T) {
	t.Helper()
	out, err := exec.Command("systemctl", "list-units", "--all", "--plain", "--no-legend", "arch-job-*", "arch-pool-*", "arch-probe-*").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("units are left: %v\n%s", err, out)
	}
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(d.Name(), ".service") && strings.HasPrefix(d.Name(), "arch-") {
			t.Errorf("control group %s is left", p)
		}
		return nil
	})
	if left, _ := filepath.Glob("/run/arch-jobs/*.sock"); len(left) > 0 {
		t.Errorf("sockets are left: %q", left)
	}
}

// unitBinary returns a binary for units: this one, unless it is linked dynamically, as with -race.
func unitBinary(t testing.TB) string {
	t.Helper()
	if built := os.Getenv(binaryVariable); built != "" {
		return built
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if static(t, self) {
		return self
	}
	built := filepath.Join(t.TempDir(), "unit")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", built, "arch.network/runner/systemd/testdata/unit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build unit: %v\n%s", err, out)
	}
	return built
}

func static(t testing.TB, name string) bool {
	t.Helper()
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
