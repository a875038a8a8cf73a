package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"arch.network/attest/digest"
)

// The file is a header and groups of records, each durable before the next is written, all big endian:
//
//	header  "arch replay\x001", 8 bytes of swept as Unix seconds, CRC-32C of what is before
//	group   4 bytes: how many records; the records; CRC-32C of what is before, from the beginning of the group
//	record  32 bytes SHA-256 of owner, zero byte and nonce; 32 bytes document id; 8 bytes expiry as Unix seconds
const (
	magic      = "arch replay\x001"
	headerSize = len(magic) + 8 + 4
	recordSize = 32 + 32 + 8
	groupSize  = 4 + 4 // without its records
	maxGroup   = 4096  // records of a group
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(data []byte) []byte {
	return binary.BigEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// header returns the head of a file.
func header(swept time.Time) []byte {
	var at int64
	if !swept.IsZero() {
		at = swept.Unix()
		if swept.Nanosecond() > 0 {
			at++
		}
	}
	return seal(binary.BigEndian.AppendUint64([]byte(magic), uint64(at)))
}

func appendRecord(to []byte, k key, u use) []byte {
	to = append(to, k[:]...)
	to = append(to, u.id[:]...)
	return binary.BigEndian.AppendUint64(to, uint64(u.expires))
}

// groups frames records.
func groups(records []byte) [][]byte {
	var out [][]byte
	for len(records) > 0 {
		n := min(len(records)/recordSize, maxGroup)
		g := binary.BigEndian.AppendUint32(make([]byte, 0, groupSize+n*recordSize), uint32(n))
		out = append(out, seal(append(g, records[:n*recordSize]...)))
		records = records[n*recordSize:]
	}
	return out
}

// errDamaged says that bytes in the middle are not what was written.
var errDamaged = errors.New("it is damaged")

// load reads a file, and returns how many of its bytes are good: all, or all but a last group that was being written.
//
// A group that is wrong and is followed by more than one group can be was durable once, so somebody may have been told that it is
// remembered.
func (w *Window) load(data []byte) (good int, err error) {
	if len(data) < headerSize || string(data[:len(magic)]) != magic || !sealed(data[:headerSize]) {
		return 0, errors.New("it is no replay window")
	}
	if at := binary.BigEndian.Uint64(data[len(magic):]); at > math.MaxInt64 {
		return 0, errDamaged
	} else if at > 0 {
		w.swept = time.Unix(int64(at), 0)
	}
	good = headerSize
	for good < len(data) {
		rest := data[good:]
		group, ok := firstGroup(rest)
		switch {
		case !ok && len(rest) > groupSize+maxGroup*recordSize:
			return good, fmt.Errorf("%w: a group of records that is not the last is wrong", errDamaged)
		case !ok:
			return good, nil
		}
		for records := group[4 : len(group)-4]; len(records) > 0; records = records[recordSize:] {
			if err := w.remember(records[:recordSize]); err != nil {
				return good, err
			}
		}
		good += len(group)
	}
	return good, nil
}

// firstGroup returns the group at the beginning of data, if it is whole.
func firstGroup(data []byte) ([]byte, bool) {
	if len(data) < groupSize {
		return nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if n == 0 || n > maxGroup || len(data) < groupSize+int(n)*recordSize {
		return nil, false
	}
	group := data[:groupSize+int(n)*recordSize]
	return group, sealed(group)
}

// remember takes one record over.
func (w *Window) remember(record []byte) error {
	var k key
	copy(k[:], record)
	u := use{digest.SHA256(record[32:64]), int64(binary.BigEndian.Uint64(record[64:]))}
	// A nonce comes again only after it was forgotten, so with a later end.
	if was, ok := w.spent[k]; ok && was.expires >= u.expires {
		return fmt.Errorf("%w: a nonce was spent twice", errDamaged)
	}
	w.spent[k] = u
	w.records++
	return nil
}

func sealed(data []byte) bool {
	n := len(data) - 4
	return binary.BigEndian.Uint32(data[n:]) == crc32.Checksum(data[:n], castagnoli)
}
