package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyTree copies what is in the directory from into the empty directory to: files with their executable bit, directories and
// links, nothing else. It opens everything relative to from and follows no link in it.
func copyTree(ctx context.Context, from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch entry.Type() {
		case fs.ModeDir:
			if name == "." {
				return nil
			}
			return os.Mkdir(target, 0o755)
		case fs.ModeSymlink:
			link, err := root.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case 0:
			return copyFile(root, name, target)
		default:
			return fmt.Errorf("copy %q: neither file, directory nor link", filepath.Join(from, name))
		}
	})
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
