package wasi

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Memory is a Tree that is held in memory: of files that were handed over as descriptors, and of what a module writes. It
// is not safe for use by several goroutines at once.
type Memory struct {
	root *node
	room int64 // bytes that may still be used
	now  func() int64
}

// nodeCost is what a node counts, beside its content.
const nodeCost = 512

// NewMemory returns an empty tree that may grow to so many bytes of content; each file, directory and link counts 512 bytes
// as well. More is ENOSPC to the module.
func NewMemory(limit int64) *Memory {
	return &Memory{root: newNode(typeDirectory), room: limit, now: func() int64 { return 0 }}
}

// Content is what a file that was put into a Memory reads from.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Put adds a regular file with size bytes of content at a path relative to the root, and the directories above it. A
// module can replace such a file but not change it. The Memory closes content.
func (m *Memory) Put(path string, content Content, size int64) error {
	return m.add(path, &node{kind: typeRegular, source: content, size: size, links: 1})
}

// PutDir adds a directory, and those above it; one that exists stays.
func (m *Memory) PutDir(path string) error {
	if n, e := m.walk(path, false); e == success && n.kind == typeDirectory {
		return nil
	}
	return m.add(path, newNode(typeDirectory))
}

// PutLink adds a symbolic link, and the directories above it.
func (m *Memory) PutLink(path, target string) error {
	return m.add(path, &node{kind: typeLink, target: target, links: 1})
}

func (m *Memory) add(path string, n *node) error {
	dir := m.root
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("put %q into tree: not a clean relative path", path)
		}
		next := dir.children[part]
		if i == len(parts)-1 {
			if next != nil {
				return fmt.Errorf("put %q into tree: it exists", path)
			}
			dir.children[part] = n
			break
		}
		if next == nil {
			next = newNode(typeDirectory)
			dir.children[part] = next
		}
		if next.kind != typeDirectory {
			return fmt.Errorf("put %q into tree: a file is in the way", path)
		}
		dir = next
	}
	return nil
}

// Close closes the contents that were put in.
func (m *Memory) Close() error { return m.root.closeAll() }

// node is a file, a directory or a link.
type node struct {
	kind     fileType
	children map[string]*node // of a directory
	data     []byte           // of a regular file without source
	source   Content          // of one that was put in
	size     int64            // of source
	target   string           // of a link
	links    uint64
	opens    int
	accessed int64
	modified int64
}

func newNode(kind fileType) *node {
	n := &node{kind: kind, links: 1}
	if kind == typeDirectory {
		n.children = map[string]*node{}
	}
	return n
}

func (n *node) closeAll() error {
	var errs []error
	if n.source != nil {
		errs = append(errs, n.source.Close())
		n.source = nil
	}
	for _, child := range n.children {
		errs = append(errs, child.closeAll())
	}
	return errors.Join(errs...)
}

func (n *node) stat() stat {
	s := stat{links: n.links, kind: n.kind, accessed: n.accessed, modified: n.modified, status: n.modified}
	switch {
	case n.source != nil:
		s.size = uint64(n.size)
	case n.kind == typeRegular:
		s.size = uint64(len(n.data))
	case n.kind == typeLink:
		s.size = uint64(len(n.target))
	}
	return s
}

// maxLinks is how many links are followed on one path, as on Linux.
const maxLinks = 40

// walk finds the node at path. The last component, if it is a link, is followed on demand.
func (m *Memory) walk(path string, follow bool) (*node, errno) {
	dirs, last, e := m.parents(path, follow)
	if e != success {
		return nil, e
	}
	if last == "" {
		return dirs[len(dirs)-1], success
	}
	n := dirs[len(dirs)-1].children[last]
	if n == nil {
		return nil, errNoEntry
	}
	return n, success
}

// parents finds the directory of path's last component, following the links on the way, and those at the end on demand. It
// returns the chain of directories from the root, and the component's name, empty if the path ends in a directory itself.
func (m *Memory) parents(path string, follow bool) (dirs []*node, last string, e errno) {
	dirs = []*node{m.root}
	todo := components(path)
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		here := dirs[len(dirs)-1]
		switch part {
		case ".":
			continue
		case "..":
			if len(dirs) == 1 {
				return nil, "", errPerm
			}
			dirs = dirs[:len(dirs)-1]
			continue
		}
		next := here.children[part]
		final := len(todo) == 0
		switch {
		case next != nil && next.kind == typeDirectory:
			dirs = append(dirs, next)
			if final {
				return dirs[:len(dirs)-1], part, success
			}
		case next != nil && next.kind == typeLink && (!final || follow):
			if links++; links > maxLinks {
				return nil, "", errLoop
			}
			if strings.HasPrefix(next.target, "/") {
				return nil, "", errPerm
			}
			todo = append(components(next.target), todo...)
		case final:
			return dirs, part, success
		case next == nil:
			return nil, "", errNoEntry
		default:
			return nil, "", errNotDir
		}
	}
	return dirs, "", success
}

// components splits a path. A slash at the end asks for a directory, and becomes ".".
func components(path string) []string {
	parts := slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" })
	if strings.HasSuffix(path, "/") {
		parts = append(parts, ".")
	}
	return parts
}

func (m *Memory) stat(path string, follow bool) (stat, errno) {
	n, e := m.walk(path, follow)
	if e != success {
		return stat{}, e
	}
	return n.stat(), success
}

