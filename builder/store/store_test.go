package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// openTest opens a store that ends with the test.
func openTest(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := (osFS{}).RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return s
}

// newTest opens a new store.
func newTest(t *testing.T) *Store { return openTest(t, filepath.Join(t.TempDir(), "store")) }

// writeTree makes files from "name" → content; a name that ends in "*" is executable, content "→target" makes a link.
func writeTree(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, strings.TrimSuffix(name, "*"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			mode = 0o755
		}
		var err error
		if target, ok := strings.CutPrefix(content, "→"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func dump(t *testing.T, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Dump(t.Context(), &b, path, nar.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var sample = map[string]string{"bin/tool*": "#!x", "doc/a": "one", "doc/empty": "", "doc/link": "→../bin/tool"}

func TestBlob(t *testing.T) {
	s := newTest(t)
	content := []byte("some bytes")
	want := digest.Of(content)

	d, n, err := s.AddBlob(t.Context(), bytes.NewReader(content), digest.SHA256{})
	if err != nil || d != want || n != int64(len(content)) {
		t.Fatalf("AddBlob = %v, %d, %v; want %v, %d", d, n, err, want, len(content))
	}
	d, n, err = s.AddBlob(t.Context(), failingReader{}, want)
	if err != nil || d != want || n != int64(len(content)) {
		t.Fatalf("AddBlob of a blob that is there = %v, %d, %v", d, n, err)
	}
	f, err := s.OpenBlob(want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content, got); diff != "" {
		t.Errorf("blob (-want +got):\n%s", diff)
	}
	path, ok := s.BlobPath(want)
	info, err := os.Stat(path)
	if !ok || err != nil || info.Mode() != 0o444 {
		t.Errorf("BlobPath = %q, %v with mode %v, %v; want a file 0444", path, ok, info.Mode(), err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("read what need not be read") }

func TestRefusals(t *testing.T) {
	other := digest.Of([]byte("other"))
	noContext, cancel := context.WithCancel(t.Context())
	cancel()
	plain := writeTree(t, t.TempDir(), sample)
	special := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(special, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		do   func(ctx context.Context, s *Store) error
		want string
	}{
		{"a blob that is not what was wanted", func(ctx context.Context, s *Store) error {
			_, _, err := s.AddBlob(ctx, strings.NewReader("bytes"), other)
			return err
		}, "add blob " + other.String() + " to the store: the content is " + digest.Of([]byte("bytes")).String()},
		{"a tree that is not what was wanted", func(ctx context.Context, s *Store) error {
			_, err := s.AddTree(ctx, bytes.NewReader(dump(t, plain)), other)
			return err
		}, "add tree " + other.String() + " to the store: the content is "},
		{"a directory that is not what was wanted", func(ctx context.Context, s *Store) error {
			_, err := s.ImportTree(ctx, plain, other)
			return err
		}, "add tree " + other.String() + " to the store: the content is "},
		{"a cut NAR", func(ctx context.Context, s *Store) error {
			whole := dump(t, plain)
			_, err := s.AddTree(ctx, bytes.NewReader(whole[:len(whole)-8]), digest.SHA256{})
			return err
		}, "add tree to the store: "},
		{"a NAR with more behind it", func(ctx context.Context, s *Store) error {
			_, err := s.AddTree(ctx, bytes.NewReader(append(dump(t, plain), 0)), digest.SHA256{})
			return err
		}, "add tree to the store: "},
		{"a broken reader", func(ctx context.Context, s *Store) error {
			_, _, err := s.AddBlob(ctx, failingReader{}, digest.SHA256{})
			return err
		}, "add blob to the store: read what need not be read"},
		{"a FIFO in an imported tree", func(ctx context.Context, s *Store) error {
			_, err := s.ImportTree(ctx, special, digest.SHA256{})
			return err
		}, `/fifo": a tree cannot hold a named pipe`},
		{"a FIFO in a filled tree", func(ctx context.Context, s *Store) error {
			_, err := s.AddTreeFunc(ctx, func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "p"), 0o600) }, digest.SHA256{})
			return err
		}, `/p": neither file, directory nor link`},
		{"a failing fill", func(ctx context.Context, s *Store) error {
			_, err := s.AddTreeFunc(ctx, func(dir string) error { return errors.New("no more paper") }, digest.SHA256{})
			return err
		}, "add tree to the store: no more paper"},
		{"a source that is not there", func(ctx context.Context, s *Store) error {
			_, err := s.AddTreeFrom(ctx, filepath.Join(plain, "absent"), nar.Options{})
			return err
		}, "absent"},
		{"a cancelled blob", func(_ context.Context, s *Store) error {
			_, _, err := s.AddBlob(noContext, strings.NewReader("x"), digest.SHA256{})
			return err
		}, "context canceled"},
		{"a record kind that is a path", func(_ context.Context, s *Store) error {
			return s.Remember("../roots", "k", nil)
		}, `remember "k": record kind "../roots" is not 1 to 64 lower-case letters, digits and "-"`},
		{"a record without a key", func(_ context.Context, s *Store) error {
			return s.Remember("go", "", nil)
		}, "record key has 0 bytes, which is not 1 to 4096"},
		{"a record that is too large", func(_ context.Context, s *Store) error {
			return s.Remember("go", "k", make([]byte, MaxValue+1))
		}, "record value has 1048577 bytes, over the limit of 1048576"},
		{"a blob that is not there", func(_ context.Context, s *Store) error {
			_, err := s.OpenBlob(other)
			return err
		}, "find blob " + other.String() + " in the store: not there"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newTest(t)
			err := test.do(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			wantEmpty(t, s)
		})
	}
}

// wantEmpty checks that nothing half-written or unasked for is left.
func wantEmpty(t *testing.T, s *Store) {
	t.Helper()
	objects, err := s.List(t.Context())
	if err != nil || len(objects) > 0 {
		t.Errorf("objects %v, %v; want none", objects, err)
	}
	if left := temporary(t, s.Dir()); len(left) > 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

// temporary lists what is in the temporary directories of all sessions.
func temporary(t *testing.T, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, tempDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestTreesOfEverySource(t *testing.T) {
	dir := writeTree(t, t.TempDir(), sample)
	encoded := dump(t, dir)
	want := digest.Of(encoded)
	tests := []struct {
		name string
		add  func(s *Store) (digest.SHA256, error)
	}{
		{"NAR", func(s *Store) (digest.SHA256, error) {
			return s.AddTree(t.Context(), bytes.NewReader(encoded), digest.SHA256{})
		}},
		{"NAR with digest", func(s *Store) (digest.SHA256, error) {
			return s.AddTree(t.Context(), bytes.NewReader(encoded), want)
		}},
		{"directory", func(s *Store) (digest.SHA256, error) {
			return s.AddTreeFrom(t.Context(), dir, nar.Options{})
		}},
		{"imported directory", func(s *Store) (digest.SHA256, error) {
			return s.ImportTree(t.Context(), dir, want)
		}},
		{"filled directory", func(s *Store) (digest.SHA256, error) {
			return s.AddTreeFunc(t.Context(), func(tree string) error { writeTree(t, tree, sample); return nil }, want)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newTest(t)
			for range 2 {
				if got, err := test.add(s); err != nil || got != want {
					t.Fatalf("digest %v, %v; want %v", got, err, want)
				}
			}
			path, ok := s.TreePath(want)
			if !ok || path != filepath.Join(s.Dir(), "trees", want.Hex(), "tree") {
				t.Fatalf("TreePath = %q, %v", path, ok)
			}
			if diff := cmp.Diff(encoded, dump(t, path)); diff != "" {
				t.Errorf("stored tree (-want +got):\n%s", diff)
			}
			wantSealed(t, path)
			if left := temporary(t, s.Dir()); len(left) > 0 {
				t.Errorf("temporary files left: %q", left)
			}
			report, err := s.Verify(t.Context(), VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := VerifyReport{Summary: Summary{Objects: 1, Bytes: int64(len(encoded))}}
			if diff := cmp.Diff(want, report); diff != "" {
				t.Errorf("Verify (-want +got):\n%s", diff)
			}
		})
	}
}

// wantSealed checks the modes and times of a stored tree.
func wantSealed(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.ModTime().Unix() != 1 {
			t.Errorf("%s has time %v, want 1", path, info.ModTime())
		}
		if mode := info.Mode(); mode.Type() != fs.ModeSymlink && mode.Perm() != 0o555 && (mode.IsDir() || mode.Perm() != 0o444) {
			t.Errorf("%s has mode %v, want 0444 or 0555", path, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTreeRootMayBeAFileOrLink(t *testing.T) {
	dir := writeTree(t, t.TempDir(), map[string]string{"file": "text", "tool*": "x", "link": "→file"})
	s := newTest(t)
	for _, name := range []string{"file", "tool", "link"} {
		encoded := dump(t, filepath.Join(dir, name))
		d, err := s.AddTree(t.Context(), bytes.NewReader(encoded), digest.SHA256{})
		if err != nil {
			t.Fatal(err)
		}
		path, ok := s.TreePath(d)
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		if diff := cmp.Diff(encoded, dump(t, path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAddTreeFromFilters(t *testing.T) {
	dir := writeTree(t, t.TempDir(), sample)
	s := newTest(t)
	d, err := s.AddTreeFrom(t.Context(), dir, nar.Options{Filter: func(rel string, _ bool) bool { return rel == "doc" }})
	if err != nil {
		t.Fatal(err)
	}
	path, _ := s.TreePath(d)
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != "bin" {
		t.Errorf("the tree holds %v, %v; want bin", entries, err)
	}
}

// Where the file system can share blocks, an import copies file by file.
func TestCopyTree(t *testing.T) {
	dir := writeTree(t, t.TempDir(), sample)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	outside := writeTree(t, t.TempDir(), map[string]string{"secret": "x"})
	must(os.Symlink(outside, filepath.Join(dir, "out")))
	s := newTest(t)
	copied := t.TempDir()
	must(copyTree(t.Context(), dir, copied))
	if diff := cmp.Diff(dump(t, dir), dump(t, copied)); diff != "" {
		t.Errorf("copy (-want +got):\n%s", diff)
	}
	d, err := s.AddTreeFunc(t.Context(), func(tree string) error { return copyTree(t.Context(), dir, tree) }, digest.SHA256{})
	must(err)
	path, _ := s.TreePath(d)
	wantSealed(t, path)

	must(unix.Mkfifo(filepath.Join(dir, "doc/fifo"), 0o600))
	if err := copyTree(t.Context(), dir, t.TempDir()); err == nil || !strings.Contains(err.Error(), `fifo": neither file, directory nor link`) {
		t.Errorf("copy of a FIFO: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyTree(cancelled, dir, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled copy: %v", err)
	}
}

// An import shares no inode with its source: what is done to one must not reach the other.
func TestImportIsACopy(t *testing.T) {
	dir := writeTree(t, t.TempDir(), map[string]string{"a": "before"})
	s := newTest(t)
	d, err := s.ImportTree(t.Context(), dir, digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("after!"), 0o644); err != nil {
		t.Fatal(err)
	}
	path, _ := s.TreePath(d)
	got, err := os.ReadFile(filepath.Join(path, "a"))
	if err != nil || string(got) != "before" {
		t.Errorf("stored file is %q, %v; want %q", got, err, "before")
	}
}

func TestRecords(t *testing.T) {
	s := newTest(t)
	if _, ok, err := s.Recall("go", "h1:x"); ok || err != nil {
		t.Fatalf("Recall of nothing = %v, %v", ok, err)
	}
	for _, value := range []string{"first", "second", "", "with\nline"} {
		if err := s.Remember("go", "h1:x", []byte(value)); err != nil {
			t.Fatal(err)
		}
		got, ok, err := s.Recall("go", "h1:x")
		if err != nil || !ok || string(got) != value {
			t.Fatalf("Recall = %q, %v, %v; want %q", got, ok, err, value)
		}
	}
	if _, ok, err := s.Recall("build", "h1:x"); ok || err != nil {
		t.Errorf("Recall of the other kind = %v, %v", ok, err)
	}
	for range 2 {
		if err := s.Forget("go", "h1:x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := s.Recall("go", "h1:x"); ok || err != nil {
		t.Errorf("Recall of what was forgotten = %v, %v", ok, err)
	}
}

// Every flip of a bit and every truncation of a record is noticed.
func TestDamagedRecords(t *testing.T) {
	s := newTest(t)
	if err := s.Remember("go", "key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	path := s.path(recordDir, "go", keyName("key"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := [][]byte{append(slices.Clone(whole), '\n'), make([]byte, maxRecord+1)}
	for i := range whole {
		flipped := slices.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		damaged = append(damaged, flipped, whole[:i])
	}
	for _, bytes := range damaged {
		if err := os.WriteFile(path, bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.Recall("go", "key")
		corrupt, ok := errors.AsType[*CorruptError](err)
		if !ok || corrupt.Hint() == "" || !strings.Contains(err.Error(), keyName("key")) {
			t.Fatalf("Recall of %.80q: %v; want a *CorruptError that names the file", bytes, err)
		}
	}
}

func TestSwappedRecords(t *testing.T) {
	s := newTest(t)
	for _, key := range []string{"a", "b"} {
		if err := s.Remember("go", key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(s.path(recordDir, "go", keyName("a")), s.path(recordDir, "go", keyName("b"))); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Recall("go", "b")
	if err == nil || !strings.Contains(err.Error(), `it is the record of go "a"`) {
		t.Errorf("Recall of a record with another's content: %v", err)
	}
}

func TestOpen(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string // of the error; empty: none
	}{
		{name: "nothing there"},
		{name: "empty directory", files: map[string]string{}},
		{name: "unfinished store", files: map[string]string{"blobs/.keep": "", "lock": ""}},
		{name: "a store", files: map[string]string{"version": versionText, "tmp/.keep": ""}},
		{name: "someone's files", files: map[string]string{"thesis": "x"}, want: `it is no store and holds other files, such as "thesis"`},
		{name: "a later version", files: map[string]string{"version": "arch store 2\n"}, want: `its version file says "arch store 2\n"`},
		{name: "a long version", files: map[string]string{"version": strings.Repeat("x", 1000)}, want: "its version file says"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if test.files != nil {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				writeTree(t, dir, test.files)
			}
			s, err := Open(dir)
			if test.want != "" {
				format, ok := errors.AsType[*FormatError](err)
				if !ok || !strings.Contains(err.Error(), test.want) || format.Hint() == "" {
					t.Fatalf("Open: %v; want a *FormatError with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.AddBlob(t.Context(), strings.NewReader("x"), digest.SHA256{}); err != nil && test.name != "a store" {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGC(t *testing.T) {
	s := newTest(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	add := func(text string) digest.SHA256 {
		d, _, err := s.AddBlob(t.Context(), strings.NewReader(text), digest.Of([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	kept, loose := add("kept"), add("loose")
	tree, err := s.AddTreeFunc(t.Context(), func(dir string) error { writeTree(t, dir, sample); return nil }, digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddRoot("/home/me/result", kept, digest.Of([]byte("never stored"))); err != nil {
		t.Fatal(err)
	}
	objects, err := s.List(t.Context())
	if err != nil || len(objects) != 3 {
		t.Fatalf("List = %v, %v", objects, err)
	}
	treeSize := objects[2].Size

	run := func(opts GCOptions) GCReport {
		t.Helper()
		report, err := s.GC(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	want := GCReport{Kept: 3}
	if diff := cmp.Diff(want, run(GCOptions{})); diff != "" {
		t.Errorf("GC of what is new (-want +got):\n%s", diff)
	}
	now = now.Add(2 * DefaultAge)
	add("loose") // what is added again is new again
	ignore := cmpopts.IgnoreFields(Object{}, "Added")
	want = GCReport{Kept: 2, Freed: treeSize, Removed: []Object{{Kind: Tree, Digest: tree, Size: treeSize}}}
	if diff := cmp.Diff(want, run(GCOptions{DryRun: true}), ignore); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if _, ok := s.TreePath(tree); !ok {
		t.Error("a dry run removed the tree")
	}
	if diff := cmp.Diff(want, run(GCOptions{}), ignore); diff != "" {
		t.Errorf("GC (-want +got):\n%s", diff)
	}
	if _, ok := s.TreePath(tree); ok {
		t.Error("GC left the tree")
	}
	want = GCReport{Kept: 1, Freed: 5, Removed: []Object{{Kind: Blob, Digest: loose, Size: 5}}}
	if diff := cmp.Diff(want, run(GCOptions{Age: -1}), ignore); diff != "" {
		t.Errorf("GC without grace (-want +got):\n%s", diff)
	}
	if err := s.RemoveRoot("/home/me/result"); err != nil {
		t.Fatal(err)
	}
	want = GCReport{Freed: 4, Removed: []Object{{Kind: Blob, Digest: kept, Size: 4}}}
	if diff := cmp.Diff(want, run(GCOptions{Age: -1}), ignore); diff != "" {
		t.Errorf("GC without roots (-want +got):\n%s", diff)
	}
	wantEmpty(t, s)
}

// What a damaged root kept is unknown, so nothing may be removed.
func TestGCStopsAtADamagedRoot(t *testing.T) {
	s := newTest(t)
	d, _, err := s.AddBlob(t.Context(), strings.NewReader("precious"), digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddRoot("r", d); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path(rootDir, keyName("r")), 20); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context(), GCOptions{Age: -1}); err == nil {
		t.Error("GC succeeded")
	}
	if _, ok := s.BlobPath(d); !ok {
		t.Error("GC removed an object")
	}
}

func TestGCWaitsForLeases(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, other := openTest(t, dir), openTest(t, dir)
	d, _, err := s.AddBlob(t.Context(), strings.NewReader("in use"), digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := other.GC(ctx, GCOptions{Age: -1})
		waiting <- err
	}()
	// The holder is not stopped by a GC that waits for it.
	if _, _, err := s.AddBlob(t.Context(), strings.NewReader("more"), digest.SHA256{}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("GC beside a lease: %v; want it to wait until it was cancelled", err)
	}
	if _, ok := s.BlobPath(d); !ok {
		t.Error("GC removed what a lease protects")
	}
	done := make(chan error, 1)
	go func() {
		_, err := other.GC(t.Context(), GCOptions{Age: -1})
		done <- err
	}()
	for range 2 {
		if err := lease.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, ok := s.BlobPath(d); ok {
		t.Error("GC after the lease removed nothing")
	}
}

func TestVerifyFindsAndRepairs(t *testing.T) {
	s := newTest(t)
	blob, _, err := s.AddBlob(t.Context(), strings.NewReader("blob"), digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(dir string) error { writeTree(t, dir, sample); return nil }
	tree, err := s.AddTreeFunc(t.Context(), fill, digest.SHA256{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Remember("go", "k", []byte("v")), s.AddRoot("r", blob)); err != nil {
		t.Fatal(err)
	}
	treePath, _ := s.TreePath(tree)
	for _, path := range []string{s.blobPath(blob), filepath.Join(treePath, "doc/a"), s.path(recordDir, "go", keyName("k")), s.path(rootDir, keyName("r"))} {
		flipByte(t, path)
	}

	var seen []Kind
	report, err := s.Verify(t.Context(), VerifyOptions{Progress: func(o Object, _ Summary) { seen = append(seen, o.Kind) }})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Kind{Blob, Tree}, seen); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	want := []Damage{
		{Path: "blobs/" + blob.Hex()},
		{Path: "trees/" + tree.Hex()},
		{Path: "records/go/" + keyName("k")},
		{Path: "roots/" + keyName("r")},
	}
	if diff := cmp.Diff(want, report.Damaged, cmpopts.IgnoreFields(Damage{}, "Cause")); diff != "" {
		t.Errorf("damage (-want +got):\n%s", diff)
	}
	if report, err = s.Verify(t.Context(), VerifyOptions{Repair: true}); err != nil || len(report.Damaged) != 4 {
		t.Fatalf("repair: %v, %v", report, err)
	}
	for _, damage := range report.Damaged {
		if _, err := os.Lstat(s.path(damage.Moved)); err != nil || damage.Moved == "" {
			t.Errorf("%s was not moved: %v", damage.Path, err)
		}
	}
	if report, err = s.Verify(t.Context(), VerifyOptions{}); err != nil || !report.OK() || report.Objects != 0 {
		t.Errorf("after repair: %+v, %v", report, err)
	}
	if _, err := s.AddTreeFunc(t.Context(), fill, tree); err != nil {
		t.Errorf("add what was moved away: %v", err)
	}
}

// flipByte damages a read-only file as failing hardware does.
func flipByte(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 0x40
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A full disk is an error, leaves nothing behind, and is over when there is space again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0755"); err != nil {
		t.Skipf("cannot run here: mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("large"), 64<<10)
	if _, _, err := s.AddBlob(t.Context(), bytes.NewReader(large), digest.SHA256{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("AddBlob on a full disk: %v; want ENOSPC", err)
	}
	wantEmpty(t, s)
	fill := func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), large, 0o644) }
	if _, err := s.AddTreeFunc(t.Context(), fill, digest.SHA256{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("AddTreeFunc on a full disk: %v; want ENOSPC", err)
	}
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddTreeFrom(t.Context(), source, nar.Options{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("AddTreeFrom on a full disk: %v; want ENOSPC", err)
	}
	wantEmpty(t, s)
	if _, _, err := s.AddBlob(t.Context(), strings.NewReader("small"), digest.SHA256{}); err != nil {
		t.Errorf("AddBlob after the full disk: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(record{Kind: "go", Key: "h1:x", Value: []byte("v")}.encode())
	f.Add([]byte("arch record 1\n" + strings.Repeat("0", 64) + "\ngo 1 1\nkv"))
	f.Add([]byte("go 01 1\nkv"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// As input, and as the body behind a right checksum: a fuzzer does not guess SHA-256.
		for _, in := range [][]byte{data, []byte(recordMagic + digest.Of(data).Hex() + "\n" + string(data))} {
			r, err := decodeRecord(in)
			if err != nil {
				continue
			}
			if diff := cmp.Diff(in, r.encode()); diff != "" {
				t.Errorf("accepted record encodes otherwise (-want +got):\n%s", diff)
			}
		}
	})
}
