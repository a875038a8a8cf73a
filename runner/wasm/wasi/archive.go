package wasi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"arch.network/attest/digest/nar"
)

// Archive writes what is in one of the Config's directories as a NAR (package nar): beside a State, what a run needs to go on
// elsewhere. Names and contents are in it; times are not, and no file is executable.
func (s *System) Archive(ctx context.Context, dir string, w io.Writer) error {
	d, err := s.named(dir)
	if err != nil {
		return fmt.Errorf("archive directory %q: %w", dir, err)
	}
	out := nar.NewWriter(w, nar.Limits{})
	if err := archive(ctx, out, d.Tree, "", typeDirectory); err != nil {
		return fmt.Errorf("archive directory %q: %w", dir, err)
	}
	return out.Close()
}

func (s *System) named(dir string) (Dir, error) {
	for _, d := range s.config.Dirs {
		if d.Name == dir {
			return d, nil
		}
	}
	return Dir{}, errors.New("there is none")
}

// treeError makes an error of a tree's.
func treeError(act, path string, e errno) error {
	if e == success {
		return nil
	}
	return fmt.Errorf("%s %q: WASI error %d", act, path, e)
}

func archive(ctx context.Context, w *nar.Writer, t Tree, path string, kind fileType) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch kind {
	case typeDirectory:
		return archiveDirectory(ctx, w, t, path)
	case typeLink:
		target, e := t.readlink(path)
		if e != success {
			return treeError("read link", path, e)
		}
		return w.WriteEntry(nar.Entry{Path: path, Type: nar.Symlink, Target: target})
	case typeRegular:
		return archiveFile(w, t, path)
	default:
		return fmt.Errorf("%q is neither file, directory nor link", path)
	}
}

func archiveDirectory(ctx context.Context, w *nar.Writer, t Tree, path string) error {
	list, e := t.list(path)
	if e != success {
		return treeError("list", path, e)
	}
	if err := w.WriteEntry(nar.Entry{Path: path, Type: nar.Directory}); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, entry := range list {
		if err := archive(ctx, w, t, join(path, entry.name), entry.kind); err != nil {
			return err
		}
	}
	return nil
}

func archiveFile(w *nar.Writer, t Tree, path string) error {
	f, st, e := t.open(path, opening{read: true})
	if e != success {
		return treeError("open", path, e)
	}
	defer f.close()
	if err := w.WriteEntry(nar.Entry{Path: path, Type: nar.Regular, Size: int64(st.size)}); err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for off := int64(0); off < int64(st.size); {
		n, e := f.readAt(b[:min(int64(len(b)), int64(st.size)-off)], off)
		if e != success || n == 0 {
			return treeError("read", path, max(e, errIO))
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// Unpack makes what Archive wrote in one of the Config's directories, which must be writable and empty.
func (s *System) Unpack(ctx context.Context, dir string, r io.Reader) error {
	d, err := s.named(dir)
	if err == nil && !d.Writable {
		err = errors.New("it is read-only")
	}
	if err == nil {
		err = unpack(ctx, d.Tree, nar.NewReader(r, nar.Limits{}))
	}
	if err != nil {
		return fmt.Errorf("unpack into directory %q: %w", dir, err)
	}
	return nil
}

func unpack(ctx context.Context, t Tree, r *nar.Reader) error {
	if list, e := t.list(""); e != success || len(list) > 0 {
		return errors.New("it is not an empty directory")
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		switch {
		case e.Path == "" && e.Type != nar.Directory:
			return fmt.Errorf("it is an archive of a %s", e.Type)
		case e.Path == "":
		case e.Type == nar.Directory:
			err = treeError("make directory", e.Path, t.mkdir(e.Path))
		case e.Type == nar.Symlink:
			err = treeError("make link", e.Path, t.symlink(e.Target, e.Path))
		default:
			err = unpackFile(t, e, r)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(t Tree, e nar.Entry, r io.Reader) error {
	f, _, n := t.open(e.Path, opening{write: true, create: true, exclusive: true})
	if n != success {
		return treeError("create", e.Path, n)
	}
	_, err := io.Copy(&fileWriter{f: f, path: e.Path}, r)
	return errors.Join(err, treeError("close", e.Path, f.close()))
}

// fileWriter writes a file from its beginning on.
type fileWriter struct {
	f    file
	path string
	off  int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, e := w.f.writeAt(b[done:], w.off)
		if e != success || n == 0 {
			return done, treeError("write", w.path, max(e, errIO))
		}
		done, w.off = done+n, w.off+int64(n)
	}
	return done, nil
}
