// Package artifact gives what a build left behind its delivered forms: a file, a tree, a normalised tar, an OCI image
// layout. Each form is a function of the tree's names, contents, links and executable bits alone, so that the same tree
// has the same NAR, tar and OCI digests at everybody's. Nothing in an identity is compressed: the output of compressors
// changes between versions of their libraries (compress/gzip did between Go 1.26 and 1.27).
//
// NormalizerVersion numbers the rules below; the build claim names it.
package artifact

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// NormalizerVersion is the version of the rules by which trees become tars and OCI images.
const NormalizerVersion = "1"

// WriteTar writes the tree at root as a normalised tar: entries in byte order of their names within each directory, a
// directory before what it holds, names relative without "./" and with a slash behind directories, owner and group 0
// without names, modes 0755 for directories and executables and 0644 for other files and 0777 for symbolic links, every
// time epoch (Unix seconds), USTAR headers, or PAX records (POSIX.1-2001) only where a name or size does not fit. The
// root itself has no entry. It reads through an os.Root, so that no symbolic link leads outside.
func WriteTar(ctx context.Context, w io.Writer, root string, epoch int64) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	t := &tarWriter{ctx: ctx, dir: dir, tw: tar.NewWriter(w), time: time.Unix(epoch, 0).UTC(), buf: make([]byte, 256<<10)}
	if err := t.writeDir("."); err != nil {
		return fmt.Errorf("write tar of %s: %w", root, err)
	}
	return t.tw.Close()
}

type tarWriter struct {
	ctx  context.Context
	dir  *os.Root
	tw   *tar.Writer
	time time.Time
	buf  []byte
}

func (t *tarWriter) writeDir(name string) error {
	entries, err := fs.ReadDir(t.dir.FS(), name) // sorted by name
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := t.writeEntry(path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (t *tarWriter) writeEntry(name string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	info, err := t.dir.Lstat(name)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, ModTime: t.time, Mode: 0o755}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = t.dir.Readlink(name); err != nil {
			return err
		}
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		if info.Mode()&0o111 == 0 {
			h.Mode = 0o644
		}
	default:
		return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", name)
	}
	if err := t.writeHeader(h); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.writeDir(name)
	case tar.TypeReg:
		return t.writeContent(name, h.Size)
	}
	return nil
}

// writeHeader writes h as USTAR if that can hold it, else as PAX. A header that does not fit leaves the writer as it was;
// an error of the writer below stays, so that the second try returns it again.
func (t *tarWriter) writeHeader(h *tar.Header) error {
	h.Format = tar.FormatUSTAR
	err := t.tw.WriteHeader(h)
	if err != nil {
		h.Format = tar.FormatPAX
		err = t.tw.WriteHeader(h)
	}
	return err
}

func (t *tarWriter) writeContent(name string, size int64) error {
	f, err := t.dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tw}, io.LimitReader(f, size), t.buf)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s changed its size while it was read: %d bytes, was %d", name, n, size)
	}
	return nil
}
