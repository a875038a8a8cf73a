// Package imagespec reads the documents of OCI images: manifests, indexes and configurations (image-spec v1.1: manifest.md,
// image-index.md, config.md), and the manifests of WebAssembly modules that are kept in registries. The fetcher uses it on what a registry
// sent, and the runner again on what it was handed.
//
// It promises that a document means one thing: one that is both an index and an image, one whose media type says something else than
// its fields, members that occur twice or in letters of another case, unknown layers, and more than the limits are errors. Members
// that nothing here uses are ignored, as the specification wants.
//
// It never fetches, never looks at a layer, and does not compare digests: whoever reads the bytes has hashed them.
package imagespec

// The limits of images. Manifests have a few KiB, and images rarely over 100 layers.
const (
	MaxDocument = 4 << 20 // bytes of a manifest, index or configuration (distribution-spec: registries take at least that)
	MaxLayers   = 512
)

// Media types of image-spec and of Docker's older schema, which say the same.
const (
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeConfig         = "application/vnd.oci.image.config.v1+json"
	MediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// documentError is an error with a way out that needs no type of its own.
type documentError struct {
	msg  string
	cure string
}

func (e *documentError) Error() string { return e.msg }

// Hint tells the way out.
func (e *documentError) Hint() string { return e.cure }
