package nar

import (
	"bytes"
	"fmt"
)

// stack is where Reader and Writer are in a tree: the open directories, and the order of names in each.
type stack struct {
	path   []byte // of the last entry, relative to the root
	levels []level
	open   int // levels in use; the rest is kept for reuse
}

// level is one open directory.
type level struct {
	last   []byte // the name of the last entry in it; empty if there was none
	prefix int    // length of the directory's own path
}

// enter opens the directory that path names.
func (s *stack) enter() {
	if s.open == len(s.levels) {
		s.levels = append(s.levels, level{})
	}
	top := &s.levels[s.open]
	top.last, top.prefix = top.last[:0], len(s.path)
	s.open++
}

// leave closes the innermost directory; path names it then.
func (s *stack) leave() {
	s.open--
	s.path = s.path[:s.levels[s.open].prefix]
}

// dir is the path of the innermost open directory.
func (s *stack) dir() []byte { return s.path[:s.levels[s.open-1].prefix] }

// add makes path name the entry called name in the innermost directory, and says what is wrong with that name there;
// nothing if it is empty.
func (s *stack) add(name []byte, limit int) (reason string) {
	if reason := badName(name, limit); reason != "" {
		return fmt.Sprintf("an entry has %s: %q", reason, name)
	}
	top := &s.levels[s.open-1]
	switch c := bytes.Compare(name, top.last); {
	case c == 0:
		return fmt.Sprintf("there are two entries %q", name)
	case c < 0:
		return fmt.Sprintf("entry %q comes after %q", name, top.last)
	}
	top.last = append(top.last[:0], name...)
	s.path = s.path[:top.prefix]
	if len(s.path) > 0 {
		s.path = append(s.path, '/')
	}
	s.path = append(s.path, name...)
	return ""
}
