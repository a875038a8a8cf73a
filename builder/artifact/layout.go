package artifact

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
)

// maxManifest bounds index.json and a manifest, in bytes (distribution-spec v1.1 recommends that registries take 4 MiB).
const maxManifest = 4 << 20

// LayoutDigest returns the digest of the only image of an OCI image layout, after it has checked every blob of that
// image against its descriptor.
func LayoutDigest(dir string) (digest.SHA256, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer root.Close()
	sum, err := layoutDigest(root)
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("read image layout %s: %w", dir, err)
	}
	return sum, nil
}

func layoutDigest(root *os.Root) (digest.SHA256, error) {
	var index v1.Index
	if err := readJSON(root, v1.ImageIndexFile, &index); err != nil {
		return digest.SHA256{}, err
	}
	if len(index.Manifests) != 1 || index.Manifests[0].MediaType != v1.MediaTypeImageManifest {
		return digest.SHA256{}, fmt.Errorf("%s does not name exactly one image manifest", v1.ImageIndexFile)
	}
	image := index.Manifests[0]
	want, err := blobDigest(image)
	if err != nil {
		return digest.SHA256{}, err
	}
	data, err := readSmall(root, blobPath(want))
	if err != nil {
		return digest.SHA256{}, err
	}
	if digest.Of(data) != want || int64(len(data)) != image.Size { // the bytes that are parsed are the bytes that were hashed
		return digest.SHA256{}, fmt.Errorf("manifest %s has the digest %s", want, digest.Of(data))
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return digest.SHA256{}, fmt.Errorf("manifest %s: %w", want, err)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if err := checkBlob(root, d); err != nil {
			return digest.SHA256{}, err
		}
	}
	return want, nil
}

// blobDigest returns a descriptor's digest, which must be in the form of image-spec: other spellings of it, and what is no digest, are refused.
func blobDigest(d v1.Descriptor) (digest.SHA256, error) {
	sum, err := digest.Parse(string(d.Digest))
	if err == nil && sum.String() != string(d.Digest) {
		err = fmt.Errorf("digest %q is not written as %s", string(d.Digest), sum)
	}
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("descriptor: %w", err)
	}
	return sum, nil
}

func blobPath(sum digest.SHA256) string { return v1.ImageBlobsDir + "/sha256/" + sum.Hex() }

func readJSON(root *os.Root, name string, v any) error {
	data, err := readSmall(root, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// openRegular opens a regular file, and nothing else: it never waits for the other end of a named pipe.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads a file of at most maxManifest bytes.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s is over the limit of %d bytes", name, maxManifest)
	}
	return data, nil
}

func checkBlob(root *os.Root, d v1.Descriptor) error {
	want, err := blobDigest(d)
	if err != nil {
		return err
	}
	f, err := openRegular(root, blobPath(want))
	if err != nil {
		return err
	}
	defer f.Close()
	got, size, err := digest.OfReader(io.LimitReader(f, d.Size+1))
	switch {
	case err != nil:
		return err
	case size != d.Size:
		return fmt.Errorf("blob %s does not have the %d bytes of its descriptor", want, d.Size)
	case got != want:
		return fmt.Errorf("blob %s has the digest %s", want, got)
	}
	return nil
}
