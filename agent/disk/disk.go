// Package disk is the few file operations that a node's small durable state is made of: a floor under versions, the
// nonces that were spent. They stand behind an interface, so that tests can stop the world between any two of them
// (disktest), and Replace is the one way to change a file as a whole.
//
// It promises that what Replace returned nil for is there after a power cut, and that a reader finds the old content or the
// new one, never a mixture. It knows no format, keeps nothing in memory, and locks nothing.
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// FS is a file system. Its errors are those of package os.
type FS interface {
	// Create makes an empty file, or empties the one that is there; only the owner may read it.
	Create(path string) (File, error)
	// Append opens a file that is there for writing at its end.
	Append(path string) (File, error)
	// Read returns a regular file of at most limit bytes.
	Read(path string, limit int64) ([]byte, error)
	Truncate(path string, size int64) error
	Rename(from, to string) error
	// SyncDir makes durable which names a directory has.
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	io.WriteCloser
	// Sync makes durable what was written.
	Sync() error
}

// OS is the file system of the operating system.
type OS struct{}

var _ FS = OS{}

// Create makes or empties a file.
func (OS) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// Append opens a file for writing at its end.
func (OS) Append(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
}

// Read returns a regular file.
func (OS) Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: it is over the limit of %d bytes", path, limit)
	}
	return data, err
}

// Truncate cuts a file.
func (OS) Truncate(path string, size int64) error { return os.Truncate(path, size) }

// Rename gives a file another name.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir syncs a directory.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Replace gives a file new content, durably and in one step. path+".new" is its scratch: one call a path at a time.
func Replace(fs FS, path string, data []byte) error {
	temp := path + ".new"
	f, err := fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}
