package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// offer puts a file into the store that lies in one of dirs under the name that a reference ends in, if it is what the
// pin says. What is not is left alone: it is somebody else's file.
func (g *Gatherer) offer(ctx context.Context, ref manifest.Ref, dirs []string) error {
	base := filepath.Base(ref.Location)
	switch ref.Scheme {
	case manifest.RefTree, manifest.RefURL, manifest.RefModel:
	case manifest.RefStore: // HASH-NAME is looked for as NAME
		_, base, _ = strings.Cut(base, "-")
	default:
		return nil
	}
	if base == "" || base == "." || base == ".." || base == "/" || strings.ContainsAny(base, "?&") {
		return nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, base)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		if ok, err := g.take(ctx, ref, path, info); ok || err != nil {
			return err
		}
	}
	return nil
}

// Layouts are the image layouts that lie in one of dirs under the last name of a reference's repository: archives for a Fetcher.
func Layouts(doc *manifest.Job, dirs []string) []string {
	var out []string
	for _, ref := range references(doc) {
		if ref.Scheme != manifest.RefOCI {
			continue
		}
		for _, dir := range dirs {
			layout := filepath.Join(dir, filepath.Base(ref.Location))
			if info, err := os.Lstat(filepath.Join(layout, "oci-layout")); err == nil && info.Mode().IsRegular() {
				out = append(out, layout)
			}
		}
	}
	return out
}

// references are a document's image and inputs, these by their names.
func references(doc *manifest.Job) []manifest.Ref {
	out := []manifest.Ref{doc.Spec.Image}
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Inputs)) {
		out = append(out, doc.Spec.Inputs[name])
	}
	return out
}

// take puts what is at path into the store, if it is what ref pins.
func (g *Gatherer) take(ctx context.Context, ref manifest.Ref, path string, info fs.FileInfo) (bool, error) {
	if ref.Scheme == manifest.RefTree || ref.Scheme == manifest.RefStore {
		if !info.Mode().IsRegular() && !info.IsDir() {
			return false, nil
		}
		if _, ok := g.Store.TreePath(ref.Digest); ok {
			return true, nil
		}
		if sum, _, err := nar.Hash(ctx, path, nar.Options{}); err != nil || sum != ref.Digest {
			return false, ctx.Err() // what cannot be read is not ours
		}
		got, err := g.Store.AddTreeFrom(ctx, path, nar.Options{})
		return got == ref.Digest, err
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	if _, ok := g.Store.BlobPath(ref.Digest); ok {
		return true, nil
	}
	if sum, err := hashFile(path); err != nil || sum != ref.Digest {
		return false, ctx.Err()
	}
	return g.takeFile(ctx, path, ref.Digest)
}

func (g *Gatherer) takeFile(ctx context.Context, path string, want digest.SHA256) (bool, error) {
	f, err := openFile(path)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	_, _, err = g.Store.AddBlob(ctx, f, want)
	if _, ok := errors.AsType[*store.MismatchError](err); ok {
		return false, nil // changed since
	}
	return err == nil, err
}

// openFile opens a regular file, and nothing that would block.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("open %s: it is not a file", path)
	}
	return f, nil
}

func hashFile(path string) (digest.SHA256, error) {
	f, err := openFile(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	sum, _, err := digest.OfReader(f)
	return sum, err
}
