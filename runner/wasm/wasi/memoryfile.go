package wasi

import (
	"context"
	"errors"
	"fmt"
	"io"

	"arch.network/attest/digest/nar"
)

// memoryFile is an open file of a Memory.
type memoryFile struct {
	tree *Memory
	node *node
}

func (f *memoryFile) readAt(b []byte, off int64) (int, errno) {
	if f.node.source == nil {
		if off >= int64(len(f.node.data)) {
			return 0, success
		}
		return copy(b, f.node.data[off:]), success
	}
	if off >= f.node.size {
		return 0, success
	}
	n, err := f.node.source.ReadAt(b[:min(int64(len(b)), f.node.size-off)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, errorNumber(err)
	}
	return n, success
}

func (f *memoryFile) writeAt(b []byte, off int64) (int, errno) {
	if off > maxFileSize-int64(len(b)) {
		return 0, errFileBig
	}
	if e := f.grow(off + int64(len(b))); e != success {
		return 0, e
	}
	f.node.modified = f.tree.now()
	return copy(f.node.data[off:], b), success
}

// maxFileSize keeps sums of sizes far from overflow.
const maxFileSize = 1 << 40

// grow makes the file at least size bytes long, in steps of a quarter so that appending stays cheap.
func (f *memoryFile) grow(size int64) errno {
	n := f.node
	old := int64(cap(n.data))
	if size > old {
		want := max(size, min(old+old/4, old+f.tree.room))
		if want-old > f.tree.room {
			return errNoSpace
		}
		data := make([]byte, len(n.data), want)
		copy(data, n.data)
		n.data = data
		f.tree.room -= want - old
	}
	if size > int64(len(n.data)) {
		n.data = n.data[:size] // what lies behind the end is zero: truncate sees to it
	}
	return success
}

func (f *memoryFile) stat() (stat, errno) { return f.node.stat(), success }

func (f *memoryFile) truncate(size int64) errno {
	if size > maxFileSize {
		return errFileBig
	}
	if size > int64(len(f.node.data)) {
		return f.grow(size)
	}
	clear(f.node.data[size:])
	f.node.data = f.node.data[:size]
	f.node.modified = f.tree.now()
	return success
}

func (f *memoryFile) sync() errno { return success }

func (f *memoryFile) setTimes(accessed, modified *int64) errno {
	f.node.setTimes(accessed, modified)
	return success
}

func (f *memoryFile) close() errno {
	f.node.opens--
	f.tree.reclaim(f.node)
	return success
}

// WriteNAR writes the tree, or the file or link, at a path as a NAR (package nar). No file in it is executable: WASI knows
// no such thing.
func (m *Memory) WriteNAR(ctx context.Context, w io.Writer, path string) error {
	n, e := m.walk(path, false)
	if e != success {
		return fmt.Errorf("archive %q: no such file", path)
	}
	out := nar.NewWriter(w, nar.Limits{})
	if err := n.archive(ctx, out, ""); err != nil {
		return fmt.Errorf("archive %q: %w", path, err)
	}
	return out.Close()
}

func (n *node) archive(ctx context.Context, w *nar.Writer, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch n.kind {
	case typeLink:
		return w.WriteEntry(nar.Entry{Path: path, Type: nar.Symlink, Target: n.target})
	case typeDirectory:
		if err := w.WriteEntry(nar.Entry{Path: path, Type: nar.Directory}); err != nil {
			return err
		}
		for _, name := range n.names() {
			below := name
			if path != "" {
				below = path + "/" + name
			}
			if err := n.children[name].archive(ctx, w, below); err != nil {
				return err
			}
		}
		return nil
	default:
		return n.archiveFile(w, path)
	}
}

func (n *node) archiveFile(w *nar.Writer, path string) error {
	size := int64(n.stat().size)
	if err := w.WriteEntry(nar.Entry{Path: path, Type: nar.Regular, Size: size}); err != nil {
		return err
	}
	if n.source == nil {
		_, err := w.Write(n.data)
		return err
	}
	_, err := io.Copy(w, io.NewSectionReader(n.source, 0, size))
	return err
}
