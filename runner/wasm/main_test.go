package wasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest/nar"
	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args); handled {
		os.Exit(code)
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// inner is the layer inside of systemd's units.
func inner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// built is the directory of what tests build once; empty: nothing yet.
var built string

// programsVariable names the environment variable that holds a directory with the programs of testdata, already built: for tests run as
// a user who has no Go toolchain.
const programsVariable = "ARCH_TEST_WASM_PROGRAMS"

// build builds a program of testdata, which may be a module.
func build(t testing.TB, name string, env ...string) string {
	t.Helper()
	return buildAs(t, name, name, env...)
}

// buildAs is build of a program that there is more than one of.
func buildAs(t testing.TB, source, name string, env ...string) string {
	t.Helper()
	if dir := os.Getenv(programsVariable); dir != "" {
		return filepath.Join(dir, name)
	}
	buildMu.Lock()
	defer buildMu.Unlock()
	if built == "" {
		dir, err := os.MkdirTemp("", "wasm-test-*")
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(dir, 0o755)
		built = dir
	}
	out := filepath.Join(built, name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/"+source)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, text)
	}
	return out
}

var buildMu sync.Mutex // guards built

// worker is a static program in worker mode: the test binary may not be static.
func worker(t testing.TB) string { return build(t, "worker") }

// goModule is a Go program as a module of some megabytes.
func goModule(t testing.TB) string { return build(t, "gowasi", "GOOS=wasip1", "GOARCH=wasm") }

func driver(t testing.TB) runner.Runner {
	t.Helper()
	d, err := namespace.New(namespace.Options{Executable: worker(t)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newRunner(t testing.TB, o wasm.Options) *wasm.Runner {
	t.Helper()
	if o.Driver == nil {
		o.Driver = driver(t)
	}
	o.Worker = worker(t)
	r, err := wasm.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

var (
	clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	seed  = [32]byte{1, 2, 3}
)

// tool is a run of testdata/tool.wasm with these arguments, with /inputs/text and a writable /outputs.
func tool(args ...string) runner.Spec {
	module, err := filepath.Abs("testdata/tool.wasm")
	if err != nil {
		panic(err)
	}
	return runner.Spec{
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: module, Target: "/module.wasm"},
			{Kind: runner.Data, Target: "/inputs/text", Content: []byte("one two  three\nfour\n")},
			{Kind: runner.Tmpfs, Target: "/outputs", Size: 16 << 20},
		},
		Module: &runner.Module{
			Path: "/module.wasm", Args: append([]string{"tool"}, args...), Env: []string{"LANG=C"},
			Dirs:  []runner.Dir{{Path: "/inputs", As: "/inputs"}, {Path: "/outputs", As: "/outputs", Writable: true}},
			Clock: &clock, Seed: &seed,
		},
		Limits: runner.Limits{Wall: time.Minute, Memory: 512 << 20},
	}
}

// module is a run of a module made of bytes.
func module(code []byte) runner.Spec {
	spec := tool()
	spec.Mounts[0] = runner.Mount{Kind: runner.Data, Content: code, Target: "/module.wasm"}
	return spec
}

// execute runs spec and returns what it wrote.
func execute(t testing.TB, r runner.Runner, spec runner.Spec) (runner.Result, string) {
	t.Helper()
	var out bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &out
	result, err := r.Run(t.Context(), spec)
	if err != nil {
		t.Fatalf("run: %v (%T)\n%s", err, err, out.String())
	}
	return result, out.String()
}

// contents reads an archive: "path: content" of each file.
func contents(archive io.Reader) (string, error) {
	r := nar.NewReader(archive, nar.Limits{})
	var b strings.Builder
	for {
		e, err := r.Next()
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		if e.Type == nar.Regular {
			fmt.Fprintf(&b, "%s: %s\n", e.Path, content)
		}
	}
}

// pool starts workers in the namespace driver, one for each Take.
type pool struct {
	driver runner.Runner
	worker string
}

func newPool(t testing.TB) *pool { return &pool{driver(t), worker(t)} }

func (p *pool) Take(_ context.Context, limits runner.Limits) (runner.Worker, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &pooled{conn: make(chan *os.File, 1), done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(w.done)
		w.result, w.err = p.driver.Run(ctx, runner.Spec{
			Commands: []runner.Command{wasm.PoolCommand("/worker")},
			Mounts: []runner.Mount{
				{Kind: runner.Bind, Source: p.worker, Target: "/worker"},
				{Kind: runner.Tmpfs, Target: "/tmp", Size: 256 << 20},
			},
			Limits: limits, Stderr: os.Stderr,
			Exchange: func(conn *os.File) error {
				own, err := another(conn)
				w.conn <- own
				return err
			},
		})
	}()
	select {
	case w.file = <-w.conn:
		return w, nil
	case <-w.done:
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

// pooled is one worker of a pool.
type pooled struct {
	conn   chan *os.File
	file   *os.File
	done   chan struct{}
	cancel context.CancelFunc
	result runner.Result
	err    error
}

func (w *pooled) Conn() *os.File { return w.file }

func (w *pooled) Observe(func(runner.Usage)) {}

func (w *pooled) Wait(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, w.cancel)()
	<-w.done
	w.cancel()
	return w.result, w.err
}

// fileMount is a mount of a file with a module that is too large for a Data mount.
func fileMount(t testing.TB, code []byte) runner.Mount {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(path, code, 0o644); err != nil {
		t.Fatal(err)
	}
	return runner.Mount{Kind: runner.Bind, Source: path, Target: "/module.wasm"}
}
