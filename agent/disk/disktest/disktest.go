// Package disktest is a file system in memory that fails, or stops, at a chosen operation, and then shows what a process
// that starts anew would find: all that was written, or only what was synced before the power went.
package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"arch.network/agent/disk"
)

// Fault says what happens at the chosen operation.
type Fault int

// The faults.
const (
	Fail  Fault = iota // it returns an error, and everything works again after it
	Kill               // the process ends there, half way through a write
	Power              // as Kill, and what was not synced is lost
)

func (f Fault) String() string { return [...]string{"fail", "kill", "power"}[f] }

// ErrInjected is the error of the operation that goes wrong, and of all after it if the process has ended.
var ErrInjected = errors.New("injected fault")

// FS is a disk.FS in memory. Set At before use: the number of the operation that goes wrong, from 1; zero: none does.
type FS struct {
	At    int
	Fault Fault

	mu    sync.Mutex // guards what follows
	ops   []string
	names map[string]*content // as a running process sees them
	disk  map[string]*content // as they are after a power cut
}

// content is one file.
type content struct {
	data   []byte
	synced []byte
}

var _ disk.FS = (*FS)(nil)

// New returns an empty file system.
func New() *FS {
	return &FS{names: map[string]*content{}, disk: map[string]*content{}}
}

// Ops lists the operations so far.
func (f *FS) Ops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ops)
}

// Restart returns what the next process finds, which no fault befalls.
func (f *FS) Restart() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New()
	from := f.names
	if f.Fault == Power {
		from = f.disk
	}
	for name, c := range from {
		data := c.data
		if f.Fault == Power {
			data = c.synced
		}
		next.names[name] = &content{slices.Clone(data), slices.Clone(data)}
	}
	next.disk = maps.Clone(next.names)
	return next
}

// Put writes a file, durably and without fault.
func (f *FS) Put(path string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &content{slices.Clone(data), slices.Clone(data)}
	f.names[path], f.disk[path] = c, c
}

// Get returns what a running process sees.
func (f *FS) Get(path string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.names[path]; c != nil {
		return slices.Clone(c.data)
	}
	return nil
}

// step counts an operation. The caller holds mu.
func (f *FS) step(op, path string) error {
	f.ops = append(f.ops, op+" "+filepath.Base(path))
	n := len(f.ops)
	if f.At > 0 && (n == f.At || n > f.At && f.Fault != Fail) {
		return fmt.Errorf("%s %s: %w", op, path, ErrInjected)
	}
	return nil
}

// Create makes or empties a file.
func (f *FS) Create(path string) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("create", path); err != nil {
		return nil, err
	}
	c := f.names[path]
	if c == nil {
		c = &content{}
		f.names[path] = c
	}
	c.data = nil
	return &file{f, path, c}, nil
}

// Append opens a file for writing at its end.
func (f *FS) Append(path string) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("append", path); err != nil {
		return nil, err
	}
	c := f.names[path]
	if c == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return &file{f, path, c}, nil
}

// Read returns a file.
func (f *FS) Read(path string, limit int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.names[path]
	switch {
	case c == nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case int64(len(c.data)) > limit:
		return nil, fmt.Errorf("read %s: it is over the limit of %d bytes", path, limit)
	}
	return slices.Clone(c.data), nil
}

// Truncate cuts a file.
func (f *FS) Truncate(path string, size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("truncate", path); err != nil {
		return err
	}
	c := f.names[path]
	if c == nil || size > int64(len(c.data)) {
		return fmt.Errorf("truncate %s to %d bytes", path, size)
	}
	c.data = c.data[:size:size]
	return nil
}

// Rename gives a file another name.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("rename", to); err != nil {
		return err
	}
	c := f.names[from]
	if c == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(f.names, from)
	f.names[to] = c
	return nil
}

// SyncDir makes names durable.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("syncdir", dir); err != nil {
		return err
	}
	f.disk = maps.Clone(f.names)
	return nil
}

type file struct {
	fs   *FS
	path string
	c    *content
}

// Write appends. A write that goes wrong has written half.
func (w *file) Write(p []byte) (int, error) {
	w.fs.mu.Lock()
	defer w.fs.mu.Unlock()
	if err := w.fs.step("write", w.path); err != nil {
		if len(w.fs.ops) == w.fs.At {
			w.c.data = append(w.c.data, p[:len(p)/2]...)
			return len(p) / 2, err
		}
		return 0, err
	}
	w.c.data = append(w.c.data, p...)
	return len(p), nil
}

// Sync makes content durable.
func (w *file) Sync() error {
	w.fs.mu.Lock()
	defer w.fs.mu.Unlock()
	if err := w.fs.step("sync", w.path); err != nil {
		return err
	}
	w.c.synced = w.c.data[:len(w.c.data):len(w.c.data)] // what is there never changes in place
	return nil
}

// Close does nothing: what was written is there.
func (w *file) Close() error { return nil }
