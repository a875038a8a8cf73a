package nix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder"
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
	tests := []string{"TestFetched", "TestClaimIsComplete", "TestRebuildRefusesLies", "TestLent", "TestShown", "TestMachineStore"}
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

// TestShown: a shell that Nix shows to builders by itself is in the receipt with the hash that a builder finds, and what cannot be hashed is lent.
func TestShown(t *testing.T) {
	w := newWorld(t)
	var err error
	if w.back, err = Open(t.Context(), w.back.Nix, w.back.At); err != nil || w.back.Unconfined() != nil {
		t.Fatalf("%v, %v", err, w.back.Unconfined())
	}
	w.build.At = w.back
	made, err := w.make(t.Context(), target(t, "shell"), derivation.Request{Attest: true, Again: true})
	if err != nil {
		t.Fatal(err)
	}
	var want []attest.ResourceDescriptor
	if found := made.Record.Outputs[0].File; found != digest.Of([]byte("none\n")) {
		want = append(want, attest.ResourceDescriptor{Name: "/bin/sh", MediaType: attest.MediaFile, Digest: map[string]string{"sha256": found.Hex()}})
	}
	if diff := cmp.Diff(want, made.Record.Dependencies); diff != "" {
		t.Errorf("shown (-by the builder +by the record):\n%s", diff)
	}
	receipt, err := w.judge.Attest(t.Context(), made, w.key, builder.Version{Name: "test", Number: "1"})
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := attest.ParseStatement(receipt.Provenances[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	account, err := stmt.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, account.RunDetails.Builder.BuilderDependencies); diff != "" {
		t.Errorf("builder's dependencies (-want +got):\n%s", diff)
	}
	if strings.Contains(string(receipt.Claims[0].Payload), "/bin/sh\"") {
		t.Error("the claim has what is another one elsewhere")
	}
	if os.Getenv("ARCH_TEST_NEWER_NIX") == "" {
		return // this Nix shows none, and the machine is not ours
	}
	if len(want) != 1 {
		t.Fatal("this Nix shows no shell: what is tested here?")
	}
	paths, err := w.back.Nix.sandboxPaths(t.Context(), w.back.At)
	if err != nil {
		t.Fatal(err)
	}
	_, shell, _ := strings.Cut(paths[0], "=")
	if err := os.Rename(shell, shell+".away"); err != nil {
		t.Fatal(err)
	}
	gone, err := Open(t.Context(), w.back.Nix, w.back.At)
	if err := errors.Join(err, os.Rename(shell+".away", shell)); err != nil {
		t.Fatal(err)
	}
	if lent, ok := errors.AsType[*LentError](gone.Unconfined()); !ok || !strings.Contains(lent.Error(), "/bin/sh") {
		t.Errorf("with a shell that cannot be read: %v", gone.Unconfined())
	}
}

// TestDescribe: what builders may see in each form that Nix has for it.
func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o644), os.Symlink(file, dir+"/link"), os.Mkdir(dir+"/tree", 0o755)); err != nil {
		t.Fatal(err)
	}
	sum := func(media, hex string) attest.ResourceDescriptor {
		return attest.ResourceDescriptor{Name: "/in", MediaType: media, Digest: map[string]string{"sha256": hex}}
	}
	tree, _, err := nar.Hash(t.Context(), dir+"/tree", nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]attest.ResourceDescriptor{
		"/in=" + file:               sum(attest.MediaFile, digest.Of([]byte("x")).Hex()),
		"/in=" + dir + "/link":      sum(attest.MediaFile, digest.Of([]byte("x")).Hex()),
		"/in=" + dir + "/tree?":     sum(attest.MediaNAR, tree.Hex()),
		"/in=/dev/null":             {},
		"/in=" + dir + "/gone":      {},
		"/in=" + dir + "/gone?":     {},
		"/dev/null/no/directory/in": {},
	} {
		got, err := describe(t.Context(), path)
		if want.Name == "" {
			if err == nil || errors.Is(err, errNotShown) != strings.HasSuffix(path, "?") {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", path, err, diff)
		}
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
