package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"arch.network/attest/ledger/durable"
	"arch.network/attest/manifest"
	"arch.network/builder"
)

// openRegular opens a regular file for reading. It never waits for the other end of a FIFO.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = hinted(fmt.Errorf("open %s: it is %s, not a file", path, kindOf(info.Mode())), "name a file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// kindOf names what kind of thing a path is.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	}
	return "a special file"
}

// readFile reads a file, or stdin for "-", of at most limit bytes.
func (a *app) readFile(path string, limit int64) ([]byte, error) {
	r := a.in
	if path != "-" {
		f, err := openRegular(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: it is over the limit of %d bytes", path, limit)
	}
	return data, nil
}

// readDocument reads a document of any kind from a YAML file.
func (a *app) readDocument(path string) (manifest.Document, error) {
	src, err := a.readFile(path, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		return nil, inFile(err, path)
	}
	return doc, nil
}

// inFile puts the name of the file that holds what is wrong before its message.
func inFile(err error, path string) error {
	if err == nil {
		return nil
	}
	if named := manifest.InFile(err, path); named.Error() != err.Error() {
		return named
	}
	return fmt.Errorf("%s: %w", path, err)
}

// writeOut writes data to stdout for "-", or else to a file in one step.
func (a *app) writeOut(path string, data []byte) error {
	if path == "-" {
		if _, err := a.out.Write(data); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
		return nil
	}
	return replaceFile(path, data)
}

// replaceFile gives a file new content in one step: readers see the old or the new one. A symbolic link stays, and what
// it points to is changed; a file that is there keeps its permissions.
func replaceFile(path string, data []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return wrapWrite(path, builder.WriteFile(path, data))
	}
	if err != nil {
		return wrapWrite(path, err)
	}
	info, err := os.Stat(real)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is %s, not a file", kindOf(info.Mode()))
	}
	if err != nil {
		return wrapWrite(path, err)
	}
	return durable.WriteFile(real, data, info.Mode().Perm())
}

func wrapWrite(path string, err error) error {
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// newFile refuses a path that names something already.
func newFile(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return hinted(fmt.Errorf("%s exists already", path), "name another file with --out, or - for stdout")
	}
	return nil
}
