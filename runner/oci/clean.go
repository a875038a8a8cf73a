package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// hold keeps an object from being cleaned away: a shared lock of its directory.
type hold struct {
	dir  string
	lock *os.File
}

// holdObject is ensure, with a hold on what it returns.
func (c *Cache) holdObject(ctx context.Context, o object, suspect bool) (*hold, error) {
	for {
		dir, err := c.ensure(ctx, o, suspect)
		if err != nil {
			return nil, err
		}
		lock, err := lockObject(ctx, dir)
		if err != nil {
			return nil, err
		}
		if lock != nil {
			return &hold{dir, lock}, nil
		} // it was cleaned away in between
	}
}

// lockObject locks the directory of an object; nil if it is not that of the object any more.
func lockObject(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	if same, err := isAt(f, dir); err != nil || !same {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isAt reports whether f is what there is at path.
func isAt(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, there), err
}

// letGo ends a hold. Until now, the object was in use.
func (c *Cache) letGo(h *hold) {
	c.touch(h.dir)
	h.lock.Close()
}

// Release says that a root is not used any more. Each Root that was returned is released once at most; Close releases the rest.
func (c *Cache) Release(r Root) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.held, func(h *hold) bool { return c.rootIn(h.dir) == r.Dir })
	if i >= 0 {
		c.letGo(c.held[i])
		c.held = slices.Delete(c.held, i, i+1)
	}
}

// CleanOptions say what Clean removes.
type CleanOptions struct {
	Unused time.Duration // since when a layer or root must not have been used; zero or less: any that is not in use
	DryRun bool          // only count
}

// Clean removes layers and roots that were not used for a time, and returns how many. What is in use anywhere, in this process or
// another, stays, and nobody waits: who needs what is being removed makes it anew. A root whose layers are gone is whole.
func (c *Cache) Clean(ctx context.Context, o CleanOptions) (removed int, err error) {
	for _, kind := range []string{rootsDir, layerDir} {
		entries, err := os.ReadDir(c.path(kind))
		if err != nil {
			return removed, fmt.Errorf("clean image cache %s: %w", c.dir, err)
		}
		for _, e := range entries {
			gone, err := c.cleanOne(kind, e.Name(), o)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return removed, fmt.Errorf("clean image cache %s: %w", c.dir, err)
			}
			if gone {
				removed++
			}
		}
	}
	return removed, nil
}

// cleanOne removes an object, unless it is in use, was used lately, or is being made.
func (c *Cache) cleanOne(kind, name string, o CleanOptions) (bool, error) {
	dir := c.path(kind, name)
	if c.usedLately(dir, o.Unused) {
		return false, nil
	}
	prefix := name[:min(2, len(name))]
	making, err := os.OpenFile(c.path(lockDir, kind+"-"+prefix), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return false, err
	}
	defer making.Close()
	if free, err := tryLock(making, unix.LOCK_EX); err != nil || !free {
		return false, err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if free, err := tryLock(f, unix.LOCK_EX); err != nil || !free {
		return false, err
	}
	if same, err := isAt(f, dir); err != nil || !same || c.usedLately(dir, o.Unused) {
		return false, err
	}
	if o.DryRun {
		return true, nil
	}
	return true, c.discard(dir)
}

// usedLately reports whether an object was used within a time. What has no seal is damaged, and nobody's.
func (c *Cache) usedLately(dir string, within time.Duration) bool {
	info, err := os.Lstat(c.seal(dir))
	return err == nil && within > 0 && c.now().Sub(info.ModTime()) < within
}
