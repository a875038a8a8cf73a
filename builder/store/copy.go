package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyTree copies what is in the directory from into the empty directory to: files with their executable bit, directories and
// links, nothing else. It opens everything relative to the directory that holds it and follows no link in it.
func copyTree(ctx context.Context, from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return copyDir(ctx, root, to, 0)
}

// maxDepth is how many directories may lie in each other, as in a NAR.
const maxDepth = 256

func copyDir(ctx context.Context, from *os.Root, to string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("copy %q: it lies in more than %d directories", from.Name(), maxDepth)
	}
	entries, err := fs.ReadDir(from.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyEntry(ctx, from, entry, filepath.Join(to, entry.Name()), depth); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(ctx context.Context, from *os.Root, entry fs.DirEntry, target string, depth int) error {
	name := entry.Name()
	switch entry.Type() {
	case fs.ModeDir:
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		dir, err := openDir(from, name)
		if err != nil {
			return err
		}
		defer dir.Close()
		return copyDir(ctx, dir, target, depth+1)
	case fs.ModeSymlink:
		link, err := from.Readlink(name)
		if err != nil {
			return err
		}
		return os.Symlink(link, target)
	case 0:
		return copyFile(from, name, target)
	default:
		return fmt.Errorf("copy %q: neither file, directory nor link", filepath.Join(from.Name(), name))
	}
}

// openDir opens a directory of a tree. OpenRoot would go through a link that has taken its place, though not out of the tree; what was
// opened must be what the name itself is.
func openDir(from *os.Root, name string) (*os.Root, error) {
	dir, err := from.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, errOpened := dir.Stat(".")
	named, errNamed := from.Lstat(name)
	if err := errors.Join(errOpened, errNamed); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if !os.SameFile(opened, named) {
		return nil, errors.Join(fmt.Errorf("copy %q: it is no longer a directory", filepath.Join(from.Name(), name)), dir.Close())
	}
	return dir, nil
}

// copyFile copies one file; ReadFrom uses copy_file_range(2), which shares blocks where the file system can.
func copyFile(root *os.Root, name, target string) error {
	src, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("copy %q: it is no longer a file", name)
	}
	dst, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|info.Mode()&0o100)
	if err != nil {
		return err
	}
	if _, err := dst.ReadFrom(src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}

// sharesBlocks reports whether copies of files in dir can share their blocks in the store: both are in one file system, which can clone.
func (s *Store) sharesBlocks(dir string) bool {
	var from, to unix.Stat_t
	if unix.Stat(dir, &from) != nil || unix.Stat(s.dir, &to) != nil || from.Dev != to.Dev || from.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	src, err := os.Open(s.path(versionFile))
	if err != nil {
		return false
	}
	defer src.Close()
	dst, err := s.probe()
	if err != nil {
		return false
	}
	defer dst.Close()
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// probe returns a new file without a name among the temporary ones.
func (s *Store) probe() (*os.File, error) {
	temp, err := s.temp()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(temp); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
