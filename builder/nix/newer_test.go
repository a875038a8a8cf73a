package nix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/tests/debroot"
)

// TestNewerNix runs tests of this package where Nix is newer: this very program, in a Debian system of its own.
func TestNewerNix(t *testing.T) {
	if os.Getenv("ARCH_TEST_NEWER_NIX") != "" {
		return // we are there
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	m := debroot.Start(t, debroot.Options{Read: []string{filepath.Dir(self), here}})
	// What is added, fetched, named by its content, listed, evaluated again and rebuilt; other tests are of what does not change with Nix.
	tests := []string{"TestFetched", "TestClaimIsComplete", "TestRebuildRefusesLies", "TestLent"}
	run := "^(" + strings.Join(tests, "|") + ")$/^(honest|a_flake_that_gives_something_else)$"
	out, err := m.Command(t.Context(), "env", "-C", here, "ARCH_TEST_NEWER_NIX=yes", self, "-test.v", "-test.run", run).CombinedOutput()
	for _, name := range tests {
		if err != nil || !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestLent: what the configuration shows to builders is found in every form that Nix has for it.
func TestLent(t *testing.T) {
	w := newWorld(t)
	b, err := Open(t.Context(), w.back.Nix, w.back.At)
	if err != nil || b.Unconfined() != nil {
		t.Errorf("with nothing configured: %v, %v", err, b.Unconfined())
	}
	t.Setenv("NIX_CONFIG", "extra-sandbox-paths = /lent=/etc/hostname")
	if b, err = Open(t.Context(), w.back.Nix, w.back.At); err != nil {
		t.Fatal(err)
	}
	if err := b.Unconfined(); err == nil || !strings.Contains(err.Error(), "/lent") {
		t.Errorf("with sandbox-paths: %v", err)
	}
	if c := b.Confinement(); len(c.Missing) != 1 || !strings.Contains(c.Missing[0], "/lent") {
		t.Errorf("confinement: %+v", c)
	}
}
