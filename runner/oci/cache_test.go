package oci_test

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
	"arch.network/runner/oci"
)

// threeLayers is an image with whiteouts, an opaque directory, links, and each compression.
func threeLayers(t testing.TB, w *world) image {
	return w.image(map[string]any{"Entrypoint": []string{"/bin/x"}},
		layer{tarOf(t,
			e{name: "lib64", typ: tar.TypeSymlink, link: "/usr/lib64"},
			e{name: "lib64/ld", body: "loader", mode: 0o755},
			e{name: "etc/old", body: "old"},
			e{name: "etc/kept", body: "kept"},
			e{name: "data/low", body: "low"},
			e{name: "data/sub/low", body: "low"},
			e{name: "bin/x", body: "x", mode: 0o4755},
			e{name: "bin/y", typ: tar.TypeLink, link: "bin/x"},
			e{name: "dev/null", typ: tar.TypeChar},
		), ""},
		layer{tarOf(t,
			e{name: "etc/.wh.old"},
			e{name: "data/new", body: "new"},
			e{name: "data/.wh..wh..opq"},
			e{name: "lib64/more", body: "more"},
		), "gzip"},
		layer{tarOf(t,
			e{name: "etc/old", body: "again"},
			e{name: "bin/x", body: "other", mode: 0o755},
			e{name: "data/new", body: "newer"},
		), "zstd"},
	)
}

var threeLayersTree = []string{
	`bin/`, `bin/x* "other"`, `bin/y* "x"`, `data/`, `data/new "newer"`, `etc/`, `etc/kept "kept"`, `etc/old "again"`,
	`lib64 -> /usr/lib64`, `usr/`, `usr/lib64/`, `usr/lib64/ld* "loader"`, `usr/lib64/more "more"`,
}

