package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// adoptable is a directory with the file "f", opened, and an empty tree beside it.
func adoptable(t *testing.T) (tree *Tree, in string, from *os.File) {
	t.Helper()
	dir := t.TempDir()
	in = filepath.Join(dir, "in")
	if err := errors.Join(os.Mkdir(in, 0o755), os.Mkdir(filepath.Join(dir, "from"), 0o755), os.WriteFile(filepath.Join(dir, "from/f"), []byte("content"), 0o755)); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(filepath.Join(dir, "from"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	tree = newTree(t, in, RootFS, Limits{Bytes: 20})
	if err := tree.NextLayer(); err != nil {
		t.Fatal(err)
	}
	return tree, in, from
}

func TestAdopt(t *testing.T) {
	tree, in, from := adoptable(t)
	sum := [32]byte{1}
	steps := []error{
		tree.Symlink("lib", "/usr/lib"),
		tree.Adopt("lib/f", true, 7, sum, from, "f"), // as the tree sees it
		tree.Link("again", "usr/lib/f"),
		tree.NextLayer(),
		tree.Apply(LayerEntry{Kind: LayerWhiteout, Name: "again"}, nil),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`lib -> /usr/lib`, `usr/`, `usr/lib/`, `usr/lib/f -rwxr-xr-x "content"`}, list(t, in)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	var got []Node
	if err := tree.Walk(func(n Node) error { got = append(got, n); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{Path: "lib", Target: "/usr/lib"},
		{Path: "usr", Dir: true},
		{Path: "usr/lib", Dir: true},
		{Path: "usr/lib/f", Executable: true, Size: 7, Sum: sum},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("walk (-want +got):\n%s", diff)
	}
	for name, err := range map[string]error{
		`".." in the name`:                      tree.Adopt("../x", true, 7, sum, from, "f"),
		"exceeds the limit of 20 bytes":         tree.Adopt("more", true, 7, sum, from, "f"),
		"link missing: no such file":            tree.Adopt("missing", true, 0, sum, from, "none"),
		"names the root of the tree":            tree.Adopt("/", true, 0, sum, from, "f"),
		"tree is no root file system":           (&Tree{}).NextLayer(),
		`archive entry "x": unknown kind 200`:   tree.Apply(LayerEntry{Kind: 200, Name: "x"}, nil),
		`archive entry "x": hard link to "none`: tree.Apply(LayerEntry{Kind: LayerLink, Name: "x", Target: "none"}, nil),
	} {
		if !strings.Contains(errText(err), name) {
			t.Errorf("error %v does not say %q", err, name)
		}
	}
}

// A file that has as many links as the file system allows (ext4: 65,000; others: more than anybody needs) is copied.
func TestAdoptWithoutLinks(t *testing.T) {
	tree, in, from := adoptable(t)
	parent, err := tree.openFile("")
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.duplicate(parent, "copy", true, 7, from, "f", "copy"); err != nil {
		t.Fatal(err)
	}
	var full bool
	for n := range 66_000 {
		name := from.Name() + "/" + string(rune('a'+n%26)) + strings.Repeat("x", n/26%200) + string(rune('a'+n/5200))
		if err := os.Link(from.Name()+"/f", name); errors.Is(err, unix.EMLINK) {
			full = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(in + "/copy"); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		t.Errorf("the copy is %v, %v", info, err)
	}
	if err := tree.Adopt("d/f", true, 7, [32]byte{}, from, "f"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`copy -rwxr-xr-x "content"`, `d/`, `d/f -rwxr-xr-x "content"`}, list(t, in)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(in + "/d/f"); err != nil || full != (info.Sys().(*syscall.Stat_t).Nlink == 1) {
		t.Errorf("adopted: %v, %v", info, err)
	}
}

// FuzzLayer: reading the steps of a layer and applying them later is the same as applying it at once.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, e{name: "a/b", body: "x"}, e{name: "l", typ: tar.TypeSymlink, link: "/a"}), tarOf(f, e{name: "l/.wh.b"}, e{name: "l/c", body: "y"}, e{name: "h", typ: tar.TypeLink, link: "l/c"}))
	f.Add(tarOf(f, e{name: "d/x", body: "1"}), tarOf(f, e{name: "d/y"}, e{name: "d/.wh..wh..opq"}, e{name: "d", body: "file"}))
	limits := Limits{Bytes: 1 << 16, Files: 50}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		at, later := t.TempDir(), t.TempDir()
		direct := func() error {
			tree := newTree(t, at, RootFS, limits)
			return errors.Join(tree.Layer(t.Context(), bytes.NewReader(one), None, nil), tree.Layer(t.Context(), bytes.NewReader(two), None, nil))
		}()
		type step struct {
			LayerEntry
			content []byte
		}
		var layers [2][]step
		var reading error
		for i, b := range [][]byte{one, two} {
			reading = errors.Join(reading, ReadLayer(t.Context(), bytes.NewReader(b), None, limits, nil, func(e LayerEntry, r io.Reader) error {
				s := step{LayerEntry: e}
				if r != nil {
					s.content = make([]byte, e.Size)
					if _, err := io.ReadFull(r, s.content); err != nil {
						return err
					}
				}
				layers[i] = append(layers[i], s)
				return nil
			}))
		}
		if reading != nil {
			if direct == nil {
				t.Errorf("reading alone fails: %v", reading)
			}
			return
		}
		tree := newTree(t, later, RootFS, limits)
		var applying error
		for _, steps := range layers {
			applying = errors.Join(applying, tree.NextLayer())
			for _, s := range steps {
				if applying == nil {
					applying = tree.Apply(s.LayerEntry, bytes.NewReader(s.content))
				}
			}
		}
		if (applying == nil) != (direct == nil) {
			t.Fatalf("at once %v, later %v", direct, applying)
		}
		if direct == nil {
			if diff := cmp.Diff(list(t, at), list(t, later)); diff != "" {
				t.Errorf("(-at once +later):\n%s", diff)
			}
		}
	})
}
