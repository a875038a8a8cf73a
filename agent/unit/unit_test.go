package unit_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent/unit"
)

var full = unit.Settings{Listen: []string{"0.0.0.0:7340", "[::]:7340"}, Read: true, Hosts: []string{"node.example"}, MemoryMax: "512M"}

// TestSystemd has systemd read the units, and say how exposed the services are.
func TestSystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("cannot run here: there is no systemd-analyze: %v", err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"arch-node-agent", "arch-runnerd"} { // verify looks for them
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	full := full
	full.Bin = bin
	full.User = "root" // verify looks for the user, too
	for _, s := range []unit.Settings{{Bin: bin, User: "root"}, full} {
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		units := filepath.Join(t.TempDir(), "units")
		if err := os.Mkdir(units, 0o755); err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", "--man=no", "--recursive-errors=no"}
		for _, u := range unit.Units(s) {
			path := filepath.Join(units, u.Name)
			if err := os.WriteFile(path, []byte(u.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, path)
		}
		cmd := exec.CommandContext(t.Context(), analyze, args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+units+":")
		if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
		}
		s.User = "" // how exposed a service is, systemd says without looking for the user
		for _, u := range []unit.Unit{unit.Agent(s), unit.Broker(s)} {
			name := u.Name
			if err := os.WriteFile(filepath.Join(units, name), []byte(u.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=15", "--no-pager", filepath.Join(units, name))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			t.Logf("%s: %s", name, lastLine(out))
		}
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// TestMission holds what was asked of the agent's unit, by name.
func TestMission(t *testing.T) {
	u := unit.Agent(full)
	for name, want := range map[string][]string{
		"User": {"archagent"}, "MemoryDenyWriteExecute": {"yes"}, "NoNewPrivileges": {"yes"}, "ProtectSystem": {"strict"}, "Type": {"notify"},
		"StateDirectory": {"arch-node-agent"}, "LoadCredential": {"key:/etc/arch/key"}, "CapabilityBoundingSet": {""},
		"ExecStart":        {"/usr/bin/arch-node-agent --policy /etc/arch/policy.yaml --trust /etc/arch/trust.yaml --key credential:key --state /var/lib/arch-node-agent --log-format journal --listen 0.0.0.0:7340 --listen [::]:7340 --host node.example --read"},
		"SystemCallFilter": {"@system-service", "~@privileged @resources"},
	} {
		if diff := cmp.Diff(want, u.Properties("Service", name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestBroker compares what is rendered with the files that lie beside the broker.
func TestBroker(t *testing.T) {
	for _, u := range unit.Units(unit.Settings{}) {
		if !strings.HasPrefix(u.Name, "arch-runnerd.") {
			continue
		}
		file, err := os.ReadFile(filepath.Join("../../cmd/arch-runnerd", u.Name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(meaning(string(file)), meaning(u.String())); diff != "" {
			t.Errorf("%s differs from the file beside the broker (-file +here):\n%s", u.Name, diff)
		}
	}
}

// meaning is a unit without comments and order.
func meaning(text string) []string {
	var lines []string
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = line
		default:
			lines = append(lines, section+line)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestValidate(t *testing.T) {
	for name, s := range map[string]unit.Settings{
		"a space":         {Policy: "/etc/my policy"},
		"a line":          {User: "x\nExecStartPre=/bin/sh"},
		"a specifier":     {Key: "/etc/%h"},
		"a variable":      {Listen: []string{"$HOST:1"}},
		"a flag":          {Hosts: []string{"--read"}},
		"a dot dot":       {TrustRoot: "/etc/../tmp/trust"},
		"a relative one":  {Bin: "bin"},
		"a relative file": {WitnessFor: "others"},
		"nothing":         {Listen: []string{""}},
	} {
		if err := s.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
