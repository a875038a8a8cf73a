package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/nix/drv"
	"arch.network/runner/closure/daemon"
	"arch.network/tests/debroot"

	"github.com/google/go-cmp/cmp"
)

// TestNix runs the suite against the Nix of this machine.
func TestNix(t *testing.T) {
	for _, program := range []string{"nix-daemon", "/bin/bash-static"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin, bash-static)", program)
		}
	}
	t.Parallel()
	home := "HOME=" + t.TempDir()
	testDaemon(t, startNix(t, func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), home)
		return cmd
	}), daemon.Nix)
}

// TestDebian runs the suite against the Guix and the newer Nix of a newer Debian.
func TestDebian(t *testing.T) {
	if _, err := exec.LookPath("/bin/bash-static"); err != nil {
		t.Skip("cannot run here: bash-static is not installed")
	}
	t.Parallel()
	dir := scratch(t)
	m := debroot.Start(t, debroot.Options{Write: []string{dir}})
	t.Run("Guix", func(t *testing.T) {
		t.Parallel()
		socket := filepath.Join(dir, "guix")
		m.StartGuix(t, "--listen="+socket, "--listen="+daemon.GuixSocket)
		testDaemon(t, socket, daemon.Guix)
	})
	t.Run("Nix", func(t *testing.T) {
		t.Parallel()
		command := func(name string, args ...string) *exec.Cmd {
			return m.Command(context.Background(), append([]string{name}, args...)...)
		}
		testDaemon(t, startNix(t, command), daemon.Nix)
	})
}

// scratch returns a directory with a name that is short enough for sockets, and is removed whatever a store leaves there.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "arch-daemon-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nar.RemoveAll(dir) })
	return dir
}

// startNix starts nix-daemon for a store of its own, and returns its socket. It is handed the socket as by systemd: nobody has to wait.
func startNix(t *testing.T, command func(string, ...string) *exec.Cmd) string {
	t.Helper()
	dir := scratch(t)
	socket := filepath.Join(dir, "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const script = `LISTEN_FDS=1 LISTEN_PID=$$ exec nix-daemon --store "$0" --option build-users-group "" --option substituters "" --option sandbox true \
		--option sandbox-fallback false --option experimental-features "nix-command ca-derivations"`
	cmd := command("/bin/sh", "-c", script, filepath.Join(dir, "store"))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("nix-daemon: %s", text)
		}
	})
	return socket
}

func testDaemon(t *testing.T, socket string, kind daemon.Kind) {
	s := &suite{t: t, socket: socket, kind: kind}
	s.c = s.dial()
	protocol, release := s.c.Version()
	t.Logf("%s: protocol %s, version %q", s.c.Kind(), protocol, release)
	if s.c.Kind() != kind {
		t.Fatalf("it is a daemon of %s", s.c.Kind())
	}
	s.addBash()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"source", (*suite).testSource},
		{"text", (*suite).testText},
		{"missing", (*suite).testMissing},
		{"build", (*suite).testBuild},
		{"failure", (*suite).testFailure},
		{"check", (*suite).testCheck},
		{"import", (*suite).testImport},
		{"cancel", (*suite).testCancel},
	} {
		t.Run(test.name, func(t *testing.T) {
			sub := *s
			sub.t = t
			test.run(&sub)
		})
	}
}

// suite is what a daemon must do, whosever it is.
type suite struct {
	t      *testing.T
	socket string
	kind   daemon.Kind
	c      *daemon.Client
	bash   string
	log    *strings.Builder
}

