package checkpoint_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
	"arch.network/tests/wasmopt"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args, checkpoint.Extension()); handled {
		os.Exit(code)
	}
	dir, err := os.MkdirTemp("", "checkpoint-test-*")
	if err != nil {
		panic(err)
	}
	os.Chmod(dir, 0o755)
	built = dir
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// inner is the layer inside of systemd's units.
func inner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// built is the directory of what tests build once.
var built string

// once makes a file of built once.
func once(t testing.TB, name string, tool string, command func(out string) *exec.Cmd) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	out := filepath.Join(built, name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	cmd := command(out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return out
}

var building sync.Mutex

func compile(t testing.TB, dir string, env ...string) string {
	t.Helper()
	return once(t, dir, "go", func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/"+dir)
		cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
		return cmd
	})
}

// source is a module as a compiler makes it.
func source(t testing.TB, name string) []byte {
	t.Helper()
	var file string
	switch name {
	case "c":
		file = once(t, "tree.wasm", "clang-14", func(out string) *exec.Cmd {
			return exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-s", "testdata/tree.c", "-o", out)
		})
	case "go":
		file = compile(t, "collatz", "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// assemble is a module of testdata, prepared.
func assemble(t testing.TB, name string) []byte {
	t.Helper()
	file := once(t, name+".wasm", "wat2wasm", func(out string) *exec.Cmd {
		return exec.Command("wat2wasm", "testdata/"+name+".wat", "-o", out)
	})
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := checkpoint.Instrument(t.Context(), module, wasmOpt(t))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// prepared is a module after Instrument.
func prepared(t testing.TB, name string) []byte {
	t.Helper()
	module := source(t, name)
	preparing.Lock()
	defer preparing.Unlock()
	if out, ok := preparedModules[name]; ok {
		return out
	}
	out, _, err := checkpoint.Instrument(context.Background(), module, wasmopt.Path(t))
	if err != nil {
		t.Fatal(err)
	}
	preparedModules[name] = out
	return out
}

var (
	preparing       sync.Mutex // guards preparedModules
	preparedModules = map[string][]byte{}
)

func wasmOpt(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("wasm-opt")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	return path
}

func newRunner(t testing.TB) *wasm.Runner {
	t.Helper()
	driver, err := namespace.New(namespace.Options{Executable: compile(t, "worker")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := wasm.New(wasm.Options{Driver: driver, Worker: compile(t, "worker"), Cache: filepath.Join(built, "cache")})
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

// job is a run of a module with a writable directory that outlives it.
type job struct {
	runner *wasm.Runner
	module []byte
	spec   runner.Spec
	dir    string // on the host
}

func newJob(t testing.TB, r *wasm.Runner, module []byte) *job {
	t.Helper()
	j := &job{runner: r, module: module, dir: filepath.Join(t.TempDir(), "outputs")}
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(file, module, 0o644); err != nil {
		t.Fatal(err)
	}
	j.spec = runner.Spec{
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: file, Target: "/module.wasm"},
			{Kind: runner.Bind, Source: j.dir, Target: "/outputs", Writable: true},
		},
		Module: &runner.Module{
			Path: "/module.wasm", Args: []string{"job"},
			Dirs:  []runner.Dir{{Path: "/outputs", As: "/outputs", Writable: true}},
			Clock: &clock, Seed: &seed,
		},
		Limits: runner.Limits{Wall: 2 * time.Minute, Memory: 2 << 30},
	}
	return j
}

// run runs the job, and returns what it said in this part.
func (j *job) run(t testing.TB, o checkpoint.Options) (runner.Result, *checkpoint.Checkpoint, string) {
	t.Helper()
	var out bytes.Buffer
	j.spec.Stdout, j.spec.Stderr = &out, &out
	o.Module = digest.Of(j.module)
	result, c, err := checkpoint.Run(t.Context(), j.runner, j.spec, o)
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out.String())
	}
	return result, c, out.String()
}

// files are what the job has written.
func (j *job) files(t testing.TB) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(j.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files
}
