// Package journal keeps what must be durable now and finds its place later: a write-ahead log of two files. Whoever acknowledges many small things
// (the sequencer its entries, the executor the steps of jobs) writes them here, many to one wait for the disk, and carries them from here to where
// they are looked up in its own time. While what is in one file is carried on, new entries go to the other.
//
// It promises that Write returns nil only when all of its entries are on the disk, that after a crash a Write is read back whole or not at all, and
// that damage to what was acknowledged is found and never passed over. It gives entries no meaning, and is used by one goroutine at a time.
package journal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"arch.network/attest/ledger/durable"
)

// Options are what a journal's owner says of its entries.
type Options struct {
	MaxEntry int // most bytes of one. Required
	// Salt goes into the sums of groups, so that nobody whose bytes are in an entry can give them the form of a group. Nil: where no others'
	// are.
	Salt []byte
}

// The sizes of a journal, in bytes.
const (
	// Full is from when on a file gets no more before it was emptied.
	Full = 32 << 20
	// MaxGroup is the most that the entries of one Write should have together, but for the last of them.
	MaxGroup = 4 << 20

	// ahead is by how much a file grows at a time, filled with zeros: a write into what is there already needs no more of a sync than its own bytes,
	// and takes half of the time of one that makes the file longer.
	ahead = 512 << 10
	// kept is what a file that was emptied keeps of its length.
	kept = 8 << 20
)

// Journal is two files. A file is groups, one after the other, that were each written and synced as a whole: the sum of the salt and the rest, the
// index of its first entry in eight bytes, the length of its body in four, the CRC-32C of these two in four, and the body, in which each entry
// follows its own length in four; big endian. Each group goes on where the one before it ends, and behind the last one is nothing, or zeros.
type Journal struct {
	o     Options
	now   int // the file that is written
	files [2]file
	buf   []byte // of the last Write
}

type file struct {
	*os.File
	path string
	size int64 // up to where its groups go
	long int64 // its length
}

// groupHead is the length of what stands before the body of a group, in bytes.
const groupHead = sha256.Size + 8 + 4 + 4

// sector is the least that a disk writes whole, in bytes.
const sector = 512

// Entry is one that was read back.
type Entry struct {
	Index int64
	Data  []byte
}

// Open opens the files journal.0 and journal.1, or makes them, in a directory that exists. The next call is Read.
func Open(dir string, o Options) (*Journal, error) {
	j := &Journal{o: o}
	for i := range j.files {
		path := filepath.Join(dir, fmt.Sprintf("journal.%d", i))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.Close())
		}
		j.files[i] = file{File: f, path: path}
	}
	if err := durable.Sync(dir); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// Close closes the files.
