package unpack

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Adopt makes name a hard link to the regular file base of the directory from, which is on the same file system and was unpacked
// before: it must have mode 0755 if executable, else 0644, size bytes, and nobody may write to it any more. sum is the SHA-256 of its
// content, which Walk returns again. The file counts as if it had been written.
//
// A file that cannot have more links is copied.
func (t *Tree) Adopt(name string, executable bool, size int64, sum [32]byte, from *os.File, base string) error {
	at, to, err := t.vacate(name, file)
	if err != nil {
		return err
	}
	if err := t.spend(size); err != nil {
		return err
	}
	parent, err := t.openFile(at.path)
	if err != nil {
		return err
	}
	err = unix.Linkat(int(from.Fd()), base, int(parent.Fd()), to, 0)
	if errors.Is(err, unix.EMLINK) {
		err = t.duplicate(parent, name, executable, size, from, base, to)
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", join(at.path, to), err)
	}
	at.node.children[to] = &node{kind: file, executable: executable, size: size, sum: sum, layer: t.layer}
	return nil
}

// duplicate copies a file into a directory.
func (t *Tree) duplicate(parent *os.File, name string, executable bool, size int64, from *os.File, base, to string) error {
	fd, err := unix.Openat(int(from.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(fd), base)
	defer src.Close()
	return t.write(parent, name, to, executable, size, src)
}

// Has reports whether the root of the tree has an entry of that name, of any kind.
func (t *Tree) Has(name string) bool { return t.model.children[name] != nil }

// Node is an entry of the tree as it is now.
type Node struct {
	Path       string // relative to the root, without a leading slash
	Dir        bool
	Target     string   // of a symbolic link; empty: it is none
	Executable bool     // of a file
	Size       int64    // of a file, in bytes
	Sum        [32]byte // of a file that was adopted, or linked to such a one: SHA-256; zero otherwise
}

// Walk calls visit for every entry but the root: a directory before what is in it, and names in a directory in the order of their bytes.
func (t *Tree) Walk(visit func(Node) error) error {
	return t.model.walk("", visit)
}

func (n *node) walk(path string, visit func(Node) error) error {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := n.children[name]
		at := join(path, name)
		one := Node{Path: at, Dir: child.kind == dir, Target: child.target, Executable: child.executable, Size: child.size, Sum: child.sum}
		if err := visit(one); err != nil {
			return err
		}
		if child.kind == dir {
			if err := child.walk(at, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
