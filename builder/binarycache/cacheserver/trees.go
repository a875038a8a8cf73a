package cacheserver

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/store"
)

// SourceName is the name that Nix gives to what it fetches: each input of a flake lies at /nix/store/HASH-source.
const SourceName = "source"

// fresh is for how long the list of a store's trees is good enough to say that there is none of a hash.
const fresh = 2 * time.Second

// Trees publishes the trees of a store of arch. A tree has no name and refers to nothing, so it is published as what Nix makes of such a tree:
// the path that is named by its NAR hash and a name (storepath.Source). Every tree has the name "source".
type Trees struct {
	Store *store.Store
	// Names are further names of trees.
	Names map[digest.SHA256][]string

	mu     sync.Mutex // guards all below
	paths  map[string]Object
	listed time.Time
}

// Dir implements Store.
func (t *Trees) Dir() string { return storepath.Nix }

// Hold implements Store.
func (t *Trees) Hold(ctx context.Context) (func() error, error) {
	lease, err := t.Store.Lease(ctx)
	if err != nil {
		return nil, err
	}
	return lease.Release, nil
}

// Find implements Store.
func (t *Trees) Find(ctx context.Context, hash string) (Object, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.paths[hash]
	if !ok && time.Since(t.listed) > fresh {
		if err := t.list(ctx); err != nil {
			return Object{}, err
		}
		o, ok = t.paths[hash]
	}
	source, there := t.Store.TreePath(o.NAR)
	if !ok || !there {
		return Object{}, fmt.Errorf("find %s in the store: %w", hash, fs.ErrNotExist)
	}
	o.Source = source
	return o, nil
}

// list computes the paths of all trees.
func (t *Trees) list(ctx context.Context) error {
	objects, err := t.Store.List(ctx)
	if err != nil {
		return err
	}
	t.paths = map[string]Object{}
	for _, object := range objects {
		if object.Kind != store.Tree || object.Size < 0 {
			continue
		}
		for _, name := range append([]string{SourceName}, t.Names[object.Digest]...) {
			p, err := storepath.Source(storepath.Nix, name, object.Digest, nil, false)
			if err != nil {
				return fmt.Errorf("publish tree %s: %w", object.Digest, err)
			}
			t.paths[p.Hash] = Object{Path: p, NAR: object.Digest, Size: object.Size, CA: binarycache.SourceCA(object.Digest)}
		}
	}
	t.listed = time.Now()
	return nil
}
