package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

const rootKind = "root"

// Root keeps objects from GC under a name, such as the path of a result.
type Root struct {
	Name    string
	Digests []digest.SHA256 // of blobs or trees; an object that is not there is no error
}

// AddRoot makes name a root of the objects, in place of those that it kept before.
func (s *Store) AddRoot(name string, d ...digest.SHA256) error {
	lines := make([]string, 0, len(d))
	for _, one := range d {
		lines = append(lines, one.Hex()+"\n")
	}
	r := record{Kind: rootKind, Key: name, Value: []byte(strings.Join(lines, ""))}
	if err := r.validate(); err != nil {
		return fmt.Errorf("add root %.100q: %w", name, err)
	}
	path := s.path(rootDir, keyName(name))
	if have, err := s.fs.ReadFile(path, maxRecord); err == nil && bytes.Equal(have, r.encode()) {
		return s.syncRoots(name) // whoever wrote it may not have come to this
	}
	if err := s.writeFile(path, r.encode()); err != nil {
		return fmt.Errorf("add root %q: %w", name, err)
	}
	return nil
}

// syncRoots makes the names of roots durable.
func (s *Store) syncRoots(name string) error {
	if err := s.fs.SyncDir(s.path(rootDir)); err != nil {
		return fmt.Errorf("add root %q: %w", name, err)
	}
	return nil
}

// RemoveRoot removes a root; that there is none is no error.
func (s *Store) RemoveRoot(name string) error {
	err := s.fs.Remove(s.path(rootDir, keyName(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.fs.SyncDir(s.path(rootDir))
	}
	if err != nil {
		return fmt.Errorf("remove root %q: %w", name, err)
	}
	return nil
}

// Roots returns all roots, sorted by name. A damaged one is a *CorruptError: what it kept is unknown.
func (s *Store) Roots(ctx context.Context) ([]Root, error) {
	entries, err := s.fs.ReadDir(s.path(rootDir))
	if err != nil {
		return nil, fmt.Errorf("list roots of store %s: %w", s.dir, err)
	}
	roots := map[string]Root{}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		root, err := s.readRoot(filepath.Join(rootDir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		roots[root.Name] = root
	}
	return slices.SortedFunc(maps.Values(roots), func(a, b Root) int { return strings.Compare(a.Name, b.Name) }), nil
}

func (s *Store) readRoot(rel string) (Root, error) {
	r, err := s.readRecord(rel)
	if err != nil {
		return Root{}, err
	}
	if r.Kind != rootKind || filepath.Base(rel) != keyName(r.Key) {
		return Root{}, &CorruptError{Path: rel, Cause: fmt.Sprintf("it is the record of %s %q", r.Kind, r.Key)}
	}
	root := Root{Name: r.Key}
	for line := range strings.Lines(string(r.Value)) {
		d, err := digest.ParseHex(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return Root{}, &CorruptError{Path: rel, Cause: err.Error()}
		}
		root.Digests = append(root.Digests, d)
	}
	return root, nil
}
