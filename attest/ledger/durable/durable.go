// Package durable keeps the small files on which a log's or a witness's word rests: the state that it signed last. It stands below
// whoever signs, and is used before anything that was signed leaves the process.
//
// It promises that a file is replaced whole or not at all, that nil means it is on the disk, with its directory, and that one process
// at a time holds a Lock. It never reports success after a failed sync.
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeDir makes a directory with the parents that it lacks, all with this mode, and syncs each into the one above it.
func MakeDir(path string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("make directory %s: there is a file of that name", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make directory: %w", err)
	}
	above := filepath.Dir(path)
	if err := MakeDir(above, mode); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return Sync(above)
}

// WriteFile replaces the file at path, whose directory exists.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return WriteFrom(path, bytes.NewReader(data), mode)
}

// WriteFrom is WriteFile with what r holds. If reading fails, the file stays as it was.
func WriteFrom(path string, r io.Reader, mode fs.FileMode) error {
	return write(path, r, mode, os.Rename)
}

// CreateFile is WriteFile for a file that must not be there yet: if it is, it stays as it was, and the error is fs.ErrExist.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil { // os.Link is what decides; this keeps secrets off the disk
		return fs.ErrExist
	}
	linked := false
	err := write(path, bytes.NewReader(data), mode, func(temp, path string) error {
		if err := os.Link(temp, path); err != nil {
			return err
		}
		linked = true
		return os.Remove(temp)
	})
	if err != nil && linked {
		return errors.Join(err, os.Remove(path)) // it may not be there after a power cut
	}
	return err
}

// write writes a file under another name, and gives it its own with name.
func write(path string, r io.Reader, mode fs.FileMode, name func(temp, path string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := name(f.Name(), path); err != nil {
		return err
	}
	return Sync(filepath.Dir(path))
}

// Sweep removes what writers of the file at path left beside it who were killed in WriteFile, WriteFrom or CreateFile. The caller MUST know that nobody
// is writing it, such as by a Lock.
func Sweep(path string) error {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, e := range list {
		number, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// Sync makes a file, or the names in a directory, durable.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("read %s: it has over %d bytes", path, limit)
	}
	return data, nil
}

// InUseError says that another process holds a lock.
type InUseError struct{ Path string }

func (e *InUseError) Error() string { return fmt.Sprintf("lock %s: another process has it", e.Path) }

// Hint tells the way out.
func (e *InUseError) Hint() string {
	return "one process at a time may write here; stop the other one, or read without writing"
}

// Lock makes and locks the file at path until the returned function is called, or the process ends. If another one has it, the error is an
// *InUseError.
func Lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &InUseError{Path: path}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f.Close, nil
}
