package attacker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// testRoots gives a hostile tree as the root file system: links lie where the driver has to mount. Nothing may be made or mounted
// behind them.
func testRoots(t *testing.T, d driver) {
	for _, place := range []string{"proc", "dev", "tmp", "inputs", "inputs/data", "build", "bin", "sys", "run"} {
		t.Run("link at "+place, func(t *testing.T) {
			s := newScene(t)
			root := s.hostileRoot(t)
			must(t, os.RemoveAll(filepath.Join(root, place)))
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(place)), 0o755))
			must(t, os.Symlink(s.targets.DropOff, filepath.Join(root, place)))
			s.before = s.state(t)
			s.runInRoot(t, d.new(t), root, s.targets.DropOff)
			s.unharmed(t)
		})
	}
	t.Run("link swapped meanwhile", func(t *testing.T) { testSwappedRoot(t, d) })
}

// hostileRoot makes a root file system of an image.
func (s *scene) hostileRoot(t *testing.T) string {
	t.Helper()
	root := filepath.Join(s.dir, "root")
	for _, d := range []string{"proc", "dev", "tmp", "inputs", "build", "bin", "sys", "run", "etc"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	return root
}

// runInRoot runs something harmless in the root. It may be refused; if it runs, it must see what was mounted, and never outside.
func (s *scene) runInRoot(t *testing.T, r runner.Runner, root, outside string) {
	t.Helper()
	spec := s.spec(t, "whoami")
	spec.Mounts = append([]runner.Mount{{Kind: runner.Bind, Source: root, Target: "/"}}, spec.Mounts...)
	var out bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &out
	result, err := r.Run(t.Context(), spec)
	if setup, ok := errors.AsType[*runner.SetupError](err); err != nil && !ok {
		t.Errorf("run: %v", err)
	} else if ok {
		t.Logf("refused: %v", setup)
	} else if !result.OK() || !strings.Contains(out.String(), "CapEff=0000000000000000") {
		t.Errorf("result %+v\n%s", result, out.String())
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}

// testSwappedRoot swaps a directory of the root for a link, over and over, while executions start in it.
func testSwappedRoot(t *testing.T, d driver) {
	s := newScene(t)
	root := s.hostileRoot(t)
	link := filepath.Join(s.dir, "link")
	must(t, os.Symlink(s.targets.DropOff, link))
	r := d.new(t)
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, filepath.Join(root, "inputs"), unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 15 {
		s.runInRoot(t, r, root, s.targets.DropOff)
	}
	close(stop)
	swapper.Wait()
	s.before = s.state(t) // the swapper's own traces; what matters is the drop-off, which runInRoot looks at
	s.unharmed(t)
}

// testWords gives words that mean something to shells, unit files and terminals. They must arrive as they are, or be refused.
func testWords(t *testing.T, d driver) {
	s := newScene(t)
	r := d.new(t)
	words := []string{
		"%n", "%%", "$HOME", "${PATH}", "$$", "`id`", "$(id)", ";", "a b", "", " ", "'", "\"", "\\", "\\x41", "-x", "--", "@", "!", "+", "|", "~",
		"two\nlines", "[Service]\nExecStart=/bin/sh", "\x1b[31m", "\u202e", "\xff\xfe",
	}
	t.Run("arguments and environment", func(t *testing.T) {
		spec := s.spec(t, append([]string{"echo"}, words...)...)
		var env []string
		for i, w := range words {
			env = append(env, fmt.Sprintf("V%d=%s", i, w))
		}
		spec.Commands[0].Env = env
		var out bytes.Buffer
		spec.Stdout = &out
		result, err := r.Run(t.Context(), spec)
		if _, ok := errors.AsType[*runner.SetupError](err); ok {
			t.Logf("refused: %v", err)
			return
		}
		if err != nil || !result.OK() {
			t.Fatalf("%+v, %v", result, err)
		}
		var got []string
		must(t, json.Unmarshal(out.Bytes(), &got))
		var want []string
		for _, w := range append(append([]string{}, words...), env...) {
			want = append(want, strings.ToValidUTF8(w, "\ufffd")) // what JSON makes of bytes that are no text
		}
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], "\ufffd\ufffd", "\ufffd")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	refused := map[string]func(*runner.Spec){
		"name with a path":          func(s *runner.Spec) { s.Name = "../escape" },
		"name with a line":          func(s *runner.Spec) { s.Name = "a\nb" },
		"name that is an option":    func(s *runner.Spec) { s.Name = "a --force" },
		"name in other letters":     func(s *runner.Spec) { s.Name = "Name_%n" },
		"argument with a zero byte": func(s *runner.Spec) { s.Commands[0].Argv = append(s.Commands[0].Argv, "a\x00b") },
		"variable with a zero byte": func(s *runner.Spec) { s.Commands[0].Env = append(s.Commands[0].Env, "A=a\x00b") },
		"target with dots":          func(s *runner.Spec) { s.Mounts[1].Target = "/inputs/../../etc" },
		"target in proc":            func(s *runner.Spec) { s.Mounts[1].Target = "/proc/self/environ" },
		"output with dots": func(s *runner.Spec) {
			s.Outputs = []runner.Output{{Name: "out", Path: "/build/../inputs/data"}}
		},
	}
	for name, change := range refused {
		t.Run(name, func(t *testing.T) {
			spec := s.spec(t, "whoami")
			change(&spec)
			result, err := r.Run(t.Context(), spec)
			if _, ok := errors.AsType[*runner.SetupError](err); !ok {
				t.Errorf("not refused: %+v, %v", result, err)
			}
		})
	}
	s.unharmed(t)
}

// testIDs asks for user ids that overflow somewhere. They must be what was asked for, or be refused; nothing ever runs as 0.
func testIDs(t *testing.T, d driver) {
	s := newScene(t)
	r := d.new(t)
	for _, id := range []int{-1, -65536, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1 << 62, 65534, 4294967294} {
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			spec := s.spec(t, "whoami")
			spec.UID, spec.GID = id, id
			var out bytes.Buffer
			spec.Stdout, spec.Stderr = &out, &out
			result, err := r.Run(t.Context(), spec)
			if _, ok := errors.AsType[*runner.SetupError](err); ok {
				return
			}
			want := fmt.Sprintf("euid=%d egid=%d CapEff=0000000000000000\n", id, id)
			if err != nil || !result.OK() || out.String() != want {
				t.Errorf("%+v, %v: %s", result, err, out.String())
			}
		})
	}
	s.unharmed(t)
}
