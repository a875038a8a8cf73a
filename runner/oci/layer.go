package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
)

// perDir is how many files of a layer lie in one directory.
const perDir = 1024

const filesDir = "files"

// layer returns the object of an image's layer.
func (c *Cache) layer(ctx context.Context, img Image, desc imagespec.Descriptor, diffID digest.SHA256) object {
	return object{
		kind: layerDir, id: diffID,
		make: func(dir string, _ bool) ([]byte, error) {
			index, err := c.unpackLayer(ctx, img, desc, diffID, dir)
			if err != nil {
				return nil, img.fail("layer "+desc.Digest.String(), err)
			}
			return index, nil
		},
		check: func(dir string, index []byte) error { return checkLayer(ctx, dir, index) },
	}
}

// unpackLayer writes the files of a layer and returns its index.
func (c *Cache) unpackLayer(ctx context.Context, img Image, desc imagespec.Descriptor, diffID digest.SHA256, dir string) ([]byte, error) {
	compression, ok := imagespec.LayerCompression(desc.MediaType)
	if !ok {
		return nil, fmt.Errorf("unknown media type %.100q", desc.MediaType)
	}
	blob, err := img.Blobs(desc.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if err := checkBlob(blob, desc); err != nil {
		return nil, err
	}
	w := newFileWriter(filepath.Join(dir, filesDir))
	index := newIndexWriter()
	// What is not compressed is hashed twice, too: a blob that changed since it was hashed must not get through.
	var diff digest.Writer
	err = unpack.ReadLayer(ctx, blob, compression, c.limits, &diff, func(e unpack.LayerEntry, content io.Reader) error {
		s := step{LayerEntry: e}
		if e.Kind == unpack.LayerFile {
			var err error
			if s.Sum, err = w.write(e, content); err != nil {
				return err
			}
		}
		return index.add(s)
	})
	if err = errors.Join(err, w.close()); err != nil {
		return nil, err
	}
	if got := diff.Sum(); got != diffID {
		return nil, fmt.Errorf("its uncompressed bytes have the digest %s, the configuration says %s", got, diffID)
	}
	return index.buf, nil
}

// checkBlob compares a blob with its descriptor, before anything of it is decompressed, and goes back to its beginning.
func checkBlob(f *os.File, desc imagespec.Descriptor) error {
	got, size, err := digest.OfReader(io.LimitReader(f, desc.Size+1))
	switch {
	case err != nil:
		return err
	case size != desc.Size:
		return fmt.Errorf("it does not have the %d bytes that its descriptor says", desc.Size)
	case got != desc.Digest:
		return fmt.Errorf("its bytes have the digest %s", got)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// fileWriter writes files under numbers.
type fileWriter struct {
	path    string
	n       int
	dir     *os.File // of the current file
	creator unpack.Creator
	hash    hash.Hash
	buf     []byte
}

func newFileWriter(path string) *fileWriter {
	return &fileWriter{path: path, hash: sha256.New(), buf: make([]byte, 128<<10)}
}

// write writes one file with exactly the size of e and returns the hash of its content.
func (w *fileWriter) write(e unpack.LayerEntry, content io.Reader) (digest.SHA256, error) {
	if err := w.next(); err != nil {
		return digest.SHA256{}, err
	}
	f, err := w.creator.Create(w.dir, strconv.Itoa(w.n%perDir), e.Executable)
	if err != nil {
		return digest.SHA256{}, err
	}
	w.n++
	w.hash.Reset()
	err = w.copy(f, e.Size, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return digest.SHA256{}, fmt.Errorf("write %.200q: %w", e.Name, err)
	}
	return digest.SHA256(w.hash.Sum(nil)), nil
}

func (w *fileWriter) copy(f io.Writer, size int64, content io.Reader) error {
	for size > 0 {
		part := w.buf[:min(size, int64(len(w.buf)))]
		if _, err := io.ReadFull(content, part); err != nil {
			return err
		}
		w.hash.Write(part)
		if _, err := f.Write(part); err != nil {
			return err
		}
		size -= int64(len(part))
	}
	return nil
}

// next makes the directory of the next file.
func (w *fileWriter) next() error {
	if w.n%perDir != 0 {
		return nil
	}
	if err := w.close(); err != nil {
		return err
	}
	dir := filepath.Join(w.path, strconv.Itoa(w.n/perDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var err error
	w.dir, err = os.Open(dir)
	return err
}

func (w *fileWriter) close() error {
	if w.dir == nil {
		return nil
	}
	err := w.dir.Close()
	w.dir = nil
	return err
}

// checkLayer compares the files of a layer with its index.
func checkLayer(ctx context.Context, dir string, index []byte) error {
	n := 0
	return decodeIndex(index, func(s step) error {
		if s.Kind != unpack.LayerFile {
			return ctx.Err()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, filesDir, strconv.Itoa(n/perDir), strconv.Itoa(n%perDir))
		n++
		return checkFile(path, s)
	})
}

// checkFile compares a file with its entry.
func checkFile(path string, s step) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	perm := os.FileMode(0o644)
	if s.Executable {
		perm = 0o755
	}
	if info.Mode() != perm || info.Size() != s.Size {
		return fmt.Errorf("%s has another mode or size than it was made with", path)
	}
	sum, err := hashFile(path, s.Size)
	if err == nil && sum != s.Sum {
		err = fmt.Errorf("%s has other content than it was made with", path)
	}
	return err
}

// smallFile is the size in bytes up to which a file is read at once.
const smallFile = 256 << 10

func hashFile(path string, size int64) (digest.SHA256, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	if size > smallFile {
		sum, _, err := digest.OfReader(f)
		return sum, err
	}
	data := make([]byte, size)
	_, err = io.ReadFull(f, data)
	return digest.Of(data), err
}
