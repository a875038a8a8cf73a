package namespace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// maxSpread bounds the entries of a read-only directory into which a mount point must be put; see spread.
const maxSpread = 4096

// epoch is the time that the driver gives to the directories it makes: they must not tell when the run was.
const epoch = 1

// tree makes the file system of a confinement.
//
// Its root is the first mount if that is at "/", and an empty directory in memory otherwise. Mount points that do not
// exist are made: on a writable mount as they are; a read-only directory is spread first, which means that a small
// file system in memory takes its place in which every entry of the original is mounted again. That needs neither
// overlayfs nor write access, and works in any user namespace. At the end everything that the driver made is
// read-only, so that nothing is writable but what the Spec says.
//
// No symbolic link inside the tree is ever followed: a mount whose target is one, or lies behind one, is refused.
type tree struct {
	root    int // the topmost mount at "/"
	dev     int // the file system in memory at "/dev"
	owner   owner
	scratch int64    // bytes of a tmpfs that names no size
	sealed  []int    // mounts to make read-only at the end
	named   []string // files in dev whose names are removed at the end
	stamped []string // directories that get the time epoch at the end
	lastPID int      // /proc/sys/kernel/ns_last_pid, open for writing; -1 if there is none
}

// build makes the mounts on top of the host's root directory, with inside's /proc and /dev. An optional mount is left out where a
// symbolic link is in its way.
func (t *tree) build(mounts, optional []runner.Mount, inside func() error) error {
	rest, err := t.makeRoot(mounts)
	if err != nil {
		return err
	}
	if err := inside(); err != nil { // /proc and /dev, before what may lie in them
		return err
	}
	for _, m := range rest {
		if err := t.mount(m); err != nil {
			return fmt.Errorf("%s mount %s: %w", m.Kind, m.Target, err)
		}
	}
	for _, m := range optional {
		err := t.mount(m)
		if _, ok := errors.AsType[*linkError](err); err != nil && !ok {
			return fmt.Errorf("%s mount %s: %w", m.Kind, m.Target, err)
		}
	}
	return t.finish()
}

// makeRoot attaches the root over the host's and returns the mounts that remain to be made.
func (t *tree) makeRoot(mounts []runner.Mount) (rest []runner.Mount, err error) {
	rest = mounts
	var fd int
	if len(mounts) > 0 && mounts[0].Target == "/" && mounts[0].Kind != runner.Copy {
		rest = mounts[1:]
		if fd, err = t.source(mounts[0]); err != nil {
			return nil, fmt.Errorf("%s mount /: %w", mounts[0].Kind, err)
		}
		if kind, err := typeOf(fd); err != nil || kind != unix.S_IFDIR {
			return nil, fmt.Errorf("%s mount /: source is not a directory", mounts[0].Kind)
		}
	} else {
		if fd, err = newTmpfs(0, 0o755, t.owner); err != nil {
			return nil, err
		}
		t.sealed = append(t.sealed, fd)
		t.stamped = append(t.stamped, "/")
	}
	host, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(host)
	if err := attach(fd, host); err != nil {
		return nil, err
	}
	t.root = fd
	return rest, nil
}

// mount adds one mount of the Spec.
func (t *tree) mount(m runner.Mount) error {
	if m.Kind == runner.Copy {
		return t.copy(m)
	}
	fd, err := t.source(m)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kind, err := typeOf(fd)
	if err != nil {
		return err
	}
	if kind == unix.S_IFLNK {
		return t.link(m, fd)
	}
	if err := t.attachAt(fd, m.Target, kind == unix.S_IFDIR); err != nil {
		return err
	}
	if m.Kind == runner.Tmpfs {
		t.stamped = append(t.stamped, m.Target)
	}
	return nil
}

