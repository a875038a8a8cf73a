package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// partialAge is when unfinished downloads are removed.
const partialAge = 7 * 24 * time.Hour

// openPartial opens and locks an unfinished download, waiting while another process works on it.
func (f *Fetcher) openPartial(ctx context.Context, name string) (*os.File, error) {
	dir := f.Partial
	if dir == "" {
		dir = f.Store.Dir() + ".partial"
	}
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	sweepPartial(dir)
	path := filepath.Join(dir, name)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(file, path) {
			return file, nil
		}
		file.Close()
		if err != nil && err != unix.EWOULDBLOCK {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if err != nil {
			if err := f.sleep(ctx, 200*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
}

// privateDir makes a directory, or makes sure that one that is there is ours alone: what lies in it is continued, and
// whoever could write to it while a download is checked could change it afterwards.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	const writable = 0o022
	if int(stat.Uid) == os.Geteuid() && stat.Mode&writable == 0 {
		return nil
	}
	return &sourceError{
		fmt.Sprintf("%s, where unfinished downloads are kept, is not this user's alone (owner %d, mode %04o)", dir, stat.Uid, stat.Mode&0o7777),
		"remove it, or make it this user's with mode 0700",
	}
}

// sameFile reports whether path still names the open file: its last owner may have removed it.
func sameFile(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// sweepPartial removes downloads that nobody came back for. What it cannot remove harms nobody.
func sweepPartial(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > partialAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// closePartial leaves an unfinished download for the next time, if there is anything of it.
func closePartial(file *os.File) {
	if info, err := file.Stat(); err == nil && info.Size() == 0 {
		os.Remove(file.Name()) // still locked, so it is ours
	}
	file.Close()
}
