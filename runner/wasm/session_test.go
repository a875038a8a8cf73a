package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// puppet is a driver whose worker is a function: it may say whatever it likes.
type puppet struct {
	worker func(conn *os.File)
	result runner.Result
}

func (p puppet) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	near, far := pair()
	done := make(chan error, 1)
	go func() { done <- spec.Exchange(near) }()
	p.worker(far)
	far.Close()
	err := <-done
	near.Close()
	if err != nil {
		return runner.Result{}, fmt.Errorf("exchange with commands: %w", err)
	}
	return p.result, nil
}

func pair() (near, far *os.File) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	syscall.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
}

// says returns a worker that reads its task and then writes this.
func says(parts ...string) func(*os.File) {
	return func(conn *os.File) {
		w := &worker{conn: conn}
		if t, err := w.readTask(); err == nil {
			w.module(t)
		}
		io.WriteString(conn, strings.Join(parts, ""))
	}
}

func text(f frame, content string) string {
	var b bytes.Buffer
	if err := writeFrame(&b, f, []byte(content)); err != nil {
		panic(err)
	}
	return b.String()
}

const goodReport = `{"version":1,"end":"exit","gas":5,"engine":"wazero/1.12.0 compiler"}`

func TestHostileWorker(t *testing.T) {
	running := text(framePhase, "r")
	exited := runner.Result{Reason: runner.ReasonExit}
	exit2 := runner.Result{Reason: runner.ReasonExit, Exit: 2}
	for _, test := range []struct {
		name   string
		says   string
		driver runner.Result
		want   runner.Result
	}{
		{"honest", running + text(frameReport, goodReport), exited, runner.Result{Reason: runner.ReasonExit}},
		{"silent", "", exit2, runner.Result{Reason: runner.ReasonRefused, Detail: "the worker died before it began (status 2)"}},
		{"silent success", "", exited, runner.Result{Reason: runner.ReasonRefused, Detail: "the worker died before it began (status 0)"}},
		{"dies running", running, exit2, runner.Result{Reason: runner.ReasonSignal, Signal: "SIGABRT", Detail: "the worker died while its module ran (status 2)"}},
		{"no memory", running + "fatal error: runtime: out of memory\n", exit2, runner.Result{Reason: runner.ReasonOutOfMemory, Detail: "the worker died while its module ran"}},
		{"killed", running, runner.Result{Reason: runner.ReasonSignal, Signal: "SIGSEGV", Detail: "x"}, runner.Result{Reason: runner.ReasonSignal, Signal: "SIGSEGV", Detail: "the worker died while its module ran: x"}},
		{"killed after success", running + text(frameReport, goodReport), runner.Result{Reason: runner.ReasonTimeout, Detail: "wall"}, runner.Result{Reason: runner.ReasonTimeout, Detail: "wall"}},
		{"claims success", running + text(frameReport, goodReport), exit2, runner.Result{Reason: runner.ReasonSignal, Signal: "SIGABRT", Detail: "the worker died while its module ran (status 2)"}},
		{"escapes", text(frameReport, `{"version":1,"end":"refused","detail":"a\u001b[2Jb\nc"}`), exit2, runner.Result{Reason: runner.ReasonRefused, Detail: "a\uFFFD[2Jb\uFFFDc"}},
		{"half a frame", running + "p\x10", exit2, broke("the conversation ends inside of a frame while its module ran")},
		{"long frame", "p\xff\xff\xff\xff", exit2, broke(`frame 'p' of 4294967295 bytes, more than 1048576 before it began`)},
		{"unknown frame", text('?', ""), exit2, broke("unexpected frame '?' before it began")},
		{"output without asking", text(frameOutput, "x"), exit2, broke("unexpected frame 'o' before it began")},
		{"stdout without asking", text(frameStdout, "x"), exit2, broke("stdout or stderr as frames, which nobody asked for before it began")},
		{"extra without asking", text(frameExtra, "x"), exit2, broke("unexpected frame 'x' before it began")},
		{"two reports", text(frameReport, goodReport) + text(frameReport, goodReport), exited, broke("something follows the report before it began")},
		{"unknown field", text(frameReport, `{"version":1,"end":"exit","x":1}`), exited, broke(`report: json: unknown field "x" before it began`)},
		{"unknown end", text(frameReport, `{"version":1,"end":"joy"}`), exited, broke(`report: unknown end "joy" before it began`)},
		{"unknown engine", text(frameReport, `{"version":1,"end":"exit","engine":"mine"}`), exited, broke(`report: unknown engine "mine" before it began`)},
		{"two values", text(frameReport, goodReport+"{}"), exited, broke("report: something follows the JSON value before it began")},
		{"long report", text(frameReport, strings.Repeat(" ", maxReport+1)), exited, broke("report of 65537 bytes, more than 65536 before it began")},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := runPuppet(t, puppet{says(test.says), test.driver}, Extra{})
			if err != nil {
				t.Fatal(err)
			}
			got.Gas, got.Engine = 0, ""
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func broke(what string) runner.Result {
	return runner.Result{Reason: runner.ReasonLimit, Detail: "worker broke the protocol: " + what}
}

// runPuppet runs some module with a puppet as the driver.
func runPuppet(t *testing.T, d runner.Runner, extra Extra) (runner.Result, error) {
	t.Helper()
	worker := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(worker, minimalELF(), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Driver: d, Worker: worker})
	if err != nil {
		t.Fatal(err)
	}
	return r.RunExtra(t.Context(), runner.Spec{
		Mounts: []runner.Mount{{Kind: runner.Data, Target: "/m", Content: bytes.Repeat([]byte("m"), 1<<20)}},
		Module: &runner.Module{Path: "/m"},
	}, extra)
}

// minimalELF is the header of a program that needs no other.
func minimalELF() []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20], b[52], b[54], b[58] = 2, 62, 1, 64, 56, 64
	return b
}

