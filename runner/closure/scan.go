package closure

import (
	"bytes"
	"maps"
	"slices"

	"arch.network/attest/digest/storepath"
)

// alphabet is Nix's base 32, which leaves out e, o, u and t.
const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

const (
	hashLen   = 32  // characters of a store path's hash part
	maxNameOf = 211 // characters of a store path behind the hash and its dash
)

// hashPart is the hash part of a store path.
type hashPart [hashLen]byte

// digits has the value of each character of the alphabet plus 1, and 0 for all others.
var digits = func() (d [256]uint8) {
	for i := range alphabet {
		d[alphabet[i]] = uint8(i) + 1
	}
	return d
}()

// prefixBits is how many bits of a hash part the first, cheap test looks at: its first four characters.
const prefixBits = 20

// candidates are the hash parts that are looked for, with the store paths that they stand for.
type candidates struct {
	paths  map[hashPart]string
	prefix []uint64 // a bit for each beginning of a hash part
}

// newCandidates takes store paths. Names of a store's directory that are none (.links, temporary ones) are left out.
func newCandidates(paths []string) *candidates {
	c := &candidates{paths: make(map[hashPart]string, len(paths)), prefix: make([]uint64, 1<<prefixBits/64)}
	for _, p := range paths {
		if at, err := storepath.Parse(p); err == nil {
			part := hashPart([]byte(at.Hash))
			c.paths[part] = p
			n := prefixOf(part[:])
			c.prefix[n/64] |= 1 << (n % 64)
		}
	}
	return c
}

func prefixOf(b []byte) uint32 {
	return uint32(digits[b[0]]-1)<<15 | uint32(digits[b[1]]-1)<<10 | uint32(digits[b[2]]-1)<<5 | uint32(digits[b[3]]-1)
}

// scanBuffer is how much is searched at a time, beside what a match may reach into.
const scanBuffer = 256 << 10

// scanner finds store paths in the bytes that are written to it, wherever one Write ends and the next begins.
// Its memory does not depend on how much that is.
type scanner struct {
	known  *candidates
	prefix []byte // of store paths in texts: "/nix/store/"

	found    map[string]bool // candidates whose hash part was seen
	dangling map[string]bool // texts that look like a store path, but are no candidate's; at most maxDangling

	buf []byte // what is not searched yet; the last reach bytes may be the beginning of a match
}

// maxDangling bounds how many unknown paths are remembered: one is enough to refuse.
const maxDangling = 16

func newScanner(store string, known *candidates) *scanner {
	return newScannerSize(store, known, scanBuffer)
}

func newScannerSize(store string, known *candidates, size int) *scanner {
	s := &scanner{known: known, prefix: []byte(store + "/"), found: map[string]bool{}, dangling: map[string]bool{}}
	s.buf = make([]byte, 0, size+s.reach())
	return s
}

// reset forgets everything, for the next path.
func (s *scanner) reset() {
	s.buf = s.buf[:0]
	clear(s.found)
	clear(s.dangling)
}

// reach is the length of the longest match.
func (s *scanner) reach() int { return len(s.prefix) + hashLen + 1 + maxNameOf }

// Write searches p and never fails.
func (s *scanner) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(cap(s.buf)-len(s.buf), len(rest))
		s.buf = append(s.buf, rest[:n]...)
		rest = rest[n:]
		if len(s.buf) == cap(s.buf) {
			s.search(len(s.buf) - s.reach())
		}
	}
	return len(p), nil
}

// finish searches what is left, and returns what was found, sorted.
func (s *scanner) finish() (found, dangling []string) {
	s.search(len(s.buf))
	return slices.Sorted(maps.Keys(s.found)), slices.Sorted(maps.Keys(s.dangling))
}

// search finds all that begins before end, and forgets what lies there.
func (s *scanner) search(end int) {
	s.hashes(end)
	s.texts(end)
	s.buf = append(s.buf[:0], s.buf[end:]...)
}

// hashes looks for hash parts. It tests the last character of a possible match first: one that is not of the alphabet
// rules out all places up to it, so most bytes are never looked at.
func (s *scanner) hashes(end int) {
	b := s.buf
	for i := 0; i < end && i+hashLen <= len(b); {
		j := i + hashLen - 1
		for j >= i && digits[b[j]] != 0 {
			j--
		}
		if j >= i {
			i = j + 1
			continue
		}
		// A run of the alphabet begins at i. Each of its places is tried, and the run is looked at once.
		for {
			s.look(b[i : i+hashLen])
			if i++; i >= end || i+hashLen > len(b) {
				return
			}
			if digits[b[i+hashLen-1]] == 0 {
				i += hashLen
				break
			}
		}
	}
}

func (s *scanner) look(b []byte) {
	if n := prefixOf(b); s.known.prefix[n/64]&(1<<(n%64)) == 0 {
		return
	}
	if path, ok := s.known.paths[hashPart(b)]; ok && !s.found[path] {
		s.found[path] = true
	}
}

// texts looks for whole store paths that are no candidates.
func (s *scanner) texts(end int) {
	b := s.buf
	for i := 0; ; i++ {
		n := bytes.Index(b[i:min(len(b), end+len(s.prefix)-1)], s.prefix)
		if n < 0 {
			return
		}
		i += n
		rest := b[i+len(s.prefix):]
		if len(rest) < hashLen+2 || rest[hashLen] != '-' || !isHash(rest[:hashLen]) {
			continue
		}
		if _, ok := s.known.paths[hashPart(rest)]; ok || len(s.dangling) >= maxDangling {
			continue
		}
		if name := nameAt(rest[hashLen+1:]); name != "" {
			s.dangling[string(s.prefix)+string(rest[:hashLen+1])+name] = true
		}
	}
}

func isHash(b []byte) bool {
	for _, c := range b {
		if digits[c] == 0 {
			return false
		}
	}
	return true
}

// nameAt returns the name of a store path that b begins with.
func nameAt(b []byte) string {
	n := 0
	for n < len(b) && n < maxNameOf && nameChar(b[n]) {
		n++
	}
	return string(b[:n])
}

// nameChar reports whether a store path's name may hold c: Nix's store-path specification.
func nameChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c != 0 && bytes.IndexByte([]byte("+-._?="), c) >= 0
}
