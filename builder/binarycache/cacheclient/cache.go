// Package cacheclient reads binary caches of Nix and substitute servers of Guix, over HTTP or from a directory.
//
// It promises bounds: on the size of everything that is read, on waiting, on redirects and on tries; and that a NAR ends without an error only
// if size and hash are those that the narinfo says. A download that breaks off goes on where it was. It verifies no signature and
// believes nothing: whoever uses a narinfo decides whose word counts. It sends no credentials.
package cacheclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/nix/realisation"
)

// Cache is a binary cache. It is safe for concurrent use.
type Cache struct {
	location string
	from     opener
}

// opener opens files of a cache by their path in it. One that is not there is an error that wraps fs.ErrNotExist.
type opener interface {
	open(ctx context.Context, name string) (io.ReadCloser, error)
}

// LocationError says that a text names no cache.
type LocationError struct{ Location string }

func (e *LocationError) Error() string {
	return fmt.Sprintf("open cache: %.200q names none", e.Location)
}

// Hint tells what names one.
func (e *LocationError) Hint() string {
	return "a cache is named by https://HOST/PATH, http://HOST/PATH or file:///DIRECTORY"
}

// Open returns the cache at a URL: http, https or file, without user, query or fragment. Nothing is read yet.
func Open(location string) (*Cache, error) {
	u, err := url.Parse(location)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &LocationError{location}
	}
	switch {
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		return &Cache{location, directory(filepath.Clean(u.Path))}, nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return &Cache{location, newRemote(strings.TrimRight(location, "/"))}, nil
	}
	return nil, &LocationError{location}
}

// Location returns the URL that the cache was opened by.
func (c *Cache) Location() string { return c.location }

// Info returns what the cache says of itself.
func (c *Cache) Info(ctx context.Context) (binarycache.Info, error) {
	data, err := c.read(ctx, "nix-cache-info", binarycache.MaxInfo)
	if err != nil {
		return binarycache.Info{}, err
	}
	info, err := binarycache.ParseInfo(data)
	return info, c.at(err)
}

// NarInfo returns what the cache says of a store path, and the bytes that say it. It is never that of another path. That the cache does not
// have the path is an error that wraps fs.ErrNotExist.
func (c *Cache) NarInfo(ctx context.Context, p storepath.Path) (*binarycache.NarInfo, []byte, error) {
	data, err := c.read(ctx, p.Hash+".narinfo", binarycache.MaxNarInfo)
	if err != nil {
		return nil, nil, err
	}
	n, err := binarycache.ParseNarInfo(data)
	if err == nil && n.StorePath != p {
		err = &binarycache.FieldError{Field: "StorePath", Err: fmt.Errorf("it is %s, and not %s", n.StorePath, p)}
	}
	if err != nil {
		return nil, nil, c.at(err)
	}
	return n, data, nil
}

// Realisation returns what the cache says of the output of a derivation, in whichever layout it has it: want has Drv, DrvHash and Output set. It is never
// that of another output, and no signature of it is verified. That the cache says nothing of it is an error that wraps fs.ErrNotExist.
func (c *Cache) Realisation(ctx context.Context, want realisation.Realisation) (*realisation.Realisation, error) {
	for _, name := range []string{want.Name(), want.TraceName()} {
		data, err := c.read(ctx, name, realisation.MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := realisation.Parse(name, data)
		return r, c.at(err)
	}
	return nil, c.at(fmt.Errorf("find realisation %s: %w", want.ID(), fs.ErrNotExist))
}

// NAR opens the NAR that n names, packed in the way that is unpacked fastest: see binarycache.NarInfo.Open.
func (c *Cache) NAR(ctx context.Context, n *binarycache.NarInfo) (io.ReadCloser, error) {
	f, err := n.File()
	if err != nil {
		return nil, c.at(err)
	}
	r, err := c.from.open(ctx, f.URL)
	if err != nil {
		return nil, err
	}
	r, err = n.Open(r, f)
	return r, c.at(err)
}

// Receipts returns the receipts that lie beside the cache for a store path: see binarycache.ReceiptPath. That there are none is no error.
func (c *Cache) Receipts(ctx context.Context, p storepath.Path) (*attest.Receipt, error) {
	return c.receipts(ctx, binarycache.ReceiptPath(p))
}

// ReceiptsOfNAR returns those for a NAR hash.
func (c *Cache) ReceiptsOfNAR(ctx context.Context, nar digest.SHA256) (*attest.Receipt, error) {
	return c.receipts(ctx, binarycache.ReceiptPathOfNAR(nar))
}

func (c *Cache) receipts(ctx context.Context, name string) (*attest.Receipt, error) {
	r, err := c.from.open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &attest.Receipt{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	receipt, err := attest.ReadReceipt(r)
	return receipt, c.at(err)
}

// read reads a small file.
func (c *Cache) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	r, err := c.from.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, c.at(fmt.Errorf("read %s: %w", name, err))
	}
	if int64(len(data)) > limit {
		return nil, c.at(fmt.Errorf("read %s: it is over the limit of %d bytes", name, limit))
	}
	return data, nil
}

// at says which cache an error is of.
func (c *Cache) at(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cache %s: %w", c.location, err)
}
