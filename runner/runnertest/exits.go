package runnertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"arch.network/runner"
)

// exits are the cases of how commands end and what they are given.
func exits() []testCase {
	return []testCase{
		{"exit status is reported", func(h *harness) {
			result, _ := h.run(h.spec("exit", "42"))
			h.ended(result, runner.ReasonExit, 42)
		}},
		{"signal is reported by name", func(h *harness) {
			result, _ := h.run(h.spec("raise", "15"))
			h.ended(result, runner.ReasonSignal, 0)
			h.equal(result.Signal, "SIGTERM")
		}},
		{"commands run in order and stop at the first failure", func(h *harness) {
			spec := h.spec("make", "kept=1")
			spec.Commands = append(spec.Commands, h.command("entries", "/build"), h.command("exit", "3"), h.command("flood", "10"))
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 3)
			h.equal(result.Command, 2)
			h.equal(out, "kept\n")
		}},
		{"stdout and stderr are apart", func(h *harness) {
			var out, errs strings.Builder
			spec := h.spec("no such action")
			spec.Stdout, spec.Stderr = &out, &errs
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 64)
			h.equal(out.String(), "")
			h.equal(strings.HasPrefix(errs.String(), "probe: "), true)
		}},
		{"environment is exactly the given one", func(h *harness) {
			spec := h.spec("env")
			spec.Commands[0].Env = []string{"PATH=/bin", "B=2 = two", "A=1", "EMPTY="}
			h.says(spec, "PATH=/bin", "B=2 = two", "A=1", "EMPTY=")
		}},
		{"a program that does not exist", func(h *harness) {
			spec := h.spec()
			spec.Commands[0].Argv = []string{"compiler", "x"}
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonNotFound, 0)
			h.equal(result.Detail, `program "compiler" is not in PATH "/bin"`)
		}},
		{"a working directory that does not exist", func(h *harness) {
			spec := h.spec("exit", "0")
			spec.Commands[0].Dir = "/nowhere"
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonNotFound, 0)
		}},
		{"a file that is not executable", func(h *harness) {
			spec := h.spec("make", "script=echo")
			spec.Commands = append(spec.Commands, runner.Command{Argv: []string{"/build/script"}})
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 126)
		}},
		{"a failing writer of the log ends the run", func(h *harness) {
			spec := h.spec("flood", "100000")
			spec.Stdout = failingWriter{}
			if _, err := h.runner.Run(h.Context(), spec); !errors.Is(err, errWriter) {
				h.Errorf("got error %v, want %v", err, errWriter)
			}
		}},
		{"cancelled by the context", cancelled},
		{"cancelled before it starts", func(h *harness) {
			ctx, cancel := context.WithCancel(h.Context())
			cancel()
			result, _ := h.runContext(ctx, h.spec("exit", "0"))
			h.ended(result, runner.ReasonCancelled, 0)
		}},
		{"what a command leaves behind is dead before the next", func(h *harness) {
			spec := h.spec("daemon")
			spec.Commands = append(spec.Commands, h.command("describe"))
			_, out := h.run(spec)
			if !strings.Contains(out, "processes: first self\n") {
				h.Errorf("the second command sees:\n%s", out)
			}
		}},
		{"several runs at once do not mix", func(h *harness) {
			var runs sync.WaitGroup
			for n := range 4 {
				runs.Go(func() {
					var out strings.Builder
					spec := h.spec("exit", "0")
					spec.Commands = []runner.Command{h.command("make", "file="+strconv.Itoa(n)), h.command("dump", "/build/file"), h.command("exit", strconv.Itoa(n))}
					spec.Stdout = &out
					result, err := h.runner.Run(h.Context(), spec)
					if err != nil || result.Exit != n || !strings.HasSuffix(out.String(), fmt.Sprintf(" \"%d\"\n", n)) {
						h.Errorf("run %d: got %+v, error %v, output %q", n, result, err, out.String())
					}
				})
			}
			runs.Wait()
		}},
		{"a name may be used again", func(h *harness) {
			for range 2 {
				spec := h.spec("exit", "0")
				spec.Name, spec.Limits.Memory, spec.Limits.Processes = "a-name-0-of-a-job", 1<<30, 100
				result, _ := h.run(spec)
				h.ended(result, runner.ReasonExit, 0)
				h.equal(result.Engine, "native")
			}
		}},
		{"wrong specs are refused", wrongSpecs},
	}
}

