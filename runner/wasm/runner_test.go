package wasm_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

func TestRun(t *testing.T) {
	r := newRunner(t, wasm.Options{})
	for _, test := range []struct {
		name string
		spec runner.Spec
		out  string
		want runner.Result // Reason, Exit, Detail
	}{
		{"echo", tool("echo", "hello", "warn", "you"), "hello\nyou\n", runner.Result{Reason: runner.ReasonExit}},
		{"status", tool("exit", "7"), "", runner.Result{Reason: runner.ReasonExit, Exit: 7}},
		{"environment", tool("env"), "LANG=C\n", runner.Result{Reason: runner.ReasonExit}},
		{
			"clock", tool("time", "time", "sleep", "100", "time"),
			"1767323045.000000000\n1767323045.000001000\n1767323145.000002000\n",
			runner.Result{Reason: runner.ReasonExit},
		},
		{"trap", tool("abort"), "", runner.Result{Reason: runner.ReasonExit, Exit: 134, Detail: "trap: unreachable"}},
		{"stack", tool("deep"), "", runner.Result{Reason: runner.ReasonExit, Exit: 134, Detail: "trap: out of bounds memory access"}},
		{
			"files", tool("list", "/", "list", "/inputs", "show", "/inputs/text", "put", "/inputs/text", "x", "show", "/worker"),
			"/: errno 76\n. 1\n.. 1\ntext 0\none two  three\nfour\n/inputs/text: errno 69\n/worker: errno 76\n",
			runner.Result{Reason: runner.ReasonExit},
		},
		{
			"outputs", tool("mkdir", "/outputs/d", "put", "/outputs/d/f", "content", "symlink", "../../../etc/passwd", "/outputs/l", "show", "/outputs/l",
				"rename", "/outputs/d/f", "/outputs/g", "show", "/outputs/g", "rmdir", "/outputs/d"),
			"/outputs/l: errno 63\ncontent",
			runner.Result{Reason: runner.ReasonExit},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, out := execute(t, r, test.spec)
			if diff := cmp.Diff(test.out, out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, runner.Result{Reason: got.Reason, Exit: got.Exit, Detail: got.Detail}); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if got.Engine != "wazero/1.12.0 compiler" || got.Gas == 0 {
				t.Errorf("engine %q, gas %d", got.Engine, got.Gas)
			}
		})
	}
}

// The three ways to run a module give the same output, the same outputs and the same gas.
func TestSameEverywhere(t *testing.T) {
	cache := t.TempDir()
	runners := map[string]*wasm.Runner{
		"compiled": newRunner(t, wasm.Options{}),
		"cached":   newRunner(t, wasm.Options{Cache: cache}),
		"again":    newRunner(t, wasm.Options{Cache: cache}),
		"pooled":   newRunner(t, wasm.Options{Pool: newPool(t)}),
		"both":     newRunner(t, wasm.Options{Pool: newPool(t), Cache: cache}),
	}
	type seen struct {
		Out, Files, NAR string
		Gas             uint64
		Size            int64
	}
	run := func(t *testing.T, r *wasm.Runner, interpret bool) seen {
		spec := tool("words", "/inputs/text", "/outputs/count", "random", "time", "size", "/outputs", "size", "/outputs/count", "list", "/outputs")
		spec.Module.Interpret = interpret
		spec.Outputs = []runner.Output{{Name: "count", Path: "/outputs/count"}, {Name: "all", Path: "/outputs"}}
		var s seen
		spec.Collect = func(out runner.Output, archive io.Reader) error {
			text, err := contents(archive)
			s.Files += out.Name + text
			return err
		}
		result, out := execute(t, r, spec)
		if !result.OK() || len(result.Outputs) != 2 {
			t.Fatalf("result: %+v\n%s", result, out)
		}
		s.Out, s.Gas, s.NAR, s.Size = out, result.Gas, result.Outputs[1].NAR.Hex(), result.Outputs[1].Size
		return s
	}
	want := run(t, runners["compiled"], true)
	if !strings.HasPrefix(want.Files, "count: 4\n") {
		t.Errorf("outputs: %q", want.Files)
	}
	for name, r := range runners {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, run(t, r, false)); diff != "" {
				t.Errorf("(-interpreted +got):\n%s", diff)
			}
		})
	}
}

