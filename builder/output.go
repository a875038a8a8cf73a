package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
)

// Output is one thing that a build left behind.
type Output struct {
	attest.Output                     // its name and every digest it is known by
	Type          manifest.OutputType // how it is delivered
	Path          string              `json:"-"` // of its tree in the store
}

// isSingle reports whether an output of the type is one regular file.
func isSingle(t manifest.OutputType) bool {
	return t == manifest.OutputFile || t == manifest.OutputWasm
}

// describe checks each collected tree against its declared type and computes its digests.
func (b *Builder) describe(ctx context.Context, doc *manifest.Build, got map[string]digest.SHA256) ([]Output, error) {
	var outputs []Output
	for _, decl := range doc.Spec.Outputs {
		nar, ok := got[decl.Name]
		if !ok {
			return nil, fmt.Errorf("collect output %s: the runner did not deliver it", decl.Name)
		}
		path, ok := b.Store.TreePath(nar)
		if !ok {
			return nil, fmt.Errorf("collect output %s: tree %s is not in the store", decl.Name, nar)
		}
		sums, err := digests(ctx, doc, decl, path)
		if err != nil {
			return nil, fmt.Errorf("name output %s: %w", decl.Name, err)
		}
		sums.Name, sums.NAR = decl.Name, nar
		outputs = append(outputs, Output{Output: sums, Type: decl.Type, Path: path})
	}
	return outputs, nil
}

// digests computes what an output is known by beside its NAR hash. An output that is not of its type is an *OutputError.
func digests(ctx context.Context, doc *manifest.Build, decl manifest.BuildOutput, path string) (attest.Output, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return attest.Output{}, err
	}
	single := isSingle(decl.Type)
	switch {
	case single && !info.Mode().IsRegular(), !single && !info.IsDir():
		return attest.Output{}, &OutputError{decl.Name, &TypeError{Output: decl, Found: info.Mode()}}
	case single:
		sum, err := fileDigest(path, decl)
		return attest.Output{File: sum}, err
	}
	var tar digest.Writer
	if err := artifact.WriteTar(ctx, &tar, path, doc.Spec.SourceDateEpoch); err != nil {
		return attest.Output{}, err
	}
	_, image, err := imageOf(doc, decl).ImageManifest(tar.Sum(), tar.Size())
	return attest.Output{Tar: tar.Sum(), OCI: digest.Of(image)}, err
}

func imageOf(doc *manifest.Build, decl manifest.BuildOutput) artifact.Image {
	img := artifact.Image{Platform: doc.Spec.Platform, Epoch: doc.Spec.SourceDateEpoch}
	if decl.Image != nil {
		img.Config = *decl.Image
	}
	return img
}

// wasmMagic opens a WebAssembly module of version 1 (WebAssembly Core Specification 2.0, section 5.5.16).
var wasmMagic = []byte("\x00asm\x01\x00\x00\x00")

func fileDigest(path string, decl manifest.BuildOutput) (digest.SHA256, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	if decl.Type == manifest.OutputWasm {
		if err := checkWasm(f, decl); err != nil {
			return digest.SHA256{}, err
		}
	}
	sum, _, err := digest.OfReader(f)
	return sum, err
}

// checkWasm looks whether f begins like a WebAssembly module, and goes back to its start.
func checkWasm(f *os.File, decl manifest.BuildOutput) error {
	head := make([]byte, len(wasmMagic))
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if !bytes.Equal(head[:n], wasmMagic) {
		return &OutputError{decl.Name, fmt.Errorf("%s is no WebAssembly module: it starts with %x, not %x", decl.Path, head[:n], wasmMagic)}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
