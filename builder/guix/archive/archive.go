// Package archive reads the archives that `guix archive --export` writes, the form in which Guix moves store items between machines: for
// each item its NAR, what it refers to, what built it, and a signature over all of that.
//
// The format (Guix: guix/nar.scm and guix/store.scm; numbers are 8 bytes, little endian; texts are a length, bytes, and zeros up to a
// multiple of 8):
//
//	archive = { 1 item } 0
//	item    = NAR 0x4558494e path:text count { reference:text } deriver:text ( 0 | 1 signature:text )
//
// The signature is over the item's bytes from the NAR to the deriver.
//
// It promises that nothing of an item is handed over before a trusted key's signature on it was verified, that what is handed over are
// the bytes that were verified, that every item is a valid NAR, and that lengths and numbers are bounded. It never restores anything into a store.
package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/guix/signature"
)

// magic stands between a NAR and what is said of it: "NIXE".
const magic = 0x4558494e

// Limits of the format.
const (
	maxItems      = 1 << 20
	maxReferences = 1 << 16 // of an item
	maxText       = 8 << 10 // bytes; signatures have some 430
	bufferSize    = 64 << 10
)

// Options says what is accepted.
type Options struct {
	Keys    signature.Keys // whose items are; none: nothing is
	Store   string         // where items lie; empty: /gnu/store
	Scratch string         // a directory for one item at a time; empty: os.TempDir
	Limits  nar.Limits     // of each item
}

// Item is a store item that a trusted key signed.
type Item struct {
	Path       string
	References []string // as they were written
	Deriver    string   // empty: it was not built
	NAR        digest.SHA256
	Size       int64 // bytes of the NAR
	Key        signature.PublicKey
	content    io.ReaderAt
}

// Open returns a reader of the item's NAR. It reads until the function that got the item returns.
func (i Item) Open() io.Reader { return io.NewSectionReader(i.content, 0, i.Size) }

// An ItemError says which item of an archive is bad.
type ItemError struct {
	Index int    // from 0
	Path  string // that it claims; empty: not read yet
	Err   error
}

func (e *ItemError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("read Guix archive: item %d: %v", e.Index+1, e.Err)
	}
	return fmt.Sprintf("read Guix archive: item %d, %q: %v", e.Index+1, e.Path, e.Err)
}

func (e *ItemError) Unwrap() error { return e.Err }

// Read calls use with each item of the archive in r, after it was verified, in the order of the archive, which has items behind what they refer
// to. It ends with the first error; the items before it are none the worse for that.
func Read(ctx context.Context, r io.Reader, o Options, use func(Item) error) error {
	if o.Store == "" {
		o.Store = "/gnu/store"
	}
	scratch, err := os.CreateTemp(o.Scratch, "arch-guix-*.nar")
	if err != nil {
		return fmt.Errorf("read Guix archive: %w", err)
	}
	defer scratch.Close()
	if err := os.Remove(scratch.Name()); err != nil { // it lives as long as it is open
		return fmt.Errorf("read Guix archive: %w", err)
	}
	in := &reader{Reader: bufio.NewReaderSize(cancelled{ctx, r}, bufferSize), options: o, scratch: scratch}
	for i := 0; ; i++ {
		more, err := in.flag()
		if err == nil && !more {
			return in.end()
		}
		if err == nil && i == maxItems {
			err = fmt.Errorf("there are more than %d", maxItems)
		}
		var item Item
		if err == nil {
			item, err = in.item()
		}
		if err == nil {
			err = use(item)
		}
		if err != nil {
			return &ItemError{i, item.Path, err}
		}
	}
}

// reader reads an archive.
type reader struct {
	*bufio.Reader
	options Options
	scratch *os.File
	sum     io.Writer // hashes what is read of an item
}

