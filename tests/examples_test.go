package tests

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
)

// TestExamples builds every example with the compiled program, as its README says; hello is built by TestReadme.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("cannot run here: the examples take minutes, and -short was given")
	}
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *world)
	}{ // the longest first: they run side by side
		{"arch-itself", testArchItself},
		{"go-toolchain", testGoToolchain},
		{"age", testAge},
		{"gofumpt", testGofumpt},
		{"c", testC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, w)
		})
	}
}

// TestExamplesListed wants each example in the README, with a comment that says what it shows.
func TestExamplesListed(t *testing.T) {
	readme, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob("examples/*/build.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("%d examples: %v", len(manifests), err)
	}
	for _, path := range manifests {
		name := filepath.Base(filepath.Dir(path))
		if !bytes.Contains(readme, []byte("| `"+name+"` |")) {
			t.Errorf("example %s is not in the README of the examples", name)
		}
		if src, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(src, []byte("# ")) {
			t.Errorf("%s does not begin with a comment that says what it shows: %v", path, err)
		}
	}
}

func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildOnce builds an example, checks what came of it, and returns the artifact of a name.
func buildOnce(t *testing.T, w *world, name string) string {
	t.Helper()
	needModules(t)
	made := w.builder.build(t, example(t, name), "--once")
	artifact := made.path(t, name)
	w.verifier.run(t, "verify", artifact, "--receipts", made.Receipt)
	return artifact
}

func wantReproduced(t *testing.T, levels []string) {
	t.Helper()
	if !slices.Contains(levels, attest.LevelReproduced) {
		t.Errorf("the summary claims %q, not %s", levels, attest.LevelReproduced)
	}
}

// testAge encrypts with the program that was built, and decrypts with age's library.
func testAge(t *testing.T, w *world) {
	program := buildOnce(t, w, "age")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("the same bits"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(strings.NewReader(command(t, ".", nil, program, "-r", id.Recipient().String(), plain)), id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "the same bits" {
		t.Errorf("decrypted %q, %v", got, err)
	}
}

// testGofumpt formats with the program that was built.
func testGofumpt(t *testing.T, w *world) {
	program := buildOnce(t, w, "gofumpt")
	file := filepath.Join(t.TempDir(), "ugly.go")
	if err := os.WriteFile(file, []byte("package  ugly\n\nfunc f() {\n\n\tvar x   = 1\n\t_ = x\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "package ugly\n\nfunc f() {\n\tx := 1\n\t_ = x\n}\n"
	if diff := cmp.Diff(want, command(t, ".", nil, program, file)); diff != "" {
		t.Errorf("formatted (-want +got):\n%s", diff)
	}
}

// testGoToolchain compares with the programs of the very tree that was the build's input.
func testGoToolchain(t *testing.T, w *world) {
	needModules(t)
	made := w.builder.build(t, example(t, "go-toolchain"), "--once")
	trees, err := filepath.Glob(filepath.Join(w.builder.home, ".local/share/arch/store/trees/*/tree/pkg/tool/linux_amd64"))
	if err != nil || len(trees) != 1 {
		t.Fatalf("the store holds %d toolchains, want the pinned one: %v", len(trees), err)
	}
	tools := trees[0]
	for name, original := range map[string]string{
		"go":      filepath.Join(tools, "../../../bin/go"),
		"compile": filepath.Join(tools, "compile"),
		"link":    filepath.Join(tools, "link"),
		"asm":     filepath.Join(tools, "asm"),
	} {
		if want, got := sum(t, original), sum(t, made.path(t, name)); want != got {
			t.Errorf("%s: built %s, the toolchain's is %s", name, got, want)
		}
	}
	w.verifier.run(t, "verify", made.path(t, "go"), "--receipts", made.Receipt)
}

func sum(t *testing.T, path string) digest.SHA256 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, _, err := digest.OfReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// programs are what this repository ships.
var programs = []string{"arch", "arch-node-agent", "arch-runnerd"}

// otherUser is the "nobody" that every Linux has.
const otherUser = 65534

// testArchItself builds this repository, has another user rebuild it from the receipt alone where the test runs as root, and wants the same claim
// for a copy in another place, with other things around it that do not matter.
func testArchItself(t *testing.T, w *world) {
	needModules(t)
	one, two := filepath.Join(w.dir, "one"), filepath.Join(w.dir, "another/place/of/the/repository")
	copyTree(t, "..", one)
	copyTree(t, one, two)
	for name, text := range map[string]string{
		"README.md": "another README", "cmd/arch/more_test.go": "package main", "result/arch": "an old result",
		"attest/testdata/more": "more", ".git/HEAD": "ref: refs/heads/other",
	} {
		path := filepath.Join(two, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := w.builder.build(t, filepath.Join(one, "tests/examples/arch-itself"), "--once")
	t.Run("another place", func(t *testing.T) { // which the store answers, since nothing that matters is another
		var second built
		decode(t, w.builder.run(t, "build", "--attest", "--once", "--out", t.TempDir(), filepath.Join(two, "tests/examples/arch-itself")), &second)
		if !second.Cached || first.Claim != second.Claim {
			t.Errorf("two places, two claims: %s and %s (built before: %v)", first.Claim, second.Claim, second.Cached)
		}
	})
	t.Run("plain", func(t *testing.T) { testPlainBuild(t, one, first) })
	t.Run("three ways", func(t *testing.T) { testThreeWays(t, w, one, first) })
	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("cannot run here: only root can become another user")
		}
		nobody := w.person(t, "nobody")
		nobody.become(t, otherUser)
		cosigned := nobody.reproduce(t, first.Receipt)
		w.verifier.trust(t, nobody, "nobody", "c.example")
		for _, program := range programs {
			wantReproduced(t, w.agree(t, first.path(t, program), first.Receipt, cosigned))
		}
	})
}

// become gives p and all that is p's to another user. What only root can read, that user no longer looks for.
func (p *person) become(t *testing.T, uid int) {
	t.Helper()
	p.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	p.env = slices.DeleteFunc(p.env, func(kv string) bool { return strings.HasPrefix(kv, "GOMODCACHE=") })
	err := filepath.WalkDir(p.home, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyTree copies what is in a repository, but not its history.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch dst := filepath.Join(to, rel); {
		case (rel == ".git" || rel == "result") && d.IsDir():
			return filepath.SkipDir
		case rel == ".git": // of a further worktree
			return nil
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(dst, data, 0o644)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testPlainBuild compiles the repository with nothing but Go and the example's settings.
func testPlainBuild(t *testing.T, repository string, made built) {
	out := t.TempDir()
	env := append(os.Environ(), "CGO_ENABLED=0", "GOAMD64=v1", "GOENV=off", "GOFLAGS=-trimpath -buildvcs=false",
		"GOTOOLCHAIN=go1.26.8", "GOARCH=amd64", "GOOS=linux", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	command(t, repository, env, "go", "build", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/...")
	for _, program := range programs {
		want := sum(t, filepath.Join(out, program))
		if got := sum(t, made.path(t, program)); want != got {
			t.Errorf("%s: arch build made %s, go build %s", program, got, want)
		}
		t.Logf("%s: sha256 %s, three times", program, want.Hex())
	}
}
