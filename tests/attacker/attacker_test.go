package attacker_test

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
	"arch.network/tests/guest"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, innerLayer); handled {
		os.Exit(code)
	}
	if len(os.Args) == 3 && os.Args[1] == victimArgument {
		os.Exit(beVictim())
	}
	os.Exit(m.Run())
}

func innerLayer() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// nobody is an ordinary user.
const nobody = 65534

// driver is one way to confine.
type driver struct {
	name string
	new  func(t *testing.T) runner.Runner
}

func namespaceDriver() driver {
	return driver{"namespace", func(t *testing.T) runner.Runner {
		var options namespace.Options
		if guest.Inside() == "" { // a guest has no Go, and starts programs built without -race anyway
			options.Executable = runnertest.First(t)
		}
		r, err := namespace.New(options)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}}
}

func systemdDriver() driver {
	return driver{"systemd", func(t *testing.T) runner.Runner {
		r, err := systemd.New(t.Context(), systemd.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}}
}

// confined runs everything against one driver.
func confined(t *testing.T, d driver) {
	t.Setenv(programVariable, program(t)) // built once
	t.Run("attempts", func(t *testing.T) { testAttempts(t, d) })
	t.Run("collusion", func(t *testing.T) { testCollusion(t, d) })
	t.Run("outputs", func(t *testing.T) { testOutputs(t, d) })
	t.Run("bombs", func(t *testing.T) { testBombs(t, d) })
	t.Run("roots", func(t *testing.T) { testRoots(t, d) })
	t.Run("words", func(t *testing.T) { testWords(t, d) })
	t.Run("ids", func(t *testing.T) { testIDs(t, d) })
}

// TestNamespace runs as whoever runs the tests.
func TestNamespace(t *testing.T) { confined(t, namespaceDriver()) }

// TestNamespaceByBroker has a broker run the attacker.
func TestNamespaceByBroker(t *testing.T) { testByBroker(t, namespaceDriver()) }

// TestNamespaceAsOrdinaryUser runs TestNamespace again as a user without any privilege.
func TestNamespaceAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: only root can become another user; TestNamespace runs as an ordinary user already")
	}
	dir := openDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyProgram(t, self, filepath.Join(dir, "test"))
	copyProgram(t, program(t), filepath.Join(dir, "attack"))
	copyProgram(t, runnertest.First(t), filepath.Join(dir, "first"))
	makePrivileged(t, filepath.Join(dir, "attack"), dir)
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "test"), "-test.run=^TestNamespace$", "-test.v")
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "TMPDIR=" + home, programVariable + "=" + filepath.Join(dir, "attack"), privilegedVariable + "=" + dir,
		runnertest.FirstVariable + "=" + filepath.Join(dir, "first"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestNamespace ")) {
		t.Error("the attack did not run")
	}
	for line := range strings.Lines(string(out)) {
		if _, why, ok := strings.Cut(line, "cannot run here: "); ok {
			t.Errorf("something was left out: %s", why)
		}
	}
}

// TestGuests runs in guests, where there is a systemd, where the addresses of metadata services exist, and where the negative
// control can do no harm.
func TestGuests(t *testing.T) {
	switch guest.Inside() {
	case guest.Namespaces:
		makeMetadata(t)
		t.Run("systemd", func(t *testing.T) { confined(t, systemdDriver()) })
		t.Run("systemd pool", testPool)
		t.Run("systemd by a broker", func(t *testing.T) { testByBroker(t, systemdDriver()) })
		t.Run("namespace", func(t *testing.T) { testAttempts(t, namespaceDriver()) })
		t.Run("control", func(t *testing.T) { testControl(t, names(t)) })
		t.Run("control of collusion", testMeeting)
	case guest.UML:
		makeMetadata(t)
		t.Run("systemd", func(t *testing.T) { testAttempts(t, systemdDriver()) })
		t.Run("systemd pool", testPool)
		t.Run("namespace", func(t *testing.T) { testAttempts(t, namespaceDriver()) })
		t.Run("control", func(t *testing.T) { testControl(t, slices.Sorted(maps.Keys(hopeless[guest.Namespaces]))) })
	default:
		attack := program(t)
		for _, mode := range []guest.Mode{guest.Namespaces, guest.UML} {
			t.Run(string(mode), func(t *testing.T) {
				guest.Run(t, guest.Config{
					Mode: mode, Pattern: "^TestGuests$", Static: true, Files: []string{attack},
					Env: []string{programVariable + "=" + filepath.Join(guest.InsideDir, filepath.Base(attack))},
				})
			})
		}
	}
}

// programVariable names the environment variable that holds the path of command attack, already built.
const programVariable = "ARCH_TEST_ATTACK"

// program returns the path of command attack, which it builds unless programVariable names one.
func program(t testing.TB) string {
	t.Helper()
	if built := os.Getenv(programVariable); built != "" {
		return built
	}
	built := filepath.Join(openDir(t), "attack")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", built, "arch.network/tests/attacker/attack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build attack: %v\n%s", err, out)
	}
	return built
}

// openDir makes a directory that everybody can look into, on a file system that honours set-user-ID bits where /tmp does not.
func openDir(t testing.TB) string {
	t.Helper()
	base := os.Getenv("TMPDIR")
	if base == "" {
		base = "/var/tmp"
	}
	dir, err := os.MkdirTemp(base, "arch-attacker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyProgram(t testing.TB, from, to string) {
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
