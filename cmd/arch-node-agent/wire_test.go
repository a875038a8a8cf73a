package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/agent"
	"arch.network/agent/control/client"
)

// TestWire runs the program with its real parts: it has a ledger and keys of its own, says that it has no policy, and takes no jobs.
func TestWire(t *testing.T) {
	dir := t.TempDir()
	socket, state := filepath.Join(dir, "run", "socket"), filepath.Join(dir, "state")
	command := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), os.Args[0], append(args,
			"--state", state, "--trust", filepath.Join(dir, "trust"), "--policy", filepath.Join(dir, "policy"), "--driver", "namespace")...)
		c.Env = append(os.Environ(), asAgent+"=real")
		return c
	}
	var log bytes.Buffer
	c := command("--socket", socket)
	c.Stderr = &log
	ready := readiness(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	ready()
	node, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	status, err := node.Status(t.Context())
	if err != nil || !strings.HasPrefix(status.Node, "did:key:") || status.Policy.Refused == "" || status.Ledger.Origin == "" {
		t.Errorf("got %+v, %v", status, err)
	}
	if err := node.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, By: "uid:0", Reason: "a test"}); err != nil {
		t.Errorf("drain: %v", err)
	}
	if status, err := node.Status(t.Context()); err != nil || !status.Draining || status.Ledger.Size == 0 {
		t.Errorf("got %+v, %v", status, err)
	}
	for _, second := range []*exec.Cmd{command("--socket", socket), command("--socket", filepath.Join(dir, "other"))} {
		if out, err := second.CombinedOutput(); err == nil {
			t.Errorf("a second agent started beside the first:\n%s", out)
		}
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
	for _, file := range []string{"node.key", "ledger.key"} {
		if info, err := os.Stat(filepath.Join(state, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

// readiness has the program tell when it is ready, as systemd has it (sd_notify(3)); what it returns waits for that.
func readiness(t *testing.T, c *exec.Cmd) func() {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	notes, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notes.Close() })
	c.Env = append(c.Env, "NOTIFY_SOCKET="+address.Name)
	return func() {
		p := &process{notes: notes, stderr: os.Stderr}
		p.hears(t, "READY=1")
	}
}
