package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
	"arch.network/runner/gas"
)

// The files of a cache entry, a directory that is named by its key.
const (
	entryCode   = "code"        // as wazero writes it: mapped and executed by workers
	entryModule = "module.wasm" // the metered module that it belongs to
	entryName   = "name"        // of the code in wazero's own cache directory
)

// cache is a directory of machine code. Nobody but its owner may write to it. What is in it was made by a worker that did
// nothing else, is stored whole or not at all, and never changes.
type cache struct {
	dir  string
	size int64 // bytes that it may hold

	mu   sync.Mutex          // guards busy
	busy map[string]*pending // keys that are being made
}

// pending is an entry that somebody is making.
type pending struct {
	done chan struct{} // closed when it is there, or could not be made
}

// defaultCacheSize is Options.CacheSize where that is zero: bytes.
const defaultCacheSize = 4 << 30

func openCache(dir string, size int64) (*cache, error) {
	refuse := func(err error, cure string) error {
		return &runner.SetupError{Act: fmt.Sprintf("open code cache %q", dir), Err: err, Cure: cure}
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, refuse(err, "")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, refuse(err, "")
	}
	if info.Mode().Perm()&0o022 != 0 || !ownedByUs(info) {
		return nil, refuse(errors.New("others may write to it, and what is in it is executed"), "chown it to the user that runs this, and chmod go-w it")
	}
	if size == 0 {
		size = defaultCacheSize
	}
	return &cache{dir: dir, size: size, busy: map[string]*pending{}}, nil
}

// storedEntry is an entry on disk.
type storedEntry struct {
	module, code string // paths
	name         string
}

// cacheKey names what machine code depends on: the module, what was inserted into it and how, the engine, and the processor.
func cacheKey(module []byte, extension string) string {
	text, err := json.Marshal([]string{
		"arch wasm code 1", digest.Of(module).Hex(), gas.Version, "canonical NaN", extension,
		"wazero " + wazeroVersion, runtime.GOOS, runtime.GOARCH, cpuFeatures(),
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	return digest.Of(text).Hex()
}

// cpuFeatures is what the kernel says the first processor can do: proc(5), /proc/cpuinfo.
var cpuFeatures = sync.OnceValue(func() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); name == "flags" || name == "Features" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
})

// get returns an entry, and nil if there is none. It notes the use.
func (c *cache) get(key string) *storedEntry {
	dir := filepath.Join(c.dir, key)
	name, err := os.ReadFile(filepath.Join(dir, entryName))
	if err != nil || !codeName().MatchString(string(name)) {
		return nil
	}
	now := time.Now()
	os.Chtimes(dir, now, now) // its age only decides what goes first
	return &storedEntry{filepath.Join(dir, entryModule), filepath.Join(dir, entryCode), string(name)}
}

// claim says that the caller makes the entry, and calls done afterwards; or waits while another does so, and returns false.
func (c *cache) claim(ctx context.Context, key string) (done func(), mine bool, err error) {
	c.mu.Lock()
	p, found := c.busy[key]
	if !found {
		p = &pending{make(chan struct{})}
		c.busy[key] = p
	}
	c.mu.Unlock()
	if !found {
		return func() {
			c.mu.Lock()
			delete(c.busy, key)
			c.mu.Unlock()
			close(p.done)
		}, true, nil
	}
	select {
	case <-p.done:
		return nil, false, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// store reads an entry as a worker has made it, which may be hostile, and keeps it under key if it has the form of one. What
// code in it does is for the worker that runs this same module to suffer.
func (c *cache) store(key string, archive io.Reader) error {
	temp, err := os.MkdirTemp(c.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := unpackEntry(temp, archive); err != nil {
		return fmt.Errorf("store machine code: %w", err)
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	c.makeRoom(temp)
	err = os.Rename(temp, filepath.Join(c.dir, key))
	if errors.Is(err, fs.ErrExist) { // another process was faster
		return nil
	}
	return err
}

// unpackEntry writes the three files of an entry, and refuses everything else.
func unpackEntry(dir string, archive io.Reader) error {
	r := nar.NewReader(archive, nar.Limits{Size: 2 * scratchSize, Entries: 4})
	found := 0
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if e.Path == "" && e.Type == nar.Directory {
			continue
		}
		if e.Type != nar.Regular || !slices.Contains([]string{entryCode, entryModule, entryName}, e.Path) {
			return fmt.Errorf("unexpected %s %q", e.Type, e.Path)
		}
		if e.Path == entryName && e.Size > 128 || e.Path == entryModule && e.Size > 4*maxModule {
			return fmt.Errorf("%q has %d bytes", e.Path, e.Size)
		}
		if err := writeSynced(filepath.Join(dir, e.Path), r); err != nil {
			return err
		}
		found++
	}
	name, err := os.ReadFile(filepath.Join(dir, entryName))
	if err != nil || found != 3 || !codeName().MatchString(string(name)) {
		return fmt.Errorf("it has %d files of 3, and name %q", found, name)
	}
	return nil
}

func writeSynced(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Sync(), f.Close())
}

// fresh is how long ago an entry was last used if it may be in use still: it is not removed, for a run may be about to mount it.
const fresh = 10 * time.Minute

// makeRoom removes what was used least recently until the new entry fits. It is best effort: what cannot be removed, stays.
func (c *cache) makeRoom(temp string) {
	type old struct {
		path string
		used time.Time
		size int64
	}
	var all []old
	total := sizeOf(temp)
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || filepath.Join(c.dir, e.Name()) == temp {
			continue
		}
		o := old{filepath.Join(c.dir, e.Name()), info.ModTime(), sizeOf(filepath.Join(c.dir, e.Name()))}
		total += o.size
		if time.Since(o.used) > fresh {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b old) int { return a.used.Compare(b.used) })
	for _, o := range all {
		if total <= c.size && !strings.HasPrefix(filepath.Base(o.path), ".new-") {
			continue
		}
		os.RemoveAll(o.path)
		total -= o.size
	}
}

// sizeOf sums the files of an entry.
func sizeOf(dir string) int64 {
	var total int64
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total
}
