package nar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"arch.network/attest/digest/nar"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRestore(t *testing.T) {
	trees := map[string][]node{
		"sample":          sample(),
		"file":            {file("", "content")},
		"program":         {program("", "#!/bin/sh")},
		"link to nothing": {link("", "/nowhere")},
		"empty directory": {dir("")},
		"large":           {dir(""), file("a", strings.Repeat("large", 1<<20)), program("b", strings.Repeat("y", 64<<10))},
	}
	for name, tree := range trees {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(scratch(t), "tree")
			archive := encode(t, tree)
			if err := nar.Restore(t.Context(), bytes.NewReader(archive), path, nar.RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tree, harvest(t, path)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			if !bytes.Equal(archive, dump(t, path)) {
				t.Error("Dump gives another archive")
			}
		})
	}
}

func TestRestoreModesAndTimes(t *testing.T) {
	tests := map[string]struct {
		opts  nar.RestoreOptions
		modes string // of a directory, a file and a program
		time  time.Time
	}{
		"read-only": {nar.RestoreOptions{}, "dr-xr-xr-x -r--r--r-- -r-xr-xr-x", time.Unix(1, 0)},
		"writable":  {nar.RestoreOptions{Writable: true}, "drwxr-xr-x -rw-r--r-- -rwxr-xr-x", time.Unix(1, 0)},
		"time":      {nar.RestoreOptions{ModTime: time.Unix(1e9, 5)}, "dr-xr-xr-x -r--r--r-- -r-xr-xr-x", time.Unix(1e9, 5)},
		"epoch":     {nar.RestoreOptions{ModTime: time.Unix(0, 0)}, "dr-xr-xr-x -r--r--r-- -r-xr-xr-x", time.Unix(0, 0)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(scratch(t), "tree")
			if err := nar.Restore(t.Context(), bytes.NewReader(encode(t, sample())), path, test.opts); err != nil {
				t.Fatal(err)
			}
			var modes []string
			for _, rel := range []string{"b", "b/c", "b/d"} {
				modes = append(modes, lstat(t, filepath.Join(path, rel)).Mode().String())
			}
			if diff := cmp.Diff(test.modes, strings.Join(modes, " ")); diff != "" {
				t.Errorf("modes (-want +got):\n%s", diff)
			}
			for _, n := range sample() {
				if got := lstat(t, filepath.Join(path, n.Path)).ModTime(); !got.Equal(test.time) {
					t.Errorf("time of %q: %v, want %v", n.Path, got, test.time)
				}
			}
		})
	}
}

func lstat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestRestoreRefuses(t *testing.T) {
	for name, test := range hostile() {
		t.Run(name, func(t *testing.T) {
			base := scratch(t)
			err := nar.Restore(t.Context(), strings.NewReader(test.archive), base+"/tree", nar.RestoreOptions{})
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("error %v, want one with %q", err, test.reason)
			}
			wantOnly(t, base)
		})
	}
}

// wantOnly checks that names are all that is in the directory.
func wantOnly(t *testing.T, path string, names ...string) {
	t.Helper()
	var got []string
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("left in the directory (-want +got):\n%s", diff)
	}
}

// Wherever the archive breaks off, nothing of it stays.
func TestRestoreTruncated(t *testing.T) {
	base := scratch(t)
	archive := encode(t, []node{dir(""), program("a", "12345"), dir("b"), link("b/c", "a"), file("d", "")})
	for n := range archive {
		err := nar.Restore(t.Context(), bytes.NewReader(archive[:n]), base+"/tree", nar.RestoreOptions{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d of %d bytes: %v", n, len(archive), err)
		}
		wantOnly(t, base)
	}
}

func TestRestoreInterrupted(t *testing.T) {
	base := scratch(t)
	archive := encode(t, []node{dir(""), file("a", "x"), file("b", strings.Repeat("x", 1<<20))})
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(archive[:1<<19]), after{cancel}, bytes.NewReader(archive[1<<19:]))
	if err := nar.Restore(ctx, r, base+"/tree", nar.RestoreOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	wantOnly(t, base)

	cause := errors.New("network gone")
	r = io.MultiReader(bytes.NewReader(archive[:1<<19]), iotest.ErrReader(cause))
	if err := nar.Restore(t.Context(), r, base+"/tree", nar.RestoreOptions{}); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	wantOnly(t, base)
}

// A full disk, in the shape of a limit on file size, leaves nothing behind.
func TestRestoreWriteFails(t *testing.T) {
	base := scratch(t)
	archive := encode(t, []node{dir(""), file("a", "x"), dir("b"), file("b/c", strings.Repeat("x", 1<<20))})
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	withLimit(t, unix.RLIMIT_FSIZE, 1<<19, func() {
		err := nar.Restore(t.Context(), bytes.NewReader(archive), base+"/tree", nar.RestoreOptions{})
		if !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), `"b/c": write`) {
			t.Errorf("error %v, want %v", err, unix.EFBIG)
		}
	})
	wantOnly(t, base)
}