func TestRoot(t *testing.T) {
	w := newWorld(t)
	img := w.put(threeLayers(t, w))
	dir := filepath.Join(t.TempDir(), "cache")
	c := openCache(t, oci.Options{Dir: dir})
	root, err := c.Root(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(threeLayersTree, list(t, root.Dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	for _, name := range []string{"dev", "inputs", "outputs", "proc", "tmp"} {
		if entries, err := os.ReadDir(filepath.Join(root.Dir, name)); err != nil || len(entries) > 0 {
			t.Errorf("mount point %s: %v, %v", name, entries, err)
		}
	}
	if root.Manifest != img.Digest || root.Config.Entrypoint[0] != "/bin/x" || root.WorkDir != "/" || root.User.Home != "/" {
		t.Errorf("root is %+v", root)
	}
	nothingLeft(t, dir)

	// The layers' blobs are not needed again, the documents are.
	again := oci.Image{Digest: img.Digest, Platform: platform, Blobs: func(d digest.SHA256) (*os.File, error) {
		f, err := img.Blobs(d)
		if err == nil {
			if info, _ := f.Stat(); info.Size() > 800 {
				t.Errorf("blob %s of %d bytes is read again", d, info.Size())
			}
		}
		return f, err
	}}
	if second, err := c.Root(t.Context(), again); err != nil || second.Dir != root.Dir {
		t.Errorf("second time: %+v, %v", second, err)
	}
}

// The root of an image is what the builder's mechanism makes of the same layers, which applies them without a cache between.
func TestRootIsWhatLayersMake(t *testing.T) {
	w := newWorld(t)
	i := threeLayers(t, w)
	dir := t.TempDir()
	tree, err := unpack.New(dir, unpack.RootFS, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, l := range i.Manifest["layers"].([]any) {
		desc := l.(map[string]any)
		f, err := oci.Layout(w.dir)(desc["digest"].(digest.SHA256))
		if err != nil {
			t.Fatal(err)
		}
		c, _ := imagespec.LayerCompression(desc["mediaType"].(string))
		if err := tree.Layer(t.Context(), f, c, nil); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	root, err := openCache(t, oci.Options{}).Root(t.Context(), w.put(i))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list(t, dir), list(t, root.Dir)); diff != "" {
		t.Errorf("tree (-without cache +with):\n%s", diff)
	}
}

// Damage is found when the object is checked again, and repaired from the blobs.
func TestRecheck(t *testing.T) {
	flip := func(path string) error {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("#"), info.Size()-1)
		return err
	}
	first := func(cache, kind string) string {
		found, err := filepath.Glob(filepath.Join(cache, kind, "*"))
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		return found[0]
	}
	root := func(cache string) string { return filepath.Join(first(cache, "roots"), "root") }
	for name, damage := range map[string]func(cache string) error{
		"file":              func(c string) error { return flip(root(c) + "/etc/kept") },
		"file gone":         func(c string) error { return os.Remove(root(c) + "/etc/kept") },
		"file added":        func(c string) error { return os.WriteFile(root(c)+"/etc/more", nil, 0o644) },
		"file at the top":   func(c string) error { return os.WriteFile(root(c)+"/more", nil, 0o644) },
		"mode":              func(c string) error { return os.Chmod(root(c)+"/bin/x", 0o644) },
		"set-user-ID":       func(c string) error { return os.Chmod(root(c)+"/bin/x", 0o755|fs.ModeSetuid) },
		"mode of directory": func(c string) error { return os.Chmod(root(c)+"/etc", 0o700) },
		"link": func(c string) error {
			return errors.Join(os.Remove(root(c)+"/lib64"), os.Symlink("/etc", root(c)+"/lib64"))
		},
		"link for a file": func(c string) error {
			return errors.Join(os.Remove(root(c)+"/etc/kept"), os.Symlink("/etc/passwd", root(c)+"/etc/kept"))
		},
		"index":        func(c string) error { return flip(filepath.Join(first(c, "roots"), "index")) },
		"seal":         func(c string) error { return flip(filepath.Join(first(c, "roots"), "seal")) },
		"no seal":      func(c string) error { return os.Remove(filepath.Join(first(c, "roots"), "seal")) },
		"empty seal":   func(c string) error { return os.Truncate(filepath.Join(first(c, "roots"), "seal"), 0) },
		"root is gone": func(c string) error { return os.RemoveAll(root(c)) },
		"root and layers": func(c string) error {
			return errors.Join(os.RemoveAll(root(c)), os.RemoveAll(filepath.Join(first(c, "layers"), "files")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_000_000, 0)
			w := newWorld(t)
			img := w.put(threeLayers(t, w))
			dir := filepath.Join(t.TempDir(), "cache")
			c := openCache(t, oci.Options{Dir: dir, Now: func() time.Time { return now }})
			if _, err := c.Root(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			now = now.Add(25 * time.Hour)
			again, err := c.Root(t.Context(), img)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(threeLayersTree, list(t, again.Dir)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			nothingLeft(t, dir)
		})
	}
}

// What is fresh is used as it is; that is the price of a fast start.
func TestFresh(t *testing.T) {
	w := newWorld(t)
	img := w.put(threeLayers(t, w))
	now := time.Unix(1_000_000, 0)
	c := openCache(t, oci.Options{Now: func() time.Time { return now }})
	root, err := c.Root(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(root.Dir, "mark")
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		stays bool
	}{{time.Hour, true}, {-2 * time.Hour, false}} { // a clock that went back proves nothing
		now = now.Add(step.after)
		if _, err := c.Root(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(mark); (err == nil) != step.stays {
			t.Errorf("after %v: %v", step.after, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	img := w.put(threeLayers(t, w))
	dir := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := oci.Open(t.Context(), oci.Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			root, err := c.Root(t.Context(), img)
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff(threeLayersTree, list(t, root.Dir)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
	wg.Wait()
	nothingLeft(t, dir)
}

func TestSweepAndClean(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "cache")
	now := time.Unix(1_000_000, 0)
	c := openCache(t, oci.Options{Dir: dir, Now: func() time.Time { return now }})
	img := w.put(threeLayers(t, w))
	root, err := c.Root(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	// A process that died.
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "tmp/dead/object"), 0o755), os.WriteFile(filepath.Join(dir, "tmp/dead.lock"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	openCache(t, oci.Options{Dir: dir}).Close()
	nothingLeft(t, dir)

	now = now.Add(time.Hour)
	clean := func(want int, dry bool) {
		t.Helper()
		other := openCache(t, oci.Options{Dir: dir, Now: func() time.Time { return now }})
		defer other.Close()
		for _, c := range []*oci.Cache{c, other} {
			if n, err := c.Clean(t.Context(), oci.CleanOptions{Unused: 2 * time.Hour, DryRun: dry}); n != want || err != nil {
				t.Errorf("removed %d, %v; want %d", n, err, want)
			}
			if !dry {
				want = 0
			}
		}
	}
	clean(0, false)
	now = now.Add(2 * time.Hour)
	clean(3, true)
	clean(3, false) // not the root: it is in use
	if !cmp.Equal(threeLayersTree, list(t, root.Dir)) {
		t.Error("the root was touched")
	}
	c.Release(root)
	clean(0, false) // it was in use until now
	now = now.Add(2 * time.Hour)
	clean(1, false)
	nothingLeft(t, dir)
	if _, err := c.Root(t.Context(), img); err != nil {
		t.Error(err)
	}
}

// TestCleanWhileOthersRun cleans all the time, from another cache, while some use an image and others make it.
func TestCleanWhileOthersRun(t *testing.T) {
	w := newWorld(t)
	dir, img := filepath.Join(t.TempDir(), "cache"), w.put(threeLayers(t, w))
	done := make(chan struct{})
	var users, cleaner sync.WaitGroup
	cleaner.Go(func() {
		c := openCache(t, oci.Options{Dir: dir})
		defer c.Close()
		for {
			if _, err := c.Clean(t.Context(), oci.CleanOptions{}); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 4 {
		users.Go(func() {
			c := openCache(t, oci.Options{Dir: dir})
			defer c.Close()
			for range 20 {
				root, err := c.Root(t.Context(), img)
				if err != nil {
					t.Error(err)
					return
				}
				if diff := cmp.Diff(threeLayersTree, list(t, root.Dir)); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
				c.Release(root)
			}
		})
	}
	users.Wait()
	close(done)
	cleaner.Wait()
	nothingLeft(t, dir)
}

func TestCacheOfOthers(t *testing.T) {
	open := func(change func(dir string)) error {
		dir := t.TempDir()
		change(dir)
		c, err := oci.Open(t.Context(), oci.Options{Dir: dir})
		if err == nil {
			c.Close()
		}
		return err
	}
	for name, tt := range map[string]struct {
		change func(dir string)
		err    string
	}{
		"empty":         {func(string) {}, ""},
		"writable":      {func(dir string) { os.Chmod(dir, 0o777) }, "others may write to it (mode 0777)"},
		"something":     {func(dir string) { os.WriteFile(dir+"/thesis.tex", nil, 0o644) }, `it is no cache and holds other files, such as "thesis.tex"`},
		"other version": {func(dir string) { os.WriteFile(dir+"/version", []byte("arch images 9\n"), 0o644) }, `its version file says "arch images 9\n", this program knows "arch images 1\n"`},
	} {
		err := open(tt.change)
		if tt.err == "" && err != nil || !strings.HasSuffix(errText(err), tt.err) {
			t.Errorf("%s: error is %v", name, err)
		}
		if h, ok := err.(interface{ Hint() string }); tt.err != "" && (!ok || h.Hint() == "") {
			t.Errorf("%s: no hint", name)
		}
	}
}

// What is cut off leaves nothing behind, and does not disturb the next try.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	i := threeLayers(t, w)
	img := w.put(i)
	dir := filepath.Join(t.TempDir(), "cache")
	c := openCache(t, oci.Options{Dir: dir})
	gone := errors.New("gone")
	for n := range 3 { // a fourth finds the layer that the third finished
		count := 0
		broken := img
		broken.Blobs = func(d digest.SHA256) (*os.File, error) {
			if count++; count > n+1 {
				return nil, gone
			}
			return img.Blobs(d)
		}
		if _, err := c.Root(t.Context(), broken); !errors.Is(err, gone) {
			t.Errorf("%d blobs: error is %v", n+1, err)
		}
		nothingLeft(t, dir)
	}
	if root, err := c.Root(t.Context(), img); err != nil || !cmp.Equal(threeLayersTree, list(t, root.Dir)) {
		t.Errorf("%+v, %v", root, err)
	}
}
