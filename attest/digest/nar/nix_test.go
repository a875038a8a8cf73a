package nar_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"

	"github.com/google/go-cmp/cmp"
)

// nix runs one of Nix's commands with input, away from any store of this machine, and returns what it printed.
func nix(t *testing.T, input []byte, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("cannot run here: %s of Nix is not installed", name)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "NIX_STORE_DIR="+home+"/store", "NIX_STATE_DIR="+home+"/state",
		"NIX_LOG_DIR="+home+"/log", "NIX_CONF_DIR="+home+"/conf", "NIX_REMOTE=")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes()
}

func TestDumpEqualsNix(t *testing.T) {
	base := t.TempDir()
	plant(t, base, []node{program("program", "#!/bin/sh"), link("link", "nowhere")})
	plant(t, base+"/tree", sample())
	// Executable for others but not for the owner is not executable.
	plant(t, base, []node{file("group", "x")})
	if err := os.Chmod(base+"/group", 0o677); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree", "program", "link", "group"} {
		want := nix(t, nil, "nix-store", "--dump", base+"/"+name)
		if diff := cmp.Diff(string(want), string(dump(t, base+"/"+name))); diff != "" {
			t.Errorf("%s (-nix-store --dump +Dump):\n%s", name, diff)
		}
		hash := strings.TrimSpace(string(nix(t, nil, "nix-hash", "--type", "sha256", base+"/"+name)))
		if got, _, err := nar.Hash(t.Context(), base+"/"+name, nar.Options{}); err != nil || got.Hex() != hash {
			t.Errorf("%s: Hash = %s, %v, nix-hash says %s", name, got.Hex(), err, hash)
		}
	}
}

func TestNixRestoresOurs(t *testing.T) {
	base := scratch(t)
	archive := encode(t, sample())
	nix(t, archive, "nix-store", "--restore", base+"/nix")
	if diff := cmp.Diff(sample(), harvest(t, base+"/nix")); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if err := nar.Restore(t.Context(), bytes.NewReader(archive), filepath.Join(base, "ours"), nar.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(archive), string(nix(t, nil, "nix-store", "--dump", base+"/ours"))); diff != "" {
		t.Errorf("nix-store --dump of a restored tree (-want +got):\n%s", diff)
	}
}
