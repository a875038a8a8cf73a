package binarycache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// maxLzipDict bounds the window of an lzip member, in bytes. The highest preset, -9, has 32 MiB.
const maxLzipDict = 64 << 20

// lzipReader reads members of an lzip file (lzip manual, "File format"), one after the other. Each is
//
//	"LZIP", version 1, coded window size    6 bytes
//	an LZMA stream with lc=3, lp=0, pb=2 and an end marker
//	CRC-32 of the data, its size, the member's size    4, 8 and 8 bytes, little endian
type lzipReader struct {
	in     *lzipInput
	member *lzma.Reader // nil: between members
	crc    uint32
	size   uint64 // of the data of this member
	start  uint64 // in.n at the beginning of this member
	first  bool
	err    error
}

func newLzip(r *bufio.Reader) io.Reader { return &lzipReader{in: &lzipInput{r: r}, first: true} }

// lzipInput counts what is read; it is an io.ByteReader, so that nothing behind the LZMA stream is taken.
type lzipInput struct {
	r *bufio.Reader
	n uint64
	// head is a header of the older format .lzma, which the LZMA reader wants before the stream.
	head []byte
}

func (i *lzipInput) ReadByte() (byte, error) {
	if len(i.head) > 0 {
		b := i.head[0]
		i.head = i.head[1:]
		return b, nil
	}
	b, err := i.r.ReadByte()
	if err == nil {
		i.n++
	}
	return b, err
}

func (i *lzipInput) Read(p []byte) (int, error) {
	if len(i.head) > 0 {
		n := copy(p, i.head)
		i.head = i.head[n:]
		return n, nil
	}
	n, err := i.r.Read(p)
	i.n += uint64(n)
	return n, err
}

// Read implements io.Reader.
func (l *lzipReader) Read(p []byte) (int, error) {
	for l.err == nil && len(p) > 0 {
		if l.member == nil {
			if l.err = l.begin(); l.err != nil {
				break
			}
		}
		n, err := l.member.Read(p)
		l.crc = crc32.Update(l.crc, crc32.IEEETable, p[:n])
		l.size += uint64(n)
		if errors.Is(err, io.EOF) {
			err = l.end()
		} else if err != nil {
			err = fmt.Errorf("unpack lzip: %w", err)
		}
		l.err = err
		if n > 0 {
			return n, nil
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	return 0, l.err
}

// begin reads the header of a member; io.EOF if there is none.
func (l *lzipReader) begin() error {
	if _, err := l.in.r.Peek(1); errors.Is(err, io.EOF) && !l.first {
		return io.EOF
	}
	l.start, l.crc, l.size, l.first = l.in.n, 0, 0, false
	var head [6]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return fmt.Errorf("unpack lzip: header: %w", noEOF(err))
	}
	if string(head[:5]) != "LZIP\x01" {
		return errors.New("unpack lzip: it does not begin as a member does")
	}
	// Bits 4 to 0 are the power of two, bits 7 to 5 how many sixteenths of it are taken off.
	dict := uint64(1) << (head[5] & 0x1f)
	dict -= dict / 16 * uint64(head[5]>>5)
	if dict < 1<<12 || dict > maxLzipDict {
		return fmt.Errorf("unpack lzip: a window of %d bytes is not from 4,096 to %d", dict, maxLzipDict)
	}
	const properties = (2*5+0)*9 + 3 // pb, lp, lc
	l.in.head = binary.LittleEndian.AppendUint32([]byte{properties}, uint32(dict))
	l.in.head = binary.LittleEndian.AppendUint64(l.in.head, 1<<64-1) // the size is not known: there is an end marker
	r, err := lzma.ReaderConfig{DictCap: maxLzipDict}.NewReader(l.in)
	if err != nil {
		return fmt.Errorf("unpack lzip: %w", noEOF(err))
	}
	l.member = r
	return nil
}

// end compares the trailer of a member.
func (l *lzipReader) end() error {
	marked := l.member.EOSMarker()
	l.member = nil
	var tail [20]byte
	if _, err := io.ReadFull(l.in, tail[:]); err != nil {
		return fmt.Errorf("unpack lzip: trailer: %w", noEOF(err))
	}
	switch {
	case !marked:
		return errors.New("unpack lzip: there is no end marker")
	case binary.LittleEndian.Uint32(tail[:4]) != l.crc, binary.LittleEndian.Uint64(tail[4:12]) != l.size:
		return errors.New("unpack lzip: the checksum of the data is wrong")
	case binary.LittleEndian.Uint64(tail[12:]) != l.in.n-l.start:
		return errors.New("unpack lzip: the size of a member is wrong")
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
