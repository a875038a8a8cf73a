package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/store"
)

// ContentKind is what a job's reference turned out to be.
type ContentKind string

// The kinds of contents.
const (
	ContentFile  ContentKind = "file"       // one file, such as a WebAssembly module: URL, model, CID, module in a registry
	ContentTree  ContentKind = "tree"       // a directory, file or link by NAR hash: tree, Git commit, Go module
	ContentImage ContentKind = "image"      // a container image, whose blobs are in the store: see package runner/oci
	ContentPath  ContentKind = "store-path" // an object of a Nix or Guix store: see package runner/closure
)

// Content is what a job's reference names, on this machine.
type Content struct {
	Kind ContentKind
	Ref  manifest.Ref

	// Path is where it is on the host: a file or tree in the store, which is checked. For a ContentPath it is the host's own
	// store, which is not: closure.Compute compares it with the pin, and with it all that it refers to. Empty for an image.
	Path string

	// Digest names the bytes: of a file their SHA-256, of a tree or store path its NAR's, of an image that of its manifest, which
	// is the one chosen for Fetcher.Platform if the reference names an index.
	Digest digest.SHA256

	// Blobs are the digests of an image's blobs, all of which the store has: manifest, configuration, layers.
	Blobs []digest.SHA256

	// Dependencies has what was fetched, as in Tree.
	Dependencies []attest.ResourceDescriptor
}

// FetchRef gets what a job's reference names, without making a tree of an image or unpacking an archive. What an input of a
// job becomes is the same as for a build: see Fetch.
// The caller holds a store.Lease for as long as it uses the content.
func (f *Fetcher) FetchRef(ctx context.Context, ref manifest.Ref) (Content, error) {
	lease, err := f.Store.Lease(ctx)
	if err != nil {
		return Content{}, err
	}
	defer lease.Release()
	c, err := f.content(ctx, ref)
	if err != nil {
		return Content{}, fmt.Errorf("fetch %s: %w", ref, err)
	}
	c.Ref = ref
	return c, nil
}

func (f *Fetcher) content(ctx context.Context, ref manifest.Ref) (Content, error) {
	switch ref.Scheme {
	case manifest.RefOCI:
		return f.imageContent(ctx, ref)
	case manifest.RefURL:
		return f.fileContent(ctx, ref, func() error { return f.url(ctx, ref) })
	case manifest.RefModel, manifest.RefCID:
		return f.fileContent(ctx, ref, nil)
	case manifest.RefStore:
		return f.storeContent(ctx, ref)
	}
	m, err := f.reference(ctx, manifest.BuildInput{Ref: ref})
	if err != nil {
		return Content{}, err
	}
	path, ok := f.Store.TreePath(m.NAR)
	if !ok {
		return Content{}, &store.NotFoundError{Kind: store.Tree, Digest: m.NAR}
	}
	return Content{Kind: ContentTree, Path: path, Digest: m.NAR, Dependencies: m.Dependencies}, nil
}

// fileContent gets bytes pinned by their hash.
func (f *Fetcher) fileContent(ctx context.Context, ref manifest.Ref, origin func() error) (Content, error) {
	d, err := fileDigest(ref)
	if err != nil {
		return Content{}, err
	}
	if err := f.blob(ctx, ref.String(), d, origin); err != nil {
		return Content{}, err
	}
	return f.blobContent(d, []attest.ResourceDescriptor{bytesDependency(ref.String(), d, "")})
}

func (f *Fetcher) blobContent(d digest.SHA256, deps []attest.ResourceDescriptor) (Content, error) {
	path, ok := f.Store.BlobPath(d)
	if !ok {
		return Content{}, &store.NotFoundError{Kind: store.Blob, Digest: d}
	}
	return Content{Kind: ContentFile, Path: path, Digest: d, Dependencies: deps}, nil
}

// imageContent gets all blobs of an image, or the module if the reference names one.
func (f *Fetcher) imageContent(ctx context.Context, ref manifest.Ref) (Content, error) {
	doc, deps, err := f.imageManifest(ctx, ref)
	if err != nil {
		return Content{}, err
	}
	if doc.Kind() == imagespec.Module {
		module := doc.Layers[0]
		if err := f.ociBlob(ctx, ref, module); err != nil {
			return Content{}, err
		}
		return f.blobContent(module.Digest, append(deps, bytesDependency(ref.String()+" layer", module.Digest, module.MediaType)))
	}
	if _, err := f.ociConfig(ctx, ref, doc); err != nil {
		return Content{}, err
	}
	chosen, _ := deps[len(deps)-1].SHA256()
	c := Content{Kind: ContentImage, Digest: chosen, Blobs: []digest.SHA256{chosen, doc.Config.Digest}, Dependencies: deps}
	for _, l := range doc.Layers {
		if err := f.ociBlob(ctx, ref, l); err != nil {
			return Content{}, err
		}
		c.Blobs = append(c.Blobs, l.Digest)
	}
	return c, nil
}

// storeContent finds a store path: on this machine, or, by its pin, where trees are found.
func (f *Fetcher) storeContent(ctx context.Context, ref manifest.Ref) (Content, error) {
	path, err := f.StorePath(ctx, ref.Location, ref.Digest)
	return Content{Kind: ContentPath, Path: path, Digest: ref.Digest, Dependencies: []attest.ResourceDescriptor{treeDependency(ref)}}, err
}

// StorePath finds an object of a Nix or Guix store, such as "/nix/store/HASH-NAME", and returns where it is on the host: in our store if
// that has a tree with the given NAR hash, in the host's own store, or fetched from an archive or mirror into ours. What the
// host's store has is not checked: closure.Compute, which this serves, does. A zero hash, of a path that only its own name vouches for, is found in
// the host's store alone.
func (f *Fetcher) StorePath(ctx context.Context, path string, want digest.SHA256) (string, error) {
	ref := manifest.Ref{Scheme: manifest.RefStore, Location: path, Digest: want}
	if want.IsZero() {
		ref.Digest = digest.Of(nil) // any will do to judge the path
	}
	if err := ref.Validate(); err != nil {
		return "", err
	}
	if tree, ok := f.Store.TreePath(want); ok {
		return tree, nil
	}
	_, err := os.Lstat(path)
	if err == nil || want.IsZero() || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if _, err := f.tree(ctx, ref, treeDependency(ref), func() error { return f.storePath(ctx, ref) }); err != nil {
		return "", err
	}
	tree, ok := f.Store.TreePath(want)
	if !ok {
		return "", &store.NotFoundError{Kind: store.Tree, Digest: want}
	}
	return tree, nil
}
