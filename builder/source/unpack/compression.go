package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Compression is how a stream is packed.
type Compression string

// The compressions.
const (
	None  Compression = ""
	Gzip  Compression = "gzip"  // RFC 1952, several members allowed
	Bzip2 Compression = "bzip2" // sourceware.org/bzip2
	XZ    Compression = "xz"    // tukaani.org/xz/xz-file-format.txt, LZMA2 filter only
	Zstd  Compression = "zstd"  // RFC 8878
)

// maxWindow is the largest dictionary or window that a decompressor may allocate, in bytes. xz -9 and zstd -19 need
// 64 and 8 MiB; zstd --long=27 needs 128.
const maxWindow = 128 << 20

// magics are the first bytes of each format.
var magics = []struct {
	c     Compression
	magic []byte
}{
	{Gzip, []byte{0x1f, 0x8b}},
	{Bzip2, []byte("BZh")},
	{XZ, []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
}

// Detect tells the compression of a stream by its first bytes, without consuming them. It knows no other formats:
// anything else is None.
func Detect(r *bufio.Reader) (Compression, error) {
	head, err := r.Peek(6)
	if err != nil && err != io.EOF {
		return None, err
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			return m.c, nil
		}
	}
	return None, nil
}

// Decompress returns the plain bytes of r. The memory it takes is bounded; its output is not.
// Reading to EOF checks the format's checksums. The caller must call Close.
func Decompress(r *bufio.Reader, c Compression) (io.ReadCloser, error) {
	switch c {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		return gzip.NewReader(r)
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case XZ:
		return newXZ(r)
	case Zstd:
		// One goroutine: two streams in lock step cost more than they give on the small machines this must run on.
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("unknown compression %q", string(c))
}
