package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// BenchmarkWASM runs two programs that say hello: one in C of some 36 KB, and one in Go of some megabytes. It reports medians of
// CPU time, in microseconds:
//
//	compile   the worker's, to check, meter and compile the module: what each run costs without a cache
//	load      the same with machine code from the cache on disk
//	warm      the worker's, from the order to run to the module's end, when it was prepared beforehand
//	driven    of all processes together, for a whole run in a confinement made for it, with the cache
//
// and the ratio compile/warm.
func BenchmarkWASM(b *testing.B) {
	worker := buildProgram(b, "../../runner/wasm/testdata/worker", "worker")
	modules := map[string]string{
		"c":  filepath.Join(absolute(b, "../../runner/wasm/testdata"), "hello.wasm"),
		"go": buildProgram(b, "../../runner/wasm/testdata/gowasi", "go.wasm", "GOOS=wasip1", "GOARCH=wasm"),
	}
	for _, name := range []string{"c", "go"} {
		b.Run(name, func(b *testing.B) { benchmarkModule(b, worker, modules[name]) })
	}
}

func benchmarkModule(b *testing.B, worker, module string) {
	driver, err := namespace.New(namespace.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	var prepared, ran time.Duration
	options := wasm.Options{Driver: driver, Worker: worker, Timing: func(p, r time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		prepared, ran = p, r
	}}
	newRunner := func(cache string, pool runner.Pool) *wasm.Runner {
		o := options
		o.Cache, o.Pool = cache, pool
		r, err := wasm.New(o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { r.Close() })
		return r
	}
	cache := b.TempDir()
	cold, cached := newRunner("", nil), newRunner(cache, nil)
	warm := newRunner(cache, &workerPool{driver, worker})
	spec := helloSpec(module)
	run := func(r *wasm.Runner) {
		result, err := r.Run(b.Context(), spec)
		if err != nil || !result.OK() {
			b.Fatalf("run: %+v, %v", result, err)
		}
	}
	run(cached) // fills the cache
	costs := map[string][]time.Duration{}
	note := func(what string, d time.Duration) { costs[what] = append(costs[what], d) }
	for b.Loop() {
		run(cold)
		note("compile", prepared)
		c := withChildren(b, func() error { run(cached); return nil })
		note("load", prepared)
		note("driven", c.cpu)
		if err := warm.Warm(b.Context(), spec, 1); err != nil {
			b.Fatal(err)
		}
		run(warm)
		note("warm", ran)
	}
	for what, list := range costs {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), what+"-µs")
	}
	b.ReportMetric(float64(costs["compile"][len(costs["compile"])/2])/float64(costs["warm"][len(costs["warm"])/2]), "compile/warm")
}

func helloSpec(module string) runner.Spec {
	clock, seed := time.Unix(1_700_000_000, 0), [32]byte{}
	return runner.Spec{
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: module, Target: "/module.wasm"},
			{Kind: runner.Data, Target: "/inputs/text", Content: []byte("text")},
			{Kind: runner.Tmpfs, Target: "/outputs", Size: 1 << 20},
		},
		Module: &runner.Module{
			Path: "/module.wasm", Args: []string{"hello"}, Clock: &clock, Seed: &seed,
			Dirs: []runner.Dir{{Path: "/inputs", As: "/inputs"}, {Path: "/outputs", As: "/outputs", Writable: true}},
		},
		Stdout: io.Discard, Stderr: os.Stderr,
		Limits: runner.Limits{Wall: time.Minute},
	}
}

func absolute(b *testing.B, path string) string {
	b.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		b.Fatal(err)
	}
	return abs
}

// buildProgram builds a command of this module.
func buildProgram(b *testing.B, dir, name string, env ...string) string {
	b.Helper()
	out := filepath.Join(b.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v\n%s", dir, err, text)
	}
	return out
}

// workerPool starts a worker in the namespace driver for each Take.
type workerPool struct {
	driver runner.Runner
	worker string
}

func (p *workerPool) Take(_ context.Context, limits runner.Limits) (runner.Worker, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &pooledWorker{ready: make(chan *os.File, 1), ended: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(w.ended)
		w.result, w.err = p.driver.Run(ctx, runner.Spec{
			Commands: []runner.Command{wasm.PoolCommand("/worker")},
			Mounts: []runner.Mount{
				{Kind: runner.Bind, Source: p.worker, Target: "/worker"}, {Kind: runner.Tmpfs, Target: "/tmp", Size: 256 << 20},
			},
			Limits: limits, Stderr: os.Stderr,
			Exchange: func(conn *os.File) error {
				own, err := another(conn)
				w.ready <- own
				return err
			},
		})
	}()
	select {
	case w.conn = <-w.ready:
		return w, nil
	case <-w.ended:
		cancel()
		return nil, w.err
	}
}

// another returns a descriptor of its own of a socket: what a worker said last can be read from it after the driver has closed conn.
func another(conn *os.File) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dup := -1, error(nil)
	err = raw.Control(func(n uintptr) { fd, dup = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	return os.NewFile(uintptr(fd), conn.Name()), errors.Join(err, dup)
}

type pooledWorker struct {
	ready  chan *os.File
	ended  chan struct{}
	cancel context.CancelFunc
	conn   *os.File
	result runner.Result
	err    error
}

func (w *pooledWorker) Conn() *os.File { return w.conn }

func (w *pooledWorker) Observe(func(runner.Usage)) {} // nobody looks

func (w *pooledWorker) Wait(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, w.cancel)()
	<-w.ended
	w.cancel()
	return w.result, w.err
}
