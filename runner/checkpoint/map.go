package checkpoint

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Map reads a checkpoint from a file that nobody changes, without taking it into memory. The Checkpoint must not be used after unmap.
func Map(f *os.File) (c *Checkpoint, unmap func() error, err error) {
	m, err := mapFile(f)
	if err != nil {
		return nil, nil, err
	}
	if c, err = Parse(m); err != nil {
		return nil, nil, errors.Join(err, unmapBytes(m))
	}
	c.encoded = m
	return c, func() error { return unmapBytes(m) }, nil
}

// mapFile maps a whole file for reading.
func mapFile(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, nil
	}
	if !info.Mode().IsRegular() || info.Size() > MaxSize {
		return nil, fmt.Errorf("map checkpoint %s: it is no regular file, or has more than %d bytes", f.Name(), int64(MaxSize))
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map checkpoint %s: %w", f.Name(), err)
	}
	return m, nil
}

func unmapBytes(m []byte) error {
	if m == nil {
		return nil
	}
	return unix.Munmap(m)
}

// strip returns c without what refers to a mapping.
func (c *Checkpoint) strip() *Checkpoint {
	out := *c
	if c.Snapshot != nil {
		out.Snapshot = &Snapshot{}
	}
	return &out
}
