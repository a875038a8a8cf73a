package closure_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
	"arch.network/runner/closure"
	"arch.network/runner/namespace"
	"arch.network/runner/runnertest"
	"arch.network/runner/systemd"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	inner := func() (runner.Runner, error) {
		return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
	}
	if handled, code := systemd.Main(os.Args, inner); handled {
		os.Exit(code)
	}
	code := m.Run()
	if built.dir != "" {
		nar.RemoveAll(built.dir) // its directories are read-only
	}
	os.Exit(code)
}

// built is the store that the first test which needs one builds; each test has a copy.
var built struct {
	once     sync.Once
	dir, top string
}

// expression builds, without a network or nixpkgs: a directory of busybox (content-addressed), a library, something that refers to
// itself and to the library, and a program that refers to all of them. A reference by hash alone is one, too.
const expression = `
{ busybox }:
let
  bb = builtins.path { path = busybox; name = "bb"; };
  note = builtins.toFile "note" "see ${bb}\n";
  build = name: script: derivation {
    inherit name; system = builtins.currentSystem;
    builder = "${bb}/sh"; args = [ "-c" script ]; PATH = bb;
  };
  lib = build "lib-1.0" "echo a library > $out";
  self = build "self" "mkdir -p $out; echo $out > $out/me; ln -s ${lib} $out/lib; ln -s ${note} $out/note";
  byhash = build "by-hash" "echo ${note} > $out";
  in build "top" ''
  mkdir -p $out/bin
  echo ${byhash} | tr -d / > $out/by-hash
  printf '#!%s/sh\necho "$1 from $(cat %s/me)"\ncat %s/lib\n' ${bb} ${self} ${self} > $out/bin/hello
  chmod 755 $out/bin/hello
''
`

// chroot is a Nix store of its own, made with the real Nix.
type chroot struct {
	t   testing.TB
	dir string // its root: the store is at dir/nix/store
	top string
	nix closure.Nix
}

func newChroot(t testing.TB) *chroot {
	t.Helper()
	for _, program := range []string{"nix-build", "nix-daemon", "nix-store", "/bin/busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin and busybox-static)", program)
		}
	}
	work := t.TempDir()
	c := &chroot{t: t, dir: filepath.Join(work, "root")}
	c.nix = closure.Nix{Args: []string{"--store", c.dir}, Env: append(os.Environ(), "HOME="+work, "XDG_CACHE_HOME="+work+"/cache",
		"NIX_CONFIG=substituters =\nbuild-users-group =\nsandbox = true\nsandbox-fallback = false\n")}
	built.once.Do(func() { c.build() })
	c.top = built.top
	if c.top == "" {
		t.Skip("cannot run here: Nix cannot build in a sandbox")
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", built.dir, c.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { nar.RemoveAll(c.dir) }) // its directories are read-only
	return c
}

// database asks the store's database, through the program.
func (c *chroot) database() *closure.Daemon {
	c.t.Helper()
	d, err := c.nix.Open(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { d.Close() })
	return d
}

