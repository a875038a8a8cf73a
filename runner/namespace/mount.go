package namespace

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The mount interface by file descriptors (Linux 5.2 to 5.12): nothing here is found by a path twice.

// cloneTree returns a detached copy of the mount tree at path below dirfd, with every mount inside it. A symbolic link
// at the end of path is not followed. Mounts of the host that hide something below them stay in place.
func cloneTree(dirfd int, path string) (int, error) {
	fd, err := unix.OpenTree(dirfd, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("clone mount %q: %w", path, err)
	}
	return fd, nil
}

// restrictMount adds attributes (MOUNT_ATTR_…) to every mount of the tree fd and takes it out of the host's propagation.
func restrictMount(fd int, attributes uint64) error {
	attr := unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("restrict mount: %w", err)
	}
	return nil
}

// seal makes the one mount of fd read-only, but not the mounts inside it.
func seal(fd int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make mount read-only: %w", err)
	}
	return nil
}

// option is a mount option of a file system.
type option struct{ key, value string }

// newFileSystem returns a detached mount of a new file system of that type.
func newFileSystem(kind string, attributes int, options ...option) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return -1, fmt.Errorf("set option %s=%s of %s: %w", o.key, o.value, kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create file system %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("mount file system %s: %w", kind, err)
	}
	return fd, nil
}

// owner is who owns what is created inside, as ids of the confinement.
type owner struct{ uid, gid int }

// A file system in memory of limited size is limited in files as well: each takes a kilobyte of the kernel's memory, which its
// size does not count. Every file that is not empty takes a page of 4096 bytes, so that only twice as many others hit the limit.
const (
	bytesPerInode = 2048
	leastInodes   = 1024
)

// newTmpfs returns a detached, empty file system in memory of at most size bytes (zero: the kernel's default, half of
// the memory), whose root has that mode.
func newTmpfs(size int64, perm uint32, o owner) (int, error) {
	options := []option{
		{"mode", strconv.FormatUint(uint64(perm), 8)},
		{"uid", strconv.Itoa(o.uid)},
		{"gid", strconv.Itoa(o.gid)},
	}
	if size > 0 {
		inodes := max(size/bytesPerInode, leastInodes)
		options = append(options, option{"size", strconv.FormatInt(size, 10)}, option{"nr_inodes", strconv.FormatInt(inodes, 10)})
	}
	return newFileSystem("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...)
}

// attach puts the detached mount fd on what target, an O_PATH descriptor, names.
func attach(fd, target int) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(fd, "", target, "", flags); err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}

// openInside opens path, which is relative to the directory root, without leaving root and without following any
// symbolic link, be it of the tree or of /proc.
func openInside(root int, path string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if err == unix.EINTR || err == unix.EAGAIN { // EAGAIN: a rename raced with the walk
			continue
		}
		return fd, err
	}
}

// describeLink turns the kernel's word for a symbolic link in the way into one that a person understands.
func describeLink(path string, err error) error {
	if errors.Is(err, unix.ELOOP) {
		return &linkError{path}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// linkError says that a symbolic link is in the way. It is an ELOOP.
type linkError struct{ path string }

func (e *linkError) Error() string { return e.path + ": is, or lies behind, a symbolic link" }
func (e *linkError) Unwrap() error { return unix.ELOOP }

// fileOf wraps fd for reading its directory; the file then owns fd.
func fileOf(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
