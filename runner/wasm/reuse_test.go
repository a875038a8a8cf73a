package wasm_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// lastingPool has workers in the namespace driver that can be used again.
func lastingPool(t testing.TB) *namespace.Pool {
	t.Helper()
	d, err := namespace.New(namespace.Options{Executable: worker(t)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.NewPool(namespace.PoolOptions{Size: 1, Class: runner.Spec{
		Commands: []runner.Command{wasm.PoolCommand("/worker")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: worker(t), Target: "/worker"},
			{Kind: runner.Tmpfs, Target: "/tmp", Size: 256 << 20},
		},
		Limits: runner.Limits{Memory: 512 << 20},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// runNumber returns what the Result says of the worker: "run N …", and "" if it was alone in its process.
func runNumber(r runner.Result) string {
	for _, m := range r.Confinement.Missing {
		if rest, ok := strings.CutPrefix(m, "own-process: reused worker, "); ok {
			number, _, _ := strings.Cut(rest, " of ")
			return number
		}
	}
	return ""
}

// Runs of one owner share a process where the Spec says so, and nothing else: each comes out as one that is alone.
func TestReuse(t *testing.T) {
	r := newRunner(t, wasm.Options{Pool: lastingPool(t), Cache: t.TempDir()})
	type seen struct {
		Reason     runner.Reason
		Exit       int
		Out, Files string
		Gas        uint64
	}
	try := func(owner string, change func(*runner.Spec), args ...string) (seen, runner.Result) {
		t.Helper()
		spec := tool(args...)
		spec.Module.Reuse = owner
		spec.Outputs = []runner.Output{{Name: "all", Path: "/outputs"}}
		s := seen{}
		spec.Collect = func(_ runner.Output, archive io.Reader) (err error) {
			s.Files, err = contents(archive)
			return err
		}
		if change != nil {
			change(&spec)
		}
		result, out := execute(t, r, spec)
		s.Reason, s.Exit, s.Out, s.Gas = result.Reason, result.Exit, out, result.Gas
		return s, result
	}
	work := []string{"words", "/inputs/text", "/outputs/count", "random", "time", "list", "/outputs"}
	want, result := try("", nil, work...)
	if !result.OK() || want.Files == "" {
		t.Fatalf("alone: %+v", result)
	}
	if _, result := try("a", nil, "echo", "x"); runNumber(result) == "" {
		t.Skipf("cannot run here: no control group counts the CPU time of a worker: %+v", result.Confinement)
	}
	for n, spoil := range []struct {
		name   string
		args   []string
		change func(*runner.Spec)
		reason runner.Reason
		exit   int
	}{
		{"leaves files", []string{"put", "/outputs/left", "behind"}, nil, runner.ReasonExit, 0},
		{"fails", []string{"exit", "3"}, nil, runner.ReasonExit, 3},
		{"grows as far as it can", []string{"eat"}, nil, runner.ReasonExit, 0},
		{"traps", []string{"abort"}, nil, runner.ReasonExit, 134},
		{"uses up its gas", []string{"loop"}, func(s *runner.Spec) { s.Module.Gas = 1 << 20 }, runner.ReasonLimit, 0},
	} {
		got, result := try("a", spoil.change, spoil.args...)
		if got.Reason != spoil.reason || got.Exit != spoil.exit {
			t.Errorf("one that %s: %+v", spoil.name, result)
		}
		got, result = try("a", nil, work...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after one that %s (-alone +reused):\n%s", spoil.name, diff)
		}
		if runNumber(result) == "" || result.CPU <= 0 || result.Wall <= 0 || result.Engine == "" {
			t.Errorf("after one that %s, case %d: %+v", spoil.name, n, result)
		}
	}
	if got, result := try("b", nil, work...); !cmp.Equal(want, got) || runNumber(result) != "run 1" {
		t.Errorf("another owner: %+v, %+v", got, result)
	}
	if got, result := try("", nil, work...); !cmp.Equal(want, got) || runNumber(result) != "" {
		t.Errorf("nobody: %+v, %+v", got, result)
	}
	r.Forget("a")
	if _, result := try("a", nil, work...); runNumber(result) != "run 1" {
		t.Errorf("after Forget: %+v", result)
	}
}

// A worker in which something went wrong is not used again.
func TestReuseEnds(t *testing.T) {
	r := newRunner(t, wasm.Options{Pool: lastingPool(t)})
	owned := func(args ...string) runner.Spec {
		spec := tool(args...)
		spec.Module.Reuse = "a"
		return spec
	}
	if result, _ := execute(t, r, owned("echo", "x")); runNumber(result) == "" {
		t.Skipf("cannot run here: no control group counts the CPU time of a worker: %+v", result.Confinement)
	}
	for name, c := range map[string]struct {
		args   []string
		limit  func(*runner.Limits)
		reason runner.Reason
	}{
		"time": {[]string{"loop"}, func(l *runner.Limits) { l.Wall = 200 * time.Millisecond }, runner.ReasonTimeout},
		"log":  {[]string{"flood"}, func(l *runner.Limits) { l.Log = 1000 }, runner.ReasonLimit},
	} {
		t.Run(name, func(t *testing.T) {
			spec := owned(c.args...)
			if c.limit != nil {
				c.limit(&spec.Limits)
			}
			if result, out := execute(t, r, spec); result.Reason != c.reason {
				t.Errorf("got %+v\n%s", result, out)
			}
			if result, out := execute(t, r, owned("echo", "x")); out != "x\n" || runNumber(result) != "run 1" {
				t.Errorf("the next: %+v\n%s", result, out)
			}
		})
	}
}

// A caller who knows the digest gets that module or none.
func TestDigest(t *testing.T) {
	r := newRunner(t, wasm.Options{})
	spec := tool("echo", "x")
	spec.Module.Digest[0] = 1
	if _, err := r.Run(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got %v", err)
	}
}
