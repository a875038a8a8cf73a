package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

const (
	treeName = "tree"
	infoName = "info"
	infoKind = "tree" // kind of the record in infoName
)

// AddTree stores the tree that r encodes as a NAR and returns the NAR's digest, hashing while it restores. If want is not zero the NAR must
// have that digest, otherwise the error is a *MismatchError; if the store has want already, r is not read.
func (s *Store) AddTree(ctx context.Context, r io.Reader, want digest.SHA256) (digest.SHA256, error) {
	return s.addTree(ctx, want, func(dir string) (digest.SHA256, int64, error) {
		sum := newHashReader(r)
		defer sum.close()
		if err := nar.Restore(ctx, sum, filepath.Join(dir, treeName), nar.RestoreOptions{}); err != nil {
			return digest.SHA256{}, 0, err
		}
		return sum.sum(), sum.size, nil
	})
}

// AddTreeFrom stores a copy of the file, directory or link at path, without what opts filters out, and returns the digest of its NAR.
// What changes while it is read is stored as it was read. A tree that the store has is only read and hashed: nothing is written.
func (s *Store) AddTreeFrom(ctx context.Context, path string, opts nar.Options) (digest.SHA256, error) {
	d, _, err := nar.Hash(ctx, path, opts)
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("add tree to the store: %w", err)
	}
	lease, err := s.Lease(ctx)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer lease.Release()
	if have, err := s.haveTree(d); have || err != nil {
		return d, err
	}
	return s.addDump(ctx, path, opts, digest.SHA256{})
}

func (s *Store) addDump(ctx context.Context, path string, opts nar.Options, want digest.SHA256) (digest.SHA256, error) {
	r, w := io.Pipe()
	dumped := make(chan error, 1)
	go func() {
		err := nar.Dump(ctx, w, path, opts)
		w.CloseWithError(err)
		dumped <- err
	}()
	d, err := s.AddTree(ctx, r, want)
	r.CloseWithError(io.ErrClosedPipe)
	if cause := <-dumped; err != nil && cause != nil && !errors.Is(cause, io.ErrClosedPipe) {
		return digest.SHA256{}, fmt.Errorf("add tree to the store: %w", cause)
	}
	return d, err
}

// AddTreeFunc stores what fill puts in the empty directory that it gets, and returns the digest of its NAR. If want is not
// zero the NAR must have that digest, otherwise the error is a *MismatchError; if the store has want already, fill is not called.
//
// When fill has returned, the store owns the directory: it refuses anything but files, directories and links, makes files 0444, or 0555 if
// their owner may execute them, directories 0555, and sets every modification time to 1.
func (s *Store) AddTreeFunc(ctx context.Context, fill func(dir string) error, want digest.SHA256) (digest.SHA256, error) {
	return s.addTree(ctx, want, func(dir string) (digest.SHA256, int64, error) {
		tree := filepath.Join(dir, treeName)
		if err := s.fs.Mkdir(tree); err != nil {
			return digest.SHA256{}, 0, err
		}
		if err := fill(tree); err != nil {
			return digest.SHA256{}, 0, err
		}
		if err := normalize(tree); err != nil {
			return digest.SHA256{}, 0, err
		}
		return nar.Hash(ctx, tree, nar.Options{})
	})
}

// ImportTree stores a copy of an existing directory. The copy shares its blocks with the original where the file system can do that (Btrfs,
// XFS, bcachefs), and never its inodes: what is changed there later is not changed here. What is hashed is the copy.
// If want is not zero the NAR must have that digest, otherwise the error is a *MismatchError.
func (s *Store) ImportTree(ctx context.Context, dir string, want digest.SHA256) (digest.SHA256, error) {
	if !s.sharesBlocks(dir) {
		return s.addDump(ctx, dir, nar.Options{}, want)
	}
	return s.AddTreeFunc(ctx, func(tree string) error { return copyTree(ctx, dir, tree) }, want)
}

// TreePath returns where the tree is and whether it is there; its root may be a file, a directory or a link. It costs one
// lstat(2). Only a Lease keeps the tree there.
func (s *Store) TreePath(d digest.SHA256) (path string, ok bool) {
	path = filepath.Join(s.treePath(d), treeName)
	_, err := os.Lstat(path)
	return path, err == nil
}

