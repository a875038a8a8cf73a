package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
)

// cache keeps content that was received, by digest, in a directory that only the broker may write to:
//
//	lock           flock: exclusive for the life of the broker
//	boot           the kernel's boot id: what an earlier boot left may be half written, and is removed
//	blobs/HEX      the bytes, 0444
//	trees/HEX      a file, directory or link; files 0444 or 0555, directories 0555
//	modules/HEX    the files of a Go module, by the hash of its go.sum line; modes as above
//	images/HEX     the root file system of an image, by the hash of its manifest; modes as above
//
// What is there has been hashed while it was written, or was made of such, and nobody else can change it. Nothing is synced: it can be sent again.
type cache struct {
	dir  string
	lock *os.File
	max  int64 // bytes from which on what no job uses is removed

	mu      sync.Mutex // guards objects
	objects map[string]*object
}

// object is one piece of content that is there.
type object struct {
	size int64
	used time.Time // when a job took it last
	jobs int       // how many have it now
}

const (
	blobDir    = "blobs"
	treeDir    = "trees"
	moduleDir  = "modules"
	imageDir   = "images"
	tempPrefix = ".tmp-"
)

// contentDirs are where content lies.
func contentDirs() []string { return []string{blobDir, treeDir, moduleDir, imageDir} }

// openCache opens or makes the directory, and removes what was left half done.
func openCache(dir string, max int64) (_ *cache, err error) {
	c := &cache{dir: dir, max: max, objects: map[string]*object{}}
	if err := makeOwn(dir); err != nil {
		return nil, err
	}
	if c.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.lock.Close()
		}
	}()
	if err := unix.Flock(int(c.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, &fileError{dir, "another broker uses it", "stop that one, or name another directory"}
	}
	if err := c.forgetOtherBoots(); err != nil {
		return nil, err
	}
	for _, name := range contentDirs() {
		if err := makeOwn(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		if err := c.scan(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// makeOwn makes a directory that nobody else may write to, or checks that it is one.
func makeOwn(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &fileError{dir, "it is no directory", "name another one"}
	case int(st.Uid) != os.Geteuid():
		return &fileError{dir, fmt.Sprintf("it belongs to user %d", st.Uid), "name a directory of the broker's own"}
	case st.Mode&0o022 != 0:
		return &fileError{dir, fmt.Sprintf("its mode is %04o: others may write to it", st.Mode&0o777), "chmod go-w it if nobody has, or name another directory"}
	}
	return nil
}

// forgetOtherBoots empties the cache if the machine was started since it was written.
func (c *cache) forgetOtherBoots() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	name := filepath.Join(c.dir, "boot")
	if was, err := os.ReadFile(name); err == nil && string(was) == string(boot) {
		return nil
	}
	for _, sub := range contentDirs() {
		if err := nar.RemoveAll(filepath.Join(c.dir, sub)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.WriteFile(name, boot, 0o600)
}

// scan finds what is there.
func (c *cache) scan(sub string) error {
	list, err := os.ReadDir(filepath.Join(c.dir, sub))
	if err != nil {
		return err
	}
	for _, entry := range list {
		at := filepath.Join(c.dir, sub, entry.Name())
		if strings.HasPrefix(entry.Name(), tempPrefix) {
			if err := nar.RemoveAll(at); err != nil {
				return err
			}
			continue
		}
		o := &object{}
		err := filepath.WalkDir(at, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				o.size += info.Size()
				o.used = info.ModTime()
			}
			return err
		})
		if err != nil {
			return err
		}
		c.objects[filepath.Join(sub, entry.Name())] = o
	}
	return nil
}

// close gives up the directory. What is in it stays.
func (c *cache) close() error { return c.lock.Close() }

func objectName(kind ContentKind, d digest.SHA256) string {
	dir := map[ContentKind]string{Blob: blobDir, Tree: treeDir, Module: moduleDir}[kind]
	return filepath.Join(dir, d.Hex())
}

// take returns the path of an object for a job, if it is there. It stays until release.
func (c *cache) take(name string) (path string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.objects[name]
	if !ok {
		return "", false
	}
	o.jobs++
	o.used = time.Now()
	return filepath.Join(c.dir, name), true
}

// release gives back what take returned, and makes room.
func (c *cache) release(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		c.objects[name].jobs--
	}
	c.evict()
}

// evict removes what was used longest ago, until the rest fits or is in use.
func (c *cache) evict() {
	var total int64
	var idle []string
	for name, o := range c.objects {
		total += o.size
		if o.jobs == 0 {
			idle = append(idle, name)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return c.objects[a].used.Compare(c.objects[b].used) })
	for _, name := range idle {
		if total <= c.max {
			return
		}
		if nar.RemoveAll(filepath.Join(c.dir, name)) == nil {
			total -= c.objects[name].size
			delete(c.objects, name)
		}
	}
}

// receive writes what r gives to the cache, if that is what ref pins by the digest want. At most limit bytes are taken; size is how
// many came.
func (c *cache) receive(ctx context.Context, kind ContentKind, want digest.SHA256, ref manifest.Ref, r io.Reader, limit int64) (size int64, err error) {
	name := objectName(kind, want)
	temp := filepath.Join(c.dir, filepath.Dir(name), tempPrefix+rand.Text())
	var sum digest.Writer
	in := io.TeeReader(&limitedReader{r: r, left: limit}, &sum)
	if kind == Blob {
		err = writeBlob(temp, in)
	} else {
		err = nar.Restore(ctx, in, temp, nar.RestoreOptions{Limits: nar.Limits{Size: limit}})
	}
	size = sum.Size()
	got := sum.Sum()
	if err == nil && kind == Module {
		got, err = moduleSum(temp, ref)
	}
	if err == nil && got != want {
		err = refuse(CodeDigest, "fetch it again: what the client has is not what the document pins", "the %s that was sent as %s has the digest %s", kind, want, got)
	}
	if err == nil {
		err = c.install(temp, name, size)
	}
	if err != nil {
		if e := nar.RemoveAll(temp); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return size, err
	}
	return size, nil
}

// derive makes an object of others: what fill puts into an empty directory, in the form in which trees are kept.
func (c *cache) derive(ctx context.Context, name string, fill func(dir string) error) error {
	temp := filepath.Join(c.dir, filepath.Dir(name), tempPrefix+rand.Text())
	raw := temp + "-raw"
	defer nar.RemoveAll(raw)
	err := os.Mkdir(raw, 0o700)
	if err == nil {
		err = fill(raw)
	}
	if err != nil {
		return err
	}
	archive := DumpTree(ctx, raw)
	var sum digest.Writer
	err = nar.Restore(ctx, io.TeeReader(archive, &sum), temp, nar.RestoreOptions{})
	archive.Close()
	if err != nil {
		return err // it left nothing
	}
	if err := c.install(temp, name, sum.Size()); err != nil {
		return errors.Join(err, nar.RemoveAll(temp))
	}
	return nil
}

func writeBlob(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// install gives an object its name, unless another job has brought it meanwhile.
func (c *cache) install(temp, name string, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.objects[name] != nil {
		return nar.RemoveAll(temp)
	}
	if err := os.Rename(temp, filepath.Join(c.dir, name)); err != nil {
		return err
	}
	c.objects[name] = &object{size: size, used: time.Now()}
	return nil
}

// limitedReader fails when there is more than left.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return 0, refuse(CodeContent, "raise the broker's limit of content, or split the job", "its content is larger than the broker takes for one job")
	}
	return n, err
}
