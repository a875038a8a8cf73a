package nar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Writer writes a NAR entry by entry, for trees that are not on disk. Entries come in the order of Compare:
// the root first, a directory before what is in it, names in bytewise order. It refuses what Reader would refuse,
// so that what it wrote without an error is a valid NAR.
//
// After an error every call returns the same error. Close must be called and checked.
type Writer struct {
	w       *bufio.Writer
	frame   []byte
	limits  Limits
	at      stack
	err     error
	offset  int64
	entries int
	left    int64 // bytes of content still due
	pad     int
	inside  bool // a file's padding and end are still due
}

// NewWriter returns a Writer of a NAR to w, through a buffer.
func NewWriter(w io.Writer, limits Limits) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 128<<10), limits: limits.withDefaults()}
}

// WriteEntry begins the entry e. Path, Type, Executable, Size and Target are used. After a regular file, exactly e.Size
// bytes of content must be written before the next entry.
func (w *Writer) WriteEntry(e Entry) error {
	if w.err == nil {
		if err := w.entry(e); err != nil {
			w.err = fmt.Errorf("write nar: %s: %w", quotePath(e.Path), err)
		}
	}
	return w.err
}

// Write writes content of the regular file that was begun last.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil && int64(len(p)) > w.left {
		w.err = fmt.Errorf("write nar: %s: %d bytes of content more than its size", quotePath(string(w.at.path)), int64(len(p))-w.left)
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	w.left -= int64(n)
	w.offset += int64(n)
	w.err = err
	return n, err
}

// Close ends the archive. It does not close the io.Writer below.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.entries == 0 {
		w.err = errors.New("write nar: it has no root")
		return w.err
	}
	w.err = w.finish()
	if w.err == nil {
		w.err = errClosed
		return nil
	}
	return w.err
}

// errClosed is what a Writer returns after Close.
var errClosed = errors.New("write nar: it is closed")

// finish writes what ends the last file and all directories.
func (w *Writer) finish() error {
	if err := w.finishFile(); err != nil {
		return err
	}
	for w.at.open > 0 {
		if err := w.leave(); err != nil {
			return err
		}
	}
	if w.offset > w.limits.Size {
		return &LimitError{"", "size", w.limits.Size}
	}
	return w.w.Flush()
}

func (w *Writer) entry(e Entry) error {
	if err := w.finishFile(); err != nil {
		return err
	}
	name, err := w.place(e.Path)
	if err != nil {
		return err
	}
	if err := w.check(e); err != nil {
		return err
	}
	w.entries++
	root := w.at.open == 0
	b := appendHead(w.frame[:0], root, name)
	switch e.Type {
	case Directory:
		b = append(b, tokDirectory...)
		w.at.enter()
	case Symlink:
		b = append(b, seqSymlink...)
		b = appendString(b, e.Target)
		b = appendTail(b, root)
	case Regular:
		b = appendFile(b, e.Executable, e.Size)
		w.left, w.pad, w.inside = e.Size, padding(e.Size), true
	}
	w.frame = b
	return w.put(b)
}

// place closes directories until the one that path is in is the innermost, and returns the name of path in it.
func (w *Writer) place(path string) (string, error) {
	if w.entries == 0 {
		if path != "" {
			return "", errors.New("the first entry must be the root")
		}
		return "", nil
	}
	dir, name := "", path
	switch i := strings.LastIndexByte(path, '/'); {
	case i == 0:
		return "", errors.New("its path is absolute")
	case i > 0:
		dir, name = path[:i], path[i+1:]
	}
	for w.at.open > 0 && string(w.at.dir()) != dir {
		if err := w.leave(); err != nil {
			return "", err
		}
	}
	if w.at.open == 0 {
		return "", errors.New("the directory that it is in was not begun, or is already finished")
	}
	if reason := w.at.add([]byte(name), w.limits.Name); reason != "" {
		return "", errors.New(reason)
	}
	return name, nil
}

// check says what is wrong with e besides its path.
func (w *Writer) check(e Entry) error {
	switch {
	case w.at.open > w.limits.Depth:
		return &LimitError{e.Path, "depth", int64(w.limits.Depth)}
	case w.entries >= w.limits.Entries:
		return &LimitError{e.Path, "entries", int64(w.limits.Entries)}
	case w.offset > w.limits.Size, e.Size > w.limits.Size-w.offset:
		return &LimitError{e.Path, "size", w.limits.Size}
	case e.Type != Regular && e.Type != Directory && e.Type != Symlink:
		return fmt.Errorf("unknown type %q", e.Type)
	case e.Size < 0:
		return fmt.Errorf("size %d", e.Size)
	case e.Type != Regular && (e.Size != 0 || e.Executable):
		return fmt.Errorf("a %s with a size or an executable bit", e.Type)
	case e.Type != Symlink && e.Target != "":
		return fmt.Errorf("a %s with a link target", e.Type)
	}
	if e.Type == Symlink {
		if reason := badTarget(e.Target, w.limits.Target); reason != "" {
			return fmt.Errorf("it has %s", reason)
		}
	}
	return nil
}

// finishFile writes what ends a regular file, if one was begun.
func (w *Writer) finishFile() error {
	switch {
	case !w.inside:
		return nil
	case w.left > 0:
		return fmt.Errorf("%s lacks %d bytes of content", quotePath(string(w.at.path)), w.left)
	}
	w.inside = false
	w.frame = appendTail(append(w.frame[:0], tokEmpty[:w.pad]...), w.at.open == 0)
	return w.put(w.frame)
}

// leave writes the end of the innermost directory.
func (w *Writer) leave() error {
	w.at.leave()
	w.frame = appendTail(w.frame[:0], w.at.open == 0)
	return w.put(w.frame)
}

func (w *Writer) put(b []byte) error {
	n, err := w.w.Write(b)
	w.offset += int64(n)
	return err
}
