package unpack

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Zip unpacks a zip archive of size bytes, dropping the first strip elements of every name as Tar does.
// Names that occur twice are refused, because readers differ in which they take.
func (t *Tree) Zip(ctx context.Context, r io.ReaderAt, size int64, strip int) error {
	z, err := OpenZip(r, size)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if len(z.File) > t.limits.Files {
		return &LimitError{"entries", int64(t.limits.Files)}
	}
	t.meter = &meter{in: size, ratio: t.limits.Ratio, slack: t.limits.Slack}
	defer func() { t.meter = nil }()
	seen := make(map[string]bool, len(z.File))
	before := t.files
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.zipEntry(f, seen, strip); err != nil {
			return err
		}
	}
	if strip > 0 && t.files == before {
		return &StripError{strip}
	}
	return nil
}

// MaxZipDirectory is how many bytes the directory of a zip archive may have. An entry has 46 and its name, and becomes
// about 250 in memory, all of them at once; half a million files with long names fit.
const MaxZipDirectory = 64 << 20

// OpenZip reads the directory of a zip archive of size bytes. Its memory is bounded by MaxZipDirectory, and not by what
// the archive says of itself. Names are as the archive has them.
func OpenZip(r io.ReaderAt, size int64) (*zip.Reader, error) {
	return openZip(r, size, MaxZipDirectory)
}

func openZip(r io.ReaderAt, size, directory int64) (*zip.Reader, error) {
	// Beside the directory, zip.NewReader looks for its end: in the last 65 KiB, more than once.
	b := &boundedAt{r: r, left: directory + 256<<10}
	z, err := zip.NewReader(b, size)
	b.open = true
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		if b.left < 0 {
			err = &LimitError{"bytes of zip directory", directory}
		}
		return nil, err
	}
	return z, nil
}

// boundedAt ends after some bytes until it is open.
type boundedAt struct {
	r    io.ReaderAt
	left int64
	open bool
}

func (b *boundedAt) ReadAt(p []byte, off int64) (int, error) {
	if b.open {
		return b.r.ReadAt(p, off)
	}
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errors.New("the directory is too large")
	}
	return b.r.ReadAt(p, off)
}

func (t *Tree) zipEntry(f *zip.File, seen map[string]bool, strip int) error {
	if strings.Contains(f.Name, `\`) {
		return &EntryError{f.Name, "backslash in the name"}
	}
	whole, err := t.strip(f.Name, 0)
	if err != nil {
		return err
	}
	if seen[whole] {
		return &EntryError{f.Name, "occurs twice"}
	}
	seen[whole] = true
	name, err := t.strip(whole, strip)
	if err != nil || name == "" {
		return err
	}
	mode := f.Mode()
	switch {
	case mode.IsDir():
		return t.Dir(name)
	case mode.IsRegular():
		return t.zipFile(f, name, mode&0o100 != 0)
	case mode.Type() == fs.ModeSymlink:
		return t.zipLink(f, name)
	}
	return &EntryError{f.Name, "neither file, directory nor symbolic link"}
}

func (t *Tree) zipFile(f *zip.File, name string, executable bool) error {
	if f.UncompressedSize64 > uint64(t.limits.Bytes) {
		return &LimitError{"bytes", t.limits.Bytes}
	}
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("archive entry %q: %w", clip(f.Name), err)
	}
	defer r.Close()
	if err := t.File(name, executable, int64(f.UncompressedSize64), r); err != nil {
		return err
	}
	// One more read: it finds content beyond the promised size, and lets the reader check the CRC.
	return t.zipEnd(f, r)
}

func (t *Tree) zipEnd(f *zip.File, r io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, 1))
	if err != nil {
		return fmt.Errorf("archive entry %q: %w", clip(f.Name), err)
	}
	if n != 0 {
		return &EntryError{f.Name, "has more bytes than it promised"}
	}
	return nil
}

func (t *Tree) zipLink(f *zip.File, name string) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("archive entry %q: %w", clip(f.Name), err)
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(r, int64(t.limits.Path)+1))
	if err != nil {
		return fmt.Errorf("archive entry %q: %w", clip(f.Name), err)
	}
	return t.Symlink(name, string(target))
}
