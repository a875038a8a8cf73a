// Package nix tests the flake and the module with the Nix of this machine, and with a newer one in a Debian system of its own, and no network. nix/offline stands in for nixpkgs, the store is a chroot store
// in a temporary directory, and what would be fetched is put there before, after its hash was compared with nix/pins.json.
package nix

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"arch.network/tests/debroot"
)

var update = flag.Bool("update", false, "write nix/pins.json and nix/units.json anew")

// root is the repository.
const root = "../.."

// config is all that Nix is told: no network, and a sandbox or an error.
const config = `experimental-features = nix-command flakes
substituters =
build-users-group =
sandbox = true
sandbox-fallback = false
warn-dirty = false
flake-registry =
`

// machine is where Nix runs: a store, a checkout, and what stands in for nixpkgs.
type machine struct {
	dir     string           // holds all of it
	flake   string           // the files that git has or would take
	nixpkgs string           // the stand-in, with its tools
	prefix  []string         // words before each command
	sandbox []string         // options of builds
	debian  *debroot.Machine // where Nix is; nil: on this machine
}

// everyNix runs a test with each Nix that there is.
func everyNix(t *testing.T, test func(t *testing.T, m *machine)) {
	t.Helper()
	t.Run("of this machine", func(t *testing.T) { test(t, newMachine(t)) })
	t.Run("newer", func(t *testing.T) { test(t, newerMachine(t)) })
}

// newerMachine is a machine with a newer Nix.
func newerMachine(t *testing.T) *machine {
	t.Helper()
	m := makeMachine(t)
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	m.debian = debroot.Start(t, debroot.Options{Read: []string{repository}, Write: []string{m.dir}})
	return m
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	needNix(t)
	return makeMachine(t)
}

// makeMachine makes all that is not Nix.
func makeMachine(t *testing.T) *machine {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("cannot run here: there is no static busybox: " + err.Error())
	}
	dir := t.TempDir()
	t.Cleanup(func() { makeWritable(dir) })
	m := &machine{dir: dir, flake: filepath.Join(dir, "repository"), nixpkgs: filepath.Join(dir, "nixpkgs")}
	for _, name := range repositoryFiles(t) {
		copyFile(t, filepath.Join(root, name), filepath.Join(m.flake, name))
		if stand, ok := strings.CutPrefix(name, "nix/offline/"); ok {
			copyFile(t, filepath.Join(root, name), filepath.Join(m.nixpkgs, stand))
		}
	}
	write(t, filepath.Join(m.nixpkgs, "bin/busybox"), busybox, 0o755)
	return m
}

func needNix(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nix"); err != nil {
		t.Skip("cannot run here: there is no nix: " + err.Error())
	}
}

// outcome is what a command left.
type outcome struct {
	stdout, stderr string
	err            error
}

// command prepares a program of Nix, in the flake.
func (m *machine) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	env := []string{"HOME=" + filepath.Join(m.dir, "home"), "TMPDIR=" + m.dir, "NIX_CONFIG=" + config, "NIX_CONF_DIR=" + m.dir}
	if m.debian != nil {
		return m.debian.Command(t.Context(), slices.Concat([]string{"env", "-C", m.flake}, env, args)...)
	}
	args = append(append([]string{}, m.prefix...), args...)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = m.flake
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"))
	return cmd
}

func (m *machine) try(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := m.command(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return outcome{stdout.String(), stderr.String(), err}
}

// run is try for what must succeed.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	got := m.try(t, args...)
	if got.err != nil {
		t.Fatalf("%q: %v\n%s", args, got.err, got.stderr)
	}
	return got.stdout
}

// nix returns the line of a command that takes the flake.
func (m *machine) nix(words ...string) []string {
	n := 1
	if words[0] == "flake" {
		n = 2
	}
	line := append([]string{"nix"}, words[:n]...)
	line = append(line, "--store", m.store(), "--no-write-lock-file", "--override-input", "nixpkgs", "path:"+m.nixpkgs)
	return append(append(line, m.sandbox...), words[n:]...)
}

func (m *machine) store() string { return filepath.Join(m.dir, "store") }

// repositoryFiles are those of git, and new ones that it does not ignore, as far as they are there.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skip("cannot run here: this is no git checkout: " + err.Error())
	}
	var names []string
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			names = append(names, name)
		}
	}
	return names
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, data, info.Mode().Perm())
}

func write(t *testing.T, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// makeWritable lets the trees of stores be removed.
func makeWritable(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

// same compares a generated file with what it must hold, or writes it.
func same(t *testing.T, file string, want []byte) {
	t.Helper()
	path := filepath.Join(root, file)
	if *update {
		write(t, path, want, 0o644)
		return
	}
	if got, err := os.ReadFile(path); err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date; write it anew with: go test ./tests/nix -run %s -update\nit must be:\n%s", file, t.Name(), want)
	}
}