// source returns the detached mount that m asks for.
func (t *tree) source(m runner.Mount) (int, error) {
	if m.Kind == runner.Tmpfs {
		size := m.Size
		if size == 0 {
			size = t.scratch
		}
		perm := uint32(0o755)
		if m.Target == "/tmp" || m.Target == "/var/tmp" {
			perm = 0o1777
		}
		return newTmpfs(size, perm, t.owner)
	}
	fd, err := t.original(m)
	if err != nil {
		return -1, err
	}
	attributes := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if !m.Writable {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	if err := restrictMount(fd, attributes); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// original returns a detached mount of what a Bind or Data shows.
func (t *tree) original(m runner.Mount) (int, error) {
	if m.Kind == runner.Data {
		return t.newFile(m.Content)
	}
	return cloneTree(unix.AT_FDCWD, m.Source)
}

// newFile returns a detached mount of a new file. The file lies in /dev, the one file system in memory that every
// confinement has, since a mount can only be made of what is mounted itself; finish removes its name there.
func (t *tree) newFile(content []byte) (int, error) {
	name := ".data" + strconv.Itoa(len(t.named))
	fd, err := unix.Openat(t.dev, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return -1, fmt.Errorf("create file: %w", err)
	}
	t.named = append(t.named, name)
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return -1, fmt.Errorf("write file: %w", err)
	}
	if err := unix.Fchown(fd, t.owner.uid, t.owner.gid); err != nil {
		return -1, fmt.Errorf("give file away: %w", err)
	}
	if err := stampLink(t.dev, name, epoch); err != nil {
		return -1, fmt.Errorf("set time of file: %w", err)
	}
	return cloneTree(t.dev, name)
}

// link makes the symbolic link that the source of m is, since a link cannot be mounted.
func (t *tree) link(m runner.Mount, source int) error {
	target, err := readLink(source, "")
	if err != nil {
		return err
	}
	parent, err := t.directory(path.Dir(m.Target), true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Symlinkat(target, parent, path.Base(m.Target)); err != nil {
		return err
	}
	return stampLink(parent, path.Base(m.Target), epoch)
}

// attachAt puts the detached mount fd at target, which is made if it does not exist.
func (t *tree) attachAt(fd int, target string, dir bool) error {
	point, err := t.point(target, dir)
	if err != nil {
		return err
	}
	defer unix.Close(point)
	return attach(fd, point)
}

// point opens the place target, making it and its parents where they are missing.
func (t *tree) point(target string, dir bool) (int, error) {
	fd, err := t.open(target, unix.O_PATH)
	if err == unix.ENOENT {
		fd, err = t.create(target, dir)
		if err != nil {
			return -1, err
		}
	} else if err != nil {
		return -1, describeLink(target, err)
	}
	kind, err := typeOf(fd)
	if err == nil && (kind == unix.S_IFDIR) != dir {
		err = fmt.Errorf("%s: source and target are not both directories or both files", target)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// create makes target, whose parents may be missing too, and opens it.
func (t *tree) create(target string, dir bool) (int, error) {
	parent, err := t.directory(path.Dir(target), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := t.make(parent, path.Base(target), dir); err != nil {
		return -1, fmt.Errorf("create mount point %s: %w", target, err)
	}
	fd, err := t.open(target, unix.O_PATH)
	if err != nil {
		return -1, describeLink(target, err)
	}
	return fd, nil
}

func (t *tree) make(parent int, name string, dir bool) error {
	var err error
	if dir {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		err = unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return err
	}
	return unix.Fchownat(parent, name, t.owner.uid, t.owner.gid, unix.AT_SYMLINK_NOFOLLOW)
}

// directory opens the directory dir, making it where it is missing; if entries are to be added to it, it is spread
// where it is read-only.
func (t *tree) directory(dir string, add bool) (int, error) {
	fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == unix.ENOENT {
		t.stamped = append(t.stamped, dir)
		return t.create(dir, true)
	}
	if err != nil {
		return -1, describeLink(dir, err)
	}
	if add && readOnly(fd) {
		unix.Close(fd)
		return t.spread(dir)
	}
	return fd, nil
}

// spread replaces the read-only directory dir by one in memory with the same entries, and returns it.
func (t *tree) spread(dir string) (int, error) {
	old, err := t.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, describeLink(dir, err)
	}
	file := fileOf(old, dir)
	defer file.Close()
	names, err := file.Readdirnames(maxSpread + 1)
	if err != nil && err != io.EOF {
		return -1, fmt.Errorf("read directory %s: %w", dir, err)
	}
	if len(names) > maxSpread {
		return -1, fmt.Errorf("directory %s is read-only and has more than %d entries: a mount point cannot be added to it", dir, maxSpread)
	}
	slices.Sort(names)
	fd, err := t.cover(dir, old)
	if err != nil {
		return -1, err
	}
	for _, name := range names {
		if err := t.carry(old, fd, name); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("keep %s: %w", path.Join(dir, name), err)
		}
	}
	return fd, nil
}

// cover attaches an empty file system in memory over the directory old, which is at dir.
func (t *tree) cover(dir string, old int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(old, &st); err != nil {
		return -1, err
	}
	fd, err := newTmpfs(0, st.Mode&0o777, t.owner)
	if err != nil {
		return -1, err
	}
	if err := attach(fd, old); err != nil {
		unix.Close(fd)
		return -1, err
	}
	keep, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if dir == "/" {
		t.root = keep
	}
	t.sealed = append(t.sealed, keep)
	t.stamped = append(t.stamped, dir)
	return fd, nil
}

// carry makes the entry name of the directory old appear in the directory new as well.
func (t *tree) carry(old, new int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(old, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := readLink(old, name)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, new, name); err != nil {
			return err
		}
		return stampLink(new, name, epoch)
	}
	if err := t.make(new, name, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	fd, err := cloneTree(old, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	point, err := openInside(new, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(point)
	return attach(fd, point)
}

// finish gives what the driver made its fixed time, and makes it read-only.
func (t *tree) finish() error {
	for _, name := range t.named {
		if err := unix.Unlinkat(t.dev, name, 0); err != nil {
			return fmt.Errorf("remove name of file: %w", err)
		}
	}
	for _, dir := range t.stamped {
		fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return describeLink(dir, err)
		}
		if !readOnly(fd) {
			err = stampLink(fd, ".", epoch)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set time of %s: %w", dir, err)
		}
	}
	for _, fd := range t.sealed {
		if err := seal(fd); err != nil {
			return err
		}
	}
	return nil
}

// open opens the absolute path of the confinement.
func (t *tree) open(target string, flags int) (int, error) {
	return openInside(t.root, "./"+strings.TrimPrefix(target, "/"), flags)
}

// enter makes t's root the root directory of the process and drops the host's file system.
func (t *tree) enter() error {
	if err := unix.Fchdir(t.root); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host's root: %w", err)
	}
	return unix.Chdir("/")
}

// typeOf returns the S_IFMT bits of what fd is open on.
func typeOf(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT, err
}

// readOnly reports whether the mount of fd is read-only.
func readOnly(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

func readLink(dirfd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	return string(buf[:n]), nil
}

// stampLink sets the modification and access time of name, in Unix seconds, and not of what it may point to.
func stampLink(dirfd int, name string, seconds int64) error {
	ts := []unix.Timespec{unix.NsecToTimespec(seconds * 1e9), unix.NsecToTimespec(seconds * 1e9)}
	return unix.UtimesNanoAt(dirfd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}
