package closure_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
	"arch.network/runner/closure"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
	"arch.network/tests/guest"
)

// What Guix 1.5.0 built and signed: a file with one reference. The hash is that of its narinfo.
const (
	guixTop  = "/gnu/store/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml"
	guixRef  = "/gnu/store/1r6ffg0d0b9p0f4qv3q76rcqddn4xcx3-policy.yaml"
	guixHash = "sha256:13hlpk5by2awv0inxhcx76znrcd8imshj52y61h5yxcy2w1apnmd"
	guixText = "listen: \"127.0.0.1:7340\"\npolicy-file: " + guixRef + "\ntrusted-keys: [\"did:key:z6MkA\", \"did:key:z6MkB\"]\nmax-jobs: 1\n"
)

// guixStore is a directory of store objects: files, and for a program a directory with it.
func guixStore(t *testing.T, objects map[string]string) (dir string, o closure.Options) {
	t.Helper()
	dir = t.TempDir()
	o = closure.Options{Dir: dir, Known: map[string]digest.SHA256{}, Locate: func(_ context.Context, path string, _ digest.SHA256) (string, error) {
		return filepath.Join(dir, filepath.Base(path)), nil
	}}
	for path, text := range objects {
		file := filepath.Join(dir, filepath.Base(path))
		var err error
		if strings.HasPrefix(text, "\x7fELF") {
			err = errors.Join(os.MkdirAll(file+"/bin", 0o755), os.WriteFile(file+"/bin/busybox", []byte(text), 0o755), os.Symlink("busybox", file+"/bin/sh"))
		} else {
			err = os.WriteFile(file, []byte(text), 0o444)
		}
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := nar.Hash(t.Context(), file, nar.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o.Known[path] = d
	}
	return dir, o
}

// No Guix is needed here: the same code reads its store. What it built elsewhere has the hash that it signed there.
func TestGuixClosure(t *testing.T) {
	pin, err := digest.Parse(guixHash)
	if err != nil {
		t.Fatal(err)
	}
	_, o := guixStore(t, map[string]string{guixTop: guixText, guixRef: "rules: []\n"})
	paths, err := closure.Compute(t.Context(), guixTop, pin, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{guixRef, guixTop}, names(paths)); diff != "" {
		t.Errorf("closure (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{guixRef}, paths[1].References); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	delete(o.Known, guixRef)
	_, err = closure.Compute(t.Context(), guixTop, pin, o)
	if unpinned, ok := errors.AsType[*closure.UnpinnedError](err); !ok || unpinned.Path != guixRef || unpinned.ReferredBy != guixTop {
		t.Errorf("error is %v", err)
	}
}

// A program runs in namespaces, and sees its closure and nothing else.
func TestGuixRun(t *testing.T) {
	driver, err := namespace.New(namespace.Options{Executable: runnertest.First(t)})
	if err != nil {
		t.Fatal(err)
	}
	testRun(t, driver)
}

// The same in units of a real systemd.
func TestSystemd(t *testing.T) {
	if guest.Inside() == "" {
		guest.Run(t, guest.Config{Mode: guest.Namespaces, Pattern: "^TestSystemd$", Static: true})
		return
	}
	driver, err := systemd.New(t.Context(), systemd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	testRun(t, driver)
}

func testRun(t *testing.T, driver runner.Runner) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("cannot run here: /bin/busybox of the package busybox-static is not installed")
	}
	const top = "/gnu/store/0v7gvv4xnh4lpzs2k9lgbqzq1y2m3a9c-sh"
	_, o := guixStore(t, map[string]string{top: string(busybox)})
	paths, err := closure.Compute(t.Context(), top, o.Known[top], o)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := closure.Spec(paths, closure.Run{Top: top, Program: "/bin/sh", Args: []string{"-c", "echo /gnu/store/* /*; echo $A"}, Env: map[string]string{"A": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	spec.Stdout = &stdout
	result, err := driver.Run(t.Context(), spec)
	if s, ok := errors.AsType[*runner.SetupError](err); ok {
		t.Skipf("cannot run here: %v", s)
	}
	if want := top + " /dev /gnu /proc\n1\n"; err != nil || !result.OK() || stdout.String() != want {
		t.Errorf("%+v, %v, %q", result.Reason, err, stdout.String())
	}
}

func TestSpec(t *testing.T) {
	const top, other = "/nix/store/00000000000000000000000000000000-top", "/nix/store/11111111111111111111111111111111-other"
	paths := []closure.Path{{StorePath: top, Source: "/host/top"}, {StorePath: other, Source: "/host/other"}}
	mounts := []runner.Mount{{Kind: runner.Bind, Source: "/host/top", Target: top}, {Kind: runner.Bind, Source: "/host/other", Target: other}}
	for _, tt := range []struct {
		program, argv0, err string
	}{
		{"", top, ""},
		{"/bin/x", top + "/bin/x", ""},
		{top + "/bin/x", top + "/bin/x", ""},
		{other + "/bin/x", other + "/bin/x", ""},
		{other, other, ""},
		{"/nix/store/22222222222222222222222222222222-third/bin/x", "", "is no clean, absolute path of the closure of " + top},
		{other + "x/bin/x", "", "is no clean, absolute path"},
		{"/bin/../../x", "", "is no clean, absolute path"},
		{"bin/x", "", "is no clean, absolute path"},
		{"/bin/x\x00", "", "is no clean, absolute path"},
	} {
		got, err := closure.Spec(paths, closure.Run{Top: top, Program: tt.program, Args: []string{"a"}, Env: map[string]string{"B": "2", "A": "1"}, Writable: []string{"/tmp"}})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error is %v", tt.program, err)
			}
			continue
		}
		want := runner.Spec{
			Commands: []runner.Command{{Argv: []string{tt.argv0, "a"}, Env: []string{"A=1", "B=2"}, Dir: "/"}},
			Mounts:   append(mounts[:2:2], runner.Mount{Kind: runner.Tmpfs, Target: "/tmp"}),
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", tt.program, err, diff)
		}
	}
}
