package diff

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// treeDifference is a difference of two trees outside of the contents of files. Its sentence is written only if it is listed.
type treeDifference struct {
	path           string
	cause          Cause
	what           string // what differs; for Missing: what it is
	valueA, valueB string // for Missing one is empty
}

func (d treeDifference) difference() Difference {
	sentence := fmt.Sprintf("The %s differs: %s and %s.", d.what, quote(d.valueA), quote(d.valueB))
	switch {
	case d.cause == Missing && d.valueB == "":
		sentence = fmt.Sprintf("Only the first has this %s.", d.what)
	case d.cause == Missing:
		sentence = fmt.Sprintf("Only the second has this %s.", d.what)
	case d.cause == Type:
		sentence = fmt.Sprintf("It is a %s in the first and a %s in the second.", d.valueA, d.valueB)
	}
	return Difference{
		Path: d.path, Members: []string{}, Cause: d.cause, Sentence: sentence, Offset: -1, SizeA: -1, SizeB: -1,
		ValueA: cutValue(d.valueA), ValueB: cutValue(d.valueB),
	}
}

func sortDifferences(list []Difference) {
	slices.SortStableFunc(list, func(a, b Difference) int {
		return cmp.Or(nar.Compare(a.Path, b.Path), slices.Compare(a.Members, b.Members), cmp.Compare(a.Offset, b.Offset),
			strings.Compare(string(a.Cause), string(b.Cause)), strings.Compare(a.Sentence, b.Sentence))
	})
}

// walk compares two trees file by file. One goroutine walks the directories; several compare files.
type walk struct {
	c        *comparison
	batches  chan batch
	digestsA map[string]digest.SHA256 // of the files whose digests are given
	digestsB map[string]digest.SHA256
	files    atomic.Int64
	bytes    atomic.Int64

	mu      sync.Mutex // guards the fields below
	seen    []treeDifference
	differ  []string // files whose contents differ
	layouts []string // directories that are OCI layouts
}

// directories are two directories with the same path. They are closed when nobody uses them any more.
type directories struct {
	path string
	a, b *os.File
	uses atomic.Int32
}

func (d *directories) release() {
	if d.uses.Add(-1) == 0 {
		d.a.Close()
		d.b.Close()
	}
}

// batch is some files that both of two directories have.
type batch struct {
	in    *directories
	names []string
}

const batchSize = 64

func walkTrees(c *comparison, a, b string) (*walk, error) {
	w := &walk{c: c, batches: make(chan batch, 4*c.opts.Parallel)}
	if c.opts.ListingA != nil && c.opts.ListingB != nil {
		w.digestsA, w.digestsB = digests(c.opts.ListingA), digests(c.opts.ListingB)
	}
	group, ctx := errgroup.WithContext(c.ctx)
	for range c.opts.Parallel {
		group.Go(w.compareFiles)
	}
	group.Go(func() error {
		defer close(w.batches)
		rootA, err := openDir(unix.AT_FDCWD, a, 0)
		if err != nil {
			return err
		}
		rootB, err := openDir(unix.AT_FDCWD, b, 0)
		if err != nil {
			rootA.Close()
			return err
		}
		return w.directory(ctx.Done(), &directories{a: rootA, b: rootB}, 0)
	})
	if err := group.Wait(); err != nil {
		for batch := range w.batches {
			batch.in.release()
		}
		return nil, cmp.Or(c.ctx.Err(), err)
	}
	return w, nil
}

func digests(listing nar.Listing) map[string]digest.SHA256 {
	m := make(map[string]digest.SHA256, len(listing))
	for _, entry := range listing {
		if entry.Type == nar.Regular && !entry.Digest.IsZero() {
			m[entry.Path] = entry.Digest
		}
	}
	return m
}

// openDir opens a directory; flags may be O_NOFOLLOW.
func openDir(at int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	// Where a file system does not tell types in directories, ReadDir asks for each below the file's name: this one cannot be swapped.
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}

var errStopped = errors.New("stopped")

// directory compares two directories, of which it takes one use, and all below.
func (w *walk) directory(done <-chan struct{}, d *directories, depth int) error {
	d.uses.Store(1)
	defer d.release()
	select {
	case <-done:
		return errStopped
	default:
	}
	if depth > maxTree {
		return fmt.Errorf("%q lies in more than %d directories", d.path, maxTree)
	}
	namesA, err := entries(d.a)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", d.path, err)
	}
	namesB, err := entries(d.b)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", d.path, err)
	}
	if isLayout(namesA) && isLayout(namesB) {
		w.layouts = append(w.layouts, d.path)
	}
	if err := w.directoryMetadata(d); err != nil {
		return err
	}
	var both []string
	for len(namesA) > 0 || len(namesB) > 0 {
		var a, b fs.DirEntry
		order := headOrder(namesA, namesB)
		if order <= 0 {
			a, namesA = namesA[0], namesA[1:]
		}
		if order >= 0 {
			b, namesB = namesB[0], namesB[1:]
		}
		if order == 0 && a.Type().IsRegular() && b.Type().IsRegular() {
			if both = append(both, a.Name()); len(both) == batchSize {
				if err := w.send(done, d, both); err != nil {
					return err
				}
				both = nil
			}
			continue
		}
		if err := w.entry(done, d, a, b, depth); err != nil {
			return err
		}
	}
	return w.send(done, d, both)
}

