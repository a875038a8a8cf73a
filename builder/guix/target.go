package guix

import (
	"fmt"
	"path/filepath"
	"strings"

	"arch.network/attest/digest/storepath"
)

// Target is what a person asks Guix to build: one of its last four fields is set.
type Target struct {
	Text string // as it was written

	Package  string // a specification, such as "hello" or "hello@2.12"
	File     string // a file of Scheme whose value is a package, a derivation, or what can be lowered to one
	Manifest string // a file of Scheme whose value is a manifest: each of its packages is built
	Path     string // a store path: a derivation, or what one gave
}

// FindPath reads an argument of a command that is a path of a Guix store.
func FindPath(arg string) (t Target, ok bool) {
	at, err := storepath.Parse(arg)
	return Target{Text: arg, Path: arg}, err == nil && at.Dir == storepath.Guix
}

// ParseTarget reads an argument of a command that is for Guix: NAME or NAME@VERSION, a file FILE.scm, or a path of the store.
func ParseTarget(arg string) (Target, error) {
	if t, ok := FindPath(arg); ok {
		return t, nil
	}
	if arg == "" || strings.HasPrefix(arg, "-") || strings.ContainsAny(arg, " \t\n\x00") {
		return Target{}, fmt.Errorf("%q is neither a package of Guix, as NAME or NAME@VERSION, nor a file FILE.scm", arg)
	}
	if strings.HasSuffix(arg, ".scm") {
		file, err := filepath.Abs(arg)
		return Target{Text: arg, File: file}, err
	}
	return Target{Text: arg, Package: arg}, nil
}

// ManifestTarget is a file with a manifest.
func ManifestTarget(file string) (Target, error) {
	path, err := filepath.Abs(file)
	return Target{Text: file, Manifest: path}, err
}

// arguments are those of guix build.
func (t Target) arguments() []string {
	switch {
	case t.File != "":
		return []string{"--file=" + t.File}
	case t.Manifest != "":
		return []string{"--manifest=" + t.Manifest}
	}
	return []string{t.Package}
}
