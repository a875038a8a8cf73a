package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// gorootCopy copies what a toolchain module has of an installed GOROOT, and hashes what it copies. One goroutine walks
// the directories, several copy files. Everything is opened relative to its directory, and no link below the root is
// followed: what is in the copy was in goroot, whoever changes it meanwhile.
type gorootCopy struct {
	ctx    context.Context
	t      toolchain
	prefix string // of the names in the directory hash
	group  *errgroup.Group

	mu   sync.Mutex // guards sums
	sums []fileSum
}

// maxGorootDepth is how many directories of a GOROOT may lie in each other. Go 1.26 has 13.
const maxGorootDepth = 64

func copyGoroot(ctx context.Context, t toolchain, goroot, to string, prefix string) ([]fileSum, error) {
	from, err := os.Open(goroot)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	c := &gorootCopy{ctx: ctx, t: t, prefix: prefix, group: group}
	walked := c.directory(from, "", to, 0)
	if err := group.Wait(); err != nil {
		return nil, err // the first; the walk only stopped because of it
	}
	return c.sums, walked
}

// directory copies a directory, which it closes, and all below. The directory to exists.
func (c *gorootCopy) directory(from *os.File, rel, to string, depth int) error {
	files, err := c.list(from, rel, to, depth)
	if err != nil || len(files) == 0 {
		return errors.Join(err, from.Close())
	}
	c.group.Go((&gorootFiles{c, from, rel, to, files}).run)
	return nil
}

// list copies the directories in a directory, and returns the names of the files that are to be copied.
func (c *gorootCopy) list(from *os.File, rel, to string, depth int) (files []string, err error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	if depth > maxGorootDepth {
		return nil, fmt.Errorf("%s lies in more than %d directories", rel, maxGorootDepth)
	}
	entries, err := from.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("read directory %s: %w", path.Join(".", rel), err)
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		switch {
		case !e.IsDir() && c.t.ships(name):
			files = append(files, e.Name())
		case e.IsDir() && (rel != "" || c.t.ships(name)):
			if err := c.subdirectory(from, e.Name(), name, to, depth); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func (c *gorootCopy) subdirectory(parent *os.File, base, rel, to string, depth int) error {
	dir, err := openDir(parent, base)
	if err != nil {
		return err
	}
	return c.directory(dir, rel, filepath.Join(to, base), depth+1)
}

// openDir opens a directory in a directory, without following a link.
func openDir(parent *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	// Where a file system does not tell types in directories, ReadDir asks for each below the file's name: this one cannot be swapped.
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}

// gorootFiles is the files of one directory.
type gorootFiles struct {
	c     *gorootCopy
	from  *os.File
	rel   string
	to    string
	names []string
}

// run copies the files and closes the directory.
func (j *gorootFiles) run() error {
	defer j.from.Close()
	if err := os.MkdirAll(j.to, 0o755); err != nil {
		return err
	}
	to, err := os.Open(j.to)
	if err != nil {
		return err
	}
	defer to.Close()
	buf, h := make([]byte, 64<<10), sha256.New()
	sums := make([]fileSum, 0, len(j.names))
	for _, name := range j.names {
		if err := j.c.ctx.Err(); err != nil {
			return err
		}
		rel := path.Join(j.rel, name)
		h.Reset()
		if err := copyAt(j.from, to, name, programMode(rel), h, buf); err != nil {
			return fmt.Errorf("copy %s: %w", rel, err)
		}
		if name == "go.mod" {
			rel = path.Join(j.rel, "_go.mod")
		}
		sum := fileSum{name: j.c.prefix + rel}
		h.Sum(sum.sum[:0])
		sums = append(sums, sum)
	}
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	j.c.sums = append(j.c.sums, sums...)
	return nil
}

func programMode(rel string) uint32 {
	if isToolchainProgram(rel) {
		return 0o755
	}
	return 0o644
}

// copyAt copies the regular file name from one directory to another, where it must not be, and writes it to h, too. It
// works with descriptors alone: for small files, what package os does beside reading and writing takes longer than these.
func copyAt(from, to *os.File, name string, perm uint32, h hash.Hash, buf []byte) error {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	src, err := unix.Openat(int(from.Fd()), name, unix.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var stat unix.Stat_t
	if err := unix.Fstat(src, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return fs.ErrInvalid
	}
	dst, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|flags, perm)
	if err != nil {
		return err
	}
	err = copyAll(src, dst, h, buf)
	if closed := unix.Close(dst); err == nil {
		err = closed
	}
	return err
}

func copyAll(src, dst int, h hash.Hash, buf []byte) error {
	for {
		n, err := unix.Read(src, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		h.Write(buf[:n])
		for out := buf[:n]; len(out) > 0; {
			n, err := unix.Write(dst, out)
			switch {
			case err == unix.EINTR:
			case err != nil:
				return err
			case n == 0:
				return io.ErrShortWrite
			default:
				out = out[n:]
			}
		}
	}
}
