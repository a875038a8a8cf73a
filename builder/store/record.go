package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"arch.network/attest/digest"
)

// The limits of records.
const (
	MaxKind  = 64      // bytes of a record's kind: lower-case letters, digits and "-"
	MaxKey   = 4 << 10 // bytes of a record's key or a root's name
	MaxValue = 1 << 20 // bytes of a record's value

	maxHeader = len(recordMagic) + 2*len(digest.SHA256{}) + 1 + MaxKind + 1 + 4 + 1 + 7 + 1
	maxRecord = int64(maxHeader + MaxKey + MaxValue)

	recordMagic = "arch record 1\n"
)

// Remember stores a small record durably, in place of an earlier one of the same kind and key.
//
// A record is a memory, not a reference: GC does not keep the objects that a value names, so whoever recalls it checks that they are there.
func (s *Store) Remember(kind, key string, value []byte) error {
	r := record{Kind: kind, Key: key, Value: value}
	if err := r.validate(); err != nil {
		return fmt.Errorf("remember %q: %w", key, err)
	}
	if err := s.mkdirDurable(s.path(recordDir, kind)); err != nil {
		return fmt.Errorf("remember %s %q: %w", kind, key, err)
	}
	if err := s.writeFile(s.path(recordDir, kind, keyName(key)), r.encode()); err != nil {
		return fmt.Errorf("remember %s %q: %w", kind, key, err)
	}
	return nil
}

// Recall returns what was remembered and whether anything was. A damaged record is a *CorruptError.
func (s *Store) Recall(kind, key string) (value []byte, ok bool, err error) {
	if err := (record{Kind: kind, Key: key}).validate(); err != nil {
		return nil, false, fmt.Errorf("recall %q: %w", key, err)
	}
	rel := filepath.Join(recordDir, kind, keyName(key))
	r, err := s.readRecord(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if r.Kind != kind || r.Key != key {
		return nil, false, &CorruptError{Path: rel, Cause: fmt.Sprintf("it is the record of %s %q", r.Kind, r.Key)}
	}
	return r.Value, true, nil
}

// Forget removes a record, damaged or not; that there is none is no error.
func (s *Store) Forget(kind, key string) error {
	if err := (record{Kind: kind, Key: key}).validate(); err != nil {
		return fmt.Errorf("forget %q: %w", key, err)
	}
	dir := s.path(recordDir, kind)
	err := s.fs.Remove(filepath.Join(dir, keyName(key)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("forget %s %q: %w", kind, key, err)
	}
	return nil
}

// keyName is the file name of a key.
func keyName(key string) string { return digest.Of([]byte(key)).Hex() }

// mkdirDurable makes a directory if it is not there. Its name is durable afterwards, whoever made it.
func (s *Store) mkdirDurable(path string) error {
	if err := s.mkdir(path); err != nil {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(path))
}

func (s *Store) readRecord(rel string) (record, error) {
	data, err := s.fs.ReadFile(s.path(rel), maxRecord)
	if errors.Is(err, errTooLarge) {
		return record{}, &CorruptError{Path: rel, Cause: fmt.Sprintf("it is larger than %d bytes", maxRecord)}
	}
	if err != nil {
		return record{}, fmt.Errorf("read %s of the store: %w", rel, err)
	}
	r, err := decodeRecord(data)
	if err != nil {
		return record{}, &CorruptError{Path: rel, Cause: err.Error()}
	}
	return r, nil
}

// record is a small file with a checksum. The package documentation has its format.
type record struct {
	Kind  string
	Key   string
	Value []byte
}

func (r record) validate() error {
	if r.Kind == "" || len(r.Kind) > MaxKind || strings.Trim(r.Kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("record kind %.70q is not 1 to %d lower-case letters, digits and \"-\"", r.Kind, MaxKind)
	}
	if r.Key == "" || len(r.Key) > MaxKey {
		return fmt.Errorf("record key has %d bytes, which is not 1 to %d", len(r.Key), MaxKey)
	}
	if len(r.Value) > MaxValue {
		return fmt.Errorf("record value has %d bytes, over the limit of %d", len(r.Value), MaxValue)
	}
	return nil
}

func (r record) encode() []byte {
	var body bytes.Buffer
	fmt.Fprintf(&body, "%s %d %d\n%s", r.Kind, len(r.Key), len(r.Value), r.Key)
	body.Write(r.Value)
	return fmt.Appendf(nil, "%s%s\n%s", recordMagic, digest.Of(body.Bytes()).Hex(), body.Bytes())
}

// decodeRecord accepts exactly what encode writes.
func decodeRecord(data []byte) (record, error) {
	rest, ok := bytes.CutPrefix(data, []byte(recordMagic))
	if !ok {
		return record{}, fmt.Errorf("it does not begin with %q", recordMagic)
	}
	sum, body, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || len(sum) != hex.EncodedLen(len(digest.SHA256{})) {
		return record{}, errors.New("it has no checksum")
	}
	if digest.Of(body).Hex() != string(sum) {
		return record{}, errors.New("its checksum is wrong")
	}
	r, err := decodeBody(body)
	if err != nil {
		return record{}, err
	}
	if err := r.validate(); err != nil {
		return record{}, err
	}
	if !bytes.Equal(r.encode(), data) {
		return record{}, errors.New("its header is not in the one allowed form")
	}
	return r, nil
}

func decodeBody(body []byte) (record, error) {
	header, content, ok := bytes.Cut(body, []byte("\n"))
	fields := strings.Split(string(header), " ")
	if !ok || len(fields) != 3 {
		return record{}, errors.New("it has no header")
	}
	keyLen, err := strconv.ParseUint(fields[1], 10, 31)
	if err != nil {
		return record{}, fmt.Errorf("the length of its key is %.20q", fields[1])
	}
	valueLen, err := strconv.ParseUint(fields[2], 10, 31)
	if err != nil {
		return record{}, fmt.Errorf("the length of its value is %.20q", fields[2])
	}
	if keyLen+valueLen != uint64(len(content)) {
		return record{}, fmt.Errorf("it has %d bytes of content, its header says %d", len(content), keyLen+valueLen)
	}
	return record{Kind: fields[0], Key: string(content[:keyLen]), Value: content[keyLen:]}, nil
}