var errWriter = errors.New("the disk is full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errWriter }

// cancelled cancels the context as soon as the confined process has said that it runs.
func cancelled(h *harness) {
	ctx, cancel := context.WithCancel(h.Context())
	defer cancel()
	const mark = "mark-of-cancelled"
	spec := h.spec("daemon", "stay", mark)
	spec.Stdout = writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	})
	result, _ := h.runContext(ctx, spec)
	h.ended(result, runner.ReasonCancelled, 0)
	h.allDead(mark)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// wrongSpecs are refused before anything runs, each with a sentence that names what is wrong.
func wrongSpecs(h *harness) {
	change := map[string]func(*runner.Spec){
		"there is no command":               func(s *runner.Spec) { s.Commands = nil },
		"runner/wasm":                       func(s *runner.Spec) { s.Module = &runner.Module{Path: "/bin/probe"} },
		`name "A/../b"`:                     func(s *runner.Spec) { s.Name = "A/../b" },
		"name \"" + strings.Repeat("n", 65): func(s *runner.Spec) { s.Name = strings.Repeat("n", 65) },
		"data of 1048577 bytes": func(s *runner.Spec) {
			s.Mounts = append(s.Mounts, runner.Mount{Kind: runner.Data, Target: "/d", Content: make([]byte, 1<<20+1)})
		},
		"power of NaN":                 func(s *runner.Spec) { s.Limits.Power = math.NaN() },
		"names no program":             func(s *runner.Spec) { s.Commands[0].Argv = nil },
		"zero byte":                    func(s *runner.Spec) { s.Commands[0].Argv = []string{"a\x00b"} },
		"KEY=value":                    func(s *runner.Spec) { s.Commands[0].Env = []string{"PATH"} },
		"directory":                    func(s *runner.Spec) { s.Commands[0].Dir = "relative" },
		"absolute, clean path":         func(s *runner.Spec) { s.Mounts[0].Target = "/a/../b" },
		"made by the driver":           func(s *runner.Spec) { s.Mounts[0].Target = "/proc/self" },
		"kind":                         func(s *runner.Spec) { s.Mounts[0].Kind = "overlay" },
		"source":                       func(s *runner.Spec) { s.Mounts[0].Source = "x" },
		"hide the mount at /bin":       func(s *runner.Spec) { s.Mounts = append(s.Mounts, runner.Mount{Kind: runner.Tmpfs, Target: "/bin"}) },
		"a copy must lie on":           func(s *runner.Spec) { s.Mounts[0].Kind = runner.Copy },
		"empty or not unique":          func(s *runner.Spec) { s.Outputs = []runner.Output{{Path: "/a"}} },
		"nothing collects":             func(s *runner.Spec) { s.Outputs = []runner.Output{{Name: "a", Path: "/a"}} },
		"uid -1":                       func(s *runner.Spec) { s.UID = -1 },
		"uid 4294967295":               func(s *runner.Spec) { s.UID = 4294967295 },
		"umask":                        func(s *runner.Spec) { s.Umask = 0o1000 },
		"host name":                    func(s *runner.Spec) { s.Hostname = strings.Repeat("h", 65) },
		"a limit is negative":          func(s *runner.Spec) { s.Limits.Memory = -1 },
		"no such file or directory":    func(s *runner.Spec) { s.Mounts[0].Source = "/nonexistent/probe" },
		"a tmpfs has no source":        func(s *runner.Spec) { s.Mounts[1].Source = "/x" },
		"it would hide the mount at /": func(s *runner.Spec) { s.Mounts = append(s.Mounts, runner.Mount{Kind: runner.Tmpfs, Target: "/"}) },
	}
	for want, wrong := range change {
		spec := h.spec("exit", "0")
		wrong(&spec)
		if err := h.refused(spec); !strings.Contains(err.Error(), want) {
			h.Errorf("got %q, want it to contain %q", err, want)
		}
	}
}