func (j *Journal) Close() error {
	var errs []error
	for _, f := range j.files {
		if f.File != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// SyncError says that the disk did not take what was written: nobody knows whether it is there, and the next Read finds out.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return fmt.Sprintf("sync journal: %v", e.Err) }

// Unwrap returns the cause.
func (e *SyncError) Unwrap() error { return e.Err }

// Write makes entries durable, of which the first has this index and each next one the next. After an error that is no *SyncError nothing of them is
// there, and the next Write takes their place.
func (j *Journal) Write(first int64, entries [][]byte) error {
	f := &j.files[j.now]
	group := append(j.buf[:0], make([]byte, groupHead)...)
	for _, e := range entries {
		if len(e) == 0 || len(e) > j.o.MaxEntry {
			return fmt.Errorf("write journal: an entry has %d bytes, not 1 to %d", len(e), j.o.MaxEntry)
		}
		group = append(binary.BigEndian.AppendUint32(group, uint32(len(e))), e...)
	}
	binary.BigEndian.PutUint64(group[sha256.Size:], uint64(first))
	binary.BigEndian.PutUint32(group[sha256.Size+8:], uint32(len(group)-groupHead))
	binary.BigEndian.PutUint32(group[groupHead-4:], headSum(group))
	sum := j.o.sum(group)
	copy(group, sum[:])
	if j.buf = group; cap(group) > 2*MaxGroup {
		j.buf = nil // it was unusually large
	}
	return f.append(group)
}

// append writes behind what is there, and returns when that is durable.
func (f *file) append(data []byte) error {
	if _, err := f.WriteAt(data, f.size); err != nil {
		err = fmt.Errorf("write journal: %w", err)
		if cut := f.Truncate(f.size); cut != nil { // half of a group would be in the way of what is read behind the next one
			return &SyncError{errors.Join(err, cut)}
		}
		f.long = f.size
		return err
	}
	end := f.size + int64(len(data))
	var err error
	if end > f.long {
		f.long = end
		if _, err := f.WriteAt(make([]byte, ahead), end); err == nil { // else the disk may be full: it works without
			f.long += ahead
		}
		err = f.Sync()
	} else {
		err = fdatasync(f.File)
	}
	if err != nil {
		return &SyncError{err}
	}
	f.size = end
	return nil
}

// fdatasync makes durable what was written within a file's length.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// sum is that of a group.
func (o Options) sum(group []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(o.Salt)
	h.Write(group[sha256.Size:])
	h.Sum(sum[:0])
	return sum
}

// Full reports whether nothing more is to be written before a Turn.
func (j *Journal) Full() bool { return j.files[j.now].size >= Full }

// Turn has what follows written to the other file, which is empty, and returns the number of this one, for Empty.
func (j *Journal) Turn() int {
	full := j.now
	j.now = 1 - full
	return full
}

// Empty empties a file whose entries were carried on: it is zeros up to where the next Write goes and further, durably. Read passes over what was
// not emptied yet when the machine stopped.
func (j *Journal) Empty(file int) error {
	f := &j.files[file]
	err := f.clear()
	if err != nil {
		return fmt.Errorf("empty journal: %w", err)
	}
	f.size = 0
	return nil
}

func (f *file) clear() error {
	if f.size == 0 {
		return nil
	}
	if f.long > kept {
		if err := f.Truncate(kept); err != nil {
			return err
		}
		f.long = kept
	}
	zeros := make([]byte, min(f.size, f.long, 1<<20))
	for at := int64(0); at < min(f.size, f.long); at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), f.long-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// Read returns the entries from an index on, in order, and has what was cut off while it was written removed. The next Write goes where
// they end, or to where the caller empties. The error is an *Error if the journal cannot be relied on.
func (j *Journal) Read(from int64) ([]Entry, error) {
	most := int64(Full + 2*MaxGroup + j.o.MaxEntry + ahead)
	var all []Entry
	for i := range j.files {
		f := &j.files[i]
		data, err := io.ReadAll(io.NewSectionReader(f, 0, most+1))
		if err == nil && int64(len(data)) > most {
			err = fmt.Errorf("it has over %d bytes", most)
		}
		if err != nil {
			return nil, fmt.Errorf("read journal %s: %w", f.path, err)
		}
		entries, good, err := j.o.parse(data, from)
		if err != nil {
			return nil, &Error{f.path, err}
		}
		if err := f.Truncate(int64(good)); err != nil {
			return nil, fmt.Errorf("cut journal: %w", err)
		}
		f.size, f.long = int64(good), int64(good)
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Compare(a.Index, b.Index) })
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Index < from })
	for i, e := range all {
		if e.Index != from+int64(i) {
			return nil, &Error{j.files[0].path, fmt.Errorf("entry %d is missing", from+int64(i))}
		}
	}
	return all, nil
}

// parse returns the entries of a file, and how many of its bytes are whole groups that go on from each other. What follows them is the group that
// was being written when the process or the machine stopped, whose entries nobody was told of, or what was being emptied, which has no entry from an
// index on; what these cannot have left is damage.
func (o Options) parse(data []byte, from int64) (entries []Entry, good int, err error) {
	for good < len(data) {
		group, size := o.parseGroup(data[good:])
		if size == 0 || len(entries) > 0 && group[0].Index != entries[len(entries)-1].Index+1 {
			if at := o.later(data, good, from); at > 0 {
				return nil, 0, fmt.Errorf("what stands from byte %d to %d is damaged", good, at)
			}
			if size == 0 && !torn(data, good) {
				return nil, 0, fmt.Errorf("what stands from byte %d on is damaged", good)
			}
			break
		}
		entries, good = append(entries, group...), good+size
		from = max(from, entries[len(entries)-1].Index+1)
	}
	return entries, good, nil
}