func (s *suite) dial() *daemon.Client {
	s.t.Helper()
	c, err := daemon.Dial(s.t.Context(), s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	s.log = &strings.Builder{}
	c.Log = func(text string) { s.log.WriteString(text) }
	if err := c.SetOptions(s.t.Context(), daemon.Options{Cores: 1}); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// addBash adds the program that builds, of more than a megabyte.
func (s *suite) addBash() {
	s.t.Helper()
	var err error
	if s.bash, err = s.c.AddSource(s.t.Context(), "bash", bytes.NewReader(narOf(s.t, "/bin/bash-static")), nar.Limits{}); err != nil {
		s.t.Fatal(err)
	}
}

func narOf(t *testing.T, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Dump(t.Context(), &b, path, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// system is what derivations call this machine.
var system = map[string]string{"amd64": "x86_64-linux", "arm64": "aarch64-linux"}[runtime.GOARCH]

// recipe is a derivation that a script of bash builds, with the outputs out and doc.
func (s *suite) recipe(name, script string) (path string, outputs map[string]string) {
	s.t.Helper()
	d := drv.Derivation{
		Outputs: []drv.Output{{Name: "doc"}, {Name: "out"}}, Sources: []string{s.bash}, System: system, Builder: s.bash, Args: []string{"-c", script},
		Env: []drv.Var{{Name: "doc"}, {Name: "name", Value: name}, {Name: "out"}},
	}
	modulo := digest.Of(d.Encode())
	outputs = map[string]string{}
	for i, o := range d.Outputs {
		at, err := storepath.Output(s.c.Dir(), name, o.Name, modulo)
		if err != nil {
			s.t.Fatal(err)
		}
		d.Outputs[i].Path, outputs[o.Name] = at.String(), at.String()
	}
	d.Env[0].Value, d.Env[2].Value = outputs["doc"], outputs["out"]
	path, err := s.c.AddText(s.t.Context(), name+".drv", d.Encode(), d.References())
	if err != nil {
		s.t.Fatal(err)
	}
	return path, outputs
}

func (s *suite) testSource() {
	t, ctx := s.t, s.t.Context()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sub/file": "some text\n", "large": strings.Repeat("0123456789abcde\n", 20_000), "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := narOf(t, dir)
	path, err := s.c.AddSource(ctx, "tree", bytes.NewReader(tree), nar.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := s.c.IsValid(ctx, path); err != nil || !valid {
		t.Errorf("%s is valid: %t, %v", path, valid, err)
	}
	var got bytes.Buffer
	info, err := s.c.NAR(ctx, path, &got, nar.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), tree) {
		t.Error("it is not what was added")
	}
	want := daemon.PathInfo{Path: path, NAR: digest.Of(tree), Size: int64(len(tree))}
	if s.kind == daemon.Nix {
		want.CA = "fixed:r:" + want.NAR.Nix32()
	}
	if info.Registered == 0 {
		t.Error("nobody knows since when it is there")
	}
	info.Registered = 0
	if diff := cmp.Diff(want, info); diff != "" {
		t.Errorf("what is said of it (-want +got):\n%s", diff)
	}
	at, err := storepath.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.c.PathFromHashPart(ctx, at.Hash); err != nil || found != path {
		t.Errorf("%s is the hash of %q, %v", at.Hash, found, err)
	}

	// What is no NAR, or goes on, does not get there, and the connection is of no use any more.
	for name, bad := range map[string][]byte{"cut": tree[:len(tree)-8], "long": append(slices.Clip(tree), 0), "none": []byte("nothing of that kind")} {
		c := s.dial()
		if path, err := c.AddSource(ctx, name, bytes.NewReader(bad), nar.Limits{}); err == nil {
			t.Errorf("%s was added as %s", name, path)
		} else if _, again := c.IsValid(ctx, path); again == nil {
			t.Errorf("after %v the connection goes on", err)
		}
	}
	c := s.dial()
	if _, err := c.NAR(ctx, path, &got, nar.Limits{Size: 1000}); err == nil {
		t.Error("an object larger than the limit was read")
	}
}

func (s *suite) testText() {
	t, ctx := s.t, s.t.Context()
	path, err := s.c.AddText(ctx, "note", []byte("see "+s.bash), []string{s.bash})
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.c.PathInfo(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{s.bash}, info.References); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{".hidden": "", "a/b": "", "": ""} {
		if _, err := s.c.AddText(ctx, name, []byte(text), nil); err == nil {
			t.Errorf("%q was added", name)
		}
	}
}

func (s *suite) testMissing() {
	t, ctx := s.t, s.t.Context()
	missing := s.c.Dir() + "/00000000000000000000000000000000-x"
	if valid, err := s.c.IsValid(ctx, missing); err != nil || valid {
		t.Errorf("what is not there is valid: %t, %v", valid, err)
	}
	if path, err := s.c.PathFromHashPart(ctx, strings.Repeat("0", 32)); err != nil || path != "" {
		t.Errorf("what is not there is at %q, %v", path, err)
	}
	_, err := s.c.PathInfo(ctx, missing)
	if e, ok := errors.AsType[*daemon.NotFoundError](err); !ok || e.Path != missing {
		t.Errorf("what is not there: %v", err)
	}
	if _, err = s.c.NAR(ctx, missing, &bytes.Buffer{}, nar.Limits{}); err == nil {
		t.Error("what is not there was read")
	}
	if err = s.c.Build(ctx, []string{missing + ".drv"}, daemon.Normal); err == nil {
		t.Error("what is not there was built")
	} else if _, ok := errors.AsType[*daemon.Error](err); !ok {
		t.Errorf("what is not there is built: %v", err)
	}
	for _, path := range []string{"", "/etc/passwd", missing + "/file", "/nix/store", "/other/store/00000000000000000000000000000000-x"} {
		if _, err := s.c.IsValid(ctx, path); err == nil {
			t.Errorf("asked for %q", path)
		}
	}
}

func (s *suite) testBuild() {
	t, ctx := s.t, s.t.Context()
	s.c = s.dial()
	recipe, outputs := s.recipe("demo", `echo one line; echo another >&2; echo "$out" > $doc; echo made > $out`)
	got, err := s.c.Outputs(ctx, recipe)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(outputs, got); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	if err := s.c.Build(ctx, []string{recipe}, daemon.Normal); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one line\n", "another\n"} {
		if !strings.Contains(s.log.String(), line) {
			t.Errorf("the log is %q, without %q", s.log, line)
		}
	}
	var content bytes.Buffer
	info, err := s.c.NAR(ctx, outputs["doc"], &content, nar.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Deriver != recipe || !slices.Equal(info.References, []string{outputs["out"]}) || info.Ultimate != (s.kind == daemon.Nix) {
		t.Errorf("what was built is %+v", info)
	}
	if !bytes.Contains(content.Bytes(), []byte(outputs["out"])) {
		t.Errorf("what was built is %q", content.Bytes())
	}
	if err := s.c.Build(ctx, []string{recipe}, daemon.Check); err != nil {
		t.Errorf("built again: %v", err)
	}
}

func (s *suite) testFailure() {
	t := s.t
	recipe, _ := s.recipe("fails", `echo it broke >&2; exit 3`)
	err := s.c.Build(t.Context(), []string{recipe}, daemon.Normal)
	e, ok := errors.AsType[*daemon.Error](err)
	if !ok || !strings.Contains(e.Message, "fails.drv") {
		t.Fatalf("what fails was built: %v", err)
	}
	t.Log(err)
	if strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("%q is not a line of text", err)
	}
	if _, err := s.c.IsValid(t.Context(), recipe); err != nil {
		t.Errorf("after the daemon's word: %v", err)
	}
}

func (s *suite) testCheck() {
	t := s.t
	recipe, _ := s.recipe("noise", `echo $RANDOM$RANDOM$RANDOM > $out; echo > $doc`)
	if err := s.c.Build(t.Context(), []string{recipe}, daemon.Normal); err != nil {
		t.Fatal(err)
	}
	err := s.c.Build(t.Context(), []string{recipe}, daemon.Check)
	if e, ok := errors.AsType[*daemon.Error](err); !ok || !strings.Contains(e.Message, "deterministic") {
		t.Errorf("what differs is %v", err)
	}
}

func (s *suite) testImport() {
	t, ctx := s.t, s.t.Context()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("built elsewhere\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := narOf(t, file)
	info := daemon.PathInfo{
		Path: s.c.Dir() + "/11111111111111111111111111111111-elsewhere", NAR: digest.Of(data), Size: int64(len(data)), References: []string{s.bash},
	}
	if s.kind == daemon.Guix {
		err := s.c.Import(ctx, info, bytes.NewReader(data), daemon.ImportOptions{})
		if _, ok := errors.AsType[*daemon.UnsupportedError](err); !ok {
			t.Errorf("import: %v", err)
		}
		return
	}
	err := s.c.Import(ctx, info, bytes.NewReader(data), daemon.ImportOptions{})
	e, ok := errors.AsType[*daemon.Error](err)
	if !ok || e.Hint() == "" {
		t.Errorf("what nobody signed: %v", err)
	}
	bad := bytes.Replace(data, []byte("built"), []byte("bui1t"), 1)
	c := s.dial()
	err = c.Import(ctx, info, bytes.NewReader(bad), daemon.ImportOptions{Unsigned: true})
	if _, ok := errors.AsType[*daemon.ChangedError](err); !ok {
		t.Errorf("what was changed: %v", err)
	}
	if valid, err := s.c.IsValid(ctx, info.Path); err != nil || valid {
		t.Errorf("what was refused is valid: %t, %v", valid, err)
	}
	if err := s.c.Import(ctx, info, bytes.NewReader(data), daemon.ImportOptions{Unsigned: true}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := s.c.NAR(ctx, info.Path, &got, nar.Limits{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("what was imported is %q, %v", got.Bytes(), err)
	}
}

// testCancel cancels a build that does not end by itself.
func (s *suite) testCancel() {
	t := s.t
	c := s.dial()
	recipe, _ := s.recipe("endless", `echo began; while :; do read -t 1000 < /dev/zero; done`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := errors.New("enough")
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c.Log = func(text string) {
		if strings.Contains(text, "began") {
			end(stop)
		}
	}
	if err := c.Build(ctx, []string{recipe}, daemon.Normal); !errors.Is(err, stop) {
		t.Errorf("a cancelled build: %v", err)
	}
	if _, err := c.IsValid(t.Context(), recipe); !errors.Is(err, stop) {
		t.Errorf("after it: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