// item reads and verifies one item. With an error only the path that it claims is of use.
func (r *reader) item() (i Item, err error) {
	hash := sha256.New()
	i.content = r.scratch
	if i.NAR, i.Size, err = r.nar(hash); err != nil {
		return i, err
	}
	r.sum = hash
	if err := r.said(&i); err != nil {
		return i, err
	}
	signed, err := r.flag()
	if err != nil {
		return i, err
	}
	if !signed {
		return i, errors.New("it is not signed")
	}
	text, err := r.text()
	if err != nil {
		return i, err
	}
	s, err := signature.Parse(text)
	if err == nil {
		err = s.VerifyHash(r.options.Keys, [32]byte(hash.Sum(nil)))
	}
	if err != nil {
		return i, fmt.Errorf("signature: %w", err)
	}
	i.Key = s.Key
	return i, nil
}

// nar copies a NAR to the scratch file, and to w.
func (r *reader) nar(w io.Writer) (digest.SHA256, int64, error) {
	if err := r.scratch.Truncate(0); err != nil {
		return digest.SHA256{}, 0, err
	}
	sum := sha256.New()
	out := &counter{w: io.MultiWriter(io.NewOffsetWriter(r.scratch, 0), sum, w)}
	if err := nar.Copy(out, r.Reader, r.options.Limits); err != nil {
		return digest.SHA256{}, 0, err
	}
	return digest.SHA256(sum.Sum(nil)), out.n, nil
}

// said reads what stands behind the NAR.
func (r *reader) said(i *Item) error {
	number, err := r.number()
	if err == nil && number != magic {
		err = errors.New("no item of a Guix archive goes on like this")
	}
	if err != nil {
		return err
	}
	path, err := r.text()
	if err == nil {
		err = r.check(path)
	}
	if err != nil {
		return err
	}
	i.Path = path
	count, err := r.number()
	if err == nil && count > maxReferences {
		err = fmt.Errorf("it has %d references, more than %d", count, maxReferences)
	}
	if err != nil {
		return err
	}
	i.References = []string{}
	for range count {
		ref, err := r.text()
		if err == nil {
			err = r.check(ref)
		}
		if err != nil {
			return err
		}
		i.References = append(i.References, ref)
	}
	if i.Deriver, err = r.text(); err != nil || i.Deriver == "" {
		return err
	}
	return r.check(i.Deriver)
}

// check wants an item of the store.
func (r *reader) check(path string) error {
	name, ok := strings.CutPrefix(path, r.options.Store+"/")
	if !ok || len(name) < 34 || name[32] != '-' || strings.ContainsAny(name, "/\x00\n") {
		return fmt.Errorf("%.300q is no item of %s", path, r.options.Store)
	}
	return nil
}

// end makes sure that nothing follows.
func (r *reader) end() error {
	switch _, err := r.Peek(1); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("read Guix archive: something follows its end")
	default:
		return fmt.Errorf("read Guix archive: %w", err)
	}
}

// bytes reads and hashes n bytes, which are valid until the next call.
func (r *reader) bytes(n int) ([]byte, error) {
	raw, err := r.Peek(n)
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	r.sum.Write(raw)
	_, err = r.Discard(n)
	return raw, err
}

func (r *reader) number() (uint64, error) {
	raw, err := r.bytes(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(raw), nil
}

// flag reads 0 or 1, which no signature is over.
func (r *reader) flag() (bool, error) {
	r.sum = io.Discard
	n, err := r.number()
	if err == nil && n > 1 {
		err = fmt.Errorf("%d stands where 0 or 1 is due", n)
	}
	return n == 1, err
}

func (r *reader) text() (string, error) {
	n, err := r.number()
	if err != nil {
		return "", err
	}
	if n > maxText {
		return "", fmt.Errorf("a text has %d bytes, more than %d", n, maxText)
	}
	raw, err := r.bytes(int(n+7) &^ 7)
	if err != nil {
		return "", err
	}
	if strings.Trim(string(raw[n:]), "\x00") != "" {
		return "", errors.New("the padding of a text is not zero")
	}
	return string(raw[:n]), nil
}

// cancelled reads until its context is.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
