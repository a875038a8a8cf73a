package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ulikunitz/xz"
)

// maxDictionaries is how many bytes the dictionaries of all blocks of a stream may have together: each block makes a new
// one. xz -T writes blocks of three dictionaries, so this is over 768 GiB of honest data; clearing it takes a minute.
const maxDictionaries = 256 << 30

// newXZ refuses dictionaries over maxWindow before the library allocates them.
func newXZ(r *bufio.Reader) (io.ReadCloser, error) {
	x, err := xz.NewReader(&xzGuard{r: r, next: (*xzGuard).streamHeader})
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

// xzGuard passes an xz file through and reads the headers of its blocks on the way: xz-file-format.txt 1.2.1. It follows
// LZMA2's chunks from one to the next, since blocks need not say how long they are. Everything else is the library's to
// judge, which reads the same bytes; what the guard cannot follow it refuses.
type xzGuard struct {
	r    *bufio.Reader
	left int                    // bytes to pass before the next decision
	next func(g *xzGuard) error // decides on what follows: sets left and next
	err  error                  // sticky

	check        int   // bytes of the check value behind each block
	data         int64 // bytes of the block's data so far
	dictionaries uint64
	records      uint64 // of the index, still to come
}

// errXZ is a file that is none, or is damaged.
var errXZ = errors.New("xz: the file is damaged")

func (g *xzGuard) Read(p []byte) (int, error) {
	for g.left == 0 && g.err == nil {
		g.err = g.next(g)
	}
	if g.left == 0 {
		return 0, g.err
	}
	n, err := g.r.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, truncated(err)
}

// peek returns the next n bytes, which stay unread; io.EOF becomes an error.
func (g *xzGuard) peek(n int) ([]byte, error) {
	b, err := g.r.Peek(n)
	return b, truncated(err)
}

// streamHeader is section 2.1.1.
func (g *xzGuard) streamHeader() error {
	const size = 12
	b, err := g.peek(size)
	if err != nil {
		return err
	}
	// Section 2.1.1.2: none, CRC32, CRC64, SHA-256, and sizes kept for what may come.
	g.check = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]&0x0f]
	g.left, g.next = size, (*xzGuard).block
	return nil
}

// block is section 3.1, or the index if its first byte is 0.
func (g *xzGuard) block() error {
	b, err := g.peek(1)
	if err != nil {
		return err
	}
	if b[0] == 0 {
		g.left, g.next = 1, (*xzGuard).index
		return nil
	}
	size := (int(b[0]) + 1) * 4
	if b, err = g.peek(size); err != nil {
		return err
	}
	dictionary, err := xzDictionary(b)
	if err != nil {
		return err
	}
	if dictionary > maxWindow {
		return &LimitError{"bytes of xz dictionary", maxWindow}
	}
	if g.dictionaries += dictionary; g.dictionaries > maxDictionaries {
		return &LimitError{"bytes of xz dictionaries together", maxDictionaries}
	}
	g.data = 0
	g.left, g.next = size, (*xzGuard).chunk
	return nil
}

// xzDictionary returns the dictionary size in a block's header, which must have LZMA2 as its only filter: section 5.3.1.
func xzDictionary(header []byte) (uint64, error) {
	flags, rest := header[1], header[2:]
	if flags&0x3f != 0 {
		return 0, errors.New("xz: a block has other filters than LZMA2")
	}
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed and uncompressed size
		if present {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return 0, errXZ
			}
			rest = rest[n:]
		}
	}
	const lzma2 = 0x21
	if len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 {
		return 0, errors.New("xz: a block has other filters than LZMA2")
	}
	bits := rest[2]
	if bits > 40 {
		return 0, errors.New("xz: dictionary size is invalid")
	}
	return (2 | uint64(bits)&1) << (bits/2 + 11), nil
}

// chunk is one of LZMA2's: a control byte, sizes less one in two bytes each, the most significant first, and the data.
// The format has no text but xz's own source, lzma2_decoder.c.
func (g *xzGuard) chunk() error {
	b, err := g.peek(1)
	if err != nil {
		return err
	}
	control := b[0]
	header := 0
	switch {
	case control == 0:
		return g.endBlock()
	case control == 1 || control == 2: // not compressed
		header = 3
	case control >= 0xc0: // with new properties
		header = 6
	case control >= 0x80:
		header = 5
	default:
		return errXZ
	}
	if b, err = g.peek(header); err != nil {
		return err
	}
	size := binary.BigEndian.Uint16(b[1:])
	if control >= 0x80 {
		size = binary.BigEndian.Uint16(b[3:])
	}
	g.left = header + int(size) + 1
	g.data += int64(g.left)
	return nil
}

// endBlock passes the control byte 0, the padding to a multiple of four, and the check.
func (g *xzGuard) endBlock() error {
	g.data++
	g.left, g.next = 1+int(-g.data&3)+g.check, (*xzGuard).block
	return nil
}

// index is section 4 behind its first byte.
func (g *xzGuard) index() error {
	count, n, err := g.number()
	if err != nil {
		return err
	}
	g.records, g.data = count, int64(1+n)
	g.left, g.next = n, (*xzGuard).record
	return nil
}

// record is two numbers; behind the last are padding, a CRC32, and the stream's footer of 12 bytes.
func (g *xzGuard) record() error {
	if g.records == 0 {
		g.left, g.next = int(-g.data&3)+4+12, (*xzGuard).between
		return nil
	}
	g.records--
	_, n, err := g.number()
	if err != nil {
		return err
	}
	g.data += int64(n)
	g.left, g.next = n, (*xzGuard).secondNumber
	return nil
}

func (g *xzGuard) secondNumber() error {
	_, n, err := g.number()
	if err != nil {
		return err
	}
	g.data += int64(n)
	g.left, g.next = n, (*xzGuard).record
	return nil
}

// number looks at a number of section 1.2.
func (g *xzGuard) number() (value uint64, size int, err error) {
	for size = 1; size <= 9; size++ {
		b, err := g.peek(size)
		if err != nil {
			return 0, 0, err
		}
		if b[size-1]&0x80 == 0 {
			value, _ = binary.Uvarint(b)
			return value, size, nil
		}
	}
	return 0, 0, errXZ
}

// between is behind a stream: the end, padding of four zeros, or another stream.
func (g *xzGuard) between() error {
	b, err := g.r.Peek(1)
	if err != nil {
		return err // io.EOF is the end
	}
	if b[0] == 0 {
		g.left = 4
		return nil
	}
	return g.streamHeader()
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