func (m *Memory) open(path string, how opening) (file, stat, errno) {
	dirs, last, e := m.parents(path, how.follow)
	if e != success {
		return nil, stat{}, e
	}
	dir := dirs[len(dirs)-1]
	n := dir
	if last != "" {
		n = dir.children[last]
	}
	if n == nil {
		if !how.create || how.directory {
			return nil, stat{}, errNoEntry
		}
		if n, e = m.make(dir, last, typeRegular); e != success {
			return nil, stat{}, e
		}
	} else if e := how.refuse(n.kind); e != success {
		return nil, stat{}, e
	}
	if n.kind == typeDirectory {
		return nil, n.stat(), success
	}
	if (how.write || how.truncate) && n.source != nil {
		return nil, stat{}, errReadOnly
	}
	n.opens++
	f := &memoryFile{m, n}
	if how.truncate {
		f.truncate(0)
	}
	return f, n.stat(), success
}

// make adds a new node to a directory.
func (m *Memory) make(dir *node, name string, kind fileType) (*node, errno) {
	switch {
	case name == "" || dir.children[name] != nil:
		return nil, errExist
	case len(name) > 255: // as on Linux
		return nil, errNameLong
	case m.room < nodeCost || len(dir.children) >= maxEntries:
		return nil, errNoSpace
	}
	m.room -= nodeCost
	n := newNode(kind)
	n.accessed, n.modified = m.now(), m.now()
	dir.children[name] = n
	return n, success
}

func (m *Memory) list(path string) ([]entry, errno) {
	n, e := m.walk(path, true)
	if e != success {
		return nil, e
	}
	if n.kind != typeDirectory {
		return nil, errNotDir
	}
	list := make([]entry, 0, len(n.children))
	for name, child := range n.children {
		list = append(list, entry{name, child.kind})
	}
	return list, success
}

func (m *Memory) mkdir(path string) errno {
	dirs, last, e := m.parents(strings.TrimRight(path, "/"), false)
	if e == success {
		_, e = m.make(dirs[len(dirs)-1], last, typeDirectory)
	}
	return e
}

func (m *Memory) rmdir(path string) errno {
	return m.remove(strings.TrimRight(path, "/"), func(n *node) errno {
		switch {
		case n.kind != typeDirectory:
			return errNotDir
		case len(n.children) > 0:
			return errNotEmpty
		default:
			return success
		}
	})
}

func (m *Memory) unlink(path string) errno {
	return m.remove(path, func(n *node) errno {
		if n.kind == typeDirectory {
			return errIsDir
		}
		return success
	})
}

func (m *Memory) remove(path string, check func(*node) errno) errno {
	dirs, last, e := m.parents(path, false)
	if e != success {
		return e
	}
	dir := dirs[len(dirs)-1]
	n := dir.children[last]
	switch {
	case last == "":
		return errInvalid
	case n == nil:
		return errNoEntry
	}
	if e := check(n); e != success {
		return e
	}
	m.drop(dir, last)
	return success
}

// drop takes a name away.
func (m *Memory) drop(dir *node, name string) {
	n := dir.children[name]
	delete(dir.children, name)
	n.links--
	m.room += nodeCost
	m.reclaim(n)
}

// reclaim gives back the room of a file that has neither a name nor an open descriptor any more.
func (m *Memory) reclaim(n *node) {
	if n.links == 0 && n.opens == 0 {
		m.room += int64(cap(n.data))
		n.data = nil
	}
}

func (m *Memory) rename(from, to string) errno {
	fromDirs, fromName, e := m.parents(strings.TrimRight(from, "/"), false)
	if e != success {
		return e
	}
	toDirs, toName, e := m.parents(strings.TrimRight(to, "/"), false)
	if e != success {
		return e
	}
	source, target := fromDirs[len(fromDirs)-1], toDirs[len(toDirs)-1]
	n, old := source.children[fromName], target.children[toName]
	switch {
	case n == nil:
		return errNoEntry
	case toName == "" || slices.Contains(toDirs, n): // into itself
		return errInvalid
	case n == old:
		return success
	case len(toName) > 255:
		return errNameLong
	case old != nil && old.kind == typeDirectory && n.kind != typeDirectory:
		return errIsDir
	case old != nil && old.kind != typeDirectory && n.kind == typeDirectory:
		return errNotDir
	case old != nil && len(old.children) > 0:
		return errNotEmpty
	}
	if old != nil {
		m.drop(target, toName)
	}
	delete(source.children, fromName)
	target.children[toName] = n
	return success
}

func (m *Memory) link(from, to string) errno {
	n, e := m.walk(from, false)
	if e != success {
		return e
	}
	if n.kind == typeDirectory {
		return errPerm
	}
	dirs, last, e := m.parents(to, false)
	if e != success {
		return e
	}
	if _, e := m.make(dirs[len(dirs)-1], last, n.kind); e != success {
		return e
	}
	dirs[len(dirs)-1].children[last] = n
	n.links++
	return success
}

func (m *Memory) symlink(target, path string) errno {
	dirs, last, e := m.parents(path, false)
	if e != success {
		return e
	}
	n, e := m.make(dirs[len(dirs)-1], last, typeLink)
	if e == success {
		n.target = target
	}
	return e
}

func (m *Memory) readlink(path string) (string, errno) {
	n, e := m.walk(path, false)
	if e != success {
		return "", e
	}
	if n.kind != typeLink {
		return "", errInvalid
	}
	return n.target, success
}

func (m *Memory) setTimes(path string, follow bool, accessed, modified *int64) errno {
	n, e := m.walk(path, follow)
	if e == success {
		n.setTimes(accessed, modified)
	}
	return e
}

func (n *node) setTimes(accessed, modified *int64) {
	if accessed != nil {
		n.accessed = *accessed
	}
	if modified != nil {
		n.modified = *modified
	}
}

// names returns the names in a directory, sorted.
func (n *node) names() []string { return slices.Sorted(maps.Keys(n.children)) }
