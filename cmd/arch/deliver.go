package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/store"
)

// deliveredKind is under what the store remembers the directories that we made, and their state then.
const deliveredKind = "delivered"

// deliveredKey is the key for a path, which may be longer than keys are.
func deliveredKey(path string) string { return digest.Of([]byte(path)).Hex() }

// stateOf tells a directory from another one at its place, and from itself after something was put in or taken out.
func stateOf(info fs.FileInfo) string {
	return fmt.Sprintf("inode %d modified %d", info.Sys().(*syscall.Stat_t).Ino, info.ModTime().UnixNano())
}

// mayReplace refuses to deliver where that would remove a directory which we did not make.
func (w *workshop) mayReplace(doc *manifest.Build, dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return hinted(fmt.Errorf("result directory %s is %s", dir, kindOf(info.Mode())), "choose another directory")
	}
	for _, out := range doc.Spec.Outputs {
		if err := mayReplaceTree(w.store, out.Name, filepath.Join(dir, out.Name)); err != nil {
			return err
		}
	}
	return nil
}

// mayReplaceTree refuses to deliver an output to a path where a directory is that we did not make, or that was changed.
func mayReplaceTree(s *store.Store, output, place string) error {
	path, err := realPath(place)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	known, ours, err := s.Recall(deliveredKind, deliveredKey(path))
	if err != nil {
		return err
	}
	if !ours || string(known) != stateOf(info) {
		return hinted(fmt.Errorf("deliver output %s: %s is a directory that arch did not make, or that was changed since", output, path),
			"move it away, or choose another directory")
	}
	return nil
}

// deliver writes the outputs into dir and remembers the directories it made. It returns the outputs' paths.
func (w *workshop) deliver(ctx context.Context, made *builder.Made, dir string) ([]string, error) {
	paths, err := w.builder.Deliver(ctx, made, dir)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		real, err := realPath(path)
		if err == nil && info.IsDir() {
			err = w.store.Remember(deliveredKind, deliveredKey(real), []byte(stateOf(info)))
		}
		if err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// root keeps the outputs of the result directory from garbage collection.
func (w *workshop) root(made *builder.Made, out string) error {
	dir, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	var nars []digest.SHA256
	for _, o := range made.Record.Outputs {
		nars = append(nars, o.NAR)
	}
	return w.store.AddRoot("result "+filepath.Join(dir, made.Manifest.Metadata.Name), nars...)
}
