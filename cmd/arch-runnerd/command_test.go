package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/manifest"
	"arch.network/runner/broker"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

func TestMain(m *testing.M) {
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := systemd.Main(os.Args, unitInner); handled {
		os.Exit(code)
	}
	if handled, code := wasm.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// goodFiles writes what the program trusts.
func goodFiles(t *testing.T) (trust, policy string) {
	t.Helper()
	dir := t.TempDir()
	trust, policy = filepath.Join(dir, "trust.json"), filepath.Join(dir, "policy.json")
	for name, data := range map[string][]byte{trust: envelope(t, trustRoot(t), "carol"), policy: envelope(t, housePolicy(), "carol")} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return trust, policy
}

func TestCommandLine(t *testing.T) {
	trust, policy := goodFiles(t)
	forged := filepath.Join(t.TempDir(), "forged.json")
	if err := os.WriteFile(forged, envelope(t, housePolicy(), "alice"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open.json")
	if err := os.WriteFile(open, envelope(t, trustRoot(t), "carol"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(t.TempDir(), "runnerd.yaml")
	if err := os.WriteFile(settings, []byte("pool: 4\nuser: [alice, bob]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mistaken := filepath.Join(t.TempDir(), "runnerd.yaml")
	if err := os.WriteFile(mistaken, []byte("pol: 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := []string{"--check-config", "--user", "0", "--trust", trust, "--policy", policy}
	with := func(more ...string) []string { return append(append([]string{}, check...), more...) }
	tests := []struct {
		name   string
		args   []string
		status int
		out    string
		errout string
	}{
		{"help", []string{"--help"}, exitOK, "EXIT STATUS: 0", ""},
		{"a good configuration", check, exitOK, "policy house version 1 is good", ""},
		{"settings with their origins", []string{"--show-config", "--config", settings, "--jobs", "3"}, exitOK, settings + ":1:1", ""},
		{"a list in the file", []string{"--show-config", "--config", settings}, exitOK, "alice bob", ""},
		{"a mistaken setting", with("--config", mistaken), exitUsage, "", "runnerd.yaml:1:1: there is no setting \"pol\"\narch-runnerd: hint: the settings are "},
		{"a configuration that is missing", with("--config", "/none"), exitUsage, "", "/none"},
		{"a policy as configuration", with("--config", policy), exitUsage, "", policy},
		{"a configuration that all may change", with("--config", open), exitUsage, "", "arch-runnerd: hint: chmod go-w"},
		{"its manual page", []string{"--man"}, exitOK, ".TH \"ARCH\\-RUNNERD\" \"8\"", ""},
		{"an unknown flag", []string{"--polizy", "x"}, exitUsage, "", "unknown flag: --polizy"},
		{"an argument", []string{"job.yaml"}, exitUsage, "", `"job.yaml" is no flag`},
		{"an unknown driver", with("--driver", "docker"), exitUsage, "", `"docker" is neither systemd nor namespace`},
		{"no jobs", with("--jobs", "0"), exitUsage, "", "must be above zero"},
		{"a negative time", with("--drain", "-1s"), exitUsage, "", "--drain must not be negative"},
		{"an empty path", with("--state", ""), exitUsage, "", "a path is empty"},
		{"an unknown user", with("--user", "no-such-user"), exitUsage, "", "no-such-user"},
		{"no trust root", with("--trust", "/none"), exitTrust, "", "read trust root"},
		{"a policy as trust root", with("--trust", policy), exitTrust, "", "it is a Policy"},
		{"a policy of a stranger", with("--policy", forged), exitTrust, "", "arch-runnerd: hint: have the members of role policy sign it"},
		{"a trust root that all may change", with("--trust", open), exitTrust, "", "arch-runnerd: hint: chmod go-w"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out, errout bytes.Buffer
			if got := run(t.Context(), test.args, &out, &errout); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			if !strings.Contains(out.String(), test.out) || !strings.Contains(errout.String(), test.errout) {
				t.Errorf("stdout %q, stderr %q", out.String(), errout.String())
			}
		})
	}
}

// TestProgram runs the program without systemd, as a process of its own: it makes its socket, tells that it is ready, runs a job,
// and ends in order.
func TestProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: root is whom the program lets ask")
	}
	trust, policy := goodFiles(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "arch-runnerd")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	socket := filepath.Join(dir, "run", "socket")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var log bytes.Buffer
	c := exec.CommandContext(ctx, binary, "--driver", "namespace", "--socket", socket, "--state", filepath.Join(dir, "state"),
		"--user", "0", "--trust", trust, "--policy", policy)
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=300000")
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	next := func() string {
		buf := make([]byte, 256)
		notify.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := notify.Read(buf)
		if err != nil {
			cancel()
			c.Wait()
			t.Fatalf("no word from the program: %v\n%s", err, log.String())
		}
		return string(buf[:n])
	}
	if got := next(); got != "READY=1" {
		t.Errorf("it said %q first", got)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	var out bytes.Buffer
	j := newJob(hello)
	j.Spec.Outputs = map[string]manifest.Target{"greeting": {Destination: "store"}}
	resp, err := (&broker.Client{Path: socket}).Run(t.Context(), broker.Request{
		Envelope: envelope(t, j, "alice"), Stdout: &out, Content: contentOf(contents),
	})
	if err != nil || !resp.Result.OK() || out.String() != "hello\n" || resp.Result.Confinement.Driver != "namespace" {
		t.Errorf("got %v, %+v, %q", err, resp.Result, out.String())
	}
	for next() != "WATCHDOG=1" {
	}
	c.Process.Signal(syscall.SIGTERM)
	for next() != "STOPPING=1" {
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
}
