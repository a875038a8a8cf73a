package unpack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
)

// Mode says how a Tree treats paths that lead through symbolic links, and entries that are no file.
type Mode int

// The modes.
const (
	// Strict is for source archives: absolute names, paths through symbolic links, special files, and an entry that
	// replaces one of another type are errors.
	Strict Mode = iota
	// RootFS is for root file systems: absolute names and links mean the tree's own root, as chroot(2) would see them;
	// special files are left out; later entries replace earlier ones.
	RootFS
)

// kind is what a node of the model is.
type kind uint8

const (
	dir kind = iota
	file
	link
)

// node is one entry of the model of the tree. The model is complete, because the directory starts empty and only the
// Tree writes to it.
type node struct {
	kind       kind
	executable bool     // of a file
	target     string   // of a link
	size       int64    // of a file
	sum        [32]byte // of a file that Adopt took: SHA-256, as the caller said
	layer      int      // the layer that wrote it last
	purged     int      // the layer that removed what lower layers had below it
	children   map[string]*node
}

func newDir(layer int) *node { return &node{kind: dir, layer: layer, children: map[string]*node{}} }

// Tree is a directory being filled. It is not safe for concurrent use.
type Tree struct {
	names
	root  *os.Root
	model *node
	layer int

	bytes int64
	files int
	meter *meter // of the archive being read; nil: no ratio is enforced
	// keepDirLinks leaves a link to a directory alone where an archive lists a directory, as dpkg does.
	keepDirLinks bool

	// parent caches the directory of the last entry: archives list a directory's entries together, and walking from
	// the root for each costs one system call per element.
	parent     *os.Root
	parentPath string
	parentFile *os.File // the same directory as a descriptor; nil until it is needed

	creator Creator
	buf     []byte // for copying
}

