package nar

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// readBuffer is the size of a Reader's buffer.
const readBuffer = 64 << 10

// Reader reads a NAR as a stream, entry by entry. It accepts only the one encoding of a tree that Writer makes, to the
// last byte: wrong order, duplicate or hostile names, padding that is not zero, a stream that ends early or goes on
// after the end are errors. Memory is bounded by the depth limit, not by the archive.
//
// Faults of the archive are *SyntaxError or *LimitError. After an error every call returns the same error.
type Reader struct {
	r      *bufio.Reader
	limits Limits
	at     stack
	err    error

	offset  int64 // bytes consumed
	entries int
	left    int64 // bytes of content not read yet
	pad     int   // zeros after the content
	inside  bool  // a file's content, padding or end are still to come
	prefix  bool  // something else may follow the archive
}

// NewReader returns a Reader of the NAR in r. It reads r to its end, through a buffer of 64 KiB.
func NewReader(r io.Reader, limits Limits) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, readBuffer), limits: limits.withDefaults()}
}

// NewPrefixReader returns a Reader of the NAR that r goes on with, and consumes nothing of what follows it. Next returns io.EOF at the end of
// the archive. The buffer of r must have at least 64 KiB, or Next says so.
func NewPrefixReader(r *bufio.Reader, limits Limits) *Reader {
	reader := &Reader{r: r, limits: limits.withDefaults(), prefix: true}
	if r.Size() < readBuffer {
		reader.err = fmt.Errorf("read nar: the buffer has %d bytes, less than %d", r.Size(), readBuffer)
	}
	return reader
}

// Next returns the next entry, parents before what is in them, names in bytewise order. What is left of the content of
// the entry before is skipped. At the end of the archive and of the stream it returns io.EOF; only then was the
// archive a whole and valid one.
func (r *Reader) Next() (Entry, error) {
	if r.err != nil {
		return Entry{}, r.err
	}
	e, err := r.next()
	if err != nil {
		r.err = err
		return Entry{}, err
	}
	return e, nil
}

// Read reads content of the regular file that Next returned last; at its end, and for other entries, it returns
// io.EOF.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case len(p) == 0:
		return 0, nil
	case r.left == 0:
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.offset += int64(n)
	if err != nil && r.left > 0 {
		r.err = r.cause(err)
		return n, r.err
	}
	return n, nil
}

// chunk returns some of the content that is left, which is valid until the next call of any method; nothing at its end.
func (r *Reader) chunk() ([]byte, error) {
	if r.left == 0 {
		return nil, nil
	}
	if r.r.Buffered() == 0 {
		if _, err := r.peek(1); err != nil {
			return nil, err
		}
	}
	p, err := r.peek(int(min(int64(r.r.Buffered()), r.left)))
	if err != nil {
		return nil, err
	}
	r.left -= int64(len(p))
	r.discard(len(p))
	return p, nil
}

func (r *Reader) next() (Entry, error) {
	if r.entries == 0 {
		if err := r.expect(tokMagic, "the magic of a Nix archive"); err != nil {
			return Entry{}, err
		}
		return r.node()
	}
	if r.inside {
		if err := r.finishFile(); err != nil {
			return Entry{}, err
		}
	}
	for r.at.open > 0 {
		head, err := r.peek(len(tokClose))
		switch {
		case err != nil:
			return Entry{}, err
		case string(head) != tokClose:
			if err := r.entry(); err != nil {
				return Entry{}, err
			}
			return r.node()
		}
		r.at.leave()
		if err := r.closeNode(); err != nil {
			return Entry{}, err
		}
	}
	return Entry{}, r.end()
}

// entry reads the head of an entry of the innermost directory, up to its node.
func (r *Reader) entry() error {
	if r.at.open > r.limits.Depth {
		return r.limit("depth", int64(r.limits.Depth))
	}
	if err := r.expect(seqEntry, "an entry or the end of the directory"); err != nil {
		return err
	}
	name, err := r.string("name", r.limits.Name)
	if err != nil {
		return err
	}
	if reason := r.at.add([]byte(name), r.limits.Name); reason != "" {
		return r.fault("%s", reason)
	}
	return r.expect(tokNode, "the node of the entry")
}

// node reads a node up to its content or its first entry.
func (r *Reader) node() (Entry, error) {
	r.entries++
	if r.entries > r.limits.Entries {
		return Entry{}, r.limit("entries", int64(r.limits.Entries))
	}
	if r.offset > r.limits.Size {
		return Entry{}, r.limit("size", r.limits.Size)
	}
	if err := r.expect(seqNode, "the beginning of a node"); err != nil {
		return Entry{}, err
	}
	// Every node goes on for at least this long.
	head, err := r.peek(len(tokDirectory))
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: string(r.at.path)}
	switch kind := string(head); {
	case kind == tokDirectory:
		e.Type = Directory
		r.discard(len(tokDirectory))
		r.at.enter()
	case strings.HasPrefix(kind, tokRegular):
		e.Type = Regular
		err = r.regular(&e)
	case strings.HasPrefix(kind, tokSymlink):
		e.Type = Symlink
		err = r.symlink(&e)
	default:
		err = r.fault("it is no regular file, directory or symbolic link: %q", head)
	}
	return e, err
}