// So does running out of file descriptors in the depths.
func TestRestoreOpenFails(t *testing.T) {
	base := scratch(t)
	tree := []node{dir("")}
	for depth := range 200 {
		tree = append(tree, dir(strings.Repeat("d/", depth)+"d"))
	}
	archive := encode(t, tree)
	withLimit(t, unix.RLIMIT_NOFILE, 100, func() {
		err := nar.Restore(t.Context(), bytes.NewReader(archive), base+"/tree", nar.RestoreOptions{})
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("error %v, want %v", err, unix.EMFILE)
		}
	})
	wantOnly(t, base)
}

// withLimit calls f while this process has a lower limit on a resource.
func withLimit(t *testing.T, resource int, limit uint64, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(resource, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(resource, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// after calls stop when it is read, and is empty.
type after struct{ stop func() }

func (a after) Read([]byte) (int, error) { a.stop(); return 0, io.EOF }

// What is there stays as it is.
func TestRestoreOverSomething(t *testing.T) {
	base := scratch(t)
	plant(t, base, []node{
		file("file", "mine"), dir("dir"), file("dir/f", "mine"), dir("empty"),
		link("link", "dir"), link("dangling", "nowhere"),
	})
	want := harvest(t, base)
	for _, name := range []string{"file", "dir", "empty", "link", "dangling", "dangling/"} {
		for _, tree := range [][]node{{file("", "other")}, {dir("")}, {link("", "other")}} {
			err := nar.Restore(t.Context(), bytes.NewReader(encode(t, tree)), base+"/"+name, nar.RestoreOptions{})
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v, want %v", name, err, fs.ErrExist)
			}
		}
	}
	if diff := cmp.Diff(want, harvest(t, base)); diff != "" {
		t.Errorf("what was there (-want +got):\n%s", diff)
	}
	archive := encode(t, sample())
	for _, dst := range []string{"", ".", "..", "/", base + "/absent/tree", base + "/file/tree"} {
		if err := nar.Restore(t.Context(), bytes.NewReader(archive), dst, nar.RestoreOptions{}); err == nil {
			t.Errorf("Restore to %q is no error", dst)
		}
	}
}

// A link of the archive is never gone through.
func TestRestoreLinksOut(t *testing.T) {
	base := scratch(t)
	plant(t, base, []node{dir("outside")})
	archive := encode(t, []node{dir(""), link("a", base+"/outside"), dir("b"), link("b/c", "../../outside"), file("d", "x")})
	if err := nar.Restore(t.Context(), bytes.NewReader(archive), base+"/tree", nar.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, base+"/outside")
}

func TestRestoreDeepest(t *testing.T) {
	base := scratch(t)
	tree := []node{dir("")}
	for depth := range 256 {
		tree = append(tree, dir(strings.Repeat("d/", depth)+"d"))
	}
	archive := encode(t, tree)
	if err := nar.Restore(t.Context(), bytes.NewReader(archive), base+"/tree", nar.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive, dump(t, base+"/tree")) {
		t.Error("Dump gives another archive")
	}
}

func TestRemoveAll(t *testing.T) {
	base := scratch(t)
	plant(t, base, []node{dir("keep"), file("keep/f", "")})
	tree := append(sample(), link("zz", base+"/keep"))
	if err := nar.Restore(t.Context(), bytes.NewReader(encode(t, tree)), base+"/tree", nar.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base+"/tree/x", 0); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{base + "/tree", base + "/tree", base + "/absent/tree"} {
		if err := nar.RemoveAll(path); err != nil {
			t.Errorf("RemoveAll(%q): %v", path, err)
		}
	}
	if diff := cmp.Diff([]node{dir(""), dir("keep"), file("keep/f", "")}, harvest(t, base)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// The archive of a tree made by Restore is the archive it was made from.
func FuzzRestore(f *testing.F) {
	f.Add(encode(f, sample()))
	f.Add([]byte(archive(symlinkNode("/etc"))))
	for _, test := range hostile() {
		f.Add([]byte(test.archive))
	}
	base := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		work, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := nar.RemoveAll(work); err != nil {
				t.Error(err)
			}
		}()
		_, refused := decode(bytes.NewReader(archive), nar.Limits{})
		err = nar.Restore(t.Context(), bytes.NewReader(archive), work+"/tree", nar.RestoreOptions{})
		if (err == nil) != (refused == nil) {
			t.Fatalf("Restore: %v, Reader: %v", err, refused)
		}
		if err != nil {
			wantOnly(t, work)
			return
		}
		wantOnly(t, work, "tree")
		if again := dump(t, work+"/tree"); !bytes.Equal(again, archive) {
			t.Errorf("%q was restored, Dump gives %q", archive, again)
		}
	})
}
