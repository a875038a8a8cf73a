package artifact

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"arch.network/attest/canonical"
	archdigest "arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// Image says what an OCI image is made with beside its one layer.
type Image struct {
	Platform string // GOOS/GOARCH
	Epoch    int64  // Unix seconds; the image's creation time
	Config   manifest.BuildImage
}

// ImageManifest returns the canonical bytes of the configuration and the manifest of an image whose only layer is the
// normalised tar with the given digest and size (image-spec v1.1: manifest.md, config.md). The digest of the manifest
// is the image's.
func (img Image) ImageManifest(layer archdigest.SHA256, size int64) (config, manifest []byte, err error) {
	goos, goarch, _ := strings.Cut(img.Platform, "/")
	created := time.Unix(img.Epoch, 0).UTC()
	config, err = canonical.Marshal(v1.Image{
		Created:  &created,
		Platform: v1.Platform{OS: goos, Architecture: goarch},
		Config: v1.ImageConfig{
			Entrypoint: img.Config.Entrypoint,
			Cmd:        img.Config.Cmd,
			Env:        environ(img.Config.Env),
			User:       img.Config.User,
			WorkingDir: img.Config.WorkingDir,
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(layer.String())}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("write image configuration: %w", err)
	}
	manifest, err = canonical.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    descriptor(v1.MediaTypeImageConfig, archdigest.Of(config), int64(len(config))),
		Layers:    []v1.Descriptor{descriptor(v1.MediaTypeImageLayer, layer, size)},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("write image manifest: %w", err)
	}
	return config, manifest, nil
}

func environ(env map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func descriptor(mediaType string, d archdigest.SHA256, size int64) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.Digest(d.String()), Size: size}
}

// WriteLayout writes the tree at root as an OCI image layout (image-spec v1.1: image-layout.md) into the new directory
// dst and returns the digest of the image's manifest.
func (img Image) WriteLayout(ctx context.Context, dst, root string) (archdigest.SHA256, error) {
	blobs := filepath.Join(dst, v1.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return archdigest.SHA256{}, err
	}
	layer, size, err := writeLayer(ctx, blobs, root, img.Epoch)
	if err != nil {
		return archdigest.SHA256{}, err
	}
	config, manifest, err := img.ImageManifest(layer, size)
	if err != nil {
		return archdigest.SHA256{}, err
	}
	index, err := canonical.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{descriptor(v1.MediaTypeImageManifest, archdigest.Of(manifest), int64(len(manifest)))},
	})
	if err != nil {
		return archdigest.SHA256{}, err
	}
	layout, err := canonical.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return archdigest.SHA256{}, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{filepath.Join(blobs, archdigest.Of(config).Hex()), config},
		{filepath.Join(blobs, archdigest.Of(manifest).Hex()), manifest},
		{filepath.Join(dst, v1.ImageIndexFile), index},
		{filepath.Join(dst, v1.ImageLayoutFile), layout},
	} {
		if err := os.WriteFile(f.name, f.data, 0o644); err != nil {
			return archdigest.SHA256{}, err
		}
	}
	return archdigest.Of(manifest), nil
}

// writeLayer writes the tar of root as a blob of its own name.
func writeLayer(ctx context.Context, blobs, root string, epoch int64) (archdigest.SHA256, int64, error) {
	f, err := os.CreateTemp(blobs, ".layer-*")
	if err != nil {
		return archdigest.SHA256{}, 0, err
	}
	defer os.Remove(f.Name()) // fails once the blob has its name
	defer f.Close()
	var sum archdigest.Writer
	if err := WriteTar(ctx, io.MultiWriter(f, &sum), root, epoch); err != nil {
		return archdigest.SHA256{}, 0, err
	}
	if err := f.Chmod(0o644); err != nil {
		return archdigest.SHA256{}, 0, err
	}
	if err := f.Close(); err != nil {
		return archdigest.SHA256{}, 0, err
	}
	return sum.Sum(), sum.Size(), os.Rename(f.Name(), filepath.Join(blobs, sum.Sum().Hex()))
}