// build makes the store that all tests copy.
func (c *chroot) build() {
	t := c.t
	t.Helper()
	work := t.TempDir()
	bb := filepath.Join(work, "bb")
	data, err := os.ReadFile("/bin/busybox")
	if err := errors.Join(err, os.Mkdir(bb, 0o755), os.WriteFile(bb+"/busybox", data, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "mkdir", "ln", "cat", "chmod", "tr", "ls", "id"} {
		if err := os.Symlink("busybox", filepath.Join(bb, name)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(work, "default.nix")
	if err := os.WriteFile(file, []byte(expression), 0o644); err != nil {
		t.Fatal(err)
	}
	if built.dir, err = os.MkdirTemp("", "arch-nix-"); err != nil {
		t.Fatal(err)
	}
	at := *c
	at.dir = built.dir
	built.top = strings.TrimSpace(at.run("nix-build", "--no-out-link", "--arg", "busybox", bb, file))
}

func (c *chroot) run(program string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), program, append([]string{"--store", c.dir}, args...)...)
	cmd.Env = c.nix.Env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if strings.Contains(stderr.String(), "namespaces") || strings.Contains(stderr.String(), "Operation not permitted") {
			c.t.Skipf("cannot run here: Nix cannot build in a sandbox: %s", stderr.String())
		}
		c.t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	return stdout.String()
}

func (c *chroot) query(what, path string) []string {
	c.t.Helper()
	lines := strings.Fields(c.run("nix-store", "--query", "--"+what, path))
	slices.Sort(lines)
	return lines
}

func (c *chroot) hash(path string) digest.SHA256 {
	c.t.Helper()
	d, err := digest.Parse(c.query("hash", path)[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *chroot) locate(_ context.Context, path string, _ digest.SHA256) (string, error) {
	return c.dir + path, nil
}

// options find everything in the chroot store and know nothing.
func (c *chroot) options() closure.Options {
	return closure.Options{Dir: filepath.Join(c.dir, "nix/store"), Locate: c.locate}
}

// pins has the NAR hash of every path of the closure.
func (c *chroot) pins() map[string]digest.SHA256 {
	pins := map[string]digest.SHA256{}
	for _, p := range c.query("requisites", c.top) {
		pins[p] = c.hash(p)
	}
	return pins
}

// find returns the path of the closure with a name.
func (c *chroot) find(name string) string {
	c.t.Helper()
	for _, p := range c.query("requisites", c.top) {
		if strings.HasSuffix(p, "-"+name) {
			return p
		}
	}
	c.t.Fatalf("no path is named %s", name)
	return ""
}

// damage changes a path of the store, which is read-only.
func (c *chroot) damage(path string, change func(path string) error) {
	c.t.Helper()
	path = c.dir + path
	parent := filepath.Dir(path)
	info, err := os.Stat(parent)
	if err == nil {
		err = errors.Join(os.Chmod(parent, 0o755), change(path), os.Chmod(parent, info.Mode()))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func names(paths []closure.Path) []string {
	var list []string
	for _, p := range paths {
		list = append(list, p.StorePath)
	}
	return list
}

func TestNixClosure(t *testing.T) {
	c := newChroot(t)
	pin := c.hash(c.top)
	scanned := c.options()
	scanned.Known = c.pins()
	known := c.options()
	known.Verify = c.database().Verify
	both := known
	both.Known = scanned.Known
	for name, o := range map[string]closure.Options{"found by searching": scanned, "as the database says": known, "both": both} {
		t.Run(name, func(t *testing.T) {
			paths, err := closure.Compute(t.Context(), c.top, pin, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.query("requisites", c.top), names(paths)); diff != "" {
				t.Errorf("closure (-nix +ours):\n%s", diff)
			}
			for _, p := range paths {
				if diff := cmp.Diff(c.query("references", p.StorePath), p.References, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("references of %s (-nix +ours):\n%s", p.StorePath, diff)
				}
				if want := c.hash(p.StorePath); p.NAR != want {
					t.Errorf("%s: NAR hash %s, Nix says %s", p.StorePath, p.NAR, want)
				}
			}
		})
	}
}

// Without anybody's word, what is content-addressed still speaks for itself; what was built does not.
func TestNixNobodyKnows(t *testing.T) {
	c := newChroot(t)
	_, err := closure.Compute(t.Context(), c.top, c.hash(c.top), c.options())
	unpinned, ok := errors.AsType[*closure.UnpinnedError](err)
	if !ok || unpinned.Hint() == "" {
		t.Fatalf("error is %v", err)
	}
	pins := c.pins()
	for _, name := range []string{"bb", "note"} {
		delete(pins, c.find(name))
	}
	o := c.options()
	o.Known = pins
	paths, err := closure.Compute(t.Context(), c.top, c.hash(c.top), o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range paths {
		got[p.StorePath[44:]] = p.Proof
	}
	want := map[string]string{"bb": "content-addressed", "note": "content-addressed", "lib-1.0": "pin", "self": "pin", "top": "pin", "by-hash": "pin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("proofs (-want +got):\n%s", diff)
	}
}

func TestNixDamage(t *testing.T) {
	write := func(path string) error {
		return errors.Join(os.Remove(path), os.WriteFile(path, []byte("evil\n"), 0o444))
	}
	for name, tt := range map[string]struct {
		victim string
		change func(path string) error
		err    func(c *chroot) string
	}{
		"changed": {"lib-1.0", write, func(c *chroot) string { return c.find("lib-1.0") + " has the NAR hash sha256-" }},
		"gone": {"lib-1.0", os.Remove, func(c *chroot) string {
			return "store path " + c.find("lib-1.0") + ", which " + c.find("self") + " refers to, is missing"
		}},
		"top":       {"top", func(path string) error { return os.Chmod(path, 0o755) }, nil},
		"a program": {"bb", func(path string) error { return os.Chmod(path+"/busybox", 0o644) }, func(c *chroot) string { return c.find("bb") }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChroot(t)
			pin, pins := c.hash(c.top), c.pins()
			c.damage(c.find(tt.victim), tt.change)
			for how, o := range map[string]closure.Options{"searched": {Known: pins}, "database": {Verify: c.database().Verify}} {
				o.Dir, o.Locate = c.options().Dir, c.locate
				_, err := closure.Compute(t.Context(), c.top, pin, o)
				if tt.err == nil {
					if err != nil {
						t.Errorf("%s: %v", how, err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), tt.err(c)) {
					t.Errorf("%s: error is %v", how, err)
				}
			}
		})
	}
}

// Nobody says what the closure is, and a path of it is not even in the store's directory: only the text tells.
func TestNixDangling(t *testing.T) {
	c := newChroot(t)
	lib := c.find("lib-1.0")
	pins := c.pins()
	delete(pins, lib)
	c.damage(lib, os.Remove)
	o := c.options()
	o.Known = pins
	_, err := closure.Compute(t.Context(), c.top, c.hash(c.top), o)
	missing, ok := errors.AsType[*closure.MissingError](err)
	if !ok || missing.Path != lib || missing.ReferredBy != c.find("self") {
		t.Errorf("error is %v", err)
	}
}

// A program of the closure runs, and sees the closure and nothing else.
func TestNixRun(t *testing.T) {
	c := newChroot(t)
	o := c.options()
	o.Known = c.pins()
	paths, err := closure.Compute(t.Context(), c.top, c.hash(c.top), o)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := namespace.New(namespace.Options{Executable: runnertest.First(t)})
	if err != nil {
		t.Fatal(err)
	}
	bb := c.find("bb")
	for _, tt := range []struct {
		name string
		run  closure.Run
		want string
	}{
		{"program of the top path", closure.Run{Program: "/bin/hello", Args: []string{"hello"}, Env: map[string]string{"PATH": bb}}, "hello from " + c.find("self") + "\na library\n"},
		{"only the closure", closure.Run{Program: bb + "/ls", Args: []string{"/", "/nix/store"}}, "/:\ndev\nnix\nproc\n\n/nix/store:\n" + strings.ReplaceAll(strings.Join(names(paths), "\n"), "/nix/store/", "") + "\n"},
		{"read-only", closure.Run{Program: bb + "/sh", Args: []string{"-c", "echo x > " + c.top + "/x || echo x > /x || echo refused"}}, "refused\n"},
		{"writable", closure.Run{Program: bb + "/sh", Args: []string{"-c", "echo x > /tmp/x && " + bb + "/cat /tmp/x"}, Writable: []string{"/tmp"}}, "x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.run.Top = c.top
			spec, err := closure.Spec(paths, tt.run)
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			spec.Stdout, spec.Stderr = &stdout, &stderr
			result, err := driver.Run(t.Context(), spec)
			if s, ok := errors.AsType[*runner.SetupError](err); ok {
				t.Skipf("cannot run here: %v", s)
			}
			if err != nil || !result.OK() || stdout.String() != tt.want {
				t.Errorf("%+v, %v\nstdout %q\nstderr %q", result.Reason, err, stdout.String(), stderr.String())
			}
		})
	}
}

// A copy of the closure that is elsewhere, with no store on the machine, is as good.
func TestNixElsewhere(t *testing.T) {
	c := newChroot(t)
	pins := c.pins()
	o := closure.Options{Dir: "/nonexistent", Known: pins, Locate: func(_ context.Context, path string, want digest.SHA256) (string, error) {
		if pins[path] != want {
			t.Errorf("%s is looked for as %s", path, want)
		}
		if strings.HasSuffix(path, "-note") {
			return "", fs.ErrNotExist
		}
		return c.dir + path, nil
	}}
	_, err := closure.Compute(t.Context(), c.top, pins[c.top], o)
	if missing, ok := errors.AsType[*closure.MissingError](err); !ok || !strings.HasSuffix(missing.Path, "-note") {
		t.Errorf("error is %v", err)
	}
}

// startDaemon starts nix-daemon for the store, and returns its socket, which listens.
func (c *chroot) startDaemon() string {
	t := c.t
	t.Helper()
	if _, err := exec.LookPath("nix-daemon"); err != nil {
		t.Skip("cannot run here: nix-daemon is not installed (package nix-bin)")
	}
	dir, err := os.MkdirTemp("", "arch-nixd-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("nix-daemon", "--store", c.dir, "--option", "build-users-group", "")
	cmd.Env = append(slices.Clone(c.nix.Env), "NIX_DAEMON_SOCKET_PATH="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	openSoon(t, socket).Close()
	return socket
}

// The daemon that listens, and the program, say what nix-store says.
func TestNixDaemon(t *testing.T) {
	c := newChroot(t)
	daemon, err := closure.OpenDaemon(t.Context(), c.startDaemon())
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	for who, d := range map[string]*closure.Daemon{"nix daemon": daemon, "nix database": c.database()} {
		for _, path := range c.query("requisites", c.top) {
			want := closure.Proof{NAR: c.hash(path), References: c.query("references", path), Source: who}
			got, err := d.Verify(t.Context(), path)
			slices.Sort(got.References)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || got.References == nil || diff != "" {
				t.Errorf("%s: %v (-nix-store +ours):\n%s", path, err, diff)
			}
		}
		if _, err := d.Verify(t.Context(), nowhere); !errors.Is(err, closure.ErrUnknown) {
			t.Errorf("%s: error is %v", who, err)
		}
		if _, err := d.Verify(t.Context(), "--help"); err == nil || errors.Is(err, closure.ErrUnknown) {
			t.Errorf("%s: what is no path: error is %v", who, err)
		}
	}
}

// A program that is none of a store says why.
func TestNixProgramFails(t *testing.T) {
	for program, want := range map[string]string{
		"arch-no-such-program": "executable file not found",
		"/bin/false":           "greet the store's daemon: ",
		"/bin/ls":              "unrecognized option '--stdio'",
	} {
		if _, err := (closure.Nix{Program: program}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", program, err, want)
		}
	}
}

const nowhere = "/nix/store/00000000000000000000000000000000-x"

// What the host's store says, whoever can be asked.
func TestNixHost(t *testing.T) {
	c := newChroot(t)
	socket := c.startDaemon()
	for name, tt := range map[string]struct {
		host *closure.Host
		who  string
	}{
		"daemon":  {&closure.Host{NixSocket: socket, NoProgram: true}, "nix daemon"},
		"program": {&closure.Host{NixSocket: "/nonexistent", Nix: c.nix}, "nix database"},
		"nobody":  {&closure.Host{NixSocket: "/nonexistent", NoProgram: true}, ""},
		"missing": {&closure.Host{NixSocket: "/nonexistent", Nix: closure.Nix{Program: "arch-no-such-program"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			defer tt.host.Close()
			o := c.options()
			o.Verify = tt.host.Verify
			paths, err := closure.Compute(t.Context(), c.top, c.hash(c.top), o)
			if tt.who == "" {
				if _, ok := errors.AsType[*closure.UnpinnedError](err); !ok {
					t.Errorf("error is %v", err)
				}
				return
			}
			if diff := cmp.Diff(c.query("requisites", c.top), names(paths)); err != nil || diff != "" {
				t.Fatalf("%v, closure (-nix +ours):\n%s", err, diff)
			}
			for _, p := range paths {
				if want := map[bool]string{true: "pin", false: tt.who}[p.StorePath == c.top]; p.Proof != want {
					t.Errorf("%s: %s vouches", p.StorePath, p.Proof)
				}
			}
			if _, err := tt.host.Verify(t.Context(), nowhere); !errors.Is(err, closure.ErrUnknown) {
				t.Errorf("error is %v", err)
			}
			if _, err := tt.host.Verify(t.Context(), "/gnu"+nowhere[4:]); !errors.Is(err, closure.ErrUnknown) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// openSoon waits for the daemon's socket by asking for it.
func openSoon(t testing.TB, socket string) *closure.Daemon {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		d, err := closure.OpenDaemon(t.Context(), socket)
		if err == nil {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}
