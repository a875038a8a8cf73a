package nar

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// RemoveAll removes path and all that is below it, read-only directories included, following no link. It is what undoes
// Restore for an ordinary user, for whom os.RemoveAll stops at a directory of mode 0555. That nothing is there is no
// error. It keeps one file descriptor open per level.
func RemoveAll(path string) error {
	parent, base, err := openParent(path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	defer unix.Close(parent)
	return removeAt(parent, base, path)
}

// removeAt removes name, in the directory at; path is what errors call it. An empty directory is removed without
// being opened, so that what Restore made with its last file descriptor can be removed too.
func removeAt(at int, name, path string) error {
	err := unix.Unlinkat(at, name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
	}
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		if err := removeIn(at, name, path); err != nil {
			return err
		}
		err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
	}
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return nil
}

// removeIn removes all that is in the directory name.
func removeIn(at int, name, path string) error {
	fd, err := openToClear(at, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	defer unix.Close(fd)
	// Ours after a failed Restore may be read-only. If it is another's, the removals below say why they fail.
	_ = unix.Fchmod(fd, 0o700)
	var list names
	if err := list.read(fd, make([]byte, 8<<10), math.MaxInt32); err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	for i := range list.entries {
		child, _ := list.at(i)
		if err := removeAt(fd, child, path+"/"+child); err != nil {
			return err
		}
	}
	return nil
}

// openToClear opens a directory, making it readable for the owner if it is not.
func openToClear(at int, name string) (int, error) {
	const flags = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags|unix.O_RDONLY, 0)
	if err != unix.EACCES {
		return fd, err
	}
	// Chmod by name would follow a link that has taken its place.
	handle, err := unix.Openat(at, name, flags|unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(handle)
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", handle), 0o700); err != nil {
		return -1, err
	}
	return unix.Openat(handle, ".", flags|unix.O_RDONLY, 0)
}
