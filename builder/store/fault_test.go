package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
)

// fault says what happens at the chosen operation.
type fault int

const (
	failOnce fault = iota // the operation returns an error; everything works again after it
	kill                  // the process ends there: nothing happens any more
	powerCut              // as kill, and what was not synced is lost
)

var errInjected = errors.New("injected fault")

// faultFS is an osFS in which the k-th operation goes wrong. It keeps track of what a power cut would lose.
type faultFS struct {
	osFS
	fault fault
	k     int
	count int
	names []string // the operations so far

	dirty   map[string]bool // files and trees with unsynced content
	renames []rename        // not durable yet
	early   []string        // trees that were removed before the rename that hid them was durable
}

type rename struct {
	from, to string
	replaced []byte // content of the file that was at to; nil: there was none
}

// step counts an operation and reports whether it goes wrong.
func (f *faultFS) step(name, path string) error {
	f.count++
	f.names = append(f.names, name+" "+path)
	if f.count == f.k || f.dead() {
		return fmt.Errorf("%s %s: %w", name, path, errInjected)
	}
	return nil
}

func (f *faultFS) dead() bool { return f.fault != failOnce && f.k > 0 && f.count >= f.k }

func (f *faultFS) Mkdir(path string) error {
	if err := f.step("mkdir", path); err != nil {
		return err
	}
	return f.osFS.Mkdir(path)
}

func (f *faultFS) Create(path string) (file, error) {
	if err := f.step("create", path); err != nil {
		return nil, err
	}
	real, err := f.osFS.Create(path)
	f.dirty[path] = true
	return &faultFile{f, path, real}, err
}

func (f *faultFS) Fill(path string, fill func(string) error) error {
	f.dirty[path] = true
	if err := fill(path); err != nil {
		return err
	}
	if err := f.step("fill", path); err != nil {
		f.tear(path) // it went wrong half way through
		return err
	}
	return nil
}

func (f *faultFS) Seal(path string, mode fs.FileMode) error {
	if err := f.step("seal", path); err != nil {
		return err
	}
	return f.osFS.Seal(path, mode)
}

func (f *faultFS) Touch(path string, at time.Time) error {
	if err := f.step("touch", path); err != nil {
		return err
	}
	return f.osFS.Touch(path, at)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.step("rename", to); err != nil {
		return err
	}
	r := rename{from: from, to: to}
	if info, err := os.Lstat(to); err == nil && info.Mode().IsRegular() {
		r.replaced, _ = os.ReadFile(to)
	}
	if err := f.osFS.Rename(from, to); err != nil {
		return err
	}
	f.renames = append(f.renames, r)
	if f.dirty[from] {
		delete(f.dirty, from)
		f.dirty[to] = true
	}
	return nil
}

func (f *faultFS) Remove(path string) error {
	if err := f.step("remove", path); err != nil {
		return err
	}
	return f.osFS.Remove(path)
}

func (f *faultFS) RemoveAll(path string) error {
	if err := f.step("remove all", path); err != nil {
		return err
	}
	for _, r := range f.renames {
		if r.to == path {
			f.early = append(f.early, path)
		}
	}
	delete(f.dirty, path)
	return f.osFS.RemoveAll(path)
}

func (f *faultFS) SyncDir(path string) error {
	if err := f.step("sync dir", path); err != nil {
		return err
	}
	f.renames = deleteRenames(f.renames, path)
	return nil
}

func deleteRenames(renames []rename, dir string) (left []rename) {
	for _, r := range renames {
		if filepath.Dir(r.to) != dir && filepath.Dir(r.from) != dir {
			left = append(left, r)
		}
	}
	return left
}

func (f *faultFS) SyncFS(path string) error {
	if err := f.step("sync fs", path); err != nil {
		return err
	}
	clear(f.dirty)
	f.renames = nil
	return nil
}

func (f *faultFS) ReadFile(path string, limit int64) ([]byte, error) {
	if err := f.step("read", path); err != nil {
		return nil, err
	}
	return f.osFS.ReadFile(path, limit)
}

func (f *faultFS) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := f.step("list", path); err != nil {
		return nil, err
	}
	return f.osFS.ReadDir(path)
}

func (f *faultFS) Lstat(path string) (fs.FileInfo, error) {
	if err := f.step("lstat", path); err != nil {
		return nil, err
	}
	return f.osFS.Lstat(path)
}

// faultFile is a file being written on a faultFS.
type faultFile struct {
	fs   *faultFS
	path string
	real file
}

func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.fs.step("write", f.path); err != nil {
		n, _ := f.real.Write(p[:len(p)/2])
		return n, err
	}
	return f.real.Write(p)
}

func (f *faultFile) Sync() error {
	if err := f.fs.step("sync", f.path); err != nil {
		return err
	}
	delete(f.fs.dirty, f.path)
	return nil
}

func (f *faultFile) Close() error {
	err := f.fs.step("close", f.path)
	return errors.Join(err, f.real.Close())
}

// cut undoes what was not synced: renames in reverse, and half of the content of files.
func (f *faultFS) cut() {
	for i := len(f.renames) - 1; i >= 0; i-- {
		r := f.renames[i]
		if os.Rename(r.to, r.from) != nil {
			continue
		}
		if f.dirty[r.to] {
			delete(f.dirty, r.to)
			f.dirty[r.from] = true
		}
		if r.replaced != nil {
			_ = os.WriteFile(r.to, r.replaced, 0o644)
		}
	}
	for path := range f.dirty {
		f.tear(path)
	}
}

// tear cuts every file at path in half.
func (f *faultFS) tear(path string) {
	_ = filepath.WalkDir(path, func(p string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			info, _ := entry.Info()
			_ = os.Chmod(p, 0o600)
			_ = os.Truncate(p, info.Size()/2)
		}
		return nil
	})
}

