package wasi

// Tree is a tree of files that a module may see as a directory. OpenHost and NewMemory make them. Paths that its methods
// take are relative, have no NUL byte, and were checked not to begin by leaving the tree; a Tree itself sees to it that
// symbolic links do not lead out of it. The empty path and "." are its root.
type Tree interface {
	// Close gives back what the Tree holds.
	Close() error

	// open opens the regular file at path, or says that there is a directory, for which file is nil.
	open(path string, how opening) (file, stat, errno)
	stat(path string, follow bool) (stat, errno)
	// list returns the entries of a directory in any order, without "." and "..".
	list(path string) ([]entry, errno)
	mkdir(path string) errno
	rmdir(path string) errno
	unlink(path string) errno
	rename(from, to string) errno
	link(from, to string) errno
	symlink(target, path string) errno
	readlink(path string) (string, errno)
	// setTimes sets times in nanoseconds since 1970; nil leaves one as it is.
	setTimes(path string, follow bool, accessed, modified *int64) errno
}

// opening says how a file is opened.
type opening struct {
	read, write, create, exclusive, truncate, directory, follow bool
}

// entry is one name in a directory.
type entry struct {
	name string
	kind fileType
}

// maxEntries is how many entries a directory may have to be listed: 64 MiB of names or so.
const maxEntries = 1 << 18

// file is an open regular file. It has no position of its own.
type file interface {
	readAt(b []byte, off int64) (int, errno) // fewer bytes than asked for at the end, without an error
	writeAt(b []byte, off int64) (int, errno)
	stat() (stat, errno)
	truncate(size int64) errno
	sync() errno
	setTimes(accessed, modified *int64) errno
	close() errno
}
