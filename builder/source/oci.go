package source

import (
	"context"
	"fmt"
	"io"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
)

// image gets an OCI image by the digest of its manifest or index, and makes its root file system.
func (f *Fetcher) image(ctx context.Context, ref manifest.Ref) (memory, error) {
	doc, deps, err := f.imageManifest(ctx, ref)
	if err != nil {
		return memory{}, err
	}
	if doc.Kind() != imagespec.Image {
		return memory{}, fmt.Errorf("%s: %w", ref, &sourceError{"it is no image that can be run, but a WebAssembly module", "only container images have a root file system"})
	}
	nar, err := f.rootFS(ctx, ref, doc)
	return memory{NAR: nar, Dependencies: deps}, err
}

// imageManifest gets the manifest of the image that ref means on our platform. The dependencies are what ref names and,
// if that is an index, the manifest chosen from it.
func (f *Fetcher) imageManifest(ctx context.Context, ref manifest.Ref) (*imagespec.Document, []attest.ResourceDescriptor, error) {
	doc, err := f.ociDocument(ctx, ref, ref.Digest)
	if err != nil {
		return nil, nil, err
	}
	deps := []attest.ResourceDescriptor{bytesDependency(ref.String(), ref.Digest, doc.MediaType)}
	if doc.Kind() != imagespec.Index {
		return doc, deps, nil
	}
	chosen, err := doc.Choose(f.platform())
	if err != nil {
		return nil, nil, fmt.Errorf("%s %w", ref, err)
	}
	if doc, err = f.ociDocument(ctx, ref, chosen.Digest); err != nil {
		return nil, nil, err
	}
	if doc.Kind() == imagespec.Index {
		return nil, nil, fmt.Errorf("%s: an index within an index", ref)
	}
	one := ref
	one.Version, one.Digest = "", chosen.Digest
	return doc, append(deps, bytesDependency(one.String(), chosen.Digest, doc.MediaType)), nil
}

// ociDocument gets and checks a manifest or index.
func (f *Fetcher) ociDocument(ctx context.Context, ref manifest.Ref, d digest.SHA256) (*imagespec.Document, error) {
	err := f.blob(ctx, ref.String(), d, func() error { return f.pull(ctx, ref, "manifests", d, imagespec.MaxDocument) })
	if err != nil {
		return nil, err
	}
	data, err := f.smallBlob(d, imagespec.MaxDocument)
	if err != nil {
		return nil, err
	}
	doc, err := imagespec.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: manifest %s: %w", ref, d, err)
	}
	return doc, nil
}

func (f *Fetcher) smallBlob(d digest.SHA256, max int64) ([]byte, error) {
	file, err := f.Store.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, max+1))
	if err == nil && int64(len(data)) > max {
		err = tooLarge("blob "+d.String(), max)
	}
	return data, err
}

// rootFS unpacks the layers of an image on top of each other.
func (f *Fetcher) rootFS(ctx context.Context, ref manifest.Ref, doc *imagespec.Document) (digest.SHA256, error) {
	config, err := f.ociConfig(ctx, ref, doc)
	if err != nil {
		return digest.SHA256{}, err
	}
	for _, l := range doc.Layers {
		if err := f.ociBlob(ctx, ref, l); err != nil {
			return digest.SHA256{}, err
		}
	}
	return f.fill(ctx, unpack.RootFS, func(t *unpack.Tree) error {
		for i, l := range doc.Layers {
			if err := f.layer(ctx, t, l, config.RootFS.DiffIDs[i]); err != nil {
				return fmt.Errorf("layer %s of %s: %w", l.Digest, ref, err)
			}
		}
		return nil
	})
}

func (f *Fetcher) ociConfig(ctx context.Context, ref manifest.Ref, doc *imagespec.Document) (*imagespec.Configuration, error) {
	if doc.Config.Size > imagespec.MaxDocument {
		return nil, tooLarge("configuration of "+ref.String(), imagespec.MaxDocument)
	}
	if err := f.ociBlob(ctx, ref, *doc.Config); err != nil {
		return nil, err
	}
	data, err := f.smallBlob(doc.Config.Digest, imagespec.MaxDocument)
	if err != nil {
		return nil, err
	}
	c, err := imagespec.ParseConfiguration(data, len(doc.Layers))
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", ref, err)
	}
	return c, nil
}

// layer applies one layer and compares its uncompressed bytes with the configuration.
func (f *Fetcher) layer(ctx context.Context, t *unpack.Tree, l imagespec.Descriptor, diffID digest.SHA256) error {
	file, err := f.Store.OpenBlob(l.Digest)
	if err != nil {
		return err
	}
	defer file.Close()
	compression, _ := imagespec.LayerCompression(l.MediaType)
	var sum digest.Writer
	if err := t.Layer(ctx, file, compression, &sum); err != nil {
		return err
	}
	if got := sum.Sum(); got != diffID {
		return &PinError{Ref: "uncompressed layer " + l.Digest.String(), Want: diffID.String(), Got: got.String()}
	}
	return nil
}

// ociBlob makes sure that the store has a layer or configuration of the size that its descriptor says.
func (f *Fetcher) ociBlob(ctx context.Context, ref manifest.Ref, d imagespec.Descriptor) error {
	if d.Size < 0 || d.Size > f.maxDownload() {
		return tooLarge("blob "+d.Digest.String()+" of "+ref.String(), f.maxDownload())
	}
	if err := f.blob(ctx, ref.String()+" blob "+d.Digest.String(), d.Digest, func() error { return f.pull(ctx, ref, "blobs", d.Digest, max(d.Size, 1)) }); err != nil {
		return err
	}
	file, err := f.Store.OpenBlob(d.Digest)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != d.Size {
		return fmt.Errorf("blob %s of %s has %d bytes, its descriptor says %d", d.Digest, ref, info.Size(), d.Size)
	}
	return nil
}
