package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
)

const (
	sealName  = "seal"
	indexName = "index"
	maxSeal   = 4 << 10 // bytes
)

// seal says what an object of the cache is, and when it was known to be so. It is written last. Its modification time
// is when the object was used last.
type seal struct {
	Index   digest.SHA256 `json:"index"`   // of the bytes of the object's index
	Boot    string        `json:"boot"`    // during which start of the machine it was checked
	Checked int64         `json:"checked"` // Unix seconds
}

// object is a layer or a root.
type object struct {
	kind string // layerDir or rootsDir
	id   digest.SHA256
	// make fills the empty directory and returns the object's index. suspect says that an earlier object of this name was
	// found damaged, so that what it was made of needs checking.
	make func(dir string, suspect bool) (index []byte, err error)
	// check compares the directory with the index.
	check func(dir string, index []byte) error
}

// ensure returns the directory of an object, which is made if it is not there, and made anew if it is damaged. With suspect, it is checked
// whenever it was checked before.
func (c *Cache) ensure(ctx context.Context, o object, suspect bool) (string, error) {
	dir := c.path(o.kind, o.id.Hex())
	if s, err := readSeal(dir); err == nil && !suspect && c.fresh(s) {
		c.touch(dir)
		return dir, nil
	}
	lock, err := lockFile(ctx, c.path(lockDir, o.kind+"-"+o.id.Hex()[:2]), unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	s, err := readSeal(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(dir); err == nil {
			suspect = true // no part of an object is ever missing but by damage
		}
		return dir, c.install(o, dir, suspect)
	case err == nil && !suspect && c.fresh(s):
		c.touch(dir)
		return dir, nil // somebody else was first
	case err == nil:
		if err = c.verify(o, dir, s); err == nil {
			return dir, c.reseal(dir, s)
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return dir, c.install(o, dir, true)
}

func (c *Cache) fresh(s seal) bool {
	if s.Boot == "" || s.Boot != c.boot {
		return false
	}
	age := c.now().Sub(time.Unix(s.Checked, 0))
	return c.recheck < 0 || age >= 0 && age < c.recheck
}

// touch remembers that an object was used. Only Clean reads it, so an error, on a read-only cache, say, changes nothing.
func (c *Cache) touch(dir string) {
	now := c.now()
	_ = os.Chtimes(c.seal(dir), now, now)
}

// seal is the path of an object's seal.
func (c *Cache) seal(dir string) string { return filepath.Join(dir, sealName) }

// verify reads all of an object.
func (c *Cache) verify(o object, dir string, s seal) error {
	index, err := readIndex(dir, s)
	if err != nil {
		return err
	}
	return o.check(dir, index)
}

// install makes an object and puts it in place, instead of a damaged one.
func (c *Cache) install(o object, dir string, suspect bool) error {
	temp, drop, err := c.temp()
	if err != nil {
		return err
	}
	defer drop()
	made := filepath.Join(temp, "object")
	if err := os.Mkdir(made, 0o755); err != nil {
		return err
	}
	index, err := o.make(made, suspect)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, indexName), index, 0o644); err != nil {
		return err
	}
	if err := c.reseal(made, seal{Index: digest.Of(index)}); err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(temp, "damaged")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(made, dir)
}

// reseal says that an object was checked just now.
func (c *Cache) reseal(dir string, s seal) error {
	s.Boot, s.Checked = c.boot, c.now().Unix()
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+sealName)
	if err := os.WriteFile(temp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, sealName)); err != nil {
		return err
	}
	c.touch(dir)
	return nil
}

func readSeal(dir string) (seal, error) {
	data, err := readSmall(filepath.Join(dir, sealName), maxSeal)
	if err != nil {
		return seal{}, err
	}
	var s seal
	if err := json.Unmarshal(data, &s); err != nil || s.Index.IsZero() {
		return seal{}, fmt.Errorf("read %s: it is damaged", filepath.Join(dir, sealName))
	}
	return s, nil
}

// readIndex reads the index that a seal names.
func readIndex(dir string, s seal) ([]byte, error) {
	index, err := readSmall(filepath.Join(dir, indexName), maxIndex+maxSeal)
	if err == nil && digest.Of(index) != s.Index {
		err = fmt.Errorf("read %s: %w", filepath.Join(dir, indexName), errIndex)
	}
	return index, err
}

// readSmall reads a file of at most max bytes.
func readSmall(path string, max int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > max {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", path, max)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}
