package namespace_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/namespace"
)

// TestBuildUnderShiftedClock builds a Go program, for which hundreds of processes and thousands of threads start, by
// the host's clock and by another one: the bits must be the same.
func TestBuildUnderShiftedClock(t *testing.T) {
	if testing.Short() {
		t.Skip("cannot run here: it takes many seconds, and -short is set")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("cannot run here: no Go toolchain")
	}
	goroot := strings.TrimSpace(string(root))
	source := t.TempDir()
	writeFile(t, filepath.Join(source, "go.mod"), "module hello\n")
	writeFile(t, filepath.Join(source, "main.go"), "package main\n\nfunc main() { println(\"hello\") }\n")
	r := driver(namespace.Options{})(t)
	build := func(offset time.Duration) (hash digest.SHA256) {
		var log strings.Builder
		spec := runner.Spec{
			Commands: []runner.Command{{
				Argv: []string{filepath.Join(goroot, "bin/go"), "build", "-trimpath", "-o", "/build/hello", "."},
				Env:  []string{"HOME=/build", "GOCACHE=/build/cache", "TMPDIR=/build", "CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false"},
				Dir:  "/src",
			}},
			Mounts: []runner.Mount{
				{Kind: runner.Tmpfs, Target: "/build"},
				{Kind: runner.Bind, Source: goroot, Target: goroot},
				{Kind: runner.Bind, Source: source, Target: "/src"},
			},
			ClockOffset: offset,
			Outputs:     []runner.Output{{Name: "hello", Path: "/build/hello"}},
			Collect: func(_ runner.Output, nar io.Reader) (err error) {
				hash, _, err = digest.OfReader(nar)
				return err
			},
			Stdout: &log, Stderr: &log,
		}
		result, err := r.Run(t.Context(), spec)
		if err != nil || !result.OK() {
			t.Fatalf("offset %v: got %+v, error %v\n%s", offset, result, err, log.String())
		}
		t.Logf("offset %v: %v of CPU time, %v", offset, result.CPU, result.Wall)
		return hash
	}
	if plain, shifted := build(0), build(9*365*24*time.Hour); plain != shifted {
		t.Errorf("got %v by another clock, %v by the host's", shifted, plain)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
