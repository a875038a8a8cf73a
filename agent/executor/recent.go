package executor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// recent is what was changed last, by bucket and key; a nil value says that there is none any more. What it holds is never changed.
type recent struct {
	buckets [numBuckets]map[string][]byte
	size    int // bytes of keys and values that were put, with those that others have replaced
}

func (r *recent) put(p put) {
	m := r.buckets[p.bucket]
	if m == nil {
		m = map[string][]byte{}
		r.buckets[p.bucket] = m
	}
	m[string(p.key)] = p.value
	r.size += len(p.key) + len(p.value)
}

// get returns a value; false: it was not changed.
func (r *recent) get(b bucket, key []byte) ([]byte, bool) {
	v, ok := r.buckets[b][string(key)]
	return v, ok
}

// add puts what newer has over what r has.
func (r *recent) add(newer *recent) {
	for b, from := range newer.buckets {
		to := r.buckets[b]
		if to == nil {
			r.buckets[b] = from // newer is not used any more
			continue
		}
		maps.Copy(to, from)
	}
	r.size += newer.size
}

// entry is a key with its value; nil: it was removed.
type entry struct{ key, value []byte }

// sorted returns what of a bucket was changed, by key.
func (r *recent) sorted(b bucket) []entry {
	list := make([]entry, 0, len(r.buckets[b]))
	for k, v := range r.buckets[b] {
		list = append(list, entry{[]byte(k), v})
	}
	slices.SortFunc(list, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	return list
}

// write puts everything into the state file.
func (r *recent) write(tx *bolt.Tx) error {
	for b := range numBuckets {
		if len(r.buckets[b]) == 0 {
			continue
		}
		to := tx.Bucket(b.name())
		for _, e := range r.sorted(b) {
			var err error
			if e.value == nil {
				err = to.Delete(e.key)
			} else {
				err = to.Put(e.key, e.value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// appendPut writes a put as the journal has it: the bucket's number, 1 if there is a value, and key and value each after its length (unsigned
// LEB128).
func appendPut(to []byte, p put) []byte {
	has := byte(0)
	if p.value != nil {
		has = 1
	}
	to = append(to, byte(p.bucket), has)
	to = append(binary.AppendUvarint(to, uint64(len(p.key))), p.key...)
	if has == 1 {
		to = append(binary.AppendUvarint(to, uint64(len(p.value))), p.value...)
	}
	return to
}

var errPut = errors.New("an entry of the journal is no change of the state")

// parsePut reads what appendPut has written, and returns what follows it.
func parsePut(data []byte) (p put, rest []byte, err error) {
	if len(data) < 2 || data[0] >= byte(numBuckets) || data[1] > 1 {
		return p, nil, errPut
	}
	p.bucket, rest = bucket(data[0]), data[2:]
	if p.key, rest, err = piece(rest); err == nil && data[1] == 1 {
		p.value, rest, err = piece(rest)
	}
	return p, rest, err
}

// piece reads bytes after their length. They are not nil.
func piece(data []byte) (out, rest []byte, err error) {
	n, size := binary.Uvarint(data)
	if size <= 0 || n > uint64(len(data)-size) {
		return nil, nil, errPut
	}
	data = data[size:]
	return data[:n:n], data[n:], nil
}

// ascend shows the keys of a bucket from one on, in order, until see returns false; nil: from the first. The state file may have to grow
// meanwhile and waits for that, so see must be quick, and read nothing else of the state.
func (d *database) ascend(b bucket, from []byte, see func(key, value []byte) (more bool, err error)) error {
	return d.walk(b, false, from, see)
}

// descend shows the keys of a bucket below one, from the highest on, as ascend does; nil: from the last.
func (d *database) descend(b bucket, below []byte, see func(key, value []byte) (more bool, err error)) error {
	return d.walk(b, true, below, see)
}

func (d *database) walk(b bucket, down bool, bound []byte, see func(key, value []byte) (more bool, err error)) error {
	d.mu.RLock()
	tx, err := d.bolt.Begin(false)
	changed := d.changed(b, down, bound)
	if d.failed != nil {
		err = errors.Join(d.failed, err)
	}
	d.mu.RUnlock()
	if tx != nil {
		defer tx.Rollback()
	}
	if err != nil {
		return err
	}
	c := tx.Bucket(b.name()).Cursor()
	step := c.Next
	if down {
		step = c.Prev
	}
	for k, v := seek(c, down, bound); len(changed) > 0 || k != nil; {
		var now entry
		switch order := compare(changed, k, down); {
		case order > 0:
			now = entry{k, v}
			k, v = step()
		default:
			now, changed = changed[0], changed[1:]
			if order == 0 {
				k, v = step()
			}
			if now.value == nil {
				continue
			}
		}
		if more, err := see(now.key, now.value); err != nil || !more {
			return err
		}
	}
	return nil
}

// changed is what of a bucket is not in the state file, in the order of a walk. d.mu is held.
func (d *database) changed(b bucket, down bool, bound []byte) []entry {
	all := d.fresh
	if d.older != nil && len(d.older.buckets[b]) > 0 {
		all = &recent{}
		for _, r := range []*recent{d.older, d.fresh} {
			for k, v := range r.buckets[b] {
				all.put(put{b, []byte(k), v})
			}
		}
	}
	list := all.sorted(b)
	if bound != nil {
		list = slices.DeleteFunc(list, func(e entry) bool { return (bytes.Compare(e.key, bound) < 0) != down })
	}
	if down {
		slices.Reverse(list)
	}
	return list
}

// seek is where a walk begins.
func seek(c *bolt.Cursor, down bool, bound []byte) (k, v []byte) {
	switch {
	case !down && bound == nil:
		return c.First()
	case !down:
		return c.Seek(bound)
	case bound != nil:
		if k, _ := c.Seek(bound); k != nil {
			return c.Prev()
		}
	}
	return c.Last()
}

// compare tells which comes first: what was changed (-1), what is in the state file (1), or both (0).
func compare(changed []entry, k []byte, down bool) int {
	switch {
	case len(changed) == 0:
		return 1
	case k == nil:
		return -1
	case down:
		return bytes.Compare(k, changed[0].key)
	}
	return bytes.Compare(changed[0].key, k)
}
