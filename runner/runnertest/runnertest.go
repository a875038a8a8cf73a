// Package runnertest is the one suite that every driver of runner's contract runs: Run checks by effects, from inside
// a confinement, what runner promises. It starts a small static program, the probe, which says what it sees.
//
// A driver's own tests add what only that driver has. Nothing is skipped silently: a case that the host cannot run
// says "cannot run here: " and why.
package runnertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// ProbeVariable names the environment variable that holds the path of a probe that is already built: for suites run
// as a user who has no Go toolchain. FirstVariable does so for what First returns.
const (
	ProbeVariable = "ARCH_TEST_PROBE"
	FirstVariable = "ARCH_TEST_FIRST"
)

// Run runs the suite against the drivers that make returns, one for each case.
func Run(t *testing.T, make func(t *testing.T) runner.Runner) {
	runCases(t, make, exits(), surroundings(), exchanges(), networks(), devices(), files(), escapes(), limits(), outputs(), clocks())
}

// RunClocks runs the cases of runner.Spec.ClockOffset alone, for drivers that have more than one way to do that.
func RunClocks(t *testing.T, make func(t *testing.T) runner.Runner) { runCases(t, make, clocks()) }

func runCases(t *testing.T, make func(t *testing.T) runner.Runner, groups ...[]testCase) {
	probe := Probe(t)
	for _, group := range groups {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				c.run(&harness{T: t, runner: make(t), probe: probe})
			})
		}
	}
}

// testCase is one promise of the contract.
type testCase struct {
	name string
	run  func(h *harness)
}

// Probe returns the path of the probe, which it builds unless ProbeVariable names one.
func Probe(t testing.TB) string {
	t.Helper()
	return program(t, ProbeVariable, "arch.network/runner/runnertest/testdata/probe")
}

// First returns the path of runner/namespace/first, which it builds unless FirstVariable names it. The driver in namespaces starts one process
// of its own for each execution: with this program instead of the tests' own, built with -race, a suite takes half the time.
func First(t testing.TB) string {
	t.Helper()
	return program(t, FirstVariable, "arch.network/runner/namespace/first")
}

// program builds the command of a package, unless the environment names a built one.
func program(t testing.TB, variable, pkg string) string {
	t.Helper()
	if built := os.Getenv(variable); built != "" {
		return built
	}
	file := filepath.Join(t.TempDir(), path.Base(pkg))
	build := exec.Command("go", "build", "-trimpath", "-o", file, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", path.Base(pkg), err, out)
	}
	return file
}

// harness is what a case works with.
type harness struct {
	*testing.T
	runner runner.Runner
	probe  string
}

// spec confines one probe with these arguments, in a file system of the probe and an empty, writable /build.
func (h *harness) spec(args ...string) runner.Spec {
	return runner.Spec{
		Commands: []runner.Command{h.command(args...)},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: h.probe, Target: "/bin/probe"},
			{Kind: runner.Tmpfs, Target: "/build"},
		},
	}
}

func (h *harness) command(args ...string) runner.Command {
	return runner.Command{Argv: append([]string{"probe"}, args...), Env: []string{"PATH=/bin"}, Dir: "/build"}
}

// run runs spec and returns what it wrote. It fails the test if the Spec could not be run.
func (h *harness) run(spec runner.Spec) (runner.Result, string) {
	h.Helper()
	return h.runContext(h.Context(), spec)
}

func (h *harness) runContext(ctx context.Context, spec runner.Spec) (runner.Result, string) {
	h.Helper()
	var out bytes.Buffer
	if spec.Stdout == nil {
		spec.Stdout = &out
	}
	if spec.Stderr == nil {
		spec.Stderr = spec.Stdout
	}
	result, err := h.runner.Run(ctx, spec)
	if err != nil {
		h.Fatalf("run: %v\n%s", err, out.String())
	}
	return result, out.String()
}

// refused runs spec and returns the *runner.SetupError with which it must be refused.
func (h *harness) refused(spec runner.Spec) *runner.SetupError {
	h.Helper()
	result, err := h.runner.Run(h.Context(), spec)
	if setup, ok := errors.AsType[*runner.SetupError](err); ok {
		return setup
	}
	h.Fatalf("run: got %+v, error %v; want a *runner.SetupError", result, err)
	return nil
}

// says runs spec, which must succeed, and compares the lines that it writes.
func (h *harness) says(spec runner.Spec, want ...string) {
	h.Helper()
	result, out := h.run(spec)
	if !result.OK() {
		h.Fatalf("result: %+v\n%s", result, out)
	}
	h.equal(lines(out), want)
}

func (h *harness) equal(got, want any) {
	h.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("(-want +got):\n%s", diff)
	}
}

// ended compares how a run ended.
func (h *harness) ended(got runner.Result, reason runner.Reason, exit int) {
	h.Helper()
	if got.Reason != reason || got.Exit != exit {
		h.Errorf("got reason %q, exit %d (%s); want %q, exit %d", got.Reason, got.Exit, got.Detail, reason, exit)
	}
}

// keeps reports whether result says that what was asked for is enforced. It must be either that or missing, with a reason.
func (h *harness) keeps(result runner.Result, what string) bool {
	h.Helper()
	named := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool {
			name, _, _ := strings.Cut(s, ":")
			return name == what
		})
	}
	kept, missing := named(result.Confinement.Enforced), named(result.Confinement.Missing)
	if kept == missing {
		h.Errorf("%s must be either enforced or missing: %+v", what, result.Confinement)
	}
	return kept
}

func lines(s string) []string {
	if s = strings.TrimRight(s, "\n"); s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// tree makes files below a new directory that anybody can read: a name that ends in "/" is a directory, "name->target"
// a link, and anything else a file with its name as content.
func (h *harness) tree(entries ...string) string {
	h.Helper()
	dir := h.dir()
	for _, e := range entries {
		if err := makeEntry(dir, e); err != nil {
			h.Fatal(err)
		}
	}
	return dir
}

func makeEntry(dir, entry string) error {
	if name, target, ok := strings.Cut(entry, "->"); ok {
		return os.Symlink(target, filepath.Join(dir, name))
	}
	p := filepath.Join(dir, entry)
	if strings.HasSuffix(entry, "/") {
		return os.MkdirAll(p, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, []byte(entry), 0o644)
}

func (h *harness) dir() string {
	h.Helper()
	dir := h.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		h.Fatal(err)
	}
	return dir
}

// marked lists the processes of the host that have mark in their command lines.
func (h *harness) marked(mark string) []string {
	h.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.Fatal(err)
	}
	var found []string
	for _, name := range all {
		data, err := os.ReadFile(name)
		if err == nil && bytes.Contains(data, []byte(mark)) {
			found = append(found, filepath.Base(filepath.Dir(name)))
		}
	}
	return found
}

// allDead fails the test if a process with mark is alive.
func (h *harness) allDead(mark string) {
	h.Helper()
	if alive := h.marked(mark); len(alive) > 0 {
		h.Errorf("processes %v are alive after Run has returned", alive)
	}
}
