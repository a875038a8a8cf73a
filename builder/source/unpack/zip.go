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
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
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