// state is what the store has acknowledged.
type state struct {
	blobs, trees map[digest.SHA256]bool
	record       []string // values that the record may have: the last acknowledged one and those tried since
	collected    bool     // GC was started: only roots are safe
	rooted       bool
	remembered   bool // the record was acknowledged at least once
}

const scenarioRoot = "result"

// scenario is a life of a store, told step by step.
func scenario(ctx context.Context, s *Store, st *state, fsys *faultFS, narBytes []byte) (errs []error) {
	note := func(err error, acknowledge func()) {
		if err == nil {
			acknowledge()
			return
		}
		errs = append(errs, err)
	}
	for _, text := range []string{"kept", "loose", "kept"} {
		d, _, err := s.AddBlob(ctx, strings.NewReader(text), digest.SHA256{})
		note(err, func() { st.blobs[d] = true })
	}
	kept := digest.Of([]byte("kept"))
	want := digest.Of(narBytes)
	for range 2 {
		_, err := s.AddTree(ctx, bytes.NewReader(narBytes), want)
		note(err, func() { st.trees[want] = true })
	}
	d, err := s.AddTreeFunc(ctx, func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), []byte("filled"), 0o600) }, digest.SHA256{})
	note(err, func() { st.trees[d] = true })
	for i := range 2 {
		value := fmt.Sprint("value ", i)
		if fsys.dead() {
			return errs
		}
		st.record = append(st.record, value)
		note(s.Remember("go", "key", []byte(value)), func() { st.record, st.remembered = []string{value}, true })
	}
	note(s.AddRoot(scenarioRoot, kept, want), func() { st.rooted = true })
	if fsys.dead() {
		return errs
	}
	st.collected = true
	_, err = s.GC(ctx, GCOptions{Age: -1})
	note(err, func() {})
	report, err := s.Verify(ctx, VerifyOptions{})
	note(err, func() {})
	for _, damage := range report.Damaged {
		if !strings.Contains(damage.Cause, errInjected.Error()) {
			errs = append(errs, fmt.Errorf("%s: %s", damage.Path, damage.Cause))
		}
	}
	return errs
}

// check opens the store as the next process would, and compares it with what was acknowledged.
func (st *state) check(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	defer s.Close()
	report, err := s.Verify(t.Context(), VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("verify: %+v, %v", report.Damaged, err)
	}
	kept := digest.Of([]byte("kept"))
	for d := range st.blobs {
		if _, ok := s.BlobPath(d); !ok && (!st.collected || st.rooted && d == kept) {
			t.Errorf("acknowledged blob %s is lost", d)
		}
	}
	for d := range st.trees {
		if _, ok := s.TreePath(d); !ok && !st.collected {
			t.Errorf("acknowledged tree %s is lost", d)
		}
	}
	value, ok, err := s.Recall("go", "key")
	if allowed := strings.Join(st.record, "\n"); err != nil || ok && !strings.Contains(allowed, string(value)) || !ok && st.remembered {
		t.Errorf("record is %q, %v, %v; want one of %q", value, ok, err, st.record)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

// TestFaults makes every operation of a store's life go wrong in every way, and looks at what the next process finds.
func TestFaults(t *testing.T) {
	narBytes := dump(t, writeTree(t, t.TempDir(), sample))
	for mode, name := range []string{failOnce: "error", kill: "kill", powerCut: "power cut"} {
		t.Run(name, func(t *testing.T) {
			for k := 1; ; k++ {
				dir := filepath.Join(t.TempDir(), "store")
				fsys := &faultFS{fault: fault(mode), k: k, dirty: map[string]bool{}}
				runFault(t, dir, fsys, narBytes)
				if t.Failed() {
					t.Fatalf("operation %d of %d: %s", k, fsys.count, strings.ReplaceAll(fsys.names[min(k, fsys.count)-1], dir, "STORE"))
				}
				if fsys.count < k {
					t.Logf("%d operations", fsys.count)
					return
				}
			}
		})
	}
}

func runFault(t *testing.T, dir string, fsys *faultFS, narBytes []byte) {
	t.Helper()
	st := &state{blobs: map[digest.SHA256]bool{}, trees: map[digest.SHA256]bool{}}
	s, err := open(dir, fsys)
	if err == nil {
		errs := scenario(t.Context(), s, st, fsys, narBytes)
		for _, err := range errs {
			if !errors.Is(err, errInjected) {
				t.Errorf("another error than the injected one: %v", err)
			}
		}
		_ = s.Close() // releases the locks, as the end of the process does
	} else if !errors.Is(err, errInjected) {
		t.Errorf("open: %v", err)
	}
	if fsys.fault == powerCut {
		for _, path := range fsys.early {
			t.Errorf("%s was removed before its way there was durable", path)
		}
		fsys.cut()
	}
	st.check(t, dir)
	if err := (osFS{}).RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// An object that is there may have been put there by a process that has not made it durable yet: it is acknowledged only when it is.
func TestPresentObjectsAreMadeDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	first := openTest(t, dir)
	text := "shared"
	if _, _, err := first.AddBlob(t.Context(), strings.NewReader(text), digest.SHA256{}); err != nil {
		t.Fatal(err)
	}
	fsys := &faultFS{dirty: map[string]bool{}}
	second, err := open(dir, fsys)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, _, err := second.AddBlob(t.Context(), failingReader{}, digest.Of([]byte(text))); err != nil {
		t.Fatal(err)
	}
	if last := fsys.names[len(fsys.names)-1]; last != "sync dir "+second.path(blobDir) {
		t.Errorf("the last operation was %q; want the directory to be synced", last)
	}
}