// maker makes dir/tree and returns the digest and size of its NAR.
type maker func(dir string) (digest.SHA256, int64, error)

func (s *Store) addTree(ctx context.Context, want digest.SHA256, build maker) (digest.SHA256, error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer lease.Release()
	if !want.IsZero() {
		ok, err := s.haveTree(want)
		if ok || err != nil {
			return want, err
		}
	}
	d, err := s.installTree(want, build)
	if mismatch, ok := errors.AsType[*MismatchError](err); ok {
		return digest.SHA256{}, mismatch
	}
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("add tree to the store: %w", err)
	}
	return d, nil
}

// haveTree reports whether the tree is there, for good, and refreshes its age.
func (s *Store) haveTree(d digest.SHA256) (bool, error) {
	_, err := s.fs.Lstat(s.treePath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find tree %s in the store: %w", d, err)
	}
	if err := s.confirm(s.treePath(d), treeDir); err != nil {
		return false, fmt.Errorf("confirm tree %s in the store: %w", d, err)
	}
	return true, nil
}

func (s *Store) installTree(want digest.SHA256, build maker) (digest.SHA256, error) {
	temp, err := s.temp()
	if err != nil {
		return digest.SHA256{}, err
	}
	if err := s.fs.Mkdir(temp); err != nil {
		return digest.SHA256{}, err
	}
	d, err := s.completeTree(temp, want, build)
	if err == nil {
		err = s.fs.Rename(temp, s.treePath(d))
	}
	switch {
	case err == nil:
		return d, s.fs.SyncDir(s.path(treeDir))
	case errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY):
		if err := s.discard(temp); err != nil {
			return digest.SHA256{}, err
		}
		_, err := s.haveTree(d)
		return d, err
	default:
		return digest.SHA256{}, errors.Join(err, s.discard(temp))
	}
}

// completeTree makes everything of trees/<hex> in temp and syncs it.
func (s *Store) completeTree(temp string, want digest.SHA256, build maker) (d digest.SHA256, err error) {
	var size int64
	fill := func(dir string) (err error) {
		d, size, err = build(dir)
		return err
	}
	if err := s.fs.Fill(temp, fill); err != nil {
		return digest.SHA256{}, err
	}
	if !want.IsZero() && d != want {
		return digest.SHA256{}, &MismatchError{Kind: Tree, Want: want, Got: d}
	}
	info := record{Kind: infoKind, Key: d.Hex(), Value: strconv.AppendInt(nil, size, 10)}
	if err := s.writeTemp(filepath.Join(temp, infoName), info.encode()); err != nil {
		return digest.SHA256{}, err
	}
	return d, s.fs.SyncFS(temp)
}

// treeSize returns the size of a stored tree's NAR.
func (s *Store) treeSize(d digest.SHA256) (int64, error) {
	rel := filepath.Join(treeDir, d.Hex(), infoName)
	info, err := s.readRecord(rel)
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseInt(string(info.Value), 10, 64)
	if err != nil || size < 0 || info.Kind != infoKind || info.Key != d.Hex() {
		return 0, &CorruptError{Path: rel, Cause: fmt.Sprintf("it is no size of this tree: %.40q", info.Value)}
	}
	return size, nil
}

// normalize gives everything below root the modes and times of a stored tree, children first.
func normalize(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(root, entry.Name())
		switch entry.Type() {
		case fs.ModeDir:
			err = normalize(path)
		case 0:
			err = normalizeFile(path, entry)
		case fs.ModeSymlink:
			err = setTime(path)
		default:
			err = fmt.Errorf("store %q: neither file, directory nor link", path)
		}
		if err != nil {
			return err
		}
	}
	if err := os.Chmod(root, 0o555); err != nil {
		return err
	}
	return setTime(root)
}

func normalizeFile(path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o444|info.Mode()&0o100*0o111>>6); err != nil {
		return err
	}
	return setTime(path)
}

// setTime sets the modification time of a file, directory or link to 1, as Nix does.
func setTime(path string) error {
	one := unix.NsecToTimespec(int64(time.Second))
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{one, one}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set time of", Path: path, Err: err}
	}
	return nil
}
