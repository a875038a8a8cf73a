package unpack

import (
	"fmt"
	"io"
)

// meter compares what an archive has become with what was read of it. Both the decompressed stream and the files'
// contents are counted, each by itself: a sparse file grows after decompression. The zero of *meter counts nothing.
type meter struct {
	in, stream, files int64
	ratio, slack      int64
}

// input counts the compressed bytes that are read.
func (m *meter) input(r io.Reader) io.Reader { return &counter{r: r, n: &m.in} }

// decompressed counts, and bounds, what a decompressor gives.
func (m *meter) decompressed(r io.Reader) io.Reader { return &counter{r: r, n: &m.stream, check: m} }

// content counts, and bounds, what goes into files.
func (m *meter) content(r io.Reader) io.Reader {
	if m == nil {
		return r
	}
	return &counter{r: r, n: &m.files, check: m}
}

func (m *meter) exceeded(n int64) bool { return n > m.slack && n/m.ratio > m.in }

// RatioError says that an archive grows more than honest data does.
type RatioError struct {
	Ratio int64 // the limit
}

func (e *RatioError) Error() string {
	return fmt.Sprintf("archive expands to more than %d times its size", e.Ratio)
}

// Hint tells the way out.
func (e *RatioError) Hint() string { return (&LimitError{}).Hint() }

type counter struct {
	r     io.Reader
	n     *int64
	check *meter // nil: only counts
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	if c.check != nil && c.check.exceeded(*c.n) {
		return n, &RatioError{c.check.ratio}
	}
	return n, err
}
