package diff

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"arch.network/builder/source/unpack"
)

// opener starts to unpack a compressed stream.
type opener func(c content) (io.ReadCloser, error)

// compressed explains the difference of two streams of a compression that has no metadata.
func compressed(name string, open opener) func(*explainer, place, content, content, int) error {
	return func(e *explainer, at place, a, b content, depth int) error {
		return e.streams(at, name, open, a, b, depth)
	}
}

// streams compares what is in two compressed streams.
func (e *explainer) streams(at place, name string, open opener, a, b content, depth int) error {
	plainA, err := e.unpack(open, a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	plainB, err := e.unpack(open, b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	before := len(e.found)
	if err := e.contents(at.in(innerName(at.last(), name)), plainA, plainB, depth); err != nil {
		return err
	}
	if len(e.found) > before {
		return nil
	}
	s, err := compareBytes(e.ctx, a, b)
	if err != nil {
		return err
	}
	e.add(at, a, b, s, Compressor, fmt.Sprintf("The unpacked content is equal; it was compressed by another %s program, version or level.", name))
	return nil
}

func (e *explainer) unpack(open opener, c content) (content, error) {
	r, err := open(c)
	if err != nil {
		return content{}, err
	}
	defer r.Close()
	return e.store.unpack(e.ctx, r, c.size)
}

// innerName is the name of what is in a compressed file: that of the file without the last suffix, if it is the compression's.
func innerName(name, format string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	for _, suffix := range []string{".gz", ".tgz", ".xz", ".txz", ".zst", ".bz2"} {
		if inner, ok := strings.CutSuffix(base, suffix); ok && inner != "" {
			if strings.HasPrefix(suffix, ".t") {
				inner += ".tar"
			}
			return inner
		}
	}
	return "content of the " + format
}

func openZstd(c content) (io.ReadCloser, error) {
	d, err := zstd.NewReader(c.reader(), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func openBzip2(c content) (io.ReadCloser, error) {
	return io.NopCloser(bzip2.NewReader(bufio.NewReader(c.reader()))), nil
}

func openXZ(c content) (io.ReadCloser, error) {
	return unpack.Decompress(bufio.NewReaderSize(c.reader(), 64<<10), unpack.XZ)
}

func openGzip(c content) (io.ReadCloser, error) { return gzip.NewReader(bufio.NewReader(c.reader())) }

// gzip compares the headers of two gzip files (RFC 1952, section 2.3), then what is in them.
func (e *explainer) gzip(at place, a, b content, depth int) error {
	headA, err := gzipHeader(a)
	if err != nil {
		return fmt.Errorf("first: %w", err)
	}
	headB, err := gzipHeader(b)
	if err != nil {
		return fmt.Errorf("second: %w", err)
	}
	before := len(e.found)
	for i := range headA.attributes {
		e.attribute(at, "gzip header", headA.member, headB.member, i)
	}
	if len(e.found) > before {
		// The same stream behind different headers needs no other explanation.
		s, err := compareBytes(e.ctx, a.section(headA.size, a.size-headA.size), b.section(headB.size, b.size-headB.size))
		if err != nil || s.first < 0 {
			return err
		}
	}
	return e.streams(at, "gzip", openGzip, a, b, depth)
}

// gzipHead is the header of the first member of a gzip file.
type gzipHead struct {
	member
	size int64
}

func gzipHeader(c content) (gzipHead, error) {
	count := &countingReader{r: bufio.NewReader(c.reader())}
	r, err := gzip.NewReader(count)
	if err != nil {
		return gzipHead{}, err
	}
	flags, err := c.at(8, 1)
	if err != nil {
		return gzipHead{}, err
	}
	mtime := "none"
	if !r.ModTime.IsZero() {
		mtime = r.ModTime.UTC().Format(time.RFC3339)
	}
	return gzipHead{size: count.n, member: member{attributes: []attribute{
		{"modification time", mtime, Mtime},
		{"file name", r.Name, Path},
		{"comment", r.Comment, Content},
		{"extra field", strconv.Quote(string(r.Extra)), Content},
		{"operating system", strconv.Itoa(int(r.OS)), Compressor},
		{"compression level flag", strconv.Itoa(int(flags[0])), Compressor},
	}}}, nil
}

// countingReader counts what the header of a gzip file takes. It is an io.ByteReader, so that gzip reads no further.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countingReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
