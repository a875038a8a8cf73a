package binarycache

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"arch.network/attest/digest"
)

// Limits of store paths (Nix: store-path specification).
const (
	hashLen = 32  // characters of the hash part
	maxName = 211 // characters of the name
)

// StorePath is a path "/nix/store/HASH-NAME" or "/gnu/store/HASH-NAME", taken apart.
type StorePath struct {
	Dir  string // of the store: absolute, without a slash at its end
	Hash string // 32 characters of Nix's base 32
	Name string // 1 to 211 of letters, digits and +-._?=, not beginning with a dot
}

// String returns the whole path.
func (p StorePath) String() string { return p.Dir + "/" + p.Base() }

// Base returns the path's last element, HASH-NAME.
func (p StorePath) Base() string { return p.Hash + "-" + p.Name }

// ParseStorePath reads a whole store path, and nothing below one.
func ParseStorePath(text string) (StorePath, error) {
	dir, base := path.Split(text)
	dir = strings.TrimSuffix(dir, "/")
	if !path.IsAbs(text) || path.Clean(text) != text || dir == "" {
		return StorePath{}, fmt.Errorf("%.250q is no store path: it is not an absolute, clean path", text)
	}
	p, err := ParseBase(dir, base)
	if err != nil {
		return StorePath{}, fmt.Errorf("%.250q is no store path: %w", text, err)
	}
	return p, nil
}

// ParseBase reads HASH-NAME, the last element of a path of the store in dir.
func ParseBase(dir, base string) (StorePath, error) {
	hash, name, ok := strings.Cut(base, "-")
	if !ok || !ValidHash(hash) {
		return StorePath{}, fmt.Errorf("%.250q does not begin with 32 characters of Nix's base 32 and a dash", base)
	}
	if name == "" || len(name) > maxName || name[0] == '.' || strings.IndexFunc(name, notNameChar) >= 0 {
		return StorePath{}, fmt.Errorf("%.250q is no name of a store path", name)
	}
	return StorePath{Dir: dir, Hash: hash, Name: name}, nil
}

func notNameChar(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("+-._?=", r)
}

// ValidHash reports whether text can be the hash part of a store path.
func ValidHash(text string) bool {
	return len(text) == hashLen && strings.Trim(text, "0123456789abcdfghijklmnpqrsvwxyz") == ""
}

// SourcePath returns where a tree without references belongs that is named by its NAR hash alone: what `nix-store --add`, fetchers and
// the inputs of flakes make (Nix: store-path specification, "source"). The name must be one of a store path.
func SourcePath(dir, name string, nar digest.SHA256) (StorePath, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "source:sha256:%s:%s:%s", nar.Hex(), dir, name))
	var short [20]byte
	for i, b := range sum {
		short[i%len(short)] ^= b
	}
	return ParseBase(dir, nixbase32.EncodeToString(short[:])+"-"+name)
}

// SourceCA is the field CA of a SourcePath.
func SourceCA(nar digest.SHA256) string { return "fixed:r:" + nar.Nix32() }