func TestUnableWorker(t *testing.T) {
	said := text(frameReport, `{"version":1,"end":"unable","detail":"mmap: permission denied"}`)
	_, err := runPuppet(t, puppet{says(said), runner.Result{Reason: runner.ReasonExit, Exit: 1}}, Extra{})
	setup, ok := errors.AsType[*runner.SetupError](err)
	if !ok || !strings.Contains(setup.Hint(), "MemoryDenyWriteExecute") {
		t.Errorf("got %v", err)
	}
}

// A worker that stops listening is heard all the same.
func TestDeafWorker(t *testing.T) {
	d := puppet{func(conn *os.File) {
		io.WriteString(conn, text(frameReport, `{"version":1,"end":"refused","detail":"no"}`))
	}, runner.Result{Reason: runner.ReasonExit, Exit: 1}}
	got, err := runPuppet(t, d, Extra{})
	if err != nil || got.Reason != runner.ReasonRefused || got.Detail != "no" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What Receive says ends the run.
func TestReceiveError(t *testing.T) {
	enough := errors.New("enough")
	d := puppet{says(text(frameExtra, "a"), text(frameExtra, "b")), runner.Result{Reason: runner.ReasonExit}}
	var got []string
	_, err := runPuppet(t, d, Extra{Name: "x", Receive: func(b []byte) error {
		got = append(got, string(b))
		return enough
	}})
	if !errors.Is(err, enough) || len(got) != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestChecksWorkerProgram(t *testing.T) {
	for name, content := range map[string]string{"script": "#!/bin/sh\n", "nothing": ""} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := checkWorker(path); err == nil {
			t.Errorf("%s was taken for a worker", name)
		}
	}
}

func FuzzSession(f *testing.F) {
	f.Add([]byte(text(framePhase, "r") + text(frameReport, goodReport)))
	f.Add([]byte(text(frameStdout, "out") + text(frameOutput, "nar") + text(frameOutputEnd, "")))
	f.Add([]byte("fatal error: runtime: out of memory"))
	f.Fuzz(func(t *testing.T, said []byte) {
		path := filepath.Join(t.TempDir(), "said")
		if err := os.WriteFile(path, said, 0o600); err != nil {
			t.Fatal(err)
		}
		conn, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		taken := int64(0)
		s := &session{task: task{Act: actRun, Outputs: []taskFile{{}}}, logLimit: 1 << 10, output: func(_ int, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			taken += n
			return err
		}}
		s.judge(s.hear(conn))
		if taken > int64(len(said)) {
			t.Errorf("took %d bytes of %d", taken, len(said))
		}
		s.result(runner.Result{Reason: runner.ReasonExit}, nil)
	})
}

func FuzzTask(f *testing.F) {
	f.Add([]byte(`{"version":1,"act":"run","size":4,"dirs":[{"as":"/in","files":[{"path":"a","size":1}]}],"outputs":[{"path":"x"}]}`))
	f.Add([]byte(`{"version":1,"act":"prepare","cached":{"name":"wazero-v1-amd64-linux/00"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		task, err := parseTask(data)
		if err == nil && (task.files() > maxFiles || task.Size > maxModule) {
			t.Errorf("took %+v", task)
		}
	})
}

// However late the limit kills a worker of a pool, also when its report is here already, the Result names the limit.
func TestPooledWall(t *testing.T) {
	wall, stop := withWall(t.Context(), 1)
	defer stop()
	<-wall.Done()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	killed := runner.Result{Reason: runner.ReasonCancelled, Detail: "context canceled"}
	trap := &report{End: endTrap, Exit: trapStatus, Detail: "trap: stack overflow"}
	for _, test := range []struct {
		name   string
		ctx    context.Context
		report *report
		pool   runner.Result
		want   runner.Reason
	}{
		{"while it ran", wall, nil, killed, runner.ReasonTimeout},
		{"after its report", wall, trap, killed, runner.ReasonTimeout},
		{"after its end", wall, trap, runner.Result{Reason: runner.ReasonExit, Exit: 1}, runner.ReasonExit},
		{"cancelled while it ran", cancelled, nil, killed, runner.ReasonCancelled},
		{"cancelled after its report", cancelled, trap, killed, runner.ReasonCancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &session{report: test.report, phase: phaseRun}
			got, err := (&Runner{}).conclude(test.ctx, s, &collector{}, test.pool, nil)
			if err != nil || got.Reason != test.want {
				t.Errorf("got %s (%s), %v; want %s", got.Reason, got.Detail, err, test.want)
			}
		})
	}
}
