package wasm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest/nar"
)

const goodName = "wazero-v1.12.0-amd64-linux/" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// entryArchive is what a compiling worker hands out: files by name; a content that begins with "->" is a link's target, one
// that is "/" a directory.
func entryArchive(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b, nar.Limits{})
	err := w.WriteEntry(nar.Entry{Type: nar.Directory})
	for _, f := range files {
		if err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(f[1], "->")
		switch {
		case link:
			err = w.WriteEntry(nar.Entry{Path: f[0], Type: nar.Symlink, Target: target})
		case f[1] == "/":
			err = w.WriteEntry(nar.Entry{Path: f[0], Type: nar.Directory})
		default:
			if err = w.WriteEntry(nar.Entry{Path: f[0], Type: nar.Regular, Size: int64(len(f[1]))}); err == nil {
				_, err = io.WriteString(w, f[1])
			}
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func goodArchive(t testing.TB) []byte {
	return entryArchive(t, [2]string{"code", "C"}, [2]string{"module.wasm", "M"}, [2]string{"name", goodName})
}

// Only an entry's three files get into the cache, whole, and never anywhere else.
func TestStore(t *testing.T) {
	for name, archive := range map[string][]byte{
		"link as code":   entryArchive(t, [2]string{"code", "->/etc/passwd"}, [2]string{"module.wasm", "M"}, [2]string{"name", goodName}),
		"one more":       entryArchive(t, [2]string{"code", "C"}, [2]string{"extra", "x"}, [2]string{"module.wasm", "M"}, [2]string{"name", goodName}),
		"directory":      entryArchive(t, [2]string{"code", "/"}, [2]string{"code/code", "x"}, [2]string{"module.wasm", "M"}),
		"one less":       entryArchive(t, [2]string{"code", "C"}, [2]string{"name", goodName}),
		"no name":        entryArchive(t, [2]string{"code", "C"}, [2]string{"module.wasm", "M"}, [2]string{"name", ""}),
		"name that goes": entryArchive(t, [2]string{"code", "C"}, [2]string{"module.wasm", "M"}, [2]string{"name", "../../../../etc/cron.d/x"}),
		"long name":      entryArchive(t, [2]string{"code", "C"}, [2]string{"module.wasm", "M"}, [2]string{"name", strings.Repeat("x", 1000)}),
		"cut off":        goodArchive(t)[:200],
		"no archive":     []byte("hello"),
		"more behind":    append(goodArchive(t), 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := openCache(t.TempDir(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.store("key", bytes.NewReader(archive)); err == nil {
				t.Error("it was stored")
			}
			if left, _ := os.ReadDir(c.dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	c, err := openCache(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // another process may have been faster
		if err := c.store("key", bytes.NewReader(goodArchive(t))); err != nil {
			t.Fatal(err)
		}
	}
	e := c.get("key")
	if e == nil || e.name != goodName {
		t.Fatalf("got %+v", e)
	}
	if info, err := os.Stat(e.code); err != nil || info.Mode().Perm()&0o222 != 0 {
		t.Errorf("code: %v, %v", info, err)
	}
}

// What was used least recently goes first; what may be in use stays.
func TestMakeRoom(t *testing.T) {
	c, err := openCache(t.TempDir(), 200)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"old", "older", "new"} {
		if err := c.store(key, bytes.NewReader(goodArchive(t))); err != nil {
			t.Fatal(err)
		}
		age := []time.Duration{2 * time.Hour, 3 * time.Hour, time.Minute}[i]
		then := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(c.dir, key), then, then); err != nil {
			t.Fatal(err)
		}
	}
	abandoned := filepath.Join(c.dir, ".new-abandoned") // by a process that died
	if err := os.Mkdir(abandoned, 0o755); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(abandoned, long, long); err != nil {
		t.Fatal(err)
	}
	if err := c.store("newest", bytes.NewReader(goodArchive(t))); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"new", "newest"}, left); diff != "" { // 93 bytes each
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzStore(f *testing.F) {
	f.Add(goodArchive(f))
	f.Add(entryArchive(f, [2]string{"code", "->x"}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		c, err := openCache(filepath.Join(dir, "cache"), 0)
		if err != nil {
			t.Fatal(err)
		}
		err = c.store("key", bytes.NewReader(archive))
		if (err == nil) != (c.get("key") != nil) {
			t.Errorf("stored: %v, found: %v", err, c.get("key"))
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("beside the cache: %v", entries)
		}
	})
}
