package nix

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLock holds the lock to the pin that was chosen. Several public flakes have the same one, made by Nix from what GitHub
// serves: nixos-anywhere, srvos and attic.
func TestLock(t *testing.T) {
	type node struct {
		Inputs   map[string]string `json:"inputs,omitempty"`
		Locked   map[string]any    `json:"locked,omitempty"`
		Original map[string]any    `json:"original,omitempty"`
	}
	type lock struct {
		Nodes   map[string]node `json:"nodes"`
		Root    string          `json:"root"`
		Version int             `json:"version"`
	}
	data, err := os.ReadFile(filepath.Join(root, "flake.lock"))
	if err != nil {
		t.Fatal(err)
	}
	var got lock
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := lock{Version: 7, Root: "root", Nodes: map[string]node{
		"root": {Inputs: map[string]string{"nixpkgs": "nixpkgs"}},
		"nixpkgs": {
			Original: map[string]any{"type": "github", "owner": "NixOS", "repo": "nixpkgs", "ref": "nixos-26.05"},
			Locked: map[string]any{
				"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "34268251cf5547d39063f2c5ea9a196246f7f3a6",
				"lastModified": 1782116945., "narHash": "sha256-G3tw/IXmaH6IQ2upZvhuN9sG8CkuX+BLuJDpE8hz0Ds=", // 2026-06-22
			},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flake.lock (-want +got):\n%s", diff)
	}
}

// TestLockMatches has Nix say that flake.nix needs nothing that the lock does not have: it need not fetch anything to know.
func TestLockMatches(t *testing.T) {
	needNix(t)
	dir := t.TempDir()
	m := &machine{dir: dir, flake: filepath.Join(dir, "repository")}
	for _, name := range []string{"flake.nix", "flake.lock"} {
		copyFile(t, filepath.Join(root, name), filepath.Join(m.flake, name))
	}
	line := []string{"nix", "flake", "metadata", "--store", m.store(), "--no-update-lock-file", "--offline", "--json", "."}
	m.run(t, line...)

	flake := filepath.Join(m.flake, "flake.nix")
	data, err := os.ReadFile(flake)
	if err != nil {
		t.Fatal(err)
	}
	write(t, flake, []byte(strings.Replace(string(data), "nixos-26.05", "nixos-25.11", 1)), 0o644)
	if got := m.try(t, line...); got.err == nil {
		t.Errorf("a lock of another branch is accepted:\n%s", got.stdout)
	}
}
