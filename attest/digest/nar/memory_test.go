package nar_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"arch.network/attest/digest/nar"
)

// allocated returns how many bytes f allocates in all, which bounds what it holds at any one time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// wantAtMost checks that f allocates no more than limit bytes.
func wantAtMost(t *testing.T, what string, limit uint64, f func() error) {
	t.Helper()
	var err error
	got := allocated(func() { err = f() })
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if got > limit {
		t.Errorf("%s allocates %d KiB, want at most %d KiB", what, got>>10, limit>>10)
	}
	t.Logf("%s: %d KiB", what, got>>10)
}

// Memory does not depend on the size of files.
func TestMemoryOfLargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = 300 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	wantAtMost(t, "Hash of 300 MiB", 8<<20, func() error {
		_, _, err := nar.Hash(t.Context(), path, nar.Options{})
		return err
	})
	wantAtMost(t, "Dump of 300 MiB", 1<<20, func() error {
		return nar.Dump(t.Context(), io.Discard, path, nar.Options{})
	})
	frame := str("nix-archive-1", "(", "type", "regular", "contents") + u64(size)
	zeros := io.LimitReader(readerFunc(func(p []byte) (int, error) { clear(p); return len(p), nil }), size)
	wantAtMost(t, "Reader of 300 MiB", 1<<20, func() error {
		r := io.MultiReader(bytes.NewReader([]byte(frame)), zeros, bytes.NewReader([]byte(str(")"))))
		_, err := readAll(nar.NewReader(r, nar.Limits{}))
		return err
	})
}

// readAll counts the entries of an archive.
func readAll(r *nar.Reader) (int, error) {
	for n := 0; ; n++ {
		if _, err := r.Next(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Memory is 32 MiB at most for a directory of 50,000 entries, and what is allocated in all stays below that.
func TestMemoryOfWideDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wide")
	plant(t, path, []node{dir(""), file("first", "x")})
	const entries = 50_000
	for i := range entries - 1 { // hard links are made faster than files
		if err := os.Link(path+"/first", fmt.Sprintf("%s/%020x", path, i*7919%entries)); err != nil {
			t.Fatal(err)
		}
	}
	wantAtMost(t, "Hash of 50,000 entries", 16<<20, func() error {
		_, _, err := nar.Hash(t.Context(), path, nar.Options{})
		return err
	})
	archive := dump(t, path)
	wantAtMost(t, "Reader of 50,000 entries", 16<<20, func() error {
		n, err := readAll(nar.NewReader(bytes.NewReader(archive), nar.Limits{}))
		if n != entries+1 {
			t.Errorf("%d entries, want %d", n, entries+1)
		}
		return err
	})
}
