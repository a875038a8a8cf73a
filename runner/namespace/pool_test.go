package namespace_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"arch.network/runner"
	"arch.network/runner/namespace"
)

// talker is the class of a worker that answers each line with itself, until there are no more.
func talker(l runner.Limits) runner.Spec {
	spec := runner.Spec{Limits: l, Commands: []runner.Command{{Argv: []string{"/bin/sh", "-c", `while read line; do echo "$line" >&0; done; exit 3`}}}}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: dir, Target: dir})
	}
	return spec
}

func newPool(t *testing.T, l runner.Limits) *namespace.Pool {
	t.Helper()
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.NewPool(namespace.PoolOptions{Size: 2, Class: talker(l)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A worker is ready, answers, is counted, and tells how it ended, with what it said last still to be read.
func TestPool(t *testing.T) {
	p := newPool(t, runner.Limits{Memory: 64 << 20})
	for _, l := range []runner.Limits{{}, {Memory: 64 << 20}, {Memory: 32 << 20, Wall: time.Minute}} {
		w, err := p.Take(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(w.Conn(), "hello")
		said := bufio.NewReader(w.Conn())
		if line, err := said.ReadString('\n'); line != "hello\n" {
			t.Fatalf("limits %+v: got %q, %v", l, line, err)
		}
		if counted, ok := w.(runner.Lasting); ok {
			if cpu, err := counted.CPU(); cpu <= 0 || err != nil {
				t.Errorf("CPU time %v, %v", cpu, err)
			}
			if c := counted.Confinement(); c.Driver != "namespace" || len(c.Enforced) == 0 {
				t.Errorf("confinement %+v", c)
			}
		} else {
			t.Log("no control group counts CPU time here")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		result, err := w.Wait(ctx)
		if err != nil || result.Reason != runner.ReasonCancelled {
			t.Errorf("cancelled: %+v, %v", result, err)
		}
		if rest, err := io.ReadAll(said); len(rest) > 0 || err != nil {
			t.Errorf("then %q, %v", rest, err)
		}
		w.Conn().Close()
	}
}

// Limits.Wall is counted from Take on, and Close ends whoever is left.
func TestPoolEnds(t *testing.T) {
	p := newPool(t, runner.Limits{})
	w, err := p.Take(t.Context(), runner.Limits{Wall: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := w.Wait(t.Context()); err != nil || result.Reason != runner.ReasonTimeout {
		t.Errorf("got %+v, %v", result, err)
	}
	w.Conn().Close()
	left, err := p.Take(t.Context(), runner.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if result, err := left.Wait(t.Context()); err != nil || result.Reason != runner.ReasonCancelled {
		t.Errorf("got %+v, %v", result, err)
	}
	left.Conn().Close()
	if _, err := p.Take(t.Context(), runner.Limits{}); err == nil {
		t.Error("took a worker of a closed pool")
	}
}

func TestPoolRefuses(t *testing.T) {
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	outputs := talker(runner.Limits{})
	outputs.Outputs = []runner.Output{{Name: "x", Path: "/x"}}
	for name, o := range map[string]namespace.PoolOptions{
		"no size":    {Class: talker(runner.Limits{})},
		"too large":  {Size: 1 << 20, Class: talker(runner.Limits{})},
		"no command": {Size: 1},
		"outputs":    {Size: 1, Class: outputs},
		"wall":       {Size: 1, Class: talker(runner.Limits{Wall: time.Second})},
		"mounts":     {Size: 1, Class: runner.Spec{Commands: talker(runner.Limits{}).Commands, Mounts: []runner.Mount{{Kind: "odd", Target: "/x"}}}},
	} {
		if p, err := r.NewPool(o); err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
