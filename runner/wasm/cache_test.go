package wasm_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

// counter counts the runs of a driver.
type counter struct {
	runner.Runner
	mu   sync.Mutex // guards runs
	runs []runner.Spec
}

func (c *counter) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	c.mu.Lock()
	c.runs = append(c.runs, spec)
	c.mu.Unlock()
	return c.Runner.Run(ctx, spec)
}

// A module is compiled once, in a confinement where nothing of the job is, and its job sees the code read-only.
func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	d := &counter{Runner: driver(t)}
	r := newRunner(t, wasm.Options{Driver: d, Cache: dir})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if got, out := execute(t, r, tool("echo", "x")); !got.OK() || out != "x\n" {
				t.Errorf("got %q, %+v", out, got)
			}
		})
	}
	wait.Wait()
	if len(d.runs) != 5 {
		t.Fatalf("%d runs for 4 jobs", len(d.runs))
	}
	var targets []string
	for _, m := range d.runs[0].Mounts {
		targets = append(targets, m.Target)
	}
	if diff := cmp.Diff([]string{"/.arch-wasm/worker", "/.arch-wasm/scratch"}, targets); diff != "" {
		t.Errorf("mounts of the compiler (-want +got):\n%s", diff)
	}
	for _, m := range d.runs[1].Mounts {
		if m.Writable {
			t.Errorf("a job may write to %s", m.Source)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the cache has %d entries, %v", len(entries), err)
	}
	before := snapshot(t, dir)
	if got, out := execute(t, newRunner(t, wasm.Options{Driver: d, Cache: dir}), tool("echo", "y")); !got.OK() || out != "y\n" {
		t.Errorf("got %q, %+v", out, got)
	}
	if len(d.runs) != 6 {
		t.Errorf("%d runs for 5 jobs", len(d.runs))
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("a job changed the cache (-before +after):\n%s", diff)
	}
}

// snapshot reads all files of a cache.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A module that is refused leaves nothing in the cache.
func TestCacheOfRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	got, _ := execute(t, newRunner(t, wasm.Options{Cache: dir}), module([]byte("\x00asm\x01\x00\x00\x00\x02\xff\xff\xff\xff\x0f")))
	if got.Reason != runner.ReasonRefused {
		t.Errorf("got %+v", got)
	}
	if files := snapshot(t, dir); len(files) != 0 {
		t.Errorf("the cache has %d files", len(files))
	}
}

// A spoilt entry that shows is not used. What one does that does not show, it does to its own module's worker alone.
func TestSpoiltEntry(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	r := newRunner(t, wasm.Options{Cache: dir})
	execute(t, r, tool("echo", "x"))
	for content, ok := range map[string]bool{
		"nonsense":                           true, // it is compiled anew
		"WAZEVO\x07v1.12.0 and then nothing": false,
	} {
		for path := range snapshot(t, dir) {
			if filepath.Base(path) == "code" {
				os.Chmod(path, 0o644)
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got, out := execute(t, r, tool("echo", "x")); got.OK() != ok || strings.Contains(out, "goroutine") {
			t.Errorf("%q: said %q, %+v", content, out, got)
		}
	}
	other := tool("echo", "x")
	other.Mounts[0].Source = goModule(t)
	other.Limits.Memory = 1 << 30
	other.Stdout = io.Discard
	if got, err := r.Run(t.Context(), other); err != nil || !got.OK() {
		t.Errorf("another module: %+v, %v", got, err)
	}
}

func TestWarm(t *testing.T) {
	d := &counter{Runner: driver(t)}
	p := &pool{d, worker(t)}
	r := newRunner(t, wasm.Options{Driver: d, Pool: p, Cache: t.TempDir()})
	if err := r.Warm(t.Context(), tool(), 2); err != nil {
		t.Fatal(err)
	}
	if len(d.runs) != 3 { // one compiles
		t.Errorf("%d confinements for 2 workers", len(d.runs))
	}
	for i, want := range []int{3, 3, 4} {
		if got, out := execute(t, r, tool("echo", "x", "show", "/inputs/text")); !got.OK() || out != "x\none two  three\nfour\n" {
			t.Errorf("run %d: %q, %+v", i, out, got)
		}
		if len(d.runs) != want {
			t.Errorf("run %d: %d confinements", i, len(d.runs))
		}
	}
	if err := r.Warm(t.Context(), tool(), 1); err != nil {
		t.Fatal(err)
	}
	r.Close() // must end the one that is left: the driver's test leaves no process behind
	if err := r.Warm(t.Context(), tool(), 1); err == nil {
		t.Error("warmed after Close")
	}
}

// A run that is cancelled while its module is compiled leaves nothing behind.
func TestCancelledCompile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	ctx, cancel := context.WithCancel(t.Context())
	d := driverFunc(func(c context.Context, spec runner.Spec) (runner.Result, error) {
		exchange := spec.Exchange
		spec.Exchange = func(conn *os.File) error {
			cancel()
			return exchange(conn)
		}
		return driver(t).Run(c, spec)
	})
	spec := tool("echo", "x")
	spec.Mounts[0].Source = goModule(t)
	spec.Limits.Memory = 1 << 30
	before := runtime.NumGoroutine()
	got, err := newRunner(t, wasm.Options{Driver: d, Cache: dir}).Run(ctx, spec)
	if err != nil || got.Reason != runner.ReasonCancelled {
		t.Errorf("got %+v, %v", got, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left in the cache: %v", left)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, before %d", after, before)
	}
}

type driverFunc func(context.Context, runner.Spec) (runner.Result, error)

func (f driverFunc) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	return f(ctx, spec)
}