// regular reads a file up to its content.
func (r *Reader) regular(e *Entry) error {
	head, err := r.peek(len(seqRegular))
	if err != nil {
		return err
	}
	seq := seqExecutable
	if string(head) == seqRegular {
		seq = seqRegular
	}
	e.Executable = seq == seqExecutable
	if err := r.expect(seq, "the content of a file"); err != nil {
		return err
	}
	size, err := r.length()
	if err != nil {
		return err
	}
	if size > uint64(max(0, r.limits.Size-r.offset)) {
		return r.limit("size", r.limits.Size)
	}
	e.Size, e.Offset = int64(size), r.offset
	r.left, r.pad, r.inside = e.Size, padding(e.Size), true
	return nil
}

// finishFile skips what is left of a file's content and reads its end.
func (r *Reader) finishFile() error {
	for r.left > 0 {
		if _, err := r.chunk(); err != nil {
			return err
		}
	}
	r.inside = false
	if err := r.zeros(r.pad); err != nil {
		return err
	}
	return r.closeNode()
}

// symlink reads a symbolic link, to its end.
func (r *Reader) symlink(e *Entry) error {
	if err := r.expect(seqSymlink, "the target of a symbolic link"); err != nil {
		return err
	}
	target, err := r.string("target", r.limits.Target)
	if err != nil {
		return err
	}
	if reason := badTarget(target, r.limits.Target); reason != "" {
		return r.fault("it has %s", reason)
	}
	e.Target = target
	return r.closeNode()
}

// closeNode reads the end of a node and of the entry that it is in.
func (r *Reader) closeNode() error {
	if err := r.expect(tokClose, "the end of a node"); err != nil || r.at.open == 0 {
		return err
	}
	return r.expect(tokClose, "the end of an entry")
}

// end makes sure that nothing follows, and returns io.EOF.
func (r *Reader) end() error {
	if r.offset > r.limits.Size {
		return r.limit("size", r.limits.Size)
	}
	if r.prefix {
		return io.EOF
	}
	switch _, err := r.r.Peek(1); err {
	case io.EOF:
		return io.EOF
	case nil:
		return r.fault("something follows the end of the archive")
	default:
		return r.cause(err)
	}
}

// string reads a string of at most limit bytes.
func (r *Reader) string(what string, limit int) (string, error) {
	size, err := r.length()
	if err != nil {
		return "", err
	}
	if size > uint64(limit) {
		return "", r.limit(what, int64(limit))
	}
	raw, err := r.peek(int(size))
	if err != nil {
		return "", err
	}
	s := string(raw)
	r.discard(len(s))
	return s, r.zeros(padding(int64(size)))
}

// length reads the length of a string.
func (r *Reader) length() (uint64, error) {
	raw, err := r.peek(8)
	if err != nil {
		return 0, err
	}
	size := binary.LittleEndian.Uint64(raw)
	r.discard(8)
	return size, nil
}

// zeros reads padding.
func (r *Reader) zeros(n int) error {
	raw, err := r.peek(n)
	if err != nil {
		return err
	}
	if string(raw) != tokEmpty[:n] {
		return r.fault("the padding is not zero: %q", raw)
	}
	r.discard(n)
	return nil
}

// expect reads exactly token, which is what stands for.
func (r *Reader) expect(token, what string) error {
	raw, err := r.peek(len(token))
	switch {
	case err != nil:
		return err
	case string(raw) != token:
		return r.fault("%s is due here", what)
	}
	r.discard(len(token))
	return nil
}

// peek returns the next n bytes without consuming them. N is less than the buffer's size.
func (r *Reader) peek(n int) ([]byte, error) {
	raw, err := r.r.Peek(n)
	if err != nil {
		return nil, r.cause(err)
	}
	return raw, nil
}

// discard consumes n bytes that peek returned.
func (r *Reader) discard(n int) {
	r.r.Discard(n)
	r.offset += int64(n)
}

// cause turns an error of the stream below into what it means here.
func (r *Reader) cause(err error) error {
	if err == io.EOF {
		return &SyntaxError{r.offset, string(r.at.path), "the archive ends too early", io.ErrUnexpectedEOF}
	}
	return fmt.Errorf("read nar: byte %d, %s: %w", r.offset, quotePath(string(r.at.path)), err)
}

func (r *Reader) fault(format string, args ...any) error {
	return &SyntaxError{r.offset, string(r.at.path), fmt.Sprintf(format, args...), nil}
}

func (r *Reader) limit(what string, limit int64) error {
	return &LimitError{string(r.at.path), what, limit}
}
