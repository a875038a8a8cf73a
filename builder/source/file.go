package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
)

// file gets bytes pinned by their hash, and makes a tree of them as in.Unpack says.
func (f *Fetcher) file(ctx context.Context, in manifest.BuildInput, origin func() error) (memory, error) {
	ref := in.Ref
	d, err := fileDigest(ref)
	if err != nil {
		return memory{}, err
	}
	if err := f.blob(ctx, ref.String(), d, origin); err != nil {
		return memory{}, err
	}
	blob, err := f.Store.OpenBlob(d)
	if err != nil {
		return memory{}, err
	}
	defer blob.Close()
	tree, err := f.unpack(ctx, blob, in.Unpack, in.Strip)
	if err != nil {
		return memory{}, fmt.Errorf("unpack %s: %w", ref, err)
	}
	return memory{NAR: tree, Dependencies: []attest.ResourceDescriptor{bytesDependency(ref.String(), d, "")}}, nil
}

// fileDigest returns the hash of the bytes that a reference pins.
func fileDigest(ref manifest.Ref) (digest.SHA256, error) {
	if ref.Scheme != manifest.RefCID {
		return ref.Digest, nil
	}
	// Only the CID of a raw block hashes the bytes themselves; the others hash a node of a graph that has to be walked.
	if d, err := digest.ParseCID(ref.Location); err == nil {
		return d, nil
	}
	return digest.SHA256{}, &sourceError{
		fmt.Sprintf("%s: only CIDs of raw blocks can be fetched, not graphs of several", ref),
		"add the file with `ipfs add --cid-version 1 --raw-leaves --chunker size-…` in one block, or pin it by URL and hash",
	}
}

// unpack makes a tree of an open file: a single file, or what the archive holds.
func (f *Fetcher) unpack(ctx context.Context, file *os.File, how string, strip int) (digest.SHA256, error) {
	if how == "" {
		return f.Store.AddTreeFrom(ctx, file.Name(), nar.Options{})
	}
	info, err := file.Stat()
	if err != nil {
		return digest.SHA256{}, err
	}
	switch how {
	case "tar":
		return f.fill(ctx, unpack.Strict, func(t *unpack.Tree) error { return t.Tar(ctx, file, strip) })
	case "zip":
		return f.fill(ctx, unpack.Strict, func(t *unpack.Tree) error { return t.Zip(ctx, file, info.Size(), strip) })
	case "deb":
		return f.fill(ctx, unpack.RootFS, func(t *unpack.Tree) error { return t.Deb(ctx, file, strip) })
	}
	return digest.SHA256{}, fmt.Errorf("unpack %q: want tar, zip or deb", how)
}

// fill stores what use puts into a tree.
func (f *Fetcher) fill(ctx context.Context, mode unpack.Mode, use func(*unpack.Tree) error) (digest.SHA256, error) {
	return f.Store.AddTreeFunc(ctx, func(dir string) error {
		t, err := unpack.New(dir, mode, f.Limits)
		if err != nil {
			return err
		}
		return errors.Join(use(t), t.Close())
	}, digest.SHA256{})
}

// url gets a URL's bytes into the store.
func (f *Fetcher) url(ctx context.Context, ref manifest.Ref) error {
	_, err := f.download(ctx, ref.Location, ref.Digest.Hex(), func(file *os.File) error {
		return checkBytes(file, ref.String(), ref.Digest)
	})
	return err
}

// checkBytes compares a file with its pin.
func checkBytes(file *os.File, ref string, want digest.SHA256) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	got, _, err := digest.OfReader(file)
	if err != nil {
		return err
	}
	if got != want {
		return pinMismatch(ref, want, got)
	}
	return nil
}