// headOrder compares the first names of two sorted lists, of which one may be empty.
func headOrder(a, b []fs.DirEntry) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	default:
		return strings.Compare(a[0].Name(), b[0].Name())
	}
}

func entries(dir *os.File) ([]fs.DirEntry, error) {
	list, err := dir.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

func (w *walk) send(done <-chan struct{}, d *directories, names []string) error {
	if len(names) == 0 {
		return nil
	}
	d.uses.Add(1)
	select {
	case w.batches <- batch{d, names}:
		return nil
	case <-done:
		d.release()
		return errStopped
	}
}

// entry compares two entries of a directory that are not both files; one may be nil.
func (w *walk) entry(done <-chan struct{}, d *directories, a, b fs.DirEntry, depth int) error {
	switch {
	case b == nil:
		w.note(treeDifference{path.Join(d.path, a.Name()), Missing, typeName(a.Type()), a.Name(), ""})
		return nil
	case a == nil:
		w.note(treeDifference{path.Join(d.path, b.Name()), Missing, typeName(b.Type()), "", b.Name()})
		return nil
	}
	name := path.Join(d.path, a.Name())
	switch {
	case a.Type() != b.Type():
		w.note(treeDifference{name, Type, "type", typeName(a.Type()), typeName(b.Type())})
		return nil
	case a.IsDir():
		return w.subdirectory(done, d, a.Name(), depth)
	case a.Type() == fs.ModeSymlink:
		return w.link(d, a.Name(), name)
	default:
		return w.special(d, a.Name(), name)
	}
}

func (w *walk) subdirectory(done <-chan struct{}, d *directories, name string, depth int) error {
	a, err := openDir(int(d.a.Fd()), name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	b, err := openDir(int(d.b.Fd()), name, unix.O_NOFOLLOW)
	if err != nil {
		a.Close()
		return err
	}
	return w.directory(done, &directories{path: path.Join(d.path, name), a: a, b: b}, depth+1)
}

func (w *walk) link(d *directories, name, full string) error {
	targetA, err := readlink(d.a, name)
	if err != nil {
		return err
	}
	targetB, err := readlink(d.b, name)
	if err != nil {
		return err
	}
	if targetA != targetB {
		w.note(treeDifference{full, Target, "target of the link", targetA, targetB})
	}
	return w.special(d, name, full)
}

// special compares what is known of two links, devices, sockets or pipes from outside.
func (w *walk) special(d *directories, name, full string) error {
	var a, b unix.Stat_t
	if err := unix.Fstatat(int(d.a.Fd()), name, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: full, Err: err}
	}
	if err := unix.Fstatat(int(d.b.Fd()), name, &b, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: full, Err: err}
	}
	if a.Rdev != b.Rdev {
		w.note(treeDifference{full, Content, "device", fmt.Sprint(a.Rdev), fmt.Sprint(b.Rdev)})
	}
	w.note(w.c.metadata(full, &a, &b)...)
	return nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

func (w *walk) directoryMetadata(d *directories) error {
	if !w.c.opts.Metadata {
		return nil
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(int(d.a.Fd()), &a), unix.Fstat(int(d.b.Fd()), &b)); err != nil {
		return err
	}
	w.note(w.c.metadata(d.path, &a, &b)...)
	return nil
}

func (w *walk) note(found ...treeDifference) {
	if len(found) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, found...)
}

// jobs returns what is to be explained, in the order of paths.
func (w *walk) jobs() []job {
	var jobs []job
	for _, dir := range w.layouts {
		jobs = append(jobs, job{path: dir, oci: true})
	}
	for _, name := range w.differ {
		if path.Base(name) == indexFile && slices.Contains(w.layouts, parent(name)) {
			continue // the layout's own job compares it
		}
		jobs = append(jobs, job{path: name})
	}
	slices.SortFunc(jobs, func(a, b job) int { return nar.Compare(a.path, b.path) })
	slices.SortFunc(w.seen, func(a, b treeDifference) int {
		return cmp.Or(nar.Compare(a.path, b.path), strings.Compare(string(a.cause), string(b.cause)))
	})
	return jobs
}

// parent is the directory of a path in a tree, "" for the root.
func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

func typeName(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "link"
	case fs.ModeNamedPipe:
		return "FIFO"
	case fs.ModeSocket:
		return "socket"
	default:
		return "device"
	}
}
