package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent/control/client"
)

func TestDefaultPlaces(t *testing.T) {
	system := places{"/run/arch-node-agent/socket", "/var/lib/arch-node-agent", "/etc/arch/policy.yaml", "/etc/arch/trust.yaml", "/etc/arch/agent.yaml"}
	for _, tt := range []struct {
		name string
		uid  int
		env  map[string]string
		want places
	}{
		{"root", 0, map[string]string{"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, system},
		{"a service", 990, nil, system},
		{"a service of systemd, which has a home", 990, map[string]string{"HOME": "/home/990", "STATE_DIRECTORY": "/var/lib/arch-node-agent"}, system},
		{"a relative home", 1000, map[string]string{"HOME": "home"}, system},
		{"somebody", 1000, map[string]string{"HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/1000"}, places{
			"/run/user/1000/arch-node-agent/socket", "/home/a/.local/state/arch-node-agent", "/home/a/.config/arch/policy.yaml", "/home/a/.config/arch/trust.yaml", "/home/a/.config/arch/agent.yaml",
		}},
		{"no session", 1000, map[string]string{"HOME": "/home/a"}, places{
			"/home/a/.local/state/arch-node-agent/socket", "/home/a/.local/state/arch-node-agent", "/home/a/.config/arch/policy.yaml", "/home/a/.config/arch/trust.yaml", "/home/a/.config/arch/agent.yaml",
		}},
		{"moved directories", 1000, map[string]string{"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "r"}, places{
			"/s/arch-node-agent/socket", "/s/arch-node-agent", "/c/arch/policy.yaml", "/c/arch/trust.yaml", "/c/arch/agent.yaml",
		}},
	} {
		got := defaultPlaces(tt.uid, func(name string) string { return tt.env[name] })
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(places{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestNothingSetUp starts the program as anybody, with no flag and no file: it runs, and says what to do next.
func TestNothingSetUp(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "arch-node-agent") // where others may read it
	if err := os.WriteFile(program, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program)
	c.Env = []string{asAgent + "=real", "HOME=" + dir, "GORACE=atexit_sleep_ms=0"}
	if os.Geteuid() == 0 {
		const nobody = 65534
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	lines := bufio.NewReader(stderr)
	for !strings.Contains(log.String(), "to talk to this node") {
		line, err := lines.ReadString('\n')
		log.WriteString(line)
		if err != nil {
			t.Fatalf("it ended before it listened: %v, %v\n%s", err, c.Wait(), log.String())
		}
	}
	socket := filepath.Join(dir, ".local/state/arch-node-agent/socket")
	if node, err := client.New(socket); err != nil {
		t.Error(err)
	} else if status, err := node.Status(t.Context()); err != nil || status.Policy.Refused == "" {
		t.Errorf("got %+v, %v", status, err)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(&log, lines); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	for _, want := range []string{
		`msg="to talk to this node" command="export ARCH_AGENT=` + socket + `; arch node status"`,
		`msg="no jobs are taken before there are a trust root and a policy" trust=` + dir + `/.config/arch/trust.yaml policy=` + dir + `/.config/arch/policy.yaml hint="arch trust --help and arch policy --help say how they are made"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
}
