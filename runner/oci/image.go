package oci

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
)

// Blobs opens the blob of an image by its digest; the caller closes it. What it gives needs no trust, but must not change while it
// is read. That there is none is an error that wraps fs.ErrNotExist.
type Blobs func(d digest.SHA256) (*os.File, error)

// Layout are the blobs of an OCI image layout (image-spec image-layout.md), or of an archive directory of package source.
func Layout(dir string) Blobs {
	return func(d digest.SHA256) (*os.File, error) {
		root, err := os.OpenRoot(filepath.Join(dir, "blobs", "sha256"))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := root.OpenFile(d.Hex(), os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not block
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			f.Close()
			return nil, cmp.Or(err, fmt.Errorf("blob %s is no file", d))
		}
		return f, nil
	}
}

// Image names an image.
type Image struct {
	Digest   digest.SHA256 // of its manifest, or of an index
	Platform string        // "OS/ARCHITECTURE" that it must be for, such as "linux/amd64"; required
	Blobs    Blobs         // required
}

// ImageError says what is wrong with an image. Nothing of it was kept.
type ImageError struct {
	Digest digest.SHA256 // of the image as it was asked for
	Part   string        // such as "layer sha256:…"; empty: the image itself
	Err    error
}

func (e *ImageError) Error() string {
	if e.Part == "" {
		return fmt.Sprintf("image %s: %v", e.Digest, e.Err)
	}
	return fmt.Sprintf("image %s: %s: %v", e.Digest, e.Part, e.Err)
}

func (e *ImageError) Unwrap() error { return e.Err }

// Hint tells the way out, if the cause knows one.
func (e *ImageError) Hint() string {
	if h, ok := errors.AsType[hinter](e.Err); ok {
		return h.Hint()
	}
	return ""
}

type hinter interface {
	error
	Hint() string
}

// imageError is an error with a way out that needs no type of its own.
type imageError struct {
	msg  string
	cure string
}

func (e *imageError) Error() string { return e.msg }

// Hint tells the way out.
func (e *imageError) Hint() string { return e.cure }

// documents are what an image says of itself.
type documents struct {
	manifest digest.SHA256 // the one that was chosen
	layers   []imagespec.Descriptor
	config   *imagespec.Configuration
}

// read reads the manifest, through the index if there is one, and the configuration.
func (img Image) read() (documents, error) {
	d := documents{manifest: img.Digest}
	doc, err := img.document(img.Digest)
	if err == nil && doc.Kind() == imagespec.Index {
		doc, d.manifest, err = img.choose(doc)
	}
	if err != nil {
		return documents{}, err
	}
	if doc.Kind() != imagespec.Image {
		return documents{}, img.fail("", &imageError{"it is a WebAssembly module and no container image", "run it with runtime wasm"})
	}
	d.layers = doc.Layers
	data, err := img.small(doc.Config.Digest, doc.Config.Size)
	if err == nil {
		d.config, err = imagespec.ParseConfiguration(data, len(doc.Layers))
	}
	if err != nil {
		return documents{}, img.fail("configuration "+doc.Config.Digest.String(), err)
	}
	if is := d.config.OS + "/" + d.config.Architecture; is != img.Platform {
		return documents{}, img.fail("", &imageError{fmt.Sprintf("it is for %.100q, not for %s", is, img.Platform), "pin an image for this platform, or an index that has one"})
	}
	return d, nil
}

// choose reads the manifest for the platform out of an index.
func (img Image) choose(index *imagespec.Document) (*imagespec.Document, digest.SHA256, error) {
	one, err := index.Choose(img.Platform)
	if err != nil {
		return nil, digest.SHA256{}, img.fail("", fmt.Errorf("the index %w", err))
	}
	doc, err := img.document(one.Digest)
	if err == nil && doc.Kind() == imagespec.Index {
		err = img.fail("", errors.New("an index within an index"))
	}
	return doc, one.Digest, err
}

func (img Image) document(d digest.SHA256) (*imagespec.Document, error) {
	data, err := img.small(d, -1)
	if err != nil {
		return nil, img.fail("manifest "+d.String(), err)
	}
	doc, err := imagespec.Parse(data)
	if err != nil {
		return nil, img.fail("manifest "+d.String(), err)
	}
	return doc, nil
}

// small reads a document whole and checks it. A size below zero is not known.
func (img Image) small(d digest.SHA256, size int64) ([]byte, error) {
	if size > imagespec.MaxDocument {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, imagespec.MaxDocument)
	}
	f, err := img.Blobs(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, imagespec.MaxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > imagespec.MaxDocument:
		return nil, fmt.Errorf("it has more than %d bytes", imagespec.MaxDocument)
	case digest.Of(data) != d:
		return nil, fmt.Errorf("its bytes have the digest %s", digest.Of(data))
	case size >= 0 && int64(len(data)) != size:
		return nil, fmt.Errorf("it has %d bytes, its descriptor says %d", len(data), size)
	}
	return data, nil
}

func (img Image) fail(part string, err error) error {
	return &ImageError{Digest: img.Digest, Part: part, Err: err}
}
