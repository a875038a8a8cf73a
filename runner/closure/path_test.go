package closure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// The names are what Nix 2.8 gave these contents: `nix-store --add`, `nix-store --add-fixed sha256`, and builtins.toFile without
// and with a reference.
func TestSelfCertified(t *testing.T) {
	const (
		added   = "/nix/store/xp0dpr9yz5h0fk5c5lpj7zzqjbdh3w8c-f"
		fixed   = "/nix/store/1p9q0bz6f22dyxh4lw8xs08p4201vyq4-f"
		toFile  = "/nix/store/12wigjpizrn8axaqxj288q1b751qmwya-a"
		withRef = "/nix/store/m5gl096fdzlmvp69v4iqgikbjnsz9ai9-b"
	)
	for _, tt := range []struct {
		name, path, content string
		refs                []string
		executable          bool
		want                bool
	}{
		{"added", added, "hello\n", nil, false, true},
		{"fixed output", fixed, "hello\n", nil, false, true},
		{"text", toFile, "x", nil, false, true},
		{"text with a reference", withRef, "see " + toFile, []string{toFile}, false, true},
		{"reference left out", withRef, "see " + toFile, nil, false, false},
		{"another reference", withRef, "see " + toFile, []string{added}, false, false},
		{"reference to itself", added, "hello\n", []string{added}, false, false},
		{"another content", added, "hullo\n", nil, false, false},
		{"executable", added, "hello\n", nil, true, false},
		{"another name", added + "2", "hello\n", nil, false, false},
		{"another store", "/gnu" + strings.TrimPrefix(added, "/nix"), "hello\n", nil, false, false},
		{"no store path", "/etc/passwd", "hello\n", nil, false, false},
	} {
		file := filepath.Join(t.TempDir(), "x")
		perm := os.FileMode(0o644)
		if tt.executable {
			perm = 0o755
		}
		if err := os.WriteFile(file, []byte(tt.content), perm); err != nil {
			t.Fatal(err)
		}
		sum, _, err := nar.Hash(t.Context(), file, nar.Options{})
		if err != nil {
			t.Fatal(err)
		}
		flat, err := flatHash(file)
		if err != nil || flat.IsZero() != tt.executable || !tt.executable && flat != digest.Of([]byte(tt.content)) {
			t.Fatal(flat, err)
		}
		if got := selfCertified(tt.path, sum, flat, tt.refs); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
