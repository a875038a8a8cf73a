// Package publish pushes what was made to registries: distribution-spec. It is where outputs leave this machine, for who asked for that.
//
// What is pushed depends on the tree alone, so everybody who pushes the same tree pushes the same digest:
//
//	an OCI image layout      the one image, or index, that its index.json names, as it is
//	a file                   an artifact (image-spec manifest.md, "Guidelines for Artifact Usage") of one layer: the file's bytes
//	any other tree           an artifact of one layer: its NAR
//
// It promises that a tag is written last, when all that it names is there. It never pushes what it was not asked to, and never deletes.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// The media types of an artifact.
const (
	ArtifactType = "application/vnd.arch.network.output.v1"
	emptyType    = "application/vnd.oci.empty.v1+json" // image-spec manifest.md, "Guidance for an Empty Descriptor"
	fileType     = "application/octet-stream"
	titleKey     = "org.opencontainers.image.title" // image-spec annotations.md
)

// empty is what an empty descriptor describes.
var empty = []byte("{}")

// Registry is a repository of a registry that is pushed to.
type Registry struct {
	ref  name.Reference
	tag  bool
	auth authn.Keychain
	http http.RoundTripper
}

// Open checks that the user may push to location, HOST/REPOSITORY[:TAG], and pushes nothing. A tag is moved if there is one already; without
// one, what is pushed is known by its digest alone. Credentials are those of the user's docker configuration, if there are any.
func Open(ctx context.Context, location string) (*Registry, error) {
	r := &Registry{auth: authn.DefaultKeychain, http: remote.DefaultTransport}
	tag, err := name.NewTag(location, name.StrictValidation)
	if r.tag = err == nil; r.tag {
		r.ref = tag
	} else {
		repo, err := name.NewRepository(location, name.StrictValidation)
		if err != nil {
			return nil, fmt.Errorf("publish to %q: %w", location, err)
		}
		r.ref = repo.Digest(digest.Of(empty).String())
	}
	if err := remote.CheckPushPermission(r.ref, r.auth, canceller{ctx, r.http}); err != nil {
		return nil, r.fail(err)
	}
	return r, nil
}

// canceller ends requests with a context, where a library takes none.
type canceller struct {
	ctx context.Context
	rt  http.RoundTripper
}

func (c canceller) RoundTrip(q *http.Request) (*http.Response, error) {
	return c.rt.RoundTrip(q.WithContext(c.ctx))
}

func (r *Registry) fail(err error) error {
	return &Error{Location: r.ref.Context().Name(), Err: err}
}

// Error says that a registry did not take something.
type Error struct {
	Location string
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("publish to %s: %v", e.Location, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *Error) Hint() string {
	return "see whether it is there and you may push to it: docker login " + e.Location
}

// Push pushes the tree at path, whose title is a name for people, and returns the digest of what was pushed.
func (r *Registry) Push(ctx context.Context, path, title string) (digest.SHA256, error) {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(r.auth), remote.WithTransport(r.http)}
	sum, err := r.push(ctx, path, title, options)
	if err != nil {
		return digest.SHA256{}, r.fail(err)
	}
	return sum, nil
}

func (r *Registry) push(ctx context.Context, path, title string, options []remote.Option) (digest.SHA256, error) {
	if info, err := os.Lstat(filepath.Join(path, "oci-layout")); err == nil && info.Mode().IsRegular() {
		return r.pushLayout(path, options)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return digest.SHA256{}, err
	}
	l, err := newLayer(ctx, path)
	if err != nil {
		return digest.SHA256{}, err
	}
	for _, l := range []v1.Layer{static.NewLayer(empty, emptyType), l} {
		if err := remote.WriteLayer(r.ref.Context(), l, options...); err != nil {
			return digest.SHA256{}, err
		}
	}
	m, err := newManifest(l, title)
	if err != nil {
		return digest.SHA256{}, err
	}
	sum := digest.Of(m)
	return sum, remote.Put(r.target(sum), m, options...)
}

// target is what the manifest is put at.
func (r *Registry) target(sum digest.SHA256) name.Reference {
	if r.tag {
		return r.ref
	}
	return r.ref.Context().Digest(sum.String())
}

// pushLayout pushes what an image layout holds.
func (r *Registry) pushLayout(path string, options []remote.Option) (digest.SHA256, error) {
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return digest.SHA256{}, err
	}
	if len(list.Manifests) != 1 {
		return digest.SHA256{}, fmt.Errorf("the image layout holds %d images, not one", len(list.Manifests))
	}
	one := list.Manifests[0]
	sum, err := digest.Parse(one.Digest.String())
	if err != nil {
		return digest.SHA256{}, err
	}
	if one.MediaType.IsIndex() {
		nested, err := index.ImageIndex(one.Digest)
		if err != nil {
			return digest.SHA256{}, err
		}
		return sum, remote.WriteIndex(r.target(sum), nested, options...)
	}
	image, err := index.Image(one.Digest)
	if err != nil {
		return digest.SHA256{}, err
	}
	return sum, remote.Write(r.target(sum), image, options...)
}

// manifest is the manifest of an artifact, as it is sent.
type manifest []byte

// RawManifest implements remote.Taggable.
func (m manifest) RawManifest() ([]byte, error) { return m, nil }

// MediaType tells the registry what it is.
func (m manifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func newManifest(l *layer, title string) (manifest, error) {
	return json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{
		2, string(types.OCIManifestSchema1), ArtifactType,
		descriptor{emptyType, digest.Of(empty).String(), int64(len(empty)), nil},
		[]descriptor{{l.mediaType, l.sum.String(), l.size, map[string]string{titleKey: title}}},
	})
}

// layer is the only one of an artifact. Its bytes are made when they are read.
type layer struct {
	mediaType string
	sum       digest.SHA256
	size      int64
	open      func() (io.ReadCloser, error)
}

// newLayer hashes the bytes that stand for a tree.
func newLayer(ctx context.Context, path string) (*layer, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Mode()&0o111 == 0 {
		l := &layer{mediaType: fileType, open: func() (io.ReadCloser, error) { return os.Open(path) }}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		l.sum, l.size, err = digest.OfReader(f)
		return l, err
	}
	l := &layer{mediaType: nar.MediaType, open: func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(nar.Dump(ctx, w, path, nar.Options{})) }()
		return r, nil
	}}
	l.sum, l.size, err = nar.Hash(ctx, path, nar.Options{})
	return l, err
}

func (l *layer) Digest() (v1.Hash, error)             { return v1.NewHash(l.sum.String()) }
func (l *layer) DiffID() (v1.Hash, error)             { return l.Digest() }
func (l *layer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.open() }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.MediaType(l.mediaType), nil }
