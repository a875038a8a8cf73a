package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestRefused has what no archive of the other tables brings about.
func TestRefused(t *testing.T) {
	file := tarOf(t, e{name: "a", body: "x"})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		mode Mode
		do   func(*Tree) error
		err  string
	}{
		{"cancelled", Strict, func(tree *Tree) error { return tree.Tar(cancelled, bytes.NewReader(file), 0) }, "context canceled"},
		{"cancelled zip", Strict, func(tree *Tree) error {
			z := zipOf(t, e{name: "a"})
			return tree.Zip(cancelled, bytes.NewReader(z), int64(len(z)), 0)
		}, "context canceled"},
		{"layer onto a source tree", Strict, func(tree *Tree) error { return tree.Layer(t.Context(), bytes.NewReader(file), None, nil) }, "apply image layer: tree is no root file system"},
		{"unknown type", Strict, func(tree *Tree) error {
			return tree.Tar(t.Context(), bytes.NewReader(append(rawHeader("a", 'Z', 0), make([]byte, 1024)...)), 0)
		}, `archive entry "a": unknown type 'Z'`},
		{"cut in a file", Strict, func(tree *Tree) error { return tree.Tar(t.Context(), bytes.NewReader(file[:512]), 0) }, `archive entry "a": unexpected EOF`},
		{"NUL in a name", Strict, func(tree *Tree) error { return tree.Dir("a\x00b") }, `archive entry "a\x00b": NUL byte in the name`},
		{"NUL in a target", Strict, func(tree *Tree) error { return tree.Symlink("a", "b\x00c") }, `archive entry "a": symbolic link with a NUL byte in its target`},
		{"negative size", Strict, func(tree *Tree) error { return tree.File("a", false, -1, strings.NewReader("")) }, "archive exceeds the limit of 17179869184 bytes"},
		{"short file", Strict, func(tree *Tree) error { return tree.File("a", false, 9, strings.NewReader("x")) }, `archive entry "a": has 1 bytes, not the 9 it promised`},
		{"long name by a link", RootFS, func(tree *Tree) error {
			if err := tree.Symlink("l", strings.Repeat("x", 256)); err != nil {
				return err
			}
			return tree.Dir("l/a")
		}, "archive exceeds the limit of 255 bytes in a name"},
		{"zstd window", Strict, func(tree *Tree) error {
			var b bytes.Buffer
			w, err := zstd.NewWriter(&b, zstd.WithWindowSize(512<<20), zstd.WithSingleSegment(false), zstd.WithEncoderConcurrency(1))
			if err != nil {
				return err
			}
			if _, err := w.Write(file); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			return tree.Tar(t.Context(), &b, 0)
		}, "read archive: window size exceeded"},
		{"unknown compression", Strict, func(*Tree) error { _, err := Decompress(nil, "lha"); return err }, `unknown compression "lha"`},
		{"text after gzip", Strict, func(tree *Tree) error {
			return tree.Tar(t.Context(), bytes.NewReader(append(squeeze(t, Gzip, file), "hello, world"...)), 0)
		}, "read the end of the archive: gzip: invalid header"},
		{"name in the error is bounded", Strict, func(tree *Tree) error { return tree.Dir("/" + strings.Repeat("x", 1000)) }, `archive entry "/` + strings.Repeat("x", 199) + `…": absolute name`},
		{"too many zip entries", Strict, func(tree *Tree) error {
			tree.limits.Files = 1
			z := zipOf(t, e{name: "a"}, e{name: "b"})
			return tree.Zip(t.Context(), bytes.NewReader(z), int64(len(z)), 0)
		}, "archive exceeds the limit of 1 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, check := arena(t)
			if got := errText(tt.do(newTree(t, in, tt.mode, Limits{}))); got != tt.err {
				t.Errorf("error is %q, want %q", got, tt.err)
			}
			check()
		})
	}
}

func TestNewWantsAnEmptyDirectory(t *testing.T) {
	in, _ := arena(t)
	if err := os.WriteFile(filepath.Join(in, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(in, Strict, Limits{}); !strings.Contains(errText(err), "directory is not empty") {
		t.Errorf("error is %v", err)
	}
	if _, err := New(filepath.Join(in, "none"), Strict, Limits{}); err == nil {
		t.Errorf("a missing directory is accepted")
	}
}

// A link that appears behind the model's back, which only a second writer could make, is not followed either.
func TestRacingLinkIsNotFollowed(t *testing.T) {
	in, check := arena(t)
	tree := newTree(t, in, Strict, Limits{})
	if err := tree.Dir("d/e"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(in, "d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../canary", filepath.Join(in, "d")); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return tree.File("d/x", false, 0, strings.NewReader("")) },
		func() error { return tree.Symlink("d/y", "z") },
		func() error { return tree.Dir("d/z") },
	} {
		if do() == nil {
			t.Errorf("an entry was made through the link")
		}
	}
	if err := tree.Tar(t.Context(), bytes.NewReader(tarOf(t, e{name: "d/e/f", typ: tar.TypeReg})), 0); err == nil {
		t.Errorf("an entry was made through the link")
	}
	check()
}
