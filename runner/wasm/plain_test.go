package wasm_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

// plain runs a worker without any confinement, with more in its environment.
type plain struct {
	worker string
	env    []string
}

func (p plain) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return runner.Result{}, err
	}
	syscall.SetNonblock(fds[0], true)
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	cmd := exec.CommandContext(ctx, p.worker, spec.Commands[0].Argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = far, spec.Stdout, spec.Stderr, append(spec.Commands[0].Env, p.env...)
	if err := cmd.Start(); err != nil {
		return runner.Result{}, err
	}
	far.Close()
	said := spec.Exchange(near)
	cmd.Wait()
	if said != nil {
		return runner.Result{}, said
	}
	return runner.Result{Reason: runner.ReasonExit, Exit: cmd.ProcessState.ExitCode(), Engine: "native"}, nil
}

// Where memory cannot be made executable, compiling is refused with the cure, and never falls back to the interpreter by itself.
func TestWithoutExecutableMemory(t *testing.T) {
	d := plain{worker(t), []string{"ARCH_TEST_MDWE=1"}}
	r := newRunner(t, wasm.Options{Driver: d})
	spec := tool("echo", "x")
	spec.Module.Dirs = nil
	spec.Limits = runner.Limits{}
	_, err := r.Run(t.Context(), spec)
	if err == nil || strings.Contains(err.Error(), "PR_SET_MDWE") {
		t.Skip("cannot run here: the kernel has no PR_SET_MDWE (Linux 6.3)")
	}
	setup, ok := errors.AsType[*runner.SetupError](err)
	if !ok || !strings.Contains(setup.Hint(), "interpreter") {
		t.Fatalf("got %v (%T)", err, err)
	}
	spec.Module.Interpret = true
	got, out := execute(t, r, spec)
	if !got.OK() || out != "x\n" || got.Engine != "wazero/1.12.0 interpreter" {
		t.Errorf("interpreted: %q, %+v", out, got)
	}
}

// liar is a pool whose workers say what a test makes them say.
type liar struct {
	say    func(conn *os.File)
	result runner.Result
}

func (l liar) Take(context.Context, runner.Limits) (runner.Worker, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	syscall.SetNonblock(fds[0], true)
	w := &lyingWorker{os.NewFile(uintptr(fds[0]), "near"), l.result, make(chan struct{})}
	far := os.NewFile(uintptr(fds[1]), "far")
	go func() {
		defer close(w.done)
		l.say(far)
		far.Close()
	}()
	return w, nil
}

type lyingWorker struct {
	conn   *os.File
	result runner.Result
	done   chan struct{}
}

func (w *lyingWorker) Observe(func(runner.Usage)) {}

func (w *lyingWorker) Conn() *os.File { return w.conn }

func (w *lyingWorker) Wait(context.Context) (runner.Result, error) {
	<-w.done
	return w.result, nil
}

func frame(kind byte, content string) string {
	n := len(content)
	return string([]byte{kind, byte(n), byte(n >> 8), byte(n >> 16), 0}) + content
}

const success = `{"version":1,"end":"exit"}`

// The outputs of a pooled worker are checked before they count.
func TestLyingPool(t *testing.T) {
	for _, test := range []struct {
		name, says string
		limit      int64
		reason     runner.Reason
		err        string
	}{
		{"no archive", frame('o', strings.Repeat("x", 100)) + frame('e', "") + frame('r', success), 0, "", "collect output out: "},
		{"too long", frame('o', strings.Repeat("x", 100)) + frame('e', "") + frame('r', success), 50, runner.ReasonLimit, ""},
		{"cut off", frame('o', "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"), 0, "", "collect output out: "},
		{"none", frame('r', success), 0, runner.ReasonLimit, ""},
		{"one too many", frame('e', ""), 0, "", "collect output out: "},
		{"too much said", frame(1, strings.Repeat("x", 200)), 0, runner.ReasonLimit, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := liar{func(conn *os.File) {
				io.WriteString(conn, frame('p', "y")+test.says)
				io.Copy(io.Discard, io.LimitReader(conn, 1)) // until the task comes
			}, runner.Result{Reason: runner.ReasonExit}}
			r := newRunner(t, wasm.Options{Pool: p})
			spec := tool()
			spec.Limits = runner.Limits{Output: test.limit, Log: 100}
			spec.Outputs = []runner.Output{{Name: "out", Path: "/outputs"}}
			collected := ""
			spec.Collect = func(_ runner.Output, archive io.Reader) error {
				b, err := io.ReadAll(archive)
				if err == nil {
					collected = string(b)
				}
				return err
			}
			got, err := r.Run(t.Context(), spec)
			if test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) || test.err == "" && err != nil || got.Reason != test.reason && test.err == "" {
				t.Errorf("got %+v, %v", got, err)
			}
			if collected != "" {
				t.Errorf("collected %q", collected)
			}
		})
	}
}
