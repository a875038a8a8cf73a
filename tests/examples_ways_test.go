package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/builder/store"
	"arch.network/tests/debroot"
)

// testThreeWays has Nix and Guix build the package of this repository, each for a person of its own, beside what our own builder made, and wants
// the three receipts to yield the project's own verification summary: three ways, one digest. They build in a Debian system without a network, with
// a newer Nix than tests/nix has. The machine's cache of Go is lent to them, since compiling everything takes minutes; so their receipts name
// builders that are not confined.
func testThreeWays(t *testing.T, w *world, repository string, native built) {
	nix, guix := w.person(t, "nix"), w.person(t, "guix")
	w.verifier.trust(t, nix, "nix", "nix.example")
	w.verifier.trust(t, guix, "guix", "guix.example")
	d := &debian{w: w, repository: repository, root: goEnv(t, "GOROOT"), modules: goEnv(t, "GOMODCACHE"), cache: goEnv(t, "GOCACHE")}
	d.m = debroot.Start(t, debroot.Options{Read: []string{d.root, d.modules}, Write: []string{w.dir, d.cache}})
	viaNix, viaGuix := d.buildByNix(t, nix), d.buildByGuix(t, guix, native)
	for _, program := range programs {
		artifact := native.path(t, program)
		three := []string{"--allow-degraded", "--name", program, "--receipts", native.Receipt, "--receipts", viaNix, "--receipts", viaGuix}
		wantReproduced(t, w.agreeing(t, 3, artifact, three...))
		// Two receipts are not three, also if one is there twice.
		got := w.verifier.try(t, append([]string{"verify", "-k", "3", "--operators", "3", artifact}, append(three[:len(three)-1], viaNix)...)...)
		if got.status != 3 || !strings.Contains(got.stdout, "made by 2 principals by 2 operators") {
			t.Errorf("verify -k 3 of two receipts: exit status %d, want 3 (denied)\n%s", got.status, got.stdout)
		}
	}
}

// debian is a Debian system in which Nix and Guix build a repository.
type debian struct {
	m          *debroot.Machine
	w          *world
	repository string

	root, modules, cache string // Go's
}

// run runs a command in the repository as a person, and returns what it prints.
func (d *debian) run(t *testing.T, p *person, env []string, args ...string) string {
	t.Helper()
	line := append([]string{"env", "-C", d.repository, "HOME=" + p.home}, env...)
	cmd := d.m.Command(t.Context(), append(line, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// attest builds a derivation and returns the receipt.
func (d *debian) attest(t *testing.T, p *person, env []string, drv string, flags ...string) string {
	t.Helper()
	out := filepath.Join(p.home, "result")
	args := []string{d.w.arch, "--json", "build", "--attest", "--once", "--degraded", "--offline", "--out", out}
	var b built
	decode(t, d.run(t, p, env, append(append(args, flags...), drv)...), &b)
	return b.Receipt
}

// buildByNix instantiates the flake with the stand-in for nixpkgs and what it would fetch, and builds what came out.
func (d *debian) buildByNix(t *testing.T, p *person) string {
	t.Helper()
	nixpkgs, at := filepath.Join(p.home, "nixpkgs"), filepath.Join(p.home, "store")
	copyTree(t, filepath.Join(d.repository, "nix/offline"), nixpkgs)
	env := []string{"NIX_CONFIG=experimental-features = nix-command flakes\nsubstituters =\nbuild-users-group =\nflake-registry =\nextra-sandbox-paths = /build-cache/go-build=" + d.cache}
	d.run(t, p, nil, "install", "-D", "-m", "755", "/bin/busybox", nixpkgs+"/bin/busybox")
	pins := readPins(t, d.repository)
	for name, sri := range map[string]string{"go-" + pins.Toolchain.Version: pins.Toolchain.Hashes["linux-amd64"], "arch-modules": pins.Modules} {
		d.run(t, p, env, "nix", "store", "add-path", "--store", at, "--name", name, d.w.tree(t, sri))
	}
	drv := d.run(t, p, env, "nix", "eval", "--raw", "--store", at, "--no-write-lock-file", "--override-input", "nixpkgs", "path:"+nixpkgs, "path:"+d.repository+"#arch.drvPath")
	return d.attest(t, p, env, drv, "--nix-store", at)
}

// buildByGuix has the package's builder run, with Debian's Guile.
func (d *debian) buildByGuix(t *testing.T, p *person, native built) string {
	t.Helper()
	d.m.StartGuix(t, "--disable-chroot", "--build-users-group=")
	tool := filepath.Join(p.home, "go")
	if err := os.MkdirAll(filepath.Join(tool, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/bash-static\nexport GOCACHE=%s\nexec %s/bin/go \"$@\"\n", d.cache, d.root)
	if err := os.WriteFile(filepath.Join(tool, "bin/go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	drv := d.run(t, p, nil, "guix", "repl", "-L", "guix", "--", "tests/guix/testdata/build.scm", tool, d.modules)
	receipt := d.attest(t, p, nil, drv)
	d.checkShare(t, p, d.run(t, p, nil, "guix", "build", drv), native)
	return receipt
}

// checkShare wants the manual pages and completions of a package, as the programs print them.
func (d *debian) checkShare(t *testing.T, p *person, pkg string, native built) {
	t.Helper()
	files := strings.Fields(d.run(t, p, nil, "find", pkg+"/share", "-type", "f", "-size", "+0"))
	for _, name := range []string{
		"man/man1/arch.1", "man/man1/arch-ledger-prove.1", "man/man8/arch-node-agent.8", "man/man8/arch-runnerd.8", "bash-completion/completions/arch", "zsh/site-functions/_arch",
		"fish/vendor_completions.d/arch.fish",
	} {
		if !slices.Contains(files, pkg+"/share/"+name) {
			t.Errorf("the package has no share/%s", name)
		}
	}
	for _, tt := range []struct{ file, program, args string }{
		{"man/man1/arch.1", "arch", "man"}, {"man/man8/arch-node-agent.8", "arch-node-agent", "--man"}, {"bash-completion/completions/arch", "arch", "completion bash"},
	} {
		want := command(t, ".", nil, append([]string{native.path(t, tt.program)}, strings.Fields(tt.args)...)...)
		if diff := cmp.Diff(strings.TrimSpace(want), d.run(t, p, nil, "cat", pkg+"/share/"+tt.file)); diff != "" {
			t.Errorf("share/%s (-printed here +Guix):\n%s", tt.file, diff)
		}
	}
}

// pins is what nix/pins.json has.
type pins struct {
	Toolchain struct {
		Version string
		Hashes  map[string]string
	}
	Modules string
}

func readPins(t *testing.T, repository string) (p pins) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, "nix/pins.json"))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tree returns a tree that the builder took in, by its hash.
func (w *world) tree(t *testing.T, sri string) string {
	t.Helper()
	sum, err := digest.ParseSRI(sri)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(w.builder.home, ".local/share/arch/store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path, ok := s.TreePath(sum)
	if !ok {
		t.Fatalf("the builder has no tree %s", sri)
	}
	return path
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
