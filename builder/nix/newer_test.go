package nix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/builder/derivation"
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
	tests := []string{"TestFetched", "TestClaimIsComplete", "TestRebuildRefusesLies", "TestLent", "TestMachineStore"}
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

// TestMachineStore builds in the machine's own store ("auto"), of which only a Debian system of our own may be the one. It makes the claim that
// a store of its own makes, and another builder.
func TestMachineStore(t *testing.T) {
	if os.Getenv("ARCH_TEST_NEWER_NIX") == "" {
		return // TestNewerNix runs it there
	}
	t.Setenv("NIX_CONFIG", "build-users-group =")
	w := newWorld(t)
	own, err := w.make(t.Context(), target(t, "multi"), derivation.Request{Attest: true})
	if err != nil {
		t.Fatal(err)
	}
	w.back.At, err = OpenStore(Machine)
	if err != nil {
		t.Fatal(err)
	}
	if w.back, err = Open(t.Context(), w.back.Nix, w.back.At); err != nil {
		t.Fatal(err)
	}
	if _, ok := errors.AsType[*DaemonError](w.back.Unconfined()); !ok {
		t.Errorf("unconfined: %v", w.back.Unconfined())
	}
	w.build.At = w.back
	made, err := w.make(t.Context(), target(t, "multi"), derivation.Request{Attest: true, Again: true})
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != own.ID || made.Record.Variation == nil {
		t.Errorf("build %s, varied %v; in a store of its own %s", made.ID, made.Record.Variation, own.ID)
	}
	if c := made.Record.Confinement; len(c.Enforced) != 0 || len(c.Missing) != 1 {
		t.Errorf("confinement: %+v", c)
	}
}
