package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/builder/source/unpack"
)

// Options are the settings of a Cache.
type Options struct {
	Dir    string        // the cache; made if it is not there; required
	Limits unpack.Limits // of each layer, and of all layers of an image together
	// Recheck is how long after a layer or root was checked it is used without being checked again. Zero: 24 hours; below zero: for
	// as long as the machine is not restarted.
	Recheck time.Duration
	Now     func() time.Time // nil: time.Now
}

// Cache keeps layers and root file systems: see the package documentation. Its methods may be called from several goroutines.
type Cache struct {
	dir     string
	limits  unpack.Limits
	recheck time.Duration
	now     func() time.Time
	boot    string // the kernel's boot id; empty: unknown

	mu   sync.Mutex // guards held
	held []*hold    // of the roots that Root returned
}

const (
	versionText = "arch images 1\n"
	newVersion  = ".version-" // prefix of a version file that is being written
)

const (
	layerDir = "layers"
	rootsDir = "roots"
	lockDir  = "locks"
	tempDir  = "tmp"
)

// CacheError says that a directory cannot be a cache.
type CacheError struct {
	Dir   string
	Cause string
	Cure  string
}

func (e *CacheError) Error() string { return fmt.Sprintf("image cache %s: %s", e.Dir, e.Cause) }

// Hint tells the way out.
func (e *CacheError) Hint() string { return e.Cure }

// Open opens the cache, and removes what dead processes left half done. The caller closes it when no root is in use any more.
func Open(ctx context.Context, o Options) (*Cache, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, &CacheError{Dir: o.Dir, Cause: "no directory is named", Cure: "name one"}
	}
	c := &Cache{dir: dir, limits: o.Limits, recheck: o.Recheck, now: o.Now, boot: bootID()}
	if c.recheck == 0 {
		c.recheck = 24 * time.Hour
	}
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.prepare(); err != nil {
		if _, ok := errors.AsType[*CacheError](err); ok {
			return nil, err
		}
		return nil, fmt.Errorf("open image cache %s: %w", dir, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open image cache %s: %w", dir, err)
	}
	c.sweep() // what cannot be removed now harms nothing, and is tried again next time
	return c, nil
}

// Close releases the roots that were not released yet. They may be cleaned away afterwards.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		c.letGo(h)
	}
	c.held = nil
	return nil
}

func (c *Cache) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// bootID tells one start of the machine from another: proc_sys_kernel(5).
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// prepare makes the cache, or checks that it is one of this version and of this user.
func (c *Cache) prepare() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := c.refuseOthers(); err != nil {
		return err
	}
	text, err := os.ReadFile(c.path("version"))
	switch {
	case err == nil && string(text) == versionText:
		return nil
	case err == nil:
		return &CacheError{c.dir, fmt.Sprintf("its version file says %.40q, this program knows %q", text, versionText), "remove the directory: all of it can be made again"}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return c.create()
}

// refuseOthers returns an error if somebody else could put into the cache what would then be run.
func (c *Cache) refuseOthers() error {
	var st unix.Stat_t
	if err := unix.Stat(c.dir, &st); err != nil {
		return err
	}
	const others = 0o022
	if st.Mode&others != 0 {
		return &CacheError{c.dir, fmt.Sprintf("others may write to it (mode %04o)", st.Mode&0o7777), "`chmod go-w` it if nobody else has written there, or name another directory"}
	}
	if me := os.Geteuid(); int(st.Uid) != me && st.Uid != 0 {
		return &CacheError{c.dir, fmt.Sprintf("it belongs to user %d", st.Uid), "name a directory of your own: what is in a cache is run"}
	}
	return nil
}

// create may run in two processes at the same time. The version file is last.
func (c *Cache) create() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case layerDir, rootsDir, lockDir, tempDir, "version":
		default:
			if strings.HasPrefix(e.Name(), newVersion) {
				continue
			}
			return &CacheError{c.dir, fmt.Sprintf("it is no cache and holds other files, such as %q", e.Name()), "name an empty or a new directory"}
		}
	}
	for _, name := range []string{layerDir, rootsDir, lockDir, tempDir} {
		if err := os.Mkdir(c.path(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	temp, err := os.CreateTemp(c.dir, newVersion)
	if err != nil {
		return err
	}
	_, err = temp.WriteString(versionText)
	return errors.Join(err, temp.Close(), os.Rename(temp.Name(), c.path("version")))
}

// temp makes a directory for the life of this process. The caller calls drop, which removes what is left of it.
func (c *Cache) temp() (dir string, drop func(), err error) {
	dir = c.path(tempDir, rand.Text())
	for {
		lock, err := lockFile(context.Background(), dir+".lock", unix.LOCK_EX)
		if err != nil {
			return "", nil, err
		}
		// A sweep may have taken the file for a dead process's between its making and its locking.
		var st unix.Stat_t
		if err := unix.Fstat(int(lock.Fd()), &st); err == nil && st.Nlink > 0 {
			drop = func() {
				os.RemoveAll(dir)
				os.Remove(dir + ".lock")
				lock.Close()
			}
			break
		}
		lock.Close()
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		drop()
		return "", nil, err
	}
	return dir, drop, nil
}

// sweep removes the temporary directories of dead processes.
func (c *Cache) sweep() {
	entries, err := os.ReadDir(c.path(tempDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			continue
		}
		lock, err := os.OpenFile(c.path(tempDir, e.Name()), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if ok, err := tryLock(lock, unix.LOCK_EX); ok && err == nil {
			if os.RemoveAll(c.path(tempDir, name)) == nil {
				os.Remove(c.path(tempDir, e.Name()))
			}
		}
		lock.Close()
	}
}

// discard makes an object disappear at once, and then removes it.
func (c *Cache) discard(path string) error {
	temp, drop, err := c.temp()
	if err != nil {
		return err
	}
	defer drop()
	return os.Rename(path, filepath.Join(temp, "discarded"))
}
