package source

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"arch.network/attest/digest"
)

// toolchainModule holds the Go distributions: go.dev/doc/toolchain. Its zips differ from a GOROOT in two ways, which
// cmd/go/internal/toolchain undoes after a download: go.mod files are named _go.mod, and nothing is executable.
const toolchainModule = "golang.org/toolchain"

// finishToolchain makes a GOROOT of the files of a toolchain module: go.mod files get their name, programs their bit.
func finishToolchain(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if isToolchainProgram(filepath.ToSlash(rel)) {
			if err := os.Chmod(name, 0o755); err != nil {
				return err
			}
		}
		if parent, base := filepath.Split(name); base == "_go.mod" {
			return os.Rename(name, parent+"go.mod")
		}
		return nil
	})
}

// isToolchainProgram follows cmd/go/internal/toolchain: everything in bin and pkg/tool, and lib's go_OS_ARCH_exec.
func isToolchainProgram(rel string) bool {
	if strings.HasPrefix(rel, "bin/") || strings.HasPrefix(rel, "pkg/tool/") {
		return true
	}
	ok, err := path.Match("go_?*_?*_exec", path.Base(rel))
	return strings.HasPrefix(rel, "lib/") && ok && err == nil
}

// toolchain is a distribution, as its module version names it.
type toolchain struct {
	version string // such as "go1.26.8"
	os      string
	arch    string
}

// parseToolchain reads a version of the toolchain module, such as "v0.0.1-go1.26.8.linux-amd64".
func parseToolchain(m module.Version) (toolchain, bool) {
	rest, ok := strings.CutPrefix(m.Version, "v0.0.1-")
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot < 0 {
		return toolchain{}, false
	}
	goos, arch, ok := strings.Cut(rest[dot+1:], "-")
	return toolchain{rest[:dot], goos, arch}, ok
}

// ships reports whether a file of a GOROOT is part of the module zip: cmd/distpack.
func (t toolchain) ships(rel string) bool {
	top, rest, nested := strings.Cut(rel, "/")
	switch {
	case top == ".git" || top == ".github" || top == "api" || top == "doc" || top == "misc" || top == "test":
		return false
	case rel == ".gitattributes" || rel == ".gitignore" || rel == "VERSION.cache" || rel == "src/cmd/dist/dist":
		return false
	case path.Base(rel) == ".DS_Store":
		return false
	case top == "bin" && nested:
		return rest == "go" || rest == "gofmt"
	case top == "pkg" && strings.HasPrefix(rest, "include/"):
		return true
	case top == "pkg" && nested:
		tool, ok := strings.CutPrefix(rest, "tool/"+t.os+"_"+t.arch+"/")
		return ok && slices.Contains([]string{"asm", "cgo", "compile", "cover", "fix", "link", "preprofile", "vet"}, tool)
	}
	return true
}

// installedToolchain copies one of f.Toolchains into the store, if its files have the pinned hash.
func (f *Fetcher) installedToolchain(ctx context.Context, p goPin) (digest.SHA256, bool) {
	t, ok := parseToolchain(p.Version)
	if !ok {
		return digest.SHA256{}, false
	}
	for _, goroot := range f.Toolchains {
		if !t.installed(goroot) {
			continue
		}
		f.log(Event{Kind: EventStart, What: p.uri(), Detail: "compare " + goroot})
		d, err := f.Store.AddTreeFunc(ctx, func(dir string) error { return t.copy(ctx, goroot, dir, p) }, digest.SHA256{})
		if err == nil {
			f.log(Event{Kind: EventDone, What: p.uri(), Detail: "taken from " + goroot})
			return d, true
		}
		f.log(Event{Kind: EventSkip, What: p.uri(), Detail: err.Error()})
	}
	return digest.SHA256{}, false
}

// installed reports cheaply whether goroot claims to be this toolchain.
func (t toolchain) installed(goroot string) bool {
	file, err := openRegular(filepath.Join(goroot, "VERSION"))
	if err != nil {
		return false
	}
	defer file.Close()
	line, err := bufio.NewReader(io.LimitReader(file, 256)).ReadString('\n')
	return err == nil && strings.TrimSpace(line) == t.version
}

// copy copies the files that the module has from goroot to dir, and compares their hash with the pin. What is hashed
// is what was copied, so that goroot may change at any time.
func (t toolchain) copy(ctx context.Context, goroot, dir string, p goPin) error {
	sums, err := copyGoroot(ctx, t, goroot, dir, p.Path+"@"+p.Version.Version+"/")
	if err != nil {
		return err
	}
	got := hash1(sums)
	if got != p.hash && restoreGoEnv(dir, sums, p) == nil && hash1(sums) == p.hash {
		return nil
	}
	if got != p.hash {
		return &PinError{Ref: goroot, Want: h1(p.hash), Got: h1(got)}
	}
	return nil
}

// restoreGoEnv undoes, in the copy, the one change that the official golang container images make to a release:
// GOTOOLCHAIN=local in go.env. Whether that gives the release back, the hash tells.
func restoreGoEnv(dir string, sums []fileSum, p goPin) error {
	name := filepath.Join(dir, "go.env")
	data, err := readSmall(name, 64<<10)
	if err != nil {
		return err
	}
	data = bytes.Replace(data, []byte("\nGOTOOLCHAIN=local\n"), []byte("\nGOTOOLCHAIN=auto\n"), 1)
	for i, s := range sums {
		if s.name == p.Path+"@"+p.Version.Version+"/go.env" {
			sums[i].sum = sha256.Sum256(data)
		}
	}
	return os.WriteFile(name, data, 0o644)
}

// fileSum is a line of a directory hash.
type fileSum struct {
	name string
	sum  [sha256.Size]byte
}

// hash1 is golang.org/x/mod/sumdb/dirhash.Hash1 of files whose hashes are known.
func hash1(sums []fileSum) digest.SHA256 {
	slices.SortFunc(sums, func(a, b fileSum) int { return cmp.Compare(a.name, b.name) })
	h := sha256.New()
	for _, s := range sums {
		fmt.Fprintf(h, "%x  %s\n", s.sum, s.name)
	}
	return digest.SHA256(h.Sum(nil))
}
