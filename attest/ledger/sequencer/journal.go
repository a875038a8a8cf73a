package sequencer

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

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
)

// journal holds the entries that are durable and not in the tiles yet. It is two files: while what is in one is put into the tiles, new
// entries go to the other.
//
// A file is groups, one after the other, each of which was written and synced as a whole: the sum of the rest, the index of its first
// entry in eight bytes, the length of its body in four, the CRC-32C of these two in four, and the body, in which each entry follows its own
// length in four; big endian.
type journal struct {
	paths [2]string
	files [2]*os.File
	sizes [2]int64
	now   int // the file that is written
}

// groupHead is the length of what stands before the body of a group, in bytes.
const groupHead = sha256.Size + 8 + 4 + 4

// sector is the least that a disk writes whole, in bytes.
const sector = 512

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journaled is an entry of the journal.
type journaled struct {
	index int64
	entry []byte
}

// openJournal opens the files, or makes them, in a directory that exists.
func openJournal(dir string) (*journal, error) {
	j := &journal{}
	for i := range j.files {
		var err error
		j.paths[i] = filepath.Join(dir, fmt.Sprintf("journal.%d", i))
		if j.files[i], err = os.OpenFile(j.paths[i], os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.close())
		}
	}
	if err := durable.Sync(dir); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

func (j *journal) close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// write makes entries durable, of which the first has this index.
func (j *journal) write(first int64, entries [][]byte) error {
	size := groupHead
	for _, e := range entries {
		size += 4 + len(e)
	}
	group := make([]byte, sha256.Size, size)
	group = binary.BigEndian.AppendUint64(group, uint64(first))
	group = binary.BigEndian.AppendUint32(group, uint32(size-groupHead))
	group = binary.BigEndian.AppendUint32(group, crc32.Checksum(group[sha256.Size:], castagnoli))
	for _, e := range entries {
		group = append(binary.BigEndian.AppendUint32(group, uint32(len(e))), e...)
	}
	sum := sha256.Sum256(group[sha256.Size:])
	copy(group, sum[:])
	f := j.files[j.now]
	if _, err := f.WriteAt(group, j.sizes[j.now]); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.sizes[j.now] += int64(len(group))
	return nil
}

// full reports whether nothing more is to be written before a turn.
func (j *journal) full() bool { return j.sizes[j.now] >= fullJournal }

// turn has what follows written to the other file, which is empty, and returns the number of this one.
func (j *journal) turn() int {
	full := j.now
	j.now = 1 - full
	return full
}

// empty empties a file whose entries are in the tiles. It need not be durable: entries that the tiles have are passed over.
func (j *journal) empty(file int) error {
	if j.sizes[file] == 0 {
		return nil
	}
	if err := j.files[file].Truncate(0); err != nil {
		return fmt.Errorf("empty journal: %w", err)
	}
	j.sizes[file] = 0
	return nil
}

// read returns the entries from an index on, in order, and has what was cut off while it was written removed. The next write goes where
// they end.
func (j *journal) read(from int64) ([]journaled, error) {
	var all []journaled
	for i, f := range j.files {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, maxJournal+1))
		if err == nil && len(data) > maxJournal {
			err = fmt.Errorf("it has over %d bytes", maxJournal)
		}
		if err != nil {
			return nil, fmt.Errorf("read journal %s: %w", j.paths[i], err)
		}
		entries, good, err := parseJournal(data)
		if err != nil {
			return nil, &journalError{j.paths[i], err}
		}
		if err := f.Truncate(int64(good)); err != nil {
			return nil, fmt.Errorf("cut journal: %w", err)
		}
		j.sizes[i] = int64(good)
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b journaled) int { return cmp.Compare(a.index, b.index) })
	all = slices.DeleteFunc(all, func(e journaled) bool { return e.index < from })
	for i, e := range all {
		if e.index != from+int64(i) {
			return nil, &journalError{j.paths[0], fmt.Errorf("entry %d is missing", from+int64(i))}
		}
	}
	return all, nil
}

const (
	// fullJournal is from how many bytes on a file gets no more before it was emptied.
	fullJournal = 32 << 20
	// maxGroup is the most bytes of entries of a group, but for the last of them.
	maxGroup = 4 << 20
	// maxJournal is the most bytes that a file can come to.
	maxJournal = fullJournal + 2*maxGroup
)

// parseJournal returns the entries of a file, and how many of its bytes are whole groups. What follows them is the group that was being
// written when the process or the machine stopped, whose entries nobody was told of; what that cannot have left is damage.
func parseJournal(data []byte) (entries []journaled, good int, err error) {
	for good < len(data) {
		group, size := parseGroup(data[good:])
		if size == 0 {
			for at := good + 1; at+groupHead <= len(data); at++ {
				if plausible(data[at:]) {
					if _, later := parseGroup(data[at:]); later > 0 {
						return nil, 0, fmt.Errorf("what stands from byte %d to %d is damaged", good, at)
					}
				}
			}
			if !torn(data, good) {
				return nil, 0, fmt.Errorf("the group from byte %d on is damaged", good)
			}
			return entries, good, nil
		}
		entries, good = append(entries, group...), good+size
	}
	return entries, good, nil
}

// torn reports whether what stands from a byte on may be a group that was being written: it is cut off, or a sector of it is not there, and so reads as
// zeros. Entries have no such zeros. (etcd tells its torn records from damaged ones in the same way: server/storage/wal/decoder.go, isTornEntry.)
func torn(data []byte, from int) bool {
	if len(data)-from < groupHead {
		return true
	}
	end := from + groupHead
	if sound(data[from:]) {
		end += int(binary.BigEndian.Uint32(data[from+sha256.Size+8:]))
	}
	if end > len(data) {
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

// sound reports whether the index and the length at the beginning of a group are as they were written.
func sound(group []byte) bool {
	return crc32.Checksum(group[sha256.Size:groupHead-4], castagnoli) == binary.BigEndian.Uint32(group[groupHead-4:])
}

// plausible reports whether a group of the right length may begin here: it spares most of the sums.
func plausible(data []byte) bool {
	n := int64(binary.BigEndian.Uint32(data[sha256.Size+8:]))
	return n > 4 && n <= int64(len(data)-groupHead) && sound(data)
}

// parseGroup reads the group that data begins with; zero: there is no whole one.
func parseGroup(data []byte) (entries []journaled, size int) {
	if len(data) < groupHead || !plausible(data) {
		return nil, 0
	}
	index := int64(binary.BigEndian.Uint64(data[sha256.Size:]))
	size = groupHead + int(binary.BigEndian.Uint32(data[sha256.Size+8:]))
	if sum := sha256.Sum256(data[sha256.Size:size]); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return nil, 0
	}
	for body := data[groupHead:size]; len(body) > 0; index++ {
		if len(body) < 4 {
			return nil, 0
		}
		n := int64(binary.BigEndian.Uint32(body))
		if n == 0 || n > ledger.MaxEntry || n > int64(len(body)-4) {
			return nil, 0
		}
		entries = append(entries, journaled{index, body[4 : 4+n]})
		body = body[4+n:]
	}
	return entries, size
}

// journalError says that the journal cannot be relied on.
type journalError struct {
	Path string
	Err  error
}

func (e *journalError) Error() string { return fmt.Sprintf("read journal %s: %v", e.Path, e.Err) }

func (e *journalError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *journalError) Hint() string {
	return "acknowledged entries are lost if it is removed: bring back a newer copy of the log, such as a mirror's, or begin a new log under a new name"
}
