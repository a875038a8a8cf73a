package digest

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
)

// Writer hashes what is written to it. The zero value is ready. It is not safe for concurrent use.
type Writer struct {
	hash hash.Hash // nil until the first Write
	size int64
}

// Write adds p to the hash. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	if w.hash == nil {
		w.hash = sha256.New()
	}
	w.size += int64(len(p))
	return w.hash.Write(p)
}

// Sum returns the hash of everything written so far; more may follow.
func (w *Writer) Sum() SHA256 {
	if w.hash == nil {
		return Of(nil)
	}
	var d SHA256
	w.hash.Sum(d[:0])
	return d
}

// Size returns how many bytes were written so far.
func (w *Writer) Size() int64 { return w.size }

// Reset forgets everything written so far.
func (w *Writer) Reset() {
	if w.hash != nil {
		w.hash.Reset()
	}
	w.size = 0
}

// firstRead is how much OfReader reads before it makes a Stream: most of what is hashed is smaller,
// and does not need its buffer.
const firstRead = 128 << 10

// OfReader reads r to its end and returns the hash and the number of bytes. Long inputs are hashed beside
// reading them (see Stream). On error it returns the number of bytes read before.
func OfReader(r io.Reader) (SHA256, int64, error) {
	head := make([]byte, firstRead)
	n, err := fill(r, head)
	switch {
	case err != nil:
		return SHA256{}, int64(n), err
	case n < len(head):
		return Of(head[:n]), int64(n), nil
	}
	return ofLong(head, r)
}

// OfFile returns the hash of the bytes of the file at path. Symbolic links are followed.
func OfFile(path string) (SHA256, error) {
	f, err := os.Open(path)
	if err != nil {
		return SHA256{}, err
	}
	defer f.Close()
	sum, _, err := OfReader(f)
	return sum, err
}

// ofLong hashes head and the rest of r.
func ofLong(head []byte, r io.Reader) (SHA256, int64, error) {
	s := NewStream()
	defer s.Close()
	buf := s.Next(nil)
	n, size := copy(buf, head), int64(len(head))
	for {
		m, err := fill(r, buf[n:])
		size += int64(m)
		if err != nil {
			return SHA256{}, size, err
		}
		n += m
		if n < len(buf) {
			s.Next(buf[:n])
			return s.Sum(), size, nil
		}
		buf, n = s.Next(buf), 0
	}
}

// fill reads until buf is full or r ends; fewer bytes than len(buf) and no error mean the end.
// Unlike io.ReadFull it does not mistake a reader's own io.ErrUnexpectedEOF (a truncated archive) for the end.
func fill(r io.Reader, buf []byte) (int, error) {
	n := 0
	for empty := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, fmt.Errorf("read what to hash: %w", err)
		case m > 0:
			empty = 0
		case empty == 100:
			return n, fmt.Errorf("read what to hash: %w", io.ErrNoProgress)
		default:
			empty++
		}
	}
	return n, nil
}
