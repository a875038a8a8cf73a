// Package nar names trees: it writes and reads Nix archives (NAR), the serialisation whose SHA-256 is the
// identity of a tree in Nix, in Guix and here.
//
// A NAR keeps names, contents, link targets and whether a file is executable; no times, owners, other modes or
// hard links. The format is that of github.com/NixOS/nix, doc/manual/source/protocols/nix-archive.md; for one
// tree there is exactly one NAR.
//
// It promises:
//   - Injectivity: Reader accepts only what Writer would write, byte for byte, so equal hashes are equal trees.
//   - No escape: Dump, Hash and Restore walk by directory file descriptors and never follow a symbolic link below
//     the path they are given, however the tree changes meanwhile.
//   - No surprise: a file that changes its size while it is read, a socket, a device, a hostile name are errors
//     that name the path. Restore leaves either the whole tree or nothing.
//   - Bounds: depth, lengths, number of entries and size have limits, and memory depends on none of them but the
//     length of the longest directory.
//
// It never decides whether a tree is trusted, and never reads or writes anything but the tree and the stream.
package nar

import (
	"math"
	"strings"

	"arch.network/attest/digest"
)

// MediaType is the media type of an uncompressed NAR, as it is written in attestations.
const MediaType = "application/x-nix-nar"

// Type is the type of an entry.
type Type string

// The types a NAR knows, spelled as in the archive.
const (
	Regular   Type = "regular"
	Directory Type = "directory"
	Symlink   Type = "symlink"
)

// Entry is one node of a tree.
type Entry struct {
	Path       string // slash-separated, relative to the root, which is ""
	Type       Type
	Executable bool   // of a regular file: the owner may execute it
	Size       int64  // of a regular file: bytes of content
	Target     string // of a symbolic link
	Offset     int64  // of a regular file: where its content begins in the NAR
	Digest     digest.SHA256
	// Digest is the hash of a regular file's content. Only HashListing fills it in, if asked.
}

// Listing is every entry of a tree, the root first, in the order of the archive (see Compare).
type Listing []Entry

// Limits bounds what is written or accepted. Zero fields mean the default.
type Limits struct {
	Depth   int   // components of a path; default 256
	Name    int   // bytes of a name; default and maximum 255, the limit of Linux file systems
	Target  int   // bytes of a symbolic link's target; default and maximum 4095, the limit of Linux
	Entries int   // nodes in a tree; default 4,194,304
	Size    int64 // bytes of the NAR; default 16 GiB
}

// Maxima of Linux (limits.h: NAME_MAX, PATH_MAX less its NUL).
const (
	maxName   = 255
	maxTarget = 4095
)

// withDefaults returns l with every zero field replaced.
func (l Limits) withDefaults() Limits {
	if l.Depth <= 0 {
		l.Depth = 256
	}
	if l.Name <= 0 || l.Name > maxName {
		l.Name = maxName
	}
	if l.Target <= 0 || l.Target > maxTarget {
		l.Target = maxTarget
	}
	if l.Entries <= 0 {
		l.Entries = 1 << 22
	}
	if l.Size <= 0 {
		l.Size = 16 << 30
	}
	// Room for framing, so that sums of offsets cannot overflow.
	l.Size = min(l.Size, math.MaxInt64/2)
	return l
}

// Options says how Dump, Hash and HashListing read a tree. The zero value reads all of it with default limits.
type Options struct {
	Limits Limits

	// Filter says what to leave out: it is asked for every entry but the root, with its path relative to
	// the root, and whether it is a directory. If it returns true the entry is skipped with all that is below.
	// Nil leaves out nothing.
	Filter func(rel string, dir bool) bool

	// FileDigests makes HashListing fill in Entry.Digest, at the price of hashing every content twice.
	FileDigests bool
}

// Compare orders paths as a NAR does: component by component, bytewise, a directory before what is in it. It differs
// from the order of strings where a name goes on with a byte less than '/': "a/b" comes before "a-b".
// The result is negative, zero or positive.
func Compare(a, b string) int {
	for {
		nameA, restA, moreA := strings.Cut(a, "/")
		nameB, restB, moreB := strings.Cut(b, "/")
		if c := strings.Compare(nameA, nameB); c != 0 || !moreA || !moreB {
			switch {
			case c != 0:
				return c
			case moreB:
				return -1
			case moreA:
				return 1
			}
			return 0
		}
		a, b = restA, restB
	}
}

// badName says why name cannot be an entry of a directory; empty if it can.
func badName(name []byte, limit int) string {
	switch {
	case len(name) == 0:
		return "an empty name"
	case len(name) > limit:
		return "a name that is too long"
	case string(name) == "." || string(name) == "..":
		return "a name that stands for another directory"
	}
	for _, c := range name {
		switch c {
		case '/':
			return "a name with a slash"
		case 0:
			return "a name with a NUL"
		}
	}
	return ""
}

// badTarget says why target cannot be a symbolic link's; empty if it can.
func badTarget(target string, limit int) string {
	switch {
	case target == "":
		return "an empty link target"
	case len(target) > limit:
		return "a link target that is too long"
	case strings.IndexByte(target, 0) >= 0:
		return "a link target with a NUL"
	}
	return ""
}
