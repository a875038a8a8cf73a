package storepath

import (
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// Scanner is an io.Writer that looks for the hash parts of store paths in what is written to it, as Nix does to find references. It
// also computes the hash of the content with one path's own hash part left out. It is used by one goroutine.
type Scanner struct {
	known map[string]string // path by hash part
	found map[string]bool   // by hash part
	self  string            // hash part that Modulo leaves out; empty: none
	tail  []byte            // of what was written: fewer than hashLen bytes, not yet in modulo
	at    int64             // position of tail
	sum   digest.Writer
	marks []int64 // where self was
}

// NewScanner returns a Scanner for the given paths. self is the path whose occurrences Modulo leaves out; the zero Path: none.
func NewScanner(paths []Path, self Path) *Scanner {
	s := &Scanner{known: make(map[string]string, len(paths)), found: map[string]bool{}, self: self.Hash}
	for _, p := range paths {
		s.known[p.Hash] = p.String()
	}
	return s
}

// base32 are the digits of Nix's base 32.
const base32 = "0123456789abcdfghijklmnpqrsvwxyz"

var isDigit = func() (t [256]bool) {
	for _, c := range []byte(base32) {
		t[c] = true
	}
	return t
}()

// Write searches p and what was left of the writes before. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	buf := append(s.tail, p...)
	s.search(buf)
	keep := min(len(buf), hashLen-1)
	if s.self != "" {
		s.sum.Write(buf[:len(buf)-keep])
	}
	s.at += int64(len(buf) - keep)
	s.tail = append([]byte(nil), buf[len(buf)-keep:]...)
	return len(p), nil
}

// search looks for 32 digits in a row, from behind: where one is none, everything up to it is skipped.
func (s *Scanner) search(buf []byte) {
	for i := 0; i+hashLen <= len(buf); {
		j := hashLen - 1
		for j >= 0 && isDigit[buf[i+j]] {
			j--
		}
		if j >= 0 {
			i += j + 1
			continue
		}
		hash := string(buf[i : i+hashLen])
		if _, ok := s.known[hash]; ok {
			s.found[hash] = true
		}
		if hash == s.self {
			s.marks = append(s.marks, s.at+int64(i))
			clear(buf[i : i+hashLen])
		}
		i++
	}
}

// References returns the given paths whose hash part occurred, sorted.
func (s *Scanner) References() []string {
	var list []string
	for hash := range s.found {
		list = append(list, s.known[hash])
	}
	slices.Sort(list)
	return list
}

// Modulo returns the hash of everything written with zero bytes in place of the own hash part, and whether that occurred. marked is the hash
// with the places where it was behind it, as Nix 2.8 names content by (HashModuloSink); plain is without them, as Nix 2.34 does. Nothing may
// be written afterwards.
func (s *Scanner) Modulo() (marked, plain digest.SHA256, self bool) {
	s.sum.Write(s.tail)
	s.tail = nil
	plain = s.sum.Sum()
	var marks strings.Builder
	for _, at := range s.marks {
		fmt.Fprintf(&marks, "|%d", at)
	}
	s.sum.Write([]byte(marks.String()))
	return s.sum.Sum(), plain, len(s.marks) > 0
}
