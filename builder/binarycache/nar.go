package binarycache

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"arch.network/attest/digest"
)

// MismatchError says that what a cache serves is not what its narinfo says.
type MismatchError struct {
	What      string // "NAR" or "file", the packed NAR
	Want, Got digest.SHA256
	// WantSize and GotSize are bytes. If GotSize is larger, reading ended there, and Got is zero.
	WantSize, GotSize int64
}

func (e *MismatchError) Error() string {
	switch {
	case e.GotSize > e.WantSize:
		return fmt.Sprintf("the %s has more than %d bytes, the size that the narinfo says", e.What, e.WantSize)
	case e.GotSize != e.WantSize:
		return fmt.Sprintf("the %s has %d bytes, and not %d as the narinfo says", e.What, e.GotSize, e.WantSize)
	}
	return fmt.Sprintf("the %s has the hash %s, and not %s as the narinfo says", e.What, e.Got.SRI(), e.Want.SRI())
}

// Hint tells the way out.
func (e *MismatchError) Hint() string {
	return "what the cache serves was damaged or replaced: use another cache, and tell whoever runs this one"
}

// Open unpacks the NAR of n from the packed bytes in r. Reading ends with io.EOF only if size and hash are those of n and f; else with
// a *MismatchError or what is wrong with the packing. No more than n.NarSize bytes are ever returned, and no more than f.Size read, if that is
// said. Nothing that was read is worth anything before the io.EOF. Close closes r, too.
func (n *NarInfo) Open(r io.ReadCloser, f File) (io.ReadCloser, error) {
	packed := &checked{in: r, what: "file", want: f.Hash, size: f.Size, exact: true}
	if f.Size == 0 { // a cache that packs while it sends does not know; no packing makes anything half as long again
		packed.size, packed.exact = n.NarSize+n.NarSize/2+1<<20, false
	}
	plain, err := Decompress(bufio.NewReaderSize(packed, 64<<10), f.Compression)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("unpack %s: %w", f.URL, err)
	}
	return &narReader{checked: checked{in: plain, what: "NAR", want: n.NarHash, size: n.NarSize, exact: true}, packed: packed, file: r}, nil
}

// narReader is a NAR being unpacked; when that ends, the packed file must end, too.
type narReader struct {
	checked
	packed *checked
	file   io.Closer
}

func (r *narReader) Read(p []byte) (int, error) {
	n, err := r.checked.Read(p)
	if errors.Is(err, io.EOF) {
		more, tail := io.Copy(io.Discard, io.LimitReader(r.packed, 1))
		if more > 0 {
			tail = errors.New("unpack NAR: there is something behind it")
		}
		if tail != nil {
			r.err, err = tail, tail
		}
	} else if mismatch, ok := errors.AsType[*MismatchError](r.packed.err); ok && err != nil {
		r.err, err = mismatch, mismatch // what unpacks may have made something else of it
	}
	return n, err
}

func (r *narReader) Close() error { return errors.Join(r.in.(io.Closer).Close(), r.file.Close()) }

// checked compares what is read through it.
type checked struct {
	in    io.Reader
	what  string
	want  digest.SHA256 // zero: not said
	size  int64         // the most that it may have
	exact bool          // it must have as much
	sum   digest.Writer
	err   error // that every further call returns
}

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.in.Read(p)
	if over := c.sum.Size() + int64(n) - c.size; over > 0 {
		c.err = &MismatchError{What: c.what, Want: c.want, WantSize: c.size, GotSize: c.size + over}
		return 0, c.err
	}
	_, _ = c.sum.Write(p[:n]) // hashing never fails
	if errors.Is(err, io.EOF) {
		got, size := c.sum.Sum(), c.size
		if !c.exact {
			size = c.sum.Size()
		}
		if c.sum.Size() != size || !c.want.IsZero() && got != c.want {
			err = &MismatchError{What: c.what, Want: c.want, Got: got, WantSize: size, GotSize: c.sum.Size()}
		}
	}
	c.err = err
	return n, err
}
