package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// content is bytes that can be read anywhere: a file, a part of one, or something unpacked.
type content struct {
	r    io.ReaderAt
	size int64
}

func bytesContent(b []byte) content { return content{bytes.NewReader(b), int64(len(b))} }

func (c content) section(offset, size int64) content {
	return content{io.NewSectionReader(c.r, offset, size), size}
}

// reader reads all of the content from its beginning.
func (c content) reader() *io.SectionReader { return io.NewSectionReader(c.r, 0, c.size) }

// head returns the first bytes, at most n.
func (c content) head(n int64) ([]byte, error) { return c.at(0, n) }

// at returns the bytes from offset on, at most n, fewer at the end.
func (c content) at(offset, n int64) ([]byte, error) {
	offset = min(offset, c.size)
	b := make([]byte, min(n, c.size-offset))
	got, err := c.r.ReadAt(b, offset)
	if got == len(b) {
		err = nil
	}
	return b[:got], err
}

// run is a differing piece of two contents of bytes at the same offsets; differences less than runGap bytes apart are one run.
type run struct {
	offset int64
	size   int64 // from the first to the last differing byte
	count  int64 // differing bytes
}

const runGap = 8

// scan is where two contents differ.
type scan struct {
	first int64 // offset of the first differing byte; -1: equal
	count int64 // differing bytes, with those that only one side has
	runs  []run // the first maxRuns
	more  bool  // there are more runs
}

// compareBytes compares two contents byte by byte.
func compareBytes(ctx context.Context, a, b content) (scan, error) {
	s := scan{first: -1}
	common := min(a.size, b.size)
	block := min(common, blockSize)
	bufA, bufB := make([]byte, block), make([]byte, block)
	for offset := int64(0); offset < common; offset += blockSize {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		n := min(blockSize, common-offset)
		if err := readFull(a, bufA[:n], offset); err != nil {
			return s, err
		}
		if err := readFull(b, bufB[:n], offset); err != nil {
			return s, err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			s.block(offset, bufA[:n], bufB[:n])
		}
	}
	if rest := max(a.size, b.size) - common; rest > 0 {
		s.count += rest
		if s.first < 0 {
			s.first = common
		}
	}
	return s, nil
}

// block notes the differences of two blocks of equal length.
func (s *scan) block(offset int64, a, b []byte) {
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		at := offset + int64(i)
		if s.first < 0 {
			s.first = at
		}
		s.count++
		if n := len(s.runs); n > 0 && at-(s.runs[n-1].offset+s.runs[n-1].size) < runGap && !s.more {
			last := &s.runs[n-1]
			last.size, last.count = at-last.offset+1, last.count+1
		} else if n < maxRuns {
			s.runs = append(s.runs, run{at, 1, 1})
		} else {
			s.more = true
		}
	}
}

func readFull(c content, p []byte, offset int64) error {
	n, err := c.r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// limitError says that something was not unpacked because it would go beyond a limit.
type limitError struct{ cause string }

func (e *limitError) Error() string { return e.cause }

// unpacker keeps what was unpacked for one pair of files, and counts it.
type unpacker struct {
	opts  Options
	total int64      // bytes unpacked so far
	files []*os.File // unlinked
}

func (u *unpacker) close() {
	for _, f := range u.files {
		f.Close()
	}
}

// unpack keeps everything that r yields, which was packed bytes in size.
func (u *unpacker) unpack(ctx context.Context, r io.Reader, packed int64) (content, error) {
	limit := u.opts.Unpacked - u.total
	if byRatio := max(packed, 1) * u.opts.Ratio; byRatio/u.opts.Ratio == max(packed, 1) {
		limit = min(limit, max(byRatio, ratioFrom))
	}
	src := io.LimitReader(contextReader{ctx, r}, limit+1)
	var head bytes.Buffer
	if _, err := io.CopyN(&head, src, inMemory); errors.Is(err, io.EOF) {
		return u.count(bytesContent(head.Bytes()), limit)
	} else if err != nil {
		return content{}, err
	}
	f, err := u.tempFile()
	if err != nil {
		return content{}, err
	}
	size, err := io.Copy(f, io.MultiReader(&head, src))
	if err != nil {
		return content{}, err
	}
	return u.count(content{f, size}, limit)
}

func (u *unpacker) count(c content, limit int64) (content, error) {
	u.total += c.size
	if c.size > limit {
		return content{}, &limitError{fmt.Sprintf("it unpacks to more than %d bytes, which is over the limits", limit)}
	}
	return c, nil
}

func (u *unpacker) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(u.opts.TempDir, "arch-diff-*")
	if err != nil {
		return nil, err
	}
	u.files = append(u.files, f)
	return f, os.Remove(f.Name())
}

// contextReader is a reader that ends with the context's error.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
