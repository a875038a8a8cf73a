package unpack

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Tar unpacks a tar archive, whose compression is told by its first bytes, dropping the first strip elements of every
// name. Entries with no more elements than that are left out. Everything up to the end of r is read.
func (t *Tree) Tar(ctx context.Context, r io.Reader, strip int) error {
	return t.stream(ctx, r, nil, func(plain io.Reader, m *meter) error {
		t.meter = m
		defer func() { t.meter = nil }()
		before := t.files
		if err := t.untar(ctx, plain, t.plainEntry(strip)); err != nil {
			return err
		}
		if strip > 0 && t.files == before {
			return &StripError{strip}
		}
		return nil
	})
}

// StripError says that dropping path elements left nothing of an archive.
type StripError struct {
	Strip int
}

func (e *StripError) Error() string {
	return fmt.Sprintf("strip %d leaves nothing of the archive", e.Strip)
}

// Hint tells the way out.
func (e *StripError) Hint() string {
	return "lower \"strip\": it drops that many leading elements of each path"
}

// stream decompresses r, hands it to read, and drains it, so that checksums at its end are checked.
// With a given compression, any other is an error.
// The meter is for read to count what the archive becomes.
func (t names) stream(ctx context.Context, r io.Reader, want *Compression, read func(io.Reader, *meter) error) error {
	m := &meter{ratio: t.limits.Ratio, slack: t.limits.Slack}
	in := bufio.NewReaderSize(m.input(&cancelable{ctx, r}), 64<<10)
	c, err := Detect(in)
	if err != nil {
		return err
	}
	if want != nil && c != *want {
		return fmt.Errorf("archive is compressed with %q, but said to be with %q", string(c), string(*want))
	}
	plain, err := Decompress(in, c)
	if err != nil {
		return fmt.Errorf("decompress archive: %w", err)
	}
	defer plain.Close()
	out := m.decompressed(plain)
	if err := read(out, m); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		return fmt.Errorf("read the end of the archive: %w", err)
	}
	return nil
}

// untar reads the entries of a plain tar.
func (t names) untar(ctx context.Context, r io.Reader, entry func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		// ErrInsecurePath comes with a usable header; the tree judges names by itself.
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("read archive: %w", err)
		}
		// Entries that make nothing are bounded too.
		if n >= t.limits.Files {
			return &LimitError{"entries", int64(t.limits.Files)}
		}
		if err := entry(h, tr); err != nil {
			return err
		}
	}
}

// plainEntry makes what a header says, without the first strip elements of names.
func (t *Tree) plainEntry(strip int) func(*tar.Header, io.Reader) error {
	return func(h *tar.Header, r io.Reader) error {
		if h.Typeflag == tar.TypeXGlobalHeader {
			return nil // such as the commit id that git archive writes; it changes no entry
		}
		name, err := t.strip(h.Name, strip)
		if err != nil {
			return err
		}
		old := h.Linkname
		if h.Typeflag == tar.TypeLink {
			if old, err = t.strip(old, strip); err != nil {
				return err
			}
		}
		if name == "" && (strip > 0 || h.Typeflag == tar.TypeDir) {
			return nil
		}
		return t.entry(h, cmp.Or(name, h.Name), old, r)
	}
}

func (t *Tree) entry(h *tar.Header, name, linkname string, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return t.Dir(name)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return t.File(name, h.Mode&0o100 != 0, h.Size, r)
	case tar.TypeSymlink:
		return t.Symlink(name, linkname)
	case tar.TypeLink:
		return t.Link(name, linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if t.mode == RootFS {
			return nil
		}
		return &EntryError{h.Name, "device or FIFO"}
	}
	return &EntryError{h.Name, fmt.Sprintf("unknown type %q", h.Typeflag)}
}

// strip drops n leading elements of a name; the result is empty if nothing is left.
func (t names) strip(name string, n int) (string, error) {
	elems, err := t.split(name)
	if err != nil || len(elems) <= n {
		return "", err
	}
	return strings.Join(elems[n:], "/"), nil
}

// cancelable ends reading when the context does.
type cancelable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
