package challenge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheclient"
	"arch.network/builder/vouch"
)

// Cache is a binary cache as a voter: its NAR is fetched and hashed, and its receipts are read.
type Cache struct{ *cacheclient.Cache }

// Name implements Voter.
func (c Cache) Name() string { return c.Location() }

// Ask implements Voter.
func (c Cache) Ask(ctx context.Context, p storepath.Path) (Answer, error) {
	n, text, err := c.NarInfo(ctx, p)
	if err != nil {
		if _, ok := errors.AsType[*binarycache.FieldError](err); ok {
			err = &BrokenError{err}
		}
		return Answer{}, err
	}
	if err := c.hash(ctx, n); err != nil {
		if _, ok := errors.AsType[*binarycache.MismatchError](err); ok {
			err = &BrokenError{err}
		}
		return Answer{}, err
	}
	a := Answer{
		NAR: n.NarHash, Size: n.NarSize, References: n.References, Document: text, Source: c.Location() + "/" + p.Hash + ".narinfo",
		Evidence: evidence(n),
		Open:     func(ctx context.Context) (io.ReadCloser, error) { return c.NAR(ctx, n) },
	}
	if a.Evidence.Receipts, err = c.Receipts(ctx, p); err != nil {
		return Answer{}, err
	}
	return a, nil
}

// hash reads the NAR to its end: only then is it what the narinfo says.
func (c Cache) hash(ctx context.Context, n *binarycache.NarInfo) error {
	r, err := c.NAR(ctx, n)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read NAR of %s: %w", n.StorePath, err)
	}
	return nil
}

// evidence is what a narinfo brings along.
func evidence(n *binarycache.NarInfo) vouch.Evidence {
	e := vouch.Evidence{Fingerprint: n.Fingerprint(), Sigs: n.Sigs}
	if n.Guix != nil {
		e.Guix = []binarycache.GuixSignature{*n.Guix}
	}
	return e
}

// Local is the store of this machine as a voter. It counts for nothing but a difference: what it has, it may have from one of the caches.
type Local struct {
	Root string // that the store's directory is below; empty: "/"
}

// Name implements Voter.
func (Local) Name() string { return "local" }

// Ask implements Voter.
func (l Local) Ask(ctx context.Context, p storepath.Path) (Answer, error) {
	at := filepath.Join(cmp.Or(l.Root, "/"), p.String())
	if _, err := os.Lstat(at); err != nil {
		return Answer{}, err
	}
	sum, size, err := nar.Hash(ctx, at, nar.Options{})
	if err != nil {
		return Answer{}, err
	}
	return Answer{NAR: sum, Size: size, Open: OpenTree(at, sum)}, nil
}

// OpenTree is Answer.Open of a tree on this machine. Its NAR ends with an error if it is not the wanted one.
func OpenTree(path string, want digest.SHA256) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			var sum digest.Writer
			err := nar.Dump(ctx, io.MultiWriter(w, &sum), path, nar.Options{})
			if err == nil && sum.Sum() != want {
				err = fmt.Errorf("read %s: it changed meanwhile", path)
			}
			w.CloseWithError(err)
		}()
		return r, nil
	}
}
