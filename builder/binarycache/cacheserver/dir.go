package cacheserver

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest/storepath"
	"arch.network/runner/closure"
)

// Dir publishes a store of Nix or Guix that lies in a directory: "/", or the root of a chroot store (`nix --store DIR`). It reads the paths
// themselves, and no database: hashes are computed, and references found as Nix finds them when it registers a build.
type Dir struct {
	root, store string
	parent      *os.Root
}

// OpenDir opens the store that paths such as /nix/store/… are in, below root. The caller closes it.
func OpenDir(root, store string) (*Dir, error) {
	dir := filepath.Join(root, store)
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Dir{dir, path.Clean(store), parent}, nil
}

// Close closes the store.
func (d *Dir) Close() error { return d.parent.Close() }

// Dir implements Store.
func (d *Dir) Dir() string { return d.store }

// Hold implements Store. Nothing here keeps Nix from removing a path: then its NAR breaks off.
func (d *Dir) Hold(context.Context) (func() error, error) { return func() error { return nil }, nil }

// Find implements Store. It reads the whole path.
func (d *Dir) Find(ctx context.Context, hash string) (Object, error) {
	names, err := d.names()
	if err != nil {
		return Object{}, err
	}
	i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, hash+"-") })
	if i < 0 {
		return Object{}, fmt.Errorf("find %s in %s: %w", hash, d.root, fs.ErrNotExist)
	}
	p, err := storepath.Parse(d.store + "/" + names[i])
	if err != nil {
		return Object{}, fmt.Errorf("find %s in %s: %w", hash, d.root, err)
	}
	candidates := make([]string, len(names))
	for i, name := range names {
		candidates[i] = d.store + "/" + name
	}
	content, err := closure.Read(ctx, filepath.Join(d.root, names[i]), candidates)
	if err != nil {
		return Object{}, err
	}
	o := Object{Path: p, NAR: content.NAR, Size: content.Size, Source: filepath.Join(d.root, names[i])}
	for _, ref := range content.References {
		o.References = append(o.References, path.Base(ref))
	}
	return o, nil
}

// names lists the store paths that are whole: what has a lock or is written at the moment is not.
func (d *Dir) names() ([]string, error) {
	f, err := d.parent.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	locked := map[string]bool{}
	for _, name := range all {
		if base, ok := strings.CutSuffix(name, ".lock"); ok {
			locked[base] = true
		}
	}
	names := all[:0]
	for _, name := range all {
		_, err := storepath.Parse(d.store + "/" + name)
		if err == nil && !locked[name] && !strings.HasSuffix(name, ".lock") && !strings.HasSuffix(name, ".drv.chroot") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
