package closure

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// part makes the hash part number n.
func part(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, hashLen)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func storePath(n int) string { return "/nix/store/" + part(n) + "-p" }

// naive is what scanner does, without a thought of speed.
func naive(b []byte, known *candidates) (found, dangling []string) {
	f, d := map[string]bool{}, map[string]bool{}
	for i := range b {
		if len(b)-i >= hashLen && isHash(b[i:i+hashLen]) {
			if p, ok := known.paths[hashPart(b[i:])]; ok {
				f[p] = true
			}
		}
		rest, ok := bytes.CutPrefix(b[i:], []byte("/nix/store/"))
		if !ok || len(rest) < hashLen+2 || !isHash(rest[:hashLen]) || rest[hashLen] != '-' || known.paths[hashPart(rest)] != "" {
			continue
		}
		if name := nameAt(rest[hashLen+1:]); name != "" && len(d) < maxDangling {
			d["/nix/store/"+string(rest[:hashLen+1])+name] = true
		}
	}
	return slices.Sorted(maps.Keys(f)), slices.Sorted(maps.Keys(d))
}

func scanAll(b []byte, known *candidates, pieces func() int) (found, dangling []string) {
	return scanSize(b, known, scanBuffer, pieces)
}

func scanSize(b []byte, known *candidates, size int, pieces func() int) (found, dangling []string) {
	s := newScannerSize("/nix/store", known, size)
	for len(b) > 0 {
		n := min(pieces(), len(b))
		s.Write(b[:n])
		b = b[n:]
	}
	return s.finish()
}

func TestScan(t *testing.T) {
	known := newCandidates([]string{storePath(1), storePath(2), "/nix/store/.links", "/nix/store/" + part(3) + ".lock", storePath(4)})
	other := "/nix/store/" + part(9) + "-gone-1.0"
	for _, tt := range []struct {
		name, text      string
		found, dangling []string
	}{
		{name: "nothing"},
		{name: "a path", text: "x" + storePath(1) + "/bin/sh", found: []string{storePath(1)}},
		{name: "only the hash", text: part(2), found: []string{storePath(2)}},
		{name: "in a run of the alphabet", text: "0123" + part(1) + "abc" + part(2) + "zz", found: []string{storePath(1), storePath(2)}},
		{name: "one character short", text: part(1)[:31]},
		{name: "upper case", text: strings.ToUpper(part(1))},
		{name: "cut by another character", text: part(1)[:16] + "e" + part(1)[16:]},
		{name: "a lock is no path", text: part(3)},
		{name: "a path that is not there", text: "PATH=" + other + "/bin:", dangling: []string{other}},
		{name: "at the very end", text: other, dangling: []string{other}},
		{name: "hash of one that is not there", text: part(9)},
		{name: "no name", text: "/nix/store/" + part(9) + "- /nix/store/" + part(9)},
		{name: "of another store", text: "/gnu/store/" + part(9) + "-x"},
		{name: "a name that ends", text: other + "\x00" + other + "\"", dangling: []string{other}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				found, dangling := scanAll([]byte(tt.text), known, func() int { return size })
				if diff := cmp.Diff(tt.found, found) + cmp.Diff(tt.dangling, dangling); diff != "" {
					t.Errorf("pieces of %d (-want +got):\n%s", size, diff)
				}
			}
		})
	}
}

// Every place around the seam of two buffers finds the same.
func TestScanSeams(t *testing.T) {
	known := newCandidates([]string{storePath(1)})
	other := "/nix/store/" + part(9) + "-" + strings.Repeat("n", maxNameOf)
	for at := scanBuffer - 60; at < scanBuffer+300; at += 7 {
		b := bytes.Repeat([]byte{'.'}, scanBuffer+1000)
		copy(b[at:], part(1))
		copy(b[at+40:], other)
		found, dangling := scanAll(b, known, func() int { return 1 << 16 })
		if !slices.Equal(found, []string{storePath(1)}) || !slices.Equal(dangling, []string{other}) {
			t.Errorf("at %d: %v, %v", at, found, dangling)
		}
	}
}

// FuzzScan: whatever the bytes, and however they are cut, what is found is what the slow way finds.
func FuzzScan(f *testing.F) {
	f.Add([]byte("x"+storePath(1)+"\n"+part(2)), uint64(1))
	f.Add([]byte("/nix/store/"+part(9)+"-gone"), uint64(2))
	f.Add([]byte(strings.Repeat("0", 200)+part(1)+strings.Repeat("z", 100)), uint64(3))
	known := newCandidates([]string{storePath(1), storePath(2), "/nix/store/" + strings.Repeat("0", hashLen) + "-zeros"})
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if len(b) == 0 || bytes.Count(b, []byte("/nix/store/")) > maxDangling {
			return
		}
		// So small a buffer that the text lies across many seams.
		r := rand.New(rand.NewPCG(seed, 0))
		found, dangling := scanSize(b, known, 1+int(seed%60), func() int { return 1 + r.IntN(100) })
		wantFound, wantDangling := naive(b, known)
		if diff := cmp.Diff(wantFound, found) + cmp.Diff(wantDangling, dangling); diff != "" {
			t.Errorf("(-slow +fast):\n%s", diff)
		}
	})
}

// BenchmarkScan: text and machine code pass fast; a hostile run of the alphabet is bounded, too.
func BenchmarkScan(b *testing.B) {
	var paths []string
	for n := range 20_000 {
		paths = append(paths, storePath(n))
	}
	known := newCandidates(paths)
	random := make([]byte, 8<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for name, data := range map[string][]byte{
		"binary": random,
		"text":   bytes.Repeat([]byte("The quick brown fox jumps over /nix/store/"+part(3)+"-x the lazy dog; 0123456789abcdf\n"), 90_000),
		"zeros":  make([]byte, 8<<20),
		"run":    bytes.Repeat([]byte("0123456789abcdfghijklmnpqrsvwxyz"), 1<<18),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			s := newScanner("/nix/store", known)
			for b.Loop() {
				s.Write(data)
			}
		})
	}
}
