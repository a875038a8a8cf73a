package oci

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// maxLinks is how many symbolic links one path may lead through: MAXSYMLINKS of Linux (path_resolution(7)).
const maxLinks = 40

// resolve follows name inside root as chroot(2) would: absolute links begin at the root, and ".." stops there. It returns the path
// without links, relative to the root, of what exists; otherwise of what is missing, with an error that wraps fs.ErrNotExist. The
// last element is followed, too.
func resolve(root *os.Root, name string) (string, fs.FileInfo, error) {
	at, links := ".", 0
	todo := strings.Split(name, "/")
	info, err := root.Lstat(".")
	for len(todo) > 0 && err == nil {
		e := todo[0]
		todo = todo[1:]
		switch e {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at) // no element of at is a link
			info, err = root.Lstat(at)
			continue
		}
		next := path.Join(at, e)
		if info, err = root.Lstat(next); err != nil {
			if slices.Contains(todo, "..") {
				err = fmt.Errorf("/%s leads back from a directory that is missing", name)
			}
			return path.Join(append([]string{next}, todo...)...), nil, err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, fmt.Errorf("/%s leads through too many symbolic links", name)
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", nil, err
		}
		if path.IsAbs(target) {
			at = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, info, err
}