// New starts a tree in the directory path, which must exist and be empty, and be no one else's to write.
// The caller must call Close.
func New(path string, mode Mode, limits Limits) (*Tree, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("unpack into %s: directory is not empty", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Tree{names: names{mode, limits.withDefaults()}, root: root, model: newDir(0)}, nil
}

// Close releases the directory. The tree's files stay.
func (t *Tree) Close() error {
	return errors.Join(t.dropParent(), t.root.Close())
}

// Bytes returns the sum of the sizes of the files made so far.
func (t *Tree) Bytes() int64 { return t.bytes }

// Entries returns how many entries were made so far.
func (t *Tree) Entries() int { return t.files }

// Dir makes the directory name and its parents, or leaves it if it exists.
func (t *Tree) Dir(name string) error {
	elems, err := t.split(name)
	if err != nil || len(elems) == 0 {
		return err
	}
	at, base, err := t.place(name, elems)
	if err != nil {
		return err
	}
	if old := at.node.children[base]; old != nil {
		if old.kind == dir {
			old.layer = t.layer
			return nil
		}
		if t.keepDirLinks {
			if to, err := t.walk(name, elems, false); err != nil || to.node != nil {
				return err
			}
		}
		if err := t.replace(name, at, base, dir); err != nil {
			return err
		}
	}
	return t.mkdir(at, base)
}

// File makes a regular file of exactly size bytes, read from r.
func (t *Tree) File(name string, executable bool, size int64, r io.Reader) error {
	at, base, err := t.vacate(name, file)
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
	at.node.children[base] = &node{kind: file, executable: executable, size: size, layer: t.layer}
	return t.write(parent, name, base, executable, size, r)
}

// write makes the file base of a directory, for the entry name.
func (t *Tree) write(parent *os.File, name, base string, executable bool, size int64, r io.Reader) error {
	f, err := t.creator.Create(parent, base, executable)
	if err != nil {
		return err
	}
	return errors.Join(t.copy(f, name, size, r), f.Close())
}

// Symlink makes a symbolic link. The target is kept as it is; it is never followed outside of the tree.
func (t *Tree) Symlink(name, target string) error {
	if err := t.checkTarget(name, target); err != nil {
		return err
	}
	at, base, err := t.vacate(name, link)
	if err != nil {
		return err
	}
	if err := t.spend(0); err != nil {
		return err
	}
	parent, err := t.open(at.path)
	if err != nil {
		return err
	}
	at.node.children[base] = &node{kind: link, target: target, layer: t.layer}
	return parent.Symlink(target, base)
}

// Link makes name a hard link to the regular file old, which must be in the tree already. The link counts like a copy.
func (t *Tree) Link(name, old string) error {
	from, src, err := t.linkSource(name, old)
	if err != nil {
		return err
	}
	if n := from.node.children[src]; n.kind == link {
		return t.Symlink(name, n.target)
	}
	at, base, err := t.place(name, nil)
	if err != nil {
		return err
	}
	if at.node == from.node && base == src {
		return &EntryError{name, "hard link to itself"}
	}
	if at, base, err = t.vacate(name, file); err != nil {
		return err
	}
	// Making room may have removed the source, if it lay below the entry that was replaced.
	if from, src, err = t.linkSource(name, old); err != nil {
		return err
	}
	n := from.node.children[src]
	if err := t.spend(n.size); err != nil {
		return err
	}
	at.node.children[base] = &node{kind: file, executable: n.executable, size: n.size, sum: n.sum, layer: t.layer}
	return t.root.Link(join(from.path, src), join(at.path, base))
}

// linkSource finds the file that a hard link names. Its last element is not followed.
func (t *Tree) linkSource(name, old string) (place, string, error) {
	elems, err := t.split(old)
	if err != nil {
		return place{}, "", err
	}
	missing := &EntryError{name, fmt.Sprintf("hard link to %q, which is no file of the archive so far", clip(old))}
	if len(elems) == 0 {
		return place{}, "", missing
	}
	at, err := t.walk(name, elems[:len(elems)-1], false)
	if err != nil {
		return place{}, "", err
	}
	base := elems[len(elems)-1]
	if at.node == nil {
		return place{}, "", missing
	}
	n := at.node.children[base]
	if n == nil || n.kind == dir || (n.kind == link && t.mode == Strict) {
		return place{}, "", missing
	}
	return at, base, nil
}

// vacate finds the place of name and removes what is there, where the mode allows it.
func (t *Tree) vacate(name string, k kind) (place, string, error) {
	at, base, err := t.place(name, nil)
	if err != nil {
		return place{}, "", err
	}
	if at.node.children[base] == nil {
		return at, base, nil
	}
	return at, base, t.replace(name, at, base, k)
}

// replace removes base to make room for an entry of kind k. Only a directory's own place in a RootFS, or a file or
// link for one of the same kind, makes room.
func (t *Tree) replace(name string, at place, base string, k kind) error {
	old := at.node.children[base]
	if t.mode == Strict && old.kind != k {
		return &EntryError{name, fmt.Sprintf("replaces the %s of the same name", old.kind)}
	}
	return t.remove(at, base)
}

func (t *Tree) remove(at place, base string) error {
	delete(at.node.children, base)
	if err := t.dropParent(); err != nil {
		return err
	}
	return t.root.RemoveAll(join(at.path, base))
}

func (t *Tree) mkdir(at place, base string) error {
	if err := t.spend(0); err != nil {
		return err
	}
	parent, err := t.open(at.path)
	if err != nil {
		return err
	}
	if err := parent.Mkdir(base, 0o755); err != nil {
		return err
	}
	// As for files: not the umask decides. The name is ours and was made just now.
	if err := parent.Chmod(base, 0o755); err != nil {
		return err
	}
	at.node.children[base] = newDir(t.layer)
	return nil
}

// open returns the directory at a resolved path, which holds no symbolic link.
func (t *Tree) open(path string) (*os.Root, error) {
	if t.parent != nil && t.parentPath == path {
		return t.parent, nil
	}
	if err := t.dropParent(); err != nil {
		return nil, err
	}
	parent, err := t.root.OpenRoot(cmp.Or(path, "."))
	if err != nil {
		return nil, err
	}
	t.parent, t.parentPath = parent, path
	return parent, nil
}

// openFile is open for system calls that need the directory's descriptor.
func (t *Tree) openFile(path string) (*os.File, error) {
	parent, err := t.open(path)
	if err != nil || t.parentFile != nil {
		return t.parentFile, err
	}
	t.parentFile, err = parent.Open(".")
	return t.parentFile, err
}

func (t *Tree) dropParent() error {
	var err error
	if t.parentFile != nil {
		err = t.parentFile.Close()
	}
	if t.parent != nil {
		err = errors.Join(err, t.parent.Close())
	}
	t.parent, t.parentPath, t.parentFile = nil, "", nil
	return err
}

// spend counts an entry and its bytes before they are made.
func (t *Tree) spend(size int64) error {
	if t.files++; t.files > t.limits.Files {
		return &LimitError{"entries", int64(t.limits.Files)}
	}
	if size < 0 || size > t.limits.Bytes-t.bytes {
		return &LimitError{"bytes", t.limits.Bytes}
	}
	t.bytes += size
	return nil
}

func (t *Tree) copy(w io.Writer, name string, size int64, r io.Reader) error {
	if t.buf == nil {
		t.buf = make([]byte, 128<<10)
	}
	n, err := io.CopyBuffer(w, io.LimitReader(t.meter.content(r), size), t.buf)
	if err != nil {
		return fmt.Errorf("archive entry %q: %w", clip(name), err)
	}
	if n != size {
		return &EntryError{name, fmt.Sprintf("has %d bytes, not the %d it promised", n, size)}
	}
	return nil
}

func (k kind) String() string {
	return [...]string{dir: "directory", file: "file", link: "symbolic link"}[k]
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}