// torn reports whether what stands from a byte on may be a group that was being written: it is cut off, its end is not there, or a sector of it, and so
// reads as zeros. (etcd tells its torn records from damaged ones in a similar way: server/storage/wal/decoder.go, isTornEntry.) Of a group whose
// entries end in a zero, or hold a sector of them, damage is not told from that.
func torn(data []byte, from int) bool {
	end := from + groupHead
	if end+4 > len(data) {
		return true
	}
	if sound(data[from:]) {
		end += int(binary.BigEndian.Uint32(data[from+sha256.Size+8:]))
		if end > len(data) || data[end-1] == 0 {
			return true
		}
	} else if binary.BigEndian.Uint32(data[end:]) == 0 { // no entry has this length
		return true
	}
	for at := from; at < end; {
		next := min(end, (at/sector+1)*sector)
		if len(bytes.Trim(data[at:next], "\x00")) == 0 {
			return true
		}
		at = next
	}
	return false
}

// headSum is the sum of the index and the length at the beginning of a group.
func headSum(group []byte) uint32 {
	return crc32.Checksum(group[sha256.Size:groupHead-4], crc32.MakeTable(crc32.Castagnoli))
}

// sound reports whether they are as they were written.
func sound(group []byte) bool { return headSum(group) == binary.BigEndian.Uint32(group[groupHead-4:]) }

// later finds a whole group, behind some byte, with entries from an index on; zero: there is none.
func (o Options) later(data []byte, at int, from int64) int {
	for at++; at+groupHead <= len(data); at++ {
		if zeros := len(data) - at - len(bytes.TrimLeft(data[at:], "\x00")); zeros >= sha256.Size { // no sum is zeros
			if at += zeros - sha256.Size + 1; at+groupHead > len(data) {
				return 0
			}
		}
		next := bytes.Index(data[at+sha256.Size:], []byte{0, 0}) // an index begins so
		if next < 0 {
			return 0
		}
		if at += next; at+groupHead > len(data) || !plausible(data[at:]) {
			continue
		}
		if group, size := o.parseGroup(data[at:]); size > 0 && group[0].Index >= from {
			return at
		}
	}
	return 0
}

// plausible reports whether a group of the right length may begin here: it spares most of the sums.
func plausible(data []byte) bool {
	n := int64(binary.BigEndian.Uint32(data[sha256.Size+8:]))
	return n > 4 && n <= int64(len(data)-groupHead) && data[sha256.Size] == 0 && data[sha256.Size+1] == 0 && sound(data)
}

// parseGroup reads the group that data begins with; zero: there is no whole one.
func (o Options) parseGroup(data []byte) (entries []Entry, size int) {
	if len(data) < groupHead || !plausible(data) {
		return nil, 0
	}
	index := int64(binary.BigEndian.Uint64(data[sha256.Size:]))
	size = groupHead + int(binary.BigEndian.Uint32(data[sha256.Size+8:]))
	if sum := o.sum(data[:size]); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return nil, 0
	}
	for body := data[groupHead:size]; len(body) > 0; index++ {
		if len(body) < 4 {
			return nil, 0
		}
		n := int64(binary.BigEndian.Uint32(body))
		if n == 0 || n > int64(o.MaxEntry) || n > int64(len(body)-4) {
			return nil, 0
		}
		entries = append(entries, Entry{index, body[4 : 4+n]})
		body = body[4+n:]
	}
	return entries, size
}

// Error says that a journal cannot be relied on.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("read journal %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *Error) Hint() string {
	return "what was acknowledged is lost if it is removed: bring back a newer copy, such as a mirror's, or begin anew under a new name"
}
