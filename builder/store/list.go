package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"arch.network/attest/digest"
)

// Object is one blob or tree of the store.
type Object struct {
	Kind   Kind
	Digest digest.SHA256
	Size   int64     // bytes of the blob, or of the tree's NAR; -1: the store's note of it is damaged
	Added  time.Time // when it was last added
	Roots  []string  // names of the roots that keep it, sorted
}

// List returns all objects, blobs before trees, each sorted by digest.
func (s *Store) List(ctx context.Context) ([]Object, error) {
	roots, err := s.Roots(ctx)
	if err != nil {
		return nil, err
	}
	keep := map[digest.SHA256][]string{}
	for _, root := range roots {
		for _, d := range root.Digests {
			keep[d] = append(keep[d], root.Name)
		}
	}
	var objects []Object
	for _, kind := range []Kind{Blob, Tree} {
		err := s.each(ctx, kind, func(o Object) error {
			o.Roots = keep[o.Digest]
			objects = append(objects, o)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// each calls visit for every object of a kind, in the order of digests. Objects that vanish meanwhile are left out, and so are names
// that are no digests: the store makes none.
func (s *Store) each(ctx context.Context, kind Kind, visit func(Object) error) error {
	dir := map[Kind]string{Blob: blobDir, Tree: treeDir}[kind]
	entries, err := s.fs.ReadDir(s.path(dir))
	if err != nil {
		return fmt.Errorf("list %ss of store %s: %w", kind, s.dir, err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := digest.ParseHex(entry.Name())
		if err != nil {
			continue
		}
		info, err := s.fs.Lstat(s.path(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %s %s of the store: %w", kind, d, err)
		}
		size, err := s.objectSize(kind, d, info)
		if err != nil {
			return err
		}
		if err := visit(Object{Kind: kind, Digest: d, Size: size, Added: info.ModTime()}); err != nil {
			return err
		}
	}
	return nil
}

// objectSize returns -1 for a tree whose note of its size is missing or damaged.
func (s *Store) objectSize(kind Kind, d digest.SHA256, info fs.FileInfo) (int64, error) {
	if kind == Blob {
		return info.Size(), nil
	}
	size, err := s.treeSize(d)
	if _, damaged := errors.AsType[*CorruptError](err); damaged || errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	return size, err
}
