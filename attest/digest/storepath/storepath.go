// Package storepath names store objects: it reads the paths of Nix's and Guix's stores, and computes them from what they are the
// hash of. The rules are those of github.com/NixOS/nix, doc/manual/source/protocols/store-path.md; Guix has the same.
//
// It promises that two texts of a path that Parse accepts are equal if they name the same object, and that what it computes is what
// Nix computes. A path that is the hash of its content (Text, Source, Fixed) proves the content; the path of an output (Output) proves
// only the recipe.
//
// It never reads a store.
package storepath

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/digest"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// The directories of the two stores.
const (
	Nix  = "/nix/store"
	Guix = "/gnu/store"
)

const (
	hashLen = 32  // characters of the hash part: 160 bits in Nix's base 32
	maxName = 211 // bytes of a name: Nix's StorePath::MaxPathLen
)

// Path is the path of a store object, "DIR/HASH-NAME".
type Path struct {
	Dir  string // Nix or Guix
	Hash string // 32 characters of Nix's base 32
	Name string
}

// String returns the path as text.
func (p Path) String() string { return p.Dir + "/" + p.Base() }

// Base returns the last element, HASH-NAME.
func (p Path) Base() string { return p.Hash + "-" + p.Name }

// SyntaxError says that a text is no store path.
type SyntaxError struct {
	Text   string
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%.300q is no store path: %s", e.Text, e.Reason)
}

// Parse reads the path of a store object; not of something within one. Errors are of type *SyntaxError.
func Parse(s string) (Path, error) {
	for _, dir := range []string{Nix, Guix} {
		base, ok := strings.CutPrefix(s, dir+"/")
		if !ok {
			continue
		}
		if len(base) <= hashLen+1 || base[hashLen] != '-' {
			return Path{}, &SyntaxError{s, "its last element is not HASH-NAME"}
		}
		p := Path{dir, base[:hashLen], base[hashLen+1:]}
		if nixbase32.ValidateString(p.Hash) != nil {
			return Path{}, &SyntaxError{s, "its hash is not 32 characters of Nix's base 32"}
		}
		if err := CheckName(p.Name); err != nil {
			return Path{}, &SyntaxError{s, err.Error()}
		}
		return p, nil
	}
	return Path{}, &SyntaxError{s, "it is not directly below /nix/store or /gnu/store"}
}

// CheckName reports what is wrong with the name of a store object. Names that begin with a dot are refused, as by Nix before 2.21.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("its name has %d bytes, not 1 to %d", len(name), maxName)
	case name[0] == '.':
		return fmt.Errorf("its name begins with a dot")
	}
	for _, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && strings.IndexByte("+-._?=", c) < 0 {
			return fmt.Errorf("its name holds %q", c)
		}
	}
	return nil
}

// Text returns the path of a file that was written by the evaluator, such as a .drv, from the hash of its bytes. refs are the
// store paths that it refers to, in any order.
func Text(dir, name string, content digest.SHA256, refs []string) (Path, error) {
	return object(dir, withRefs("text", refs, false), content, name)
}

// Source returns the path of a tree by its NAR hash: a source that was added to the store, or a content-addressed output. self says
// that the tree refers to itself; nar is then the hash with those references left out (see Modulo).
func Source(dir, name string, nar digest.SHA256, refs []string, self bool) (Path, error) {
	return object(dir, withRefs("source", refs, self), nar, name)
}

// Output returns the path of the output of a derivation called name, from the hash of the derivation modulo its fixed outputs.
func Output(dir, name, output string, modulo digest.SHA256) (Path, error) {
	return object(dir, "output:"+output, modulo, OutputName(name, output))
}

// OutputName returns the name of the store object that is an output of the derivation called name.
func OutputName(name, output string) string {
	if output == "out" {
		return name
	}
	return name + "-" + output
}

// Method says what a fixed hash is the hash of.
type Method string

// The methods, as they are written before the algorithm in a derivation.
const (
	Flat      Method = ""      // the bytes of a file that is not executable
	Recursive Method = "r:"    // the NAR
	ByText    Method = "text:" // the bytes of a file that may have references
	ByGit     Method = "git:"  // a git tree; experimental
)

// Fixed returns the path of an output whose hash is known in advance. hash is in hexadecimal, algo such as "sha256".
func Fixed(dir, name string, m Method, algo, hash string) (Path, error) {
	if algo == "sha256" && (m == Recursive || m == ByText) {
		sum, err := digest.ParseHex(hash)
		if err != nil {
			return Path{}, err
		}
		if m == ByText {
			return Text(dir, name, sum, nil)
		}
		return Source(dir, name, sum, nil, false)
	}
	inner := digest.Of([]byte("fixed:out:" + string(m) + algo + ":" + hash + ":"))
	return object(dir, "output:out", inner, name)
}

// object is the rule that all others end in: the SHA-256 of what the object is, folded to 160 bits.
func object(dir, kind string, inner digest.SHA256, name string) (Path, error) {
	if dir != Nix && dir != Guix {
		return Path{}, fmt.Errorf("name store object %q: %q is neither %s nor %s", name, dir, Nix, Guix)
	}
	if err := CheckName(name); err != nil {
		return Path{}, fmt.Errorf("name store object %.300q: %w", name, err)
	}
	sum := sha256.Sum256([]byte(kind + ":sha256:" + inner.Hex() + ":" + dir + ":" + name))
	return Path{dir, fold(sum[:]), name}, nil
}

// fold compresses a hash to 160 bits by exclusive or.
func fold(sum []byte) string {
	var short [20]byte
	for i, b := range sum {
		short[i%len(short)] ^= b
	}
	return nixbase32.EncodeToString(short[:])
}

// withRefs joins the kind of an object with what it refers to, sorted and each once.
func withRefs(kind string, refs []string, self bool) string {
	parts := append([]string{kind}, slices.Compact(slices.Sorted(slices.Values(refs)))...)
	if self {
		parts = append(parts, "self")
	}
	return strings.Join(parts, ":")
}

// Placeholder returns what stands for an output's path in a derivation whose output paths are not known before it is built.
func Placeholder(output string) string {
	sum := sha256.Sum256([]byte("nix-output:" + output))
	return "/" + nixbase32.EncodeToString(sum[:])
}
