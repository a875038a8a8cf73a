package broker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
)

// rootFS makes of the image that g.ref pins its root file system, for an input: the same tree that package builder/source makes of it. It
// is kept under the hash of the manifest that was chosen for this platform.
func (g *gatherer) rootFS(ctx context.Context) (string, error) {
	doc, chosen, err := g.chosenImage(ctx)
	if err != nil {
		return "", err
	}
	name := filepath.Join(imageDir, chosen.Hex())
	if path, ok := g.take(name); ok {
		return path, nil
	}
	config, layers, err := g.layers(ctx, doc)
	if err != nil {
		return "", err
	}
	for { // what another job has made may be gone again
		err := g.server.cache.derive(ctx, name, func(dir string) error {
			t, err := unpack.New(dir, unpack.RootFS, unpack.Limits{})
			if err != nil {
				return err
			}
			return errors.Join(applyLayers(ctx, t, doc, config, layers), t.Close())
		})
		if err != nil {
			return "", contentError(Blob, chosen, err)
		}
		if path, ok := g.take(name); ok {
			return path, nil
		}
	}
}

// chosenImage gets the manifest of the image for this platform.
func (g *gatherer) chosenImage(ctx context.Context) (*imagespec.Document, digest.SHA256, error) {
	doc, err := g.document(ctx, g.ref.Digest)
	chosen := g.ref.Digest
	if err == nil && doc.Kind() == imagespec.Index {
		var d imagespec.Descriptor
		if d, err = doc.Choose("linux/" + runtime.GOARCH); err != nil {
			return nil, chosen, refuse(CodeContent, "name an image for this platform", "%s %v", g.ref, err)
		}
		chosen = d.Digest
		doc, err = g.document(ctx, chosen)
	}
	switch {
	case err != nil:
		return nil, chosen, err
	case doc.Kind() == imagespec.Index:
		return nil, chosen, refuse(CodeContent, "", "%s: an index within an index", g.ref)
	case doc.Kind() != imagespec.Image:
		return nil, chosen, refuse(CodeContent, "only container images have a root file system", "%s is no image that can be run, but a WebAssembly module", g.ref)
	}
	return doc, chosen, nil
}

// document gets a manifest or index.
func (g *gatherer) document(ctx context.Context, d digest.SHA256) (*imagespec.Document, error) {
	path, err := g.get(ctx, Blob, d)
	if err != nil {
		return nil, err
	}
	return readManifest(path)
}

// layers gets the configuration of an image and the files of its layers, each of the size that its descriptor says.
func (g *gatherer) layers(ctx context.Context, doc *imagespec.Document) (*imagespec.Configuration, []string, error) {
	path, err := g.sized(ctx, *doc.Config)
	if err != nil {
		return nil, nil, err
	}
	data, err := readImageDocument(path)
	if err != nil {
		return nil, nil, err
	}
	config, err := imagespec.ParseConfiguration(data, len(doc.Layers))
	if err != nil {
		return nil, nil, refuse(CodeContent, "", "configuration: %v", err)
	}
	var layers []string
	for _, l := range doc.Layers {
		path, err := g.sized(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, path)
	}
	return config, layers, nil
}

// sized gets a blob by its descriptor.
func (g *gatherer) sized(ctx context.Context, d imagespec.Descriptor) (string, error) {
	path, err := g.get(ctx, Blob, d.Digest)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	if err == nil && info.Size() != d.Size {
		err = refuse(CodeContent, "", "blob %s has %d bytes, its descriptor says %d", d.Digest, info.Size(), d.Size)
	}
	return path, err
}

// applyLayers unpacks layers on top of each other, and compares the uncompressed bytes of each with the configuration.
func applyLayers(ctx context.Context, t *unpack.Tree, doc *imagespec.Document, config *imagespec.Configuration, layers []string) error {
	for i, l := range doc.Layers {
		if err := applyLayer(ctx, t, l, config.RootFS.DiffIDs[i], layers[i]); err != nil {
			return err
		}
	}
	return nil
}

func applyLayer(ctx context.Context, t *unpack.Tree, l imagespec.Descriptor, diffID digest.SHA256, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	compression, _ := imagespec.LayerCompression(l.MediaType)
	var sum digest.Writer
	if err := t.Layer(ctx, f, compression, &sum); err != nil {
		return err
	}
	if got := sum.Sum(); got != diffID {
		return refuse(CodeDigest, "", "the uncompressed layer %s has the digest %s, the configuration says %s", l.Digest, got, diffID)
	}
	return nil
}

// readImageDocument reads a manifest or configuration.
func readImageDocument(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, imagespec.MaxDocument+1))
	if err == nil && len(data) > imagespec.MaxDocument {
		err = refuse(CodeContent, "", "a document of the image has more than %d bytes", imagespec.MaxDocument)
	}
	return data, err
}
