package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
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

// newXZ refuses a dictionary over maxWindow before the library allocates it. Only the first block's header can be
// seen ahead; xz writes the same filters into each.
func newXZ(r *bufio.Reader) (io.ReadCloser, error) {
	size, err := xzDictionary(r)
	if err != nil {
		return nil, err
	}
	if size > maxWindow {
		return nil, &LimitError{"bytes of xz dictionary", maxWindow}
	}
	x, err := xz.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

// xzDictionary reads the dictionary size of the first block: xz-file-format.txt sections 3.1 and 5.3.1.
// It is 0 if there is no block, or no LZMA2 filter; the library judges those.
func xzDictionary(r *bufio.Reader) (uint64, error) {
	const header = 12 // of the stream
	head, err := r.Peek(header + 1)
	if err != nil {
		return 0, truncated(err)
	}
	size := (int(head[header]) + 1) * 4
	if head[header] == 0 {
		return 0, nil // an index follows: the stream is empty
	}
	head, err = r.Peek(header + size)
	if err != nil {
		return 0, truncated(err)
	}
	block := head[header+1:]
	flags := block[0]
	at := 1
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed and uncompressed size
		for present && at < len(block) {
			at++
			present = block[at-1]&0x80 != 0
		}
	}
	const lzma2 = 0x21
	if at+2 >= len(block) || block[at] != lzma2 || block[at+1] != 1 {
		return 0, nil
	}
	bits := block[at+2]
	if bits > 40 {
		return 0, errors.New("xz: dictionary size is invalid")
	}
	return (2 | uint64(bits)&1) << (bits/2 + 11), nil
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
