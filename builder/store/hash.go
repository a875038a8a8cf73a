package store

import (
	"io"

	"arch.network/attest/digest"
)

// hashReader hashes what is read through it, on another processor if there is one.
type hashReader struct {
	r      io.Reader
	stream *digest.Stream
	buf    []byte // of the stream, filled up to n
	n      int
	size   int64 // bytes read
}

func newHashReader(r io.Reader) *hashReader {
	return &hashReader{r: r, stream: digest.NewStream()}
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.size += int64(n)
	for p = p[:n]; len(p) > 0; {
		if h.n == len(h.buf) {
			h.buf, h.n = h.stream.Next(h.full()), 0
		}
		copied := copy(h.buf[h.n:], p)
		h.n, p = h.n+copied, p[copied:]
	}
	return n, err
}

// full is what is to be hashed of the buffer; nil if there is no buffer yet.
func (h *hashReader) full() []byte { return h.buf[:h.n] }

// sum returns the digest of everything that was read. Nothing is read after it.
func (h *hashReader) sum() digest.SHA256 {
	if h.n > 0 {
		h.stream.Next(h.full())
		h.buf, h.n = nil, 0
	}
	return h.stream.Sum()
}

func (h *hashReader) close() { h.stream.Close() }
