package binarycache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest/nar"
)

// MaxListing bounds a listing, in bytes.
const MaxListing = canonical.MaxSize

// node is an entry of a listing as Nix writes it (nar-accessor.cc, listNar).
type node struct {
	Type       nar.Type         `json:"type"`
	Size       *int64           `json:"size,omitempty"` // of a regular file; 0 is written, too
	Executable bool             `json:"executable,omitempty"`
	Offset     *int64           `json:"narOffset,omitempty"`
	Target     string           `json:"target,omitempty"`
	Entries    map[string]*node `json:"entries,omitzero"`
}

type listing struct {
	Version int   `json:"version"`
	Root    *node `json:"root"`
}

// EncodeListing writes a listing, the file HASH.ls, in the form of Nix.
func EncodeListing(list nar.Listing) ([]byte, error) {
	byPath := map[string]*node{}
	for _, e := range list {
		n := &node{Type: e.Type, Executable: e.Executable, Target: e.Target}
		switch e.Type {
		case nar.Regular:
			n.Size, n.Offset = &e.Size, &e.Offset
		case nar.Directory:
			n.Entries = map[string]*node{}
		}
		byPath[e.Path] = n
		if e.Path == "" {
			continue
		}
		dir, base := path.Split(e.Path)
		parent := byPath[strings.TrimSuffix(dir, "/")]
		if parent == nil || parent.Entries == nil {
			return nil, fmt.Errorf("write listing: %q is in no directory", e.Path)
		}
		parent.Entries[base] = n
	}
	if byPath[""] == nil {
		return nil, errors.New("write listing: it is empty")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(listing{1, byPath[""]}); err != nil {
		return nil, fmt.Errorf("write listing: %w", err)
	}
	return b.Bytes(), nil
}

// ParseListing reads a listing. It is nobody's word for anything: the order, names and offsets are those of a NAR only if one has them.
func ParseListing(data []byte) (nar.Listing, error) {
	var l listing
	if err := decodeJSON(data, &l); err != nil {
		return nil, fmt.Errorf("read listing: %w", err)
	}
	if l.Version != 1 || l.Root == nil {
		return nil, fmt.Errorf("read listing: it has the version %d, not 1, or no root", l.Version)
	}
	var out nar.Listing
	if err := l.Root.list("", &out); err != nil {
		return nil, fmt.Errorf("read listing: %w", err)
	}
	return out, nil
}

func (n *node) list(at string, out *nar.Listing) error {
	if n == nil || !n.valid() {
		return fmt.Errorf("%.250q is no file, directory or link", at)
	}
	e := nar.Entry{Path: at, Type: n.Type, Executable: n.Executable, Target: n.Target}
	if n.Type == nar.Regular {
		e.Size = *n.Size
		if n.Offset != nil {
			e.Offset = *n.Offset
		}
	}
	*out = append(*out, e)
	for _, name := range slices.Sorted(maps.Keys(n.Entries)) {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%.250q is no name of a file", name)
		}
		if err := n.Entries[name].list(path.Join(at, name), out); err != nil {
			return err
		}
	}
	return nil
}

// valid reports whether the members are those of the type.
func (n *node) valid() bool {
	switch n.Type {
	case nar.Regular:
		return n.Target == "" && n.Entries == nil && n.Size != nil && *n.Size >= 0 && (n.Offset == nil || *n.Offset >= 0)
	case nar.Symlink:
		return n.Target != "" && n.Entries == nil && n.Size == nil && n.Offset == nil && !n.Executable
	case nar.Directory:
		return n.Target == "" && n.Entries != nil && n.Size == nil && n.Offset == nil && !n.Executable
	}
	return false
}

// decodeJSON reads strictly: no unknown members, none twice, nothing behind the value.
func decodeJSON(data []byte, v any) error {
	if len(data) > MaxListing {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), MaxListing)
	}
	form, err := canonical.Transform(data)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(form))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}
