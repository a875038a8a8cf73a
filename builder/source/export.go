package source

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/module"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
)

// Export fetches inputs and writes all that they need into the archive directory dir, which may hold other things of that
// kind. With dir in Archives, every one of the inputs can then be fetched offline. base is the directory of the manifest.
// An archive needs no trust: whoever reads it checks everything against the pins.
func (f *Fetcher) Export(ctx context.Context, inputs []manifest.BuildInput, base, dir string) error {
	lease, err := f.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	trees, err := f.FetchAll(ctx, inputs, base)
	if err != nil {
		return err
	}
	x := &exporter{f, dir}
	for _, in := range inputs {
		if err := x.input(ctx, in, trees); err != nil {
			return fmt.Errorf("export input %q to %s: %w", in.Name, dir, err)
		}
	}
	return nil
}

type exporter struct {
	f   *Fetcher
	dir string
}

func (x *exporter) input(ctx context.Context, in manifest.BuildInput, trees map[string]Tree) error {
	tree := trees[in.Name]
	switch {
	case in.Path != "":
		return x.nar(ctx, tree)
	case in.GoModules != nil:
		pins, err := readGoPins(trees[in.GoModules.Of].Path, in.GoModules.Dir)
		if err != nil {
			return err
		}
		for _, p := range pins {
			if err := x.goPin(ctx, p); err != nil {
				return err
			}
		}
		return nil
	}
	switch ref := in.Ref; ref.Scheme {
	case manifest.RefTree, manifest.RefStore, manifest.RefGit:
		return x.nar(ctx, tree)
	case manifest.RefURL:
		return x.bytes(ctx, ref.String(), ref.Digest, func() error { return x.f.url(ctx, ref) })
	case manifest.RefModel, manifest.RefCID:
		d, err := fileDigest(ref)
		if err != nil {
			return err
		}
		return x.bytes(ctx, ref.String(), d, nil)
	case manifest.RefGo:
		return x.goModule(ctx, ref, tree)
	case manifest.RefOCI:
		return x.image(ctx, ref)
	}
	return fmt.Errorf("reference %s: scheme %q cannot be exported", in.Ref, in.Ref.Scheme)
}

// bytes writes a blob, which is fetched again if the store has only what was made of it.
func (x *exporter) bytes(ctx context.Context, ref string, d digest.SHA256, origin func() error) error {
	if err := x.f.blob(ctx, ref, d, origin); err != nil {
		return err
	}
	return x.blob(ctx, d)
}

func (x *exporter) blob(ctx context.Context, d digest.SHA256) error {
	file, err := x.f.Store.OpenBlob(d)
	if err != nil {
		return err
	}
	defer file.Close()
	return x.write(path.Join(blobDir, d.Hex()), func(w io.Writer) error {
		_, err := io.Copy(w, &untilDone{ctx, file})
		return err
	})
}

func (x *exporter) nar(ctx context.Context, t Tree) error {
	return x.write(path.Join(narDir, t.NAR.Hex()+narSuffix), func(w io.Writer) error {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		return errors.Join(nar.Dump(ctx, enc, t.Path, nar.Options{}), enc.Close())
	})
}

func (x *exporter) image(ctx context.Context, ref manifest.Ref) error {
	doc, deps, err := x.f.imageManifest(ctx, ref)
	if err != nil {
		return err
	}
	for _, dep := range deps {
		d, ok := dep.SHA256()
		if !ok {
			return fmt.Errorf("dependency %s has no hash", dep)
		}
		if err := x.blob(ctx, d); err != nil {
			return err
		}
	}
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append([]imagespec.Descriptor{*doc.Config}, blobs...)
	}
	for _, d := range blobs {
		if err := x.f.ociBlob(ctx, ref, d); err != nil {
			return err
		}
		if err := x.blob(ctx, d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// goModule exports the zip of a module. That of a toolchain which was found installed never was here: it is made.
func (x *exporter) goModule(ctx context.Context, ref manifest.Ref, tree Tree) error {
	p := goPin{Version: module.Version{Path: ref.Location, Version: ref.Version}, hash: ref.Digest}
	if _, ok := x.f.recallGo(p); !ok {
		if err := x.f.zipTree(ctx, p, tree.Path); err != nil {
			return err
		}
	}
	return x.goPin(ctx, p)
}

func (x *exporter) goPin(ctx context.Context, p goPin) error {
	d, err := x.f.goBlob(ctx, p)
	if err != nil {
		return err
	}
	if err := x.blob(ctx, d); err != nil {
		return err
	}
	return x.write(pinPath(p.uri()), func(w io.Writer) error {
		_, err := io.WriteString(w, d.Hex()+"\n")
		return err
	})
}

// write makes a file of the archive, at once or not at all. One that is there already stays, but for pins, which are hints.
func (x *exporter) write(rel string, fill func(io.Writer) error) error {
	target := filepath.Join(x.dir, filepath.FromSlash(rel))
	if _, err := os.Lstat(target); err == nil && !strings.HasPrefix(rel, pinDir) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(target), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	w := bufio.NewWriterSize(temp, 1<<20)
	err = errors.Join(fill(w), w.Flush(), temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), target)
}

// zipTree makes a module zip of a module's tree and remembers it. Its hash is the pin again, however it is packed.
func (f *Fetcher) zipTree(ctx context.Context, p goPin, tree string) error {
	temp, err := os.CreateTemp("", "arch-zip-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if err := writeZip(ctx, temp, p, tree); err != nil {
		return err
	}
	d, err := f.addFile(ctx, temp.Name(), p.check)
	if err != nil {
		return err
	}
	return f.Store.Remember(zipKind, p.uri(), []byte(d.Hex()))
}

func writeZip(ctx context.Context, w io.Writer, p goPin, tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	z := zip.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		name := rel
		if p.Path == toolchainModule && path.Base(rel) == "go.mod" {
			name = path.Join(path.Dir(rel), "_go.mod")
		}
		to, err := z.Create(p.Path + "@" + p.Version.Version + "/" + name)
		if err != nil {
			return err
		}
		from, err := root.Open(rel)
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = io.Copy(to, from)
		return err
	})
	return errors.Join(err, z.Close())
}
