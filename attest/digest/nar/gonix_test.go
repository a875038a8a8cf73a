package nar_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"

	gonix "github.com/nix-community/go-nix/pkg/nar"

	"github.com/google/go-cmp/cmp"
)

// compareWithGoNix checks that go-nix reads from archive the tree that we read, and writes the same archive for it.
func compareWithGoNix(t *testing.T, archive []byte, tree []node) {
	t.Helper()
	r, err := gonix.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatalf("go-nix refuses %q: %v", archive, err)
	}
	defer r.Close()
	var got []node
	var again bytes.Buffer
	w, err := gonix.NewWriter(&again)
	if err != nil {
		t.Fatal(err)
	}
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("go-nix refuses %q: %v", archive, err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("go-nix refuses %q: %v", archive, err)
		}
		got = append(got, node{
			Path:       strings.TrimPrefix(h.Path, "/"),
			Type:       nar.Type(h.Type),
			Executable: h.Executable,
			Content:    string(content),
			Target:     h.LinkTarget,
		})
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("go-nix does not write what it read: %v", err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree, got); diff != "" {
		t.Errorf("go-nix reads another tree (-ours +go-nix):\n%s", diff)
	}
	if !bytes.Equal(archive, again.Bytes()) {
		t.Errorf("go-nix writes %q, ours is %q", again.Bytes(), archive)
	}
}

func TestGoNixReadsOurs(t *testing.T) {
	compareWithGoNix(t, encode(t, sample()), sample())
}

func TestDumpEqualsGoNix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	plant(t, path, sample())
	if err := os.Mkdir(filepath.Join(path, "many"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		plant(t, path, []node{file("many/"+strings.Repeat("n", i%250+1)+string(rune('a'+i/250)), strings.Repeat("x", i*97))})
	}
	var want bytes.Buffer
	if err := gonix.DumpPath(&want, path); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, path); !bytes.Equal(want.Bytes(), got) {
		t.Errorf("%d bytes differ from go-nix's %d", len(got), want.Len())
	}
}
