package binarycache

import (
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// parseBase reads HASH-NAME, the last element of a path of the store in dir.
func parseBase(dir, base string) (storepath.Path, error) { return storepath.Parse(dir + "/" + base) }

// ValidHash reports whether text can be the hash part of a store path, by which caches name their files.
func ValidHash(text string) bool {
	p, err := parseBase(storepath.Nix, text+"-x")
	return err == nil && p.Hash == text
}

// SourceCA is the field CA of a tree without references that is named by its NAR hash alone: storepath.Source.
func SourceCA(nar digest.SHA256) string { return "fixed:r:" + nar.Nix32() }
