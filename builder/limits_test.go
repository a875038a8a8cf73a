package builder_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/runner"
)

func TestLimitsAndFailures(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name   string
		steps  [][]string
		limits manifest.BuildLimits
		reason runner.Reason
		step   string // in the message
		cause  string
		hint   string
		tail   string
	}{
		{
			name: "exit status", steps: [][]string{step("print", out, "x"), step("say", "first line", "last words")},
			reason: runner.ReasonExit, step: `"say"`, cause: "exit status 1", hint: "arch log", tail: "first line\nlast words\ntool: as it was told\n",
		},
		{
			name: "time", steps: [][]string{step("spin")}, limits: manifest.BuildLimits{TimeSeconds: 1},
			reason: runner.ReasonTimeout, step: `"spin"`, cause: "timeout: ", hint: "spec.limits.timeSeconds", tail: "spinning",
		},
		{
			name: "memory", steps: [][]string{step("eat")}, limits: manifest.BuildLimits{Memory: "64Mi", TimeSeconds: 60},
			reason: runner.ReasonOutOfMemory, step: `"eat"`, cause: "out-of-memory: ", hint: "spec.limits.memory",
		},
		{
			name: "output size", steps: [][]string{step("big", out, "2000000")}, limits: manifest.BuildLimits{Output: "1Mi"},
			reason: runner.ReasonLimit, step: `"big"`, cause: "limit: output out: more than 1048576 bytes", hint: "spec.limits.output",
		},
		{
			name: "scratch", steps: [][]string{step("big", out, "20000000")}, limits: manifest.BuildLimits{Scratch: "1Mi"},
			reason: runner.ReasonExit, step: `"big"`, cause: "exit status 1", hint: "arch log", tail: "no space left on device",
		},
		{
			name: "log flood", steps: [][]string{step("flood")}, limits: manifest.BuildLimits{TimeSeconds: 60},
			reason: runner.ReasonLimit, step: `"flood"`, cause: "limit: log: ", hint: "write less", tail: "all work and no play",
		},
		{
			name: "no such program", steps: [][]string{nil}, reason: runner.ReasonNotFound, step: "named", cause: "/bin/sh", hint: "only listed inputs exist",
		},
		{
			name: "long words", steps: [][]string{step("say", long)}, reason: runner.ReasonExit, cause: "exit status 1", tail: long,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := demo(c.steps...)
			doc.Spec.Limits = c.limits
			if c.step == "named" {
				doc.Spec.Steps = []manifest.BuildStep{{Name: "named", Argv: []string{"/bin/sh", "-c", "true"}}}
			}
			_, err := w.build(t, doc, base)
			e, ok := asBuildError(err)
			if !ok {
				t.Fatalf("got %v, want a BuildError", err)
			}
			if e.Result.Reason != c.reason || !strings.Contains(e.Error(), c.step) || !strings.Contains(e.Cause(), c.cause) {
				t.Errorf("got %v (reason %s), want step %s, cause %q, reason %s", e, e.Result.Reason, c.step, c.cause, c.reason)
			}
			if !strings.Contains(e.Hint(), c.hint) || !strings.Contains(e.Tail, c.tail) {
				t.Errorf("hint %q, want %q; tail %.500q, want %.500q", e.Hint(), c.hint, e.Tail, c.tail)
			}
			if got := len(e.LastLine()); got > 200 {
				t.Errorf("the last line has %d bytes", got)
			}
			log, err := os.ReadFile(filepath.Join(w.dir, "logs", e.ID.Hex()+".log"))
			if err != nil || !strings.HasSuffix(string(log), e.Tail) {
				t.Errorf("the log of %d bytes does not end with the tail (%v)", len(log), err)
			}
		})
	}
}

func TestOtherPlatform(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc := demo(step("print", out, "x"))
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		if p == doc.Spec.Platform {
			continue
		}
		other := *doc
		other.Spec.Platform = p
		_, err := w.build(t, &other, base)
		if e, ok := errors.AsType[*builder.PlatformError](err); !ok || e.Want != p {
			t.Errorf("got %v, want a PlatformError", err)
		}
	}
}

// spinning is closed when the step has begun to work.
type spinning struct {
	runner.Runner
	cancel context.CancelCauseFunc
	cause  error
}

// Run cancels as soon as something is written to the log.
func (s spinning) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	log := spec.Stdout
	w := writerFunc(func(p []byte) (int, error) {
		s.cancel(s.cause)
		return log.Write(p)
	})
	spec.Stdout, spec.Stderr = &w, &w
	return s.Runner.Run(ctx, spec)
}

type writerFunc func(p []byte) (int, error)

func (f *writerFunc) Write(p []byte) (int, error) { return (*f)(p) }

func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	steps := [][]string{step("print", "/build/x", "x"), step("orphan"), step("spin", "cancelled")}
	cause := errors.New("the user pressed a key")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w.builder.Runner = spinning{w.builder.Runner, cancel, cause}
	made, err := w.builder.Build(ctx, builder.Request{Manifest: demo(steps...), Base: base})
	if !errors.Is(err, cause) || made != nil {
		t.Errorf("got %v, %v; want the cause of the cancellation", made, err)
	}
	for _, which := range []string{"cancelled", "orphan"} { // other tests spin meanwhile
		if left := processesOf(t, "/tool\x00spin\x00"+which); len(left) > 0 {
			t.Errorf("processes are left: %q", left)
		}
	}
	if logs, _ := os.ReadDir(filepath.Join(w.dir, "logs")); len(logs) > 0 {
		t.Errorf("logs are left: %v", logs)
	}
	w.check(t)
	// The same build can be made afterwards.
	w.builder.Runner = w.builder.Runner.(spinning).Runner
	w.mustBuild(t, demo(step("print", out, "x")), base)
}

func TestCancelledBefore(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.builder.Build(ctx, builder.Request{Manifest: demo(step("spin")), Base: base}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := w.builder.Deliver(ctx, w.mustBuild(t, demo(step("print", out, "x")), base), filepath.Join(w.dir, "result")); !errors.Is(err, context.Canceled) {
		t.Errorf("deliver: got %v", err)
	}
}

// processesOf lists the processes in the namespaces below this one that were started with arguments that begin with argv
// and whose ancestor is this process.
func processesOf(t *testing.T, argv string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			continue
		}
		if strings.HasPrefix(string(cmdline), argv) && descends(e.Name()) {
			found = append(found, e.Name())
		}
	}
	return found
}

// descends reports whether pid descends from this process.
func descends(pid string) bool {
	for ; pid != "" && pid != "0" && pid != "1"; pid = parent(pid) {
		if pid == strconv.Itoa(os.Getpid()) {
			return true
		}
	}
	return false
}

func parent(pid string) string {
	status, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// A log that a crashed builder left is removed when nobody can be writing it any more, and not before.
func TestUnfinishedLogsAreSwept(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	logs := filepath.Join(w.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(logs, ".unfinished-1"), filepath.Join(logs, ".unfinished-2")
	for path, age := range map[string]time.Duration{old: 10 * 24 * time.Hour, young: 6 * 24 * time.Hour} {
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	w.mustBuild(t, demo(step("print", out, "x")), base)
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old unfinished log is there still: %v", err)
	}
	if err := os.Remove(young); err != nil {
		t.Errorf("a young unfinished log: %v", err)
	}
}
