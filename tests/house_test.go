package tests

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// topLevel is all that may lie at the root of the repository.
var topLevel = []string{
	".ci", ".git", ".gitignore", ".guix-channel", "LICENSE", "README.md", "agent", "attest", "builder", "cmd", "flake.lock", "flake.nix",
	"go.mod", "go.sum", "guix", "nix", "runner", "tests",
}

func TestTopLevel(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files").Output()
	if err != nil {
		t.Skip("cannot run here: this is no git checkout: " + err.Error())
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "/")
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s does not belong at the root of the repository", name)
		}
	}
}

// TestPackageDocs demands that every package says what it is, in one place, and that the README's map names it.
func TestPackageDocs(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range listPackages(t) {
		name := strings.TrimPrefix(pkg.ImportPath, module)
		if strings.HasPrefix(name, "tests") {
			continue
		}
		if docs := documented(t, filepath.Join("..", name)); len(docs) != 1 {
			t.Errorf("package %s has %d package comments, not 1: %v", name, len(docs), docs)
		}
		if mapped := name; !strings.Contains(string(readme), "`"+mapped+"`") && !slices.Contains(unmapped, name) {
			t.Errorf("package %s is not in the README's map of packages", name)
		}
	}
}

// unmapped are packages that belong to the one above them.
var unmapped = []string{
	"agent/control/client", "agent/control/dashboard", "agent/control/logview", "agent/control/wire", "agent/disk/disktest", "agent/nodetest",
	"attest/ledger/durable", "attest/ledger/hammer", "attest/ledger/notekey", "builder/guix/archive", "builder/guix/sexp", "builder/guix/signature", "builder/source/unpack", "runner/runnertest",
}

// documented lists the files of a package that carry its comment.
func documented(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil {
			docs = append(docs, filepath.Base(file))
		}
	}
	return docs
}

// TestNoInit holds two rules of style that no tool checks: nothing happens before main, and nothing is called util.
func TestNoInit(t *testing.T) {
	for _, pkg := range listPackages(t) {
		name := strings.TrimPrefix(pkg.ImportPath, module)
		for _, bad := range []string{"util", "utils", "common", "helpers", "misc"} {
			if filepath.Base(name) == bad {
				t.Errorf("package %s says nothing about what it holds", name)
			}
		}
		files, err := filepath.Glob(filepath.Join("..", name, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(src), "\nfunc init() {") {
				t.Errorf("%s has an init function: do it where it is needed, or in main", file)
			}
		}
	}
}
