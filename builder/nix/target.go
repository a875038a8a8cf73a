package nix

import (
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest/digest/storepath"
)

// Target is what a person asks Nix to build.
type Target struct {
	Text string // as it was written

	Flake     string // a flake reference, without its attribute
	File      string // a file with an expression; absolute
	Attribute string // of the flake or of the file; empty: the flake's default, or all of the file
	Path      string // a store path: a derivation, or what one gives
}

// FindTarget reads an argument of a command: a flake reference with or without #ATTRIBUTE (.#agent, github:owner/repo#hello), a directory that
// holds flake.nix, a file NAME.nix with or without #ATTRIBUTE, a .drv or another path of a Nix store. ok is false if it is none of them.
func FindTarget(arg string) (t Target, ok bool) {
	base, attribute, hasAttribute := strings.Cut(arg, "#")
	t = Target{Text: arg, Attribute: attribute}
	if at, err := storepath.Parse(arg); err == nil && at.Dir == storepath.Nix {
		t.Path = arg
		return t, true
	}
	if strings.HasSuffix(base, ".nix") {
		if file, err := filepath.Abs(base); err == nil {
			t.File = file
			return t, true
		}
	}
	if hasAttribute || isFlakeURL(base) || !hasFile(base, "build.yaml") && hasFile(base, "flake.nix") {
		t.Flake = base
		return t, true
	}
	return Target{}, false
}

// isFlakeURL reports whether s is a flake reference that is no path: "flake:nixpkgs", "github:owner/repo", "git+https://…".
func isFlakeURL(s string) bool {
	scheme, _, ok := strings.Cut(s, ":")
	if !ok {
		return false
	}
	switch scheme {
	case "flake", "path", "github", "gitlab", "sourcehut", "tarball":
		return true
	}
	return strings.HasPrefix(scheme, "git+") || strings.HasPrefix(scheme, "hg+") || strings.HasPrefix(scheme, "tarball+") || strings.HasPrefix(scheme, "path+")
}

func hasFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
