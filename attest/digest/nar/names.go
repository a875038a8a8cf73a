package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// errTooMany says that a directory has more entries than are allowed.
var errTooMany = errors.New("too many entries")

// names is the sorted list of a directory's entries. All names are in one string, so that even a directory of
// 50,000 entries is a handful of allocations.
type names struct {
	entries []nameEntry
	all     string
	arena   []byte // kept for reuse
}

type nameEntry struct {
	start uint32
	size  uint16
	kind  uint8 // DT_…
}

// at returns the name and kind of the i-th entry.
func (l *names) at(i int) (string, uint8) {
	e := l.entries[i]
	return l.all[e.start : e.start+uint32(e.size)], e.kind
}

// read lists the directory fd, at most limit entries, using buf for the system call.
func (l *names) read(fd int, buf []byte, limit int) error {
	l.entries, l.arena = l.entries[:0], l.arena[:0]
	for {
		n, err := unix.Getdents(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n <= 0:
			l.sort()
			return nil
		}
		if err := l.add(buf[:n]); err != nil {
			return err
		}
		if len(l.entries) > limit {
			return errTooMany
		}
	}
}

// add appends what one getdents64 returned: a sequence of struct linux_dirent64, that is inode (8 bytes),
// offset (8), length of the record (2), type (1), name and NUL (man 2 getdents).
func (l *names) add(records []byte) error {
	const header = 19
	for len(records) > 0 {
		if len(records) < header {
			return fmt.Errorf("directory record of %d bytes", len(records))
		}
		size := int(binary.NativeEndian.Uint16(records[16:]))
		if size < header || size > len(records) {
			return fmt.Errorf("directory record of %d bytes", size)
		}
		kind, name := records[18], records[header:size]
		records = records[size:]
		end := bytes.IndexByte(name, 0)
		if end < 0 {
			return errors.New("directory record without an end")
		}
		name = name[:end]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if reason := badName(name, 1<<16-1); reason != "" {
			return fmt.Errorf("the file system returned %s: %q", reason, name)
		}
		if len(l.arena)+len(name) > math.MaxUint32 {
			return errTooMany
		}
		l.entries = append(l.entries, nameEntry{uint32(len(l.arena)), uint16(len(name)), kind})
		l.arena = append(l.arena, name...)
	}
	return nil
}

func (l *names) sort() {
	l.all = string(l.arena)
	slices.SortFunc(l.entries, func(a, b nameEntry) int {
		return strings.Compare(l.all[a.start:a.start+uint32(a.size)], l.all[b.start:b.start+uint32(b.size)])
	})
}
