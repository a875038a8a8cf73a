package runnertest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
)

// outputs are the cases of collecting what commands leave.
func outputs() []testCase {
	return []testCase{
		{"outputs arrive as the NARs of what was made", outputsArrive},
		{"an output that does not exist", func(h *harness) {
			result, seen := h.collect(h.spec("make", "here=1"), "here", "/build/here", "gone", "/build/gone")
			h.ended(result, runner.ReasonNotFound, 0)
			h.equal(strings.HasPrefix(result.Detail, "output gone: /build/gone"), true)
			h.equal(len(seen), 1)
			h.equal(len(result.Outputs), 1)
		}},
		{"an output that its collector reads in part", func(h *harness) {
			spec := h.spec("make", "out="+strings.Repeat("x", 100000))
			spec.Outputs = []runner.Output{{Name: "out", Path: "/build/out"}}
			spec.Collect = func(_ runner.Output, archive io.Reader) error {
				_, err := io.CopyN(io.Discard, archive, 10)
				return err
			}
			result, _ := h.run(spec) // Collect must not do that; if it does, nothing wrong may come of it
			if len(result.Outputs) != 1 || result.Outputs[0].Size < 100000 {
				h.Errorf("got %+v", result.Outputs)
			}
		}},
		{"an output behind a symbolic link is not followed", func(h *harness) {
			for _, link := range []string{"/proc/1", "/proc/self/root", "/dev", "..", "/bin"} {
				result, seen := h.collect(h.spec("make", "link->"+link), "x", "/build/link/probe")
				h.ended(result, runner.ReasonNotFound, 0)
				h.equal(len(seen), 0)
			}
		}},
		{"nothing is collected after a failure", func(h *harness) {
			spec := h.spec("make", "out=1")
			spec.Commands = append(spec.Commands, h.command("exit", "1"))
			result, seen := h.collect(spec, "out", "/build/out")
			h.ended(result, runner.ReasonExit, 1)
			h.equal(len(seen), 0)
		}},
		{"an error of the collector ends the run", func(h *harness) {
			full := errors.New("the store is full")
			spec := h.spec("make", "out=1")
			spec.Outputs = []runner.Output{{Name: "out", Path: "/build/out"}}
			spec.Collect = func(runner.Output, io.Reader) error { return full }
			if _, err := h.runner.Run(h.Context(), spec); !errors.Is(err, full) {
				h.Errorf("got error %v, want %v", err, full)
			}
		}},
		{"an output that no archive can hold", func(h *harness) {
			spec := h.spec("make", "link->x")
			spec.Outputs = []runner.Output{{Name: "dev", Path: "/dev"}}
			spec.Collect = discard
			if _, err := h.runner.Run(h.Context(), spec); err == nil || !strings.Contains(err.Error(), "output dev") {
				h.Errorf("got error %v, want one that names the output", err)
			}
		}},
		{"a surviving process cannot change an output", func(h *harness) {
			const mark = "mark-of-survivor"
			spec := h.spec("daemon", mark)
			spec.Commands = append(spec.Commands, h.command("make", "out=1"), h.command("daemon", mark))
			result, seen := h.collect(spec, "out", "/build/out")
			h.ended(result, runner.ReasonExit, 0)
			h.equal(len(seen), 1)
			h.allDead(mark)
		}},
	}
}

// discard is a collector that keeps nothing.
func discard(_ runner.Output, archive io.Reader) error {
	_, err := io.Copy(io.Discard, archive)
	return err
}

// collect runs spec with outputs given as names and paths in turn.
func (h *harness) collect(spec runner.Spec, namesAndPaths ...string) (runner.Result, map[string][]byte) {
	h.Helper()
	for i := 0; i < len(namesAndPaths); i += 2 {
		spec.Outputs = append(spec.Outputs, runner.Output{Name: namesAndPaths[i], Path: namesAndPaths[i+1]})
	}
	seen := map[string][]byte{}
	spec.Collect = func(out runner.Output, archive io.Reader) (err error) {
		seen[out.Name], err = io.ReadAll(archive)
		return err
	}
	result, _ := h.run(spec)
	return result, seen
}

// outputsArrive has the same tree made inside and outside, and compares the archives.
func outputsArrive(h *harness) {
	outside := h.dir()
	for name, perm := range map[string]os.FileMode{"file": 0o644, "tool": 0o755, "tree/sub/deep": 0o644} {
		p := filepath.Join(outside, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			h.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("content"), perm); err != nil {
			h.Fatal(err)
		}
	}
	for _, link := range []string{"link", "tree/link"} {
		if err := os.Symlink("/etc/passwd", filepath.Join(outside, link)); err != nil {
			h.Fatal(err)
		}
	}
	spec := h.spec("make", "file=content", "tool*=content", "tree/sub", "tree/sub/deep=content",
		"link->/etc/passwd", "tree/link->/etc/passwd")
	var names []string
	for _, n := range []string{"tool", "file", "tree", "link"} {
		names = append(names, n, "/build/"+n)
	}
	result, seen := h.collect(spec, names...)
	h.ended(result, runner.ReasonExit, 0)
	var wanted []runner.Collected
	for _, n := range []string{"tool", "file", "tree", "link"} {
		var want bytes.Buffer
		if err := nar.Dump(h.Context(), &want, filepath.Join(outside, n), nar.Options{}); err != nil {
			h.Fatal(err)
		}
		if !bytes.Equal(seen[n], want.Bytes()) {
			h.Errorf("output %s: got %q, want %q", n, seen[n], want.Bytes())
		}
		wanted = append(wanted, runner.Collected{Name: n, NAR: digest.Of(want.Bytes()), Size: int64(want.Len())})
	}
	h.equal(result.Outputs, wanted)
}
