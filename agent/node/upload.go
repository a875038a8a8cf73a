package node

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"arch.network/agent/archive"
	"arch.network/attest/digest"
	"arch.network/builder/store"
)

// uploadTime is how long content that was handed over stays without a job that needs it.
const uploadTime = time.Hour

// uploadRoot begins the names of the roots that keep it.
const uploadRoot = "upload "

// uploads are what was handed over lately. What an earlier process was handed is let go when the store is opened.
type uploads struct {
	store *store.Store
	now   func() time.Time

	mu    sync.Mutex // guards until
	until map[digest.SHA256]time.Time
}

func newUploads(ctx context.Context, s *store.Store, now func() time.Time) (*uploads, error) {
	roots, err := s.Roots(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		if strings.HasPrefix(r.Name, uploadRoot) {
			err = errors.Join(err, s.RemoveRoot(r.Name))
		}
	}
	return &uploads{store: s, now: now, until: map[digest.SHA256]time.Time{}}, err
}

// keep makes the root of an object, and removes those whose time is over.
func (u *uploads) keep(d digest.SHA256) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	for old, until := range u.until {
		if now.Before(until) {
			continue
		}
		if err := u.store.RemoveRoot(uploadRoot + old.Hex()); err != nil {
			return err
		}
		delete(u.until, old)
	}
	if err := u.store.AddRoot(uploadRoot+d.Hex(), d); err != nil {
		return err
	}
	u.until[d] = now.Add(uploadTime)
	return nil
}

// HasContent reports whether the store has an object.
func (n *Node) HasContent(kind store.Kind, d digest.SHA256) (bool, error) {
	_, ok := n.Store.BlobPath(d)
	if kind == store.Tree {
		_, ok = n.Store.TreePath(d)
	}
	return ok, nil
}

// PutContent keeps what r holds, which must be what kind and d name: else the error is a *store.MismatchError and nothing is kept. It stays
// for an hour, or until the last job that needs it has gone.
func (n *Node) PutContent(ctx context.Context, kind store.Kind, d digest.SHA256, r io.Reader) error {
	lease, err := n.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	if kind == store.Tree {
		_, err = n.Store.AddTree(ctx, r, d)
	} else {
		_, _, err = n.Store.AddBlob(ctx, r, d)
	}
	if err != nil {
		return err
	}
	return n.uploads.keep(d)
}

// Export writes a job's archive file.
func (n *Node) Export(ctx context.Context, id digest.SHA256, w io.Writer) error {
	b, err := n.Bundle(ctx, id)
	if err != nil {
		return err
	}
	return archive.Export(ctx, w, b, n.Store)
}
