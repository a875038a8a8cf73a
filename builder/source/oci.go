package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
)

// The limits of images (research of hostile images: manifests have a few KiB, images rarely over 100 layers).
const (
	maxManifest = 4 << 20 // bytes of a manifest, index or configuration
	maxLayers   = 512
)

// Media types of image-spec and of Docker's older schema, which say the same.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// layerCompression tells how a layer of a media type is packed.
func layerCompression(mediaType string) (unpack.Compression, bool) {
	switch mediaType {
	case "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar":
		return unpack.None, true
	case "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return unpack.Gzip, true
	case "application/vnd.oci.image.layer.v1.tar+zstd":
		return unpack.Zstd, true
	}
	return "", false
}

// descriptor is image-spec's, as far as it is needed.
type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.SHA256 `json:"digest"`
	Size      int64         `json:"size"`
	Platform  *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

// ociDocument is an image manifest or an index. A document that is both is refused.
type ociDocument struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config"`
	Layers        []descriptor `json:"layers"`
	Manifests     []descriptor `json:"manifests"`
}

// ociConfiguration is what is needed of an image's configuration.
type ociConfiguration struct {
	RootFS struct {
		Type    string          `json:"type"`
		DiffIDs []digest.SHA256 `json:"diff_ids"`
	} `json:"rootfs"`
}

// image gets an OCI image by the digest of its manifest or index, and makes its root file system.
func (f *Fetcher) image(ctx context.Context, ref manifest.Ref) (memory, error) {
	doc, deps, err := f.imageManifest(ctx, ref)
	if err != nil {
		return memory{}, err
	}
	nar, err := f.rootFS(ctx, ref, doc)
	return memory{NAR: nar, Dependencies: deps}, err
}

// imageManifest gets the manifest of the image that ref means on our platform. The dependencies are what ref names and,
// if that is an index, the manifest chosen from it.
func (f *Fetcher) imageManifest(ctx context.Context, ref manifest.Ref) (*ociDocument, []attest.ResourceDescriptor, error) {
	doc, err := f.ociDocument(ctx, ref, ref.Digest)
	if err != nil {
		return nil, nil, err
	}
	deps := []attest.ResourceDescriptor{bytesDependency(ref.String(), ref.Digest, doc.MediaType)}
	if doc.Manifests == nil {
		return doc, deps, nil
	}
	chosen, err := choosePlatform(ref.String(), doc.Manifests, f.platform())
	if err != nil {
		return nil, nil, err
	}
	if doc, err = f.ociDocument(ctx, ref, chosen.Digest); err != nil {
		return nil, nil, err
	}
	if doc.Manifests != nil {
		return nil, nil, fmt.Errorf("%s: an index within an index", ref)
	}
	one := ref
	one.Version, one.Digest = "", chosen.Digest
	return doc, append(deps, bytesDependency(one.String(), chosen.Digest, doc.MediaType)), nil
}

// ociDocument gets and checks a manifest or index.
func (f *Fetcher) ociDocument(ctx context.Context, ref manifest.Ref, d digest.SHA256) (*ociDocument, error) {
	err := f.blob(ctx, ref.String(), d, func() error { return f.pull(ctx, ref, "manifests", d, maxManifest) })
	if err != nil {
		return nil, err
	}
	data, err := f.smallBlob(d, maxManifest)
	if err != nil {
		return nil, err
	}
	doc, err := parseOCI(data)
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

// parseOCI reads a manifest or an index: image-spec manifest.md and image-index.md. Other fields are ignored, as the
// specification wants; nothing that is used may be ambiguous.
func parseOCI(data []byte) (*ociDocument, error) {
	var doc ociDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if err := plainDocument(data); err != nil {
		return nil, err
	}
	isIndex, isImage := doc.Manifests != nil, doc.Layers != nil || doc.Config != nil
	switch {
	case doc.SchemaVersion != 2:
		return nil, fmt.Errorf("schema version is %d, not 2", doc.SchemaVersion)
	case isIndex == isImage:
		return nil, errors.New("it must be either an index or an image")
	case isIndex && doc.MediaType != "" && doc.MediaType != ociIndex && doc.MediaType != dockerIndex,
		isImage && doc.MediaType != "" && doc.MediaType != ociManifest && doc.MediaType != dockerManifest:
		return nil, fmt.Errorf("its media type %q is that of something else", doc.MediaType)
	case len(doc.Layers) > maxLayers:
		return nil, fmt.Errorf("it has %d layers, more than %d", len(doc.Layers), maxLayers)
	case isImage && (doc.Config == nil || doc.Config.MediaType != ociConfig && doc.Config.MediaType != dockerConfig):
		return nil, &sourceError{"it is no image that can be run, but an artifact of another type", "only container images have a root file system"}
	}
	if doc.MediaType == "" {
		doc.MediaType = ociManifest
		if isIndex {
			doc.MediaType = ociIndex
		}
	}
	for _, l := range doc.Layers {
		if _, ok := layerCompression(l.MediaType); !ok {
			return nil, fmt.Errorf("layer %s has the unknown media type %.100q", l.Digest, l.MediaType)
		}
	}
	return &doc, nil
}

// choosePlatform returns the one image of an index that is for a platform, given as OS/ARCH.
func choosePlatform(uri string, list []descriptor, platform string) (descriptor, error) {
	var found []descriptor
	var names []string
	for _, d := range list {
		if d.Platform == nil || d.MediaType != ociManifest && d.MediaType != dockerManifest {
			continue
		}
		is := d.Platform.OS + "/" + d.Platform.Architecture
		names = append(names, is)
		if is == platform {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return descriptor{}, &sourceError{fmt.Sprintf("%s has no image for %s, only for %.300q", uri, platform, names), "choose another image, or another platform"}
	case 1:
		return found[0], nil
	}
	return descriptor{}, &sourceError{fmt.Sprintf("%s has %d images for %s", uri, len(found), platform), "pin the digest of the one that is meant"}
}

// rootFS unpacks the layers of an image on top of each other.
func (f *Fetcher) rootFS(ctx context.Context, ref manifest.Ref, doc *ociDocument) (digest.SHA256, error) {
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

func (f *Fetcher) ociConfig(ctx context.Context, ref manifest.Ref, doc *ociDocument) (*ociConfiguration, error) {
	if doc.Config.Size > maxManifest {
		return nil, tooLarge("configuration of "+ref.String(), maxManifest)
	}
	if err := f.ociBlob(ctx, ref, *doc.Config); err != nil {
		return nil, err
	}
	data, err := f.smallBlob(doc.Config.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	var c ociConfiguration
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", ref, err)
	}
	if err := plainConfiguration(data); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", ref, err)
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) != len(doc.Layers) {
		return nil, fmt.Errorf("configuration of %s lists %d layers, its manifest %d", ref, len(c.RootFS.DiffIDs), len(doc.Layers))
	}
	return &c, nil
}

// layer applies one layer and compares its uncompressed bytes with the configuration.
func (f *Fetcher) layer(ctx context.Context, t *unpack.Tree, l descriptor, diffID digest.SHA256) error {
	file, err := f.Store.OpenBlob(l.Digest)
	if err != nil {
		return err
	}
	defer file.Close()
	compression, _ := layerCompression(l.MediaType)
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
func (f *Fetcher) ociBlob(ctx context.Context, ref manifest.Ref, d descriptor) error {
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
