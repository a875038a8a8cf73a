package imagespec

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/digest"
	"arch.network/builder/source/unpack"
)

// Descriptor names a blob: image-spec descriptor.md.
type Descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.SHA256 `json:"digest"`
	Size      int64         `json:"size"`
	Platform  *Platform     `json:"platform"` // of a manifest in an index; nil: none is said
}

// Platform is what an image of an index is for.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// Document is an image manifest, the manifest of a WebAssembly module, or an index. Parse makes all of them.
type Document struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"` // never empty
	ArtifactType  string       `json:"artifactType"`
	Config        *Descriptor  `json:"config"`
	Layers        []Descriptor `json:"layers"`
	Manifests     []Descriptor `json:"manifests"`

	kind Kind
}

// Kind is what a Document describes.
type Kind string

// The kinds of documents.
const (
	Index  Kind = "index"  // Manifests lists images
	Image  Kind = "image"  // Config and Layers make a root file system
	Module Kind = "module" // the one layer is a WebAssembly module
)

// Kind tells what d describes.
func (d *Document) Kind() Kind { return d.kind }

// layers are the media types of layers, with how they are packed.
var layers = map[string]unpack.Compression{
	"application/vnd.oci.image.layer.v1.tar":            unpack.None,
	"application/vnd.oci.image.layer.v1.tar+gzip":       unpack.Gzip,
	"application/vnd.oci.image.layer.v1.tar+zstd":       unpack.Zstd,
	"application/vnd.docker.image.rootfs.diff.tar":      unpack.None,
	"application/vnd.docker.image.rootfs.diff.tar.gzip": unpack.Gzip,
}

// LayerCompression tells how a layer of a media type is packed. ok is false if it is no layer of an image.
func LayerCompression(mediaType string) (c unpack.Compression, ok bool) {
	c, ok = layers[mediaType]
	return c, ok
}

// modules are the media types of the one layer of a WebAssembly module in a registry.
var modules = map[string]bool{
	"application/wasm":                                  true, // tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact
	"application/vnd.wasm.content.layer.v1+wasm":        true, // wasm-to-oci
	"application/vnd.module.wasm.content.layer.v1+wasm": true, // solo.io's wasm image spec, compat
}

// moduleConfigs are the media types of configurations that a module may come with. They are not read.
var moduleConfigs = map[string]bool{
	"application/vnd.wasm.config.v0+json":        true,
	"application/vnd.wasm.config.v1+json":        true,
	"application/vnd.oci.empty.v1+json":          true, // image-spec manifest.md, "Guidance for an Empty Descriptor"
	"application/vnd.unknown.config.v1+json":     true, // oras without a configuration
	"application/vnd.module.wasm.config.v1+json": true,
}

// Parse reads a manifest or an index of at most MaxDocument bytes.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxDocument)
	}
	var d Document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	if err := plainDocument(data); err != nil {
		return nil, err
	}
	isIndex, isImage := d.Manifests != nil, d.Layers != nil || d.Config != nil
	switch {
	case d.SchemaVersion != 2:
		return nil, fmt.Errorf("schema version is %d, not 2", d.SchemaVersion)
	case isIndex == isImage:
		return nil, errors.New("it must be either an index or an image")
	case isIndex && d.MediaType != "" && d.MediaType != MediaTypeIndex && d.MediaType != MediaTypeDockerIndex,
		isImage && d.MediaType != "" && d.MediaType != MediaTypeManifest && d.MediaType != MediaTypeDockerManifest:
		return nil, fmt.Errorf("its media type %.100q is that of something else", d.MediaType)
	case len(d.Layers) > MaxLayers:
		return nil, fmt.Errorf("it has %d layers, more than %d", len(d.Layers), MaxLayers)
	}
	for _, one := range slices.Concat(d.Layers, d.Manifests) {
		if one.Digest.IsZero() {
			return nil, errors.New("a descriptor has no digest")
		}
	}
	if d.Config != nil && d.Config.Digest.IsZero() {
		return nil, errors.New("the descriptor of the configuration has no digest")
	}
	return &d, d.classify()
}

// classify finds out the kind, and fills in what may be left out.
func (d *Document) classify() error {
	if d.Manifests != nil {
		d.kind = Index
		if d.MediaType == "" {
			d.MediaType = MediaTypeIndex
		}
		return nil
	}
	if d.MediaType == "" {
		d.MediaType = MediaTypeManifest
	}
	if d.isModule() {
		d.kind = Module
		return nil
	}
	if d.Config == nil || d.Config.MediaType != MediaTypeConfig && d.Config.MediaType != MediaTypeDockerConfig {
		return &documentError{"it is no image that can be run, but an artifact of another type", "only container images have a root file system, and only WebAssembly modules can be run without one"}
	}
	d.kind = Image
	for _, l := range d.Layers {
		if _, ok := LayerCompression(l.MediaType); !ok {
			return fmt.Errorf("layer %s has the unknown media type %.100q", l.Digest, l.MediaType)
		}
	}
	return nil
}

// isModule reports whether d has one layer, which is a module, and no image's configuration.
func (d *Document) isModule() bool {
	return len(d.Layers) == 1 && modules[d.Layers[0].MediaType] && d.Config != nil && moduleConfigs[d.Config.MediaType]
}

// Choose returns the one image of an index that is for a platform, given as OS/ARCHITECTURE.
func (d *Document) Choose(platform string) (Descriptor, error) {
	var found []Descriptor
	var names []string
	for _, m := range d.Manifests {
		if m.Platform == nil || m.MediaType != MediaTypeManifest && m.MediaType != MediaTypeDockerManifest {
			continue
		}
		is := m.Platform.OS + "/" + m.Platform.Architecture
		names = append(names, is)
		if is == platform {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return Descriptor{}, &documentError{fmt.Sprintf("has no image for %s, only for %.300q", platform, names), "choose another image, or another platform"}
	case 1:
		return found[0], nil
	}
	return Descriptor{}, &documentError{fmt.Sprintf("has %d images for %s", len(found), platform), "pin the digest of the one that is meant"}
}
