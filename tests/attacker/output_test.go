package attacker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"arch.network/runner"
)

// collected is what came of a run with an output.
type collected struct {
	result runner.Result
	err    error
	nar    bytes.Buffer
	log    bytes.Buffer
}

// collect runs spec and keeps its one output.
func collect(ctx context.Context, r runner.Runner, spec runner.Spec, output string) *collected {
	var c collected
	spec.Outputs = []runner.Output{{Name: "out", Path: output}}
	spec.Collect = func(_ runner.Output, nar io.Reader) error {
		_, err := io.Copy(&c.nar, io.LimitReader(nar, 64<<20))
		return err
	}
	spec.Limits.Output = 16 << 20
	spec.Stdout, spec.Stderr = &c.log, &c.log
	c.result, c.err = r.Run(ctx, spec)
	return &c
}

// testOutputs demands that no output leads the collector to something that is not the job's.
func testOutputs(t *testing.T, d driver) {
	kinds := []struct {
		kind, path string
		honest     bool // may be collected as it is
	}{
		{"link", "/build/out", true},
		{"link-up", "/build/out", true},
		{"magic-link", "/build/out", true},
		{"link-inside", "/build/out", true},
		{"link-in-parent", "/build/parent/canary", false},
		{"fifo", "/build/out", false},
		{"socket", "/build/out", false},
		{"hole", "/build/out", false},
		{"deep", "/build/out", false},
		{"set-id", "/build/out", true},
		{"unreadable", "/build/out", true},
		{"hard-link-to-input", "/build/out", false},
	}
	for _, k := range kinds {
		t.Run(k.kind, func(t *testing.T) {
			s := newScene(t)
			c := collect(t.Context(), d.new(t), s.spec(t, "output", k.kind, k.path), k.path)
			t.Logf("reason %q, exit %d, %s, error %v, %d bytes\n%s", c.result.Reason, c.result.Exit, c.result.Detail, c.err, c.nar.Len(), &c.log)
			if bytes.Contains(c.nar.Bytes(), []byte(s.targets.Token)) {
				t.Error("the output holds a file of the host")
			}
			if ok := c.err == nil && c.result.OK(); ok != k.honest {
				t.Errorf("collected: %t, want %t", ok, k.honest)
			}
			s.unharmed(t)
		})
	}
	t.Run("raced by a process left behind", func(t *testing.T) { testRace(t, d) })
	t.Run("raced by another job", func(t *testing.T) { testForeignRace(t, d) })
}

// testRace has the job leave a process behind that swaps the output.
func testRace(t *testing.T, d driver) {
	s := newScene(t)
	r := d.new(t)
	for range 5 {
		s.raced(t, collect(t.Context(), r, s.spec(t, "race", "/build/out"), "/build/out"))
	}
	s.unharmed(t)
}

// testForeignRace has another job, which was given the same writable directory, swap the output while it is collected.
func testForeignRace(t *testing.T, d driver) {
	s := newScene(t)
	r := d.new(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	racer := s.spec(t, "race", "/shared/out")
	racer.Commands[0].Env = append(racer.Commands[0].Env, "ARCH_ATTACK_RACER=1")
	var running sync.WaitGroup
	running.Go(func() {
		if result, err := r.Run(ctx, racer); err != nil || result.Reason != runner.ReasonCancelled {
			t.Errorf("racer: %+v, %v", result, err)
		}
	})
	for range 20 {
		spec := s.spec(t, "output", "link-inside", "/shared/out")
		s.raced(t, collect(t.Context(), r, spec, "/shared/out"))
	}
	stop()
	running.Wait()
	os.RemoveAll(s.shared)
	must(t, os.Mkdir(s.shared, 0o755))
	must(t, os.Chmod(s.shared, 0o777))
	s.before = s.state(t)
	s.unharmed(t)
}

// raced looks at one collection; whether it was refused depends on who won.
func (s *scene) raced(t *testing.T, c *collected) {
	t.Helper()
	if bytes.Contains(c.nar.Bytes(), []byte(s.targets.Token)) {
		t.Error("the output holds a file of the host")
	}
	if _, ok := errors.AsType[*runner.SetupError](c.err); ok {
		t.Error(c.err)
	}
}

// TestNaiveCollector is the negative control of testOutputs: a collector that follows links is led to the canary, and so is one that
// looks before it opens, while something swaps what it has looked at.
func TestNaiveCollector(t *testing.T) {
	s := newScene(t)
	attack := program(t)
	run := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), attack, args...)
		cmd.Env = []string{s.targets.Env()}
		return cmd
	}
	for _, kind := range []string{"link", "link-up"} {
		name := filepath.Join(s.shared, kind)
		must(t, run("output", kind, name).Run())
		if data, err := os.ReadFile(name); err != nil || !bytes.Contains(data, []byte(s.targets.Token)) {
			t.Errorf("%s leads to %q, %v", kind, data, err)
		}
	}
	out := filepath.Join(s.shared, "out")
	must(t, os.MkdirAll(filepath.Join(out, "dir"), 0o755))
	must(t, os.WriteFile(filepath.Join(out, "file"), []byte("honest"), 0o644))
	racer := run("race", out)
	racer.Env = append(racer.Env, "ARCH_ATTACK_RACER=1")
	must(t, racer.Start())
	defer func() { racer.Process.Kill(); racer.Wait() }()
	name := filepath.Join(out, "file")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte(s.targets.Token)) {
			return
		}
	}
	t.Error("the race was never won")
}
