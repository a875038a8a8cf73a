package systemd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/systemd"
	"arch.network/runner/systemd/testdata/peer"
)

func class(t *testing.T) runner.Spec {
	return runner.Spec{
		Commands: []runner.Command{{Argv: []string{"/bin/worker", peer.Worker}, Env: []string{"A=1"}}},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: unitBinary(t), Target: "/bin/worker"},
			{Kind: runner.Tmpfs, Target: "/tmp", Size: 1 << 20},
		},
	}
}

// say sends one line and returns the answer to its end.
func say(t *testing.T, w runner.Worker, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(w.Conn(), line); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(w.Conn())
	if err != nil && len(answer) == 0 {
		return err.Error()
	}
	return string(answer)
}

func testPool(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	p, err := r.NewPool(t.Context(), systemd.PoolOptions{Class: class(t), Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob("/run/arch-jobs/arch-pool-*"); len(left) > 0 {
			t.Errorf("directories are left: %q", left)
		}
	}()
	take := func(t *testing.T, l runner.Limits) runner.Worker {
		t.Helper()
		w, err := p.Take(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for name, c := range map[string]struct {
		line   string
		limits runner.Limits
		answer string
		want   runner.Result
	}{
		"one job each": {"echo", runner.Limits{}, "echo\n", runner.Result{Reason: runner.ReasonExit}},
		"sees only its mounts": {
			"look",
			runner.Limits{Memory: 64 << 20, Processes: 20, CPU: 800},
			"/: bin dev etc m proc root run sys tmp usr var\n/bin: worker\n/dev:\n/proc:\n/usr:\n/run: systemd\n/var:\nnetwork: true\nwrite: false true\nsize of /tmp: 1048576 <nil>\nenvironment: [A=1]\nown user: true\n",
			runner.Result{Reason: runner.ReasonExit},
		},
		"memory":    {"eat", runner.Limits{Memory: 64 << 20}, "", runner.Result{Reason: runner.ReasonOutOfMemory, Detail: "memory: more than 67108864 bytes"}},
		"exit":      {"fail", runner.Limits{}, "", runner.Result{Reason: runner.ReasonExit, Exit: 7}},
		"wall time": {"stay", runner.Limits{Wall: 200 * time.Millisecond}, "staying\n", runner.Result{Reason: runner.ReasonTimeout, Detail: "wall time: more than 200ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := take(t, c.limits)
			answer := say(t, w, c.line)
			got, err := w.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Reason != runner.ReasonOutOfMemory && answer != c.answer {
				t.Errorf("answer %q, want %q", answer, c.answer)
			}
			end := runner.Result{Reason: got.Reason, Exit: got.Exit, Detail: got.Detail, Signal: got.Signal}
			if diff := cmp.Diff(c.want, end); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Wall <= 0 || len(got.Confinement.Enforced) < 10 || len(got.Confinement.Missing) > 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		w := take(t, runner.Limits{})
		fmt.Fprintln(w.Conn(), "stay")
		bufio.NewReader(w.Conn()).ReadString('\n')
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := w.Wait(ctx); err != nil || got.Reason != runner.ReasonCancelled {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a taken worker ends with its pool", func(t *testing.T) {
		w := take(t, runner.Limits{})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(w.Conn()); err == nil {
			t.Error("the connection is open")
		}
		if _, err := p.Take(t.Context(), runner.Limits{}); err == nil {
			t.Error("a closed pool hands out workers")
		}
	})
}

func testBrokenPool(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	c := class(t)
	c.Commands[0].Argv = []string{"/bin/worker", "-test.run=^$"} // ends at once
	p, err := r.NewPool(t.Context(), systemd.PoolOptions{Class: c, Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 2 {
		_, err := p.Take(t.Context(), runner.Limits{})
		if _, ok := errors.AsType[*runner.SetupError](err); err != nil && !ok {
			t.Errorf("got %v", err)
		}
	}
	for _, change := range []func(*runner.Spec){
		func(s *runner.Spec) { s.Commands = nil },
		func(s *runner.Spec) { s.Commands[0].Argv = []string{"worker"} },
		func(s *runner.Spec) { s.Mounts[0].Writable = true },
		func(s *runner.Spec) { s.Mounts[0].Source = "/nonexistent" },
		func(s *runner.Spec) { s.Mounts[1].Target = "/a/../b" },
		func(s *runner.Spec) { s.UID = 5 },
	} {
		c := class(t)
		change(&c)
		_, err := r.NewPool(t.Context(), systemd.PoolOptions{Class: c, Size: 1})
		if _, ok := errors.AsType[*runner.SetupError](err); !ok {
			t.Errorf("got %v", err)
		}
	}
}
