package wasm_test

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
	"arch.network/tests/guest"
)

// TestSystemd runs modules in units of a real systemd: each in a unit of its own, and in units of a pool.
func TestSystemd(t *testing.T) {
	if guest.Inside() == "" {
		guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestSystemd$", Static: true})
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := systemd.New(t.Context(), systemd.Options{Executable: self})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, err := d.NewPool(t.Context(), systemd.PoolOptions{Size: 2, Compile: true, Class: runner.Spec{
		Commands: []runner.Command{wasm.PoolCommand("/bin/worker")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: self, Target: "/bin/worker"},
			{Kind: runner.Tmpfs, Target: "/tmp", Size: 128 << 20},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cache := t.TempDir()
	type seen struct {
		Out, Files string
		Gas        uint64
	}
	var first *seen
	for name, o := range map[string]wasm.Options{
		"unit": {Cache: cache}, "pool": {Pool: p, Cache: cache}, "unit without cache": {}, "pool without cache": {Pool: p},
	} {
		o.Driver, o.Worker = d, self
		r, err := wasm.New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		t.Run(name, func(t *testing.T) {
			spec := tool("words", "/inputs/text", "/outputs/count", "random", "time", "list", "/outputs")
			spec.Outputs = []runner.Output{{Name: "all", Path: "/outputs"}}
			var s seen
			spec.Collect = func(_ runner.Output, archive io.Reader) (err error) {
				s.Files, err = contents(archive)
				return err
			}
			result, out := execute(t, r, spec)
			if !result.OK() || result.Engine != "wazero/1.12.0 compiler" {
				t.Fatalf("%+v\n%s", result, out)
			}
			s.Out, s.Gas = out, result.Gas
			if first == nil {
				first = &s
			}
			if diff := cmp.Diff(*first, s); diff != "" {
				t.Errorf("(-the other way +this):\n%s", diff)
			}
		})
		t.Run(name+"/bombs", func(t *testing.T) {
			for _, bomb := range []string{"imports 2^32-1", "table.grow", "recursion", "infinite loop"} {
				explode(t, r, bomb, bombs()[bomb], false)
			}
		})
	}
	t.Run("reused", func(t *testing.T) {
		r, err := wasm.New(wasm.Options{Driver: d, Worker: self, Pool: p, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, want := range []string{"run 1", "run 2", "run 3"} {
			spec := tool("echo", "x")
			spec.Module.Reuse = "owner"
			result, out := execute(t, r, spec)
			if !result.OK() || out != "x\n" || runNumber(result) != want || result.CPU <= 0 || result.Confinement.Driver != "systemd-pool" {
				t.Errorf("%s: %+v\n%s", want, result, out)
			}
		}
	})
	t.Run("warm", func(t *testing.T) {
		var prepare, run time.Duration
		r, err := wasm.New(wasm.Options{Driver: d, Worker: self, Pool: p, Cache: cache, Timing: func(p, r time.Duration) { prepare, run = p, r }})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Warm(t.Context(), tool(), 1); err != nil {
			t.Fatal(err)
		}
		if result, out := execute(t, r, tool("echo", "x")); !result.OK() || out != "x\n" {
			t.Errorf("%+v\n%s", result, out)
		}
		t.Logf("prepared in %v, run in %v", prepare, run)
	})
}