func TestGoModule(t *testing.T) {
	spec := tool("one", "two")
	spec.Mounts[0].Source = goModule(t)
	spec.Limits.Memory = 1 << 30
	spec.Outputs = []runner.Output{{Name: "out", Path: "/outputs"}}
	var want runner.Result
	for name, o := range map[string]wasm.Options{"driven": {}, "pooled": {Pool: newPool(t)}} {
		o.Cache = t.TempDir()
		var files string
		spec.Collect = func(_ runner.Output, archive io.Reader) (err error) {
			files, err = contents(archive)
			return err
		}
		result, out := execute(t, newRunner(t, o), spec)
		if !result.OK() {
			t.Fatalf("%s: %+v\n%s", name, result, out)
		}
		if want.Gas != 0 && result.Gas != want.Gas {
			t.Errorf("%s: gas %d, before %d", name, result.Gas, want.Gas)
		}
		want = result
		if diff := cmp.Diff("a/b: text\n", files); diff != "" {
			t.Errorf("%s: outputs (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff("[tool one two]\nLANG=C\n2026-01-02\n[text]\n20 <nil>\n", out); diff != "" {
			t.Errorf("%s: output (-want +got):\n%s", name, diff)
		}
	}
}

// A module needs no memory, and one without it that calls WASI all the same is told so.
func TestModuleWithoutMemory(t *testing.T) {
	call := wasmOf(
		section(1, []byte{2, 0x60, 0, 0, 0x60, 2, 0x7f, 0x7f, 1, 0x7f}),
		section(2, []byte{1}, leb(22), []byte("wasi_snapshot_preview1"), leb(10), []byte("random_get"), []byte{0, 1}),
		section(3, []byte{1, 0}), section(7, []byte{1}, leb(6), []byte("_start"), []byte{0, 1}),
		code(0x41, 0, 0x41, 8, 0x10, 0, 0x41, 21, 0x47, 0x04, 0x40, 0x00, 0x0b), // trap unless the result is EFAULT
	)
	for kind, o := range map[string]wasm.Options{"driven": {}, "pooled": {Pool: newPool(t)}} {
		r := newRunner(t, o)
		for name, code := range map[string][]byte{"nothing": simple(), "call": call} {
			if got, out := execute(t, r, module(code)); !got.OK() || out != "" {
				t.Errorf("%s, %s: %+v\n%s", kind, name, got, out)
			}
		}
	}
}

// A Rust program, with names stripped.
func TestRustModule(t *testing.T) {
	path, err := filepath.Abs("testdata/counts.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]wasm.Options{"driven": {}, "pooled": {Pool: newPool(t)}} {
		spec := tool()
		spec.Mounts[0].Source = path
		spec.Outputs = []runner.Output{{Name: "out", Path: "/outputs/counts"}}
		var counts string
		spec.Collect = func(_ runner.Output, archive io.Reader) (err error) {
			counts, err = contents(archive)
			return err
		}
		r := newRunner(t, o)
		result, out := execute(t, r, spec)
		if !result.OK() || out != "[\"tool\"]: 4 words, LANG=Ok(\"C\")\n" || counts != ": four 1\none 1\nthree 1\ntwo 1\n\n" {
			t.Errorf("%s: said %q, wrote %q: %+v", name, out, counts, result)
		}
		spec.Module.Args = []string{"tool", "x"}
		if result, _ := execute(t, r, spec); result.Reason != runner.ReasonExit || result.Exit != 3 || len(result.Outputs) != 0 {
			t.Errorf("%s: %+v", name, result)
		}
	}
}

func TestLimits(t *testing.T) {
	for kind, o := range map[string]wasm.Options{"driven": {}, "pooled": {Pool: newPool(t)}} {
		r := newRunner(t, o)
		for _, test := range []struct {
			name   string
			spec   runner.Spec
			change func(*runner.Spec)
			want   runner.Reason
			detail string
		}{
			{"gas", tool("loop"), func(s *runner.Spec) { s.Module.Gas = 1_000_000 }, runner.ReasonLimit, "gas: the limit of 1000000 units is used up"},
			{"wall", tool("loop"), func(s *runner.Spec) { s.Limits.Wall = 2 * time.Second }, runner.ReasonTimeout, ""},
			{"log", tool("flood"), func(s *runner.Spec) { s.Limits.Log = 1 << 20 }, runner.ReasonLimit, ""},
			{"no entry", tool(), func(s *runner.Spec) { s.Module.Entry = "nothing" }, runner.ReasonRefused, `it exports no function "nothing" to start with`},
			{"memory too small", tool(), func(s *runner.Spec) { s.Module.Memory = 65536 }, runner.ReasonRefused, ""},
			{"missing output", tool(), func(s *runner.Spec) {
				s.Outputs = []runner.Output{{Name: "x", Path: "/outputs/x"}}
				s.Collect = func(_ runner.Output, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
			}, runner.ReasonNotFound, ""},
		} {
			t.Run(kind+"/"+test.name, func(t *testing.T) {
				test.change(&test.spec)
				got, _ := execute(t, r, test.spec)
				if got.Reason != test.want || test.detail != "" && got.Detail != test.detail {
					t.Errorf("got %+v", got)
				}
			})
		}
		t.Run(kind+"/linear memory", func(t *testing.T) {
			spec := tool("eat")
			spec.Module.Memory = 8 << 20
			got, out := execute(t, r, spec)
			if !got.OK() || out != "7 MiB\n" {
				t.Errorf("got %q, %+v", out, got)
			}
		})
		t.Run(kind+"/cancelled", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			spec := tool("echo", "begun", "loop")
			spec.Stdout = writerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil })
			got, err := r.Run(ctx, spec)
			if err != nil || got.Reason != runner.ReasonCancelled {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestRefusedSpecs(t *testing.T) {
	r := newRunner(t, wasm.Options{})
	for name, change := range map[string]func(*runner.Spec){
		"commands as well": func(s *runner.Spec) { s.Commands = []runner.Command{{Argv: []string{"x"}}} },
		"no such module":   func(s *runner.Spec) { s.Module.Path = "/nothing" },
		"relative path":    func(s *runner.Spec) { s.Module.Path = "module.wasm" },
		"mount over ours": func(s *runner.Spec) {
			s.Mounts = append(s.Mounts, runner.Mount{Kind: runner.Tmpfs, Target: "/.arch-wasm/worker"})
		},
		"zero byte": func(s *runner.Spec) { s.Module.Args = []string{"a\x00b"} },
	} {
		t.Run(name, func(t *testing.T) {
			spec := tool()
			change(&spec)
			got, err := r.Run(t.Context(), spec)
			if _, ok := errors.AsType[*runner.SetupError](err); !ok {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if _, err := wasm.New(wasm.Options{Driver: driver(t), Cache: openDirectory(t)}); err == nil {
		t.Error("a cache that others may write to was taken")
	}
}

func openDirectory(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A Spec without a module is the driver's.
func TestOthersPass(t *testing.T) {
	d := &recorder{}
	r, err := wasm.New(wasm.Options{Driver: d, Worker: "/none"})
	if err != nil {
		t.Fatal(err)
	}
	spec := runner.Spec{Commands: []runner.Command{{Argv: []string{"x"}}}}
	if _, err := r.Run(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Commands, d.spec.Commands); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type recorder struct{ spec runner.Spec }

func (r *recorder) Run(_ context.Context, spec runner.Spec) (runner.Result, error) {
	r.spec = spec
	return runner.Result{}, nil
}

// A program does the same to files as a module as it does as a program of the host.
func TestGoFiles(t *testing.T) {
	native, err := exec.Command(build(t, "gofs"), t.TempDir()).Output()
	if err != nil {
		t.Fatal(err)
	}
	compiled := buildAs(t, "gofs", "gofs.wasm", "GOOS=wasip1", "GOARCH=wasm")
	for name, o := range map[string]wasm.Options{"driven": {}, "pooled": {Pool: newPool(t)}} {
		spec := tool("/outputs")
		spec.Mounts[0].Source = compiled
		result, out := execute(t, newRunner(t, o), spec)
		if diff := cmp.Diff(string(native), out); diff != "" || !result.OK() {
			t.Errorf("%s: %+v (-host +module):\n%s", name, result, diff)
		}
	}
}

// stuck is a driver under which nothing gets ready before its time is up.
type stuck struct{}

func (stuck) Run(ctx context.Context, _ runner.Spec) (runner.Result, error) {
	<-ctx.Done()
	return runner.Result{Reason: runner.ReasonCancelled, Detail: context.Cause(ctx).Error()}, nil
}

func (stuck) Take(context.Context, runner.Limits) (runner.Worker, error) {
	return nil, errors.New("it was not to come so far")
}

// A job whose time is up while its module is being compiled has timed out, and was not cancelled by anybody.
func TestTimeIsUpWhileCompiling(t *testing.T) {
	r := newRunner(t, wasm.Options{Driver: stuck{}, Pool: stuck{}, Cache: t.TempDir()})
	spec := tool("exit", "0")
	spec.Limits.Wall = time.Millisecond
	if got, err := r.Run(t.Context(), spec); err != nil || got.Reason != runner.ReasonTimeout {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec.Limits.Wall = time.Hour
	if got, err := r.Run(ctx, spec); err != nil || got.Reason != runner.ReasonCancelled {
		t.Errorf("got %+v, %v", got, err)
	}
}
