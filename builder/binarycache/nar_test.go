package binarycache_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"arch.network/attest/digest"
	"arch.network/builder/binarycache"
)

// TestLzip reads what lzip 1.23 wrote (lzip -9; two members by cat, the second with a window of 4 KiB; nothing).
func TestLzip(t *testing.T) {
	const text = "sha256:3f1ecc15f1e74a7fc0f683bc236922c3c1d78c5b09ec8a3ba7cd1556eef585c3"
	for _, c := range []struct {
		file, want string
		size       int
	}{
		{"text.lz", text, 26053},
		{"empty.lz", digest.Of(nil).String(), 0},
		{"two.lz", "", 26053 + len("second member")},
	} {
		data, err := os.ReadFile("testdata/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		out, err := unlzip(data)
		if err != nil || len(out) != c.size || c.want != "" && digest.Of(out).String() != c.want {
			t.Errorf("%s: %d bytes, %s, %v", c.file, len(out), digest.Of(out), err)
		}
	}
}

func unlzip(data []byte) ([]byte, error) {
	r, err := binarycache.Decompress(bufio.NewReader(bytes.NewReader(data)), binarycache.Lzip)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 1<<20))
}

// TestLzipDamaged changes each byte of a file, and cuts it everywhere: nothing is read as something else. (The window's size may be another one, as
// long as it is large enough.)
func TestLzipDamaged(t *testing.T) {
	data, err := os.ReadFile("testdata/two.lz")
	if err != nil {
		t.Fatal(err)
	}
	data = data[len(data)-50:] // the small member
	want, err := unlzip(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 0x11
		if out, err := unlzip(changed); err == nil && (i != 5 || !bytes.Equal(out, want)) {
			t.Errorf("byte %d changed: %q is read", i, out)
		}
		if out, err := unlzip(data[:i]); err == nil {
			t.Errorf("cut at %d: %q is read", i, out)
		}
	}
	if _, err := unlzip(append(bytes.Clone(data), "trailing"...)); err == nil {
		t.Error("something behind the last member is accepted")
	}
	big := bytes.Clone(data)
	big[5] = 29
	if _, err := unlzip(big); err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("a window of 512 MiB: %v", err)
	}
}

func FuzzLzip(f *testing.F) {
	for _, name := range []string{"text.lz", "two.lz", "empty.lz"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = unlzip(data) })
}

func pack(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(data, nil)
}

// TestOpen lets a cache serve something else than it says, in each way.
func TestOpen(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 1000)
	packed := pack(t, content)
	honest := func() (*binarycache.NarInfo, []byte) {
		return &binarycache.NarInfo{
			NarHash: digest.Of(content), NarSize: int64(len(content)),
			Files: []binarycache.File{{URL: "nar/x", Compression: binarycache.Zstd, Hash: digest.Of(packed), Size: int64(len(packed))}},
		}, bytes.Clone(packed)
	}
	for _, c := range []struct {
		name   string
		change func(n *binarycache.NarInfo, file []byte) []byte
		want   string // of the error; empty: none
	}{
		{"honest", func(_ *binarycache.NarInfo, file []byte) []byte { return file }, ""},
		{"nothing said of the file", func(n *binarycache.NarInfo, file []byte) []byte {
			n.Files[0].Hash, n.Files[0].Size = digest.SHA256{}, 0
			return file
		}, ""},
		{"other NAR", func(n *binarycache.NarInfo, _ []byte) []byte {
			other := pack(t, bytes.Repeat([]byte("another "), 1000))
			n.Files[0].Hash, n.Files[0].Size = digest.Of(other), int64(len(other))
			return other
		}, "the NAR has the hash"},
		{"longer NAR", func(n *binarycache.NarInfo, _ []byte) []byte {
			n.Files[0] = binarycache.File{URL: "nar/x", Compression: binarycache.Zstd}
			return pack(t, append(bytes.Clone(content), 'x'))
		}, "the NAR has more than 8000 bytes"},
		{"shorter NAR", func(n *binarycache.NarInfo, _ []byte) []byte {
			n.Files[0] = binarycache.File{URL: "nar/x", Compression: binarycache.Zstd}
			return pack(t, content[:100])
		}, "the NAR has 100 bytes"},
		{"bomb", func(n *binarycache.NarInfo, _ []byte) []byte {
			n.Files[0] = binarycache.File{URL: "nar/x", Compression: binarycache.Zstd}
			return pack(t, make([]byte, 4<<20))
		}, "the NAR has more than"},
		{"endless frames without content", func(n *binarycache.NarInfo, file []byte) []byte {
			n.Files[0] = binarycache.File{URL: "nar/x", Compression: binarycache.Zstd}
			skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0x20, 0}, make([]byte, 2<<20)...)
			return append(skippable, file...)
		}, "the file has more than"},
		{"file of another hash", func(n *binarycache.NarInfo, file []byte) []byte {
			n.Files[0].Hash = digest.Of(nil)
			return file
		}, "the file has the hash"},
		{"something behind the file", func(_ *binarycache.NarInfo, file []byte) []byte { return append(file, packed...) }, "has more than"},
		{"truncated", func(_ *binarycache.NarInfo, file []byte) []byte { return file[:len(file)-4] }, "the file has 26 bytes"},
		{"unknown packing", func(n *binarycache.NarInfo, file []byte) []byte { n.Files[0].Compression = "br"; return file }, "cannot be unpacked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, file := honest()
			file = c.change(n, file)
			r, err := n.Open(io.NopCloser(bytes.NewReader(file)), n.Files[0])
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				if _, again := r.Read(make([]byte, 1)); err != nil && errors.Is(again, io.EOF) {
					t.Error("after an error it ends as if all was well")
				}
				r.Close()
			}
			switch {
			case c.want == "" && (err != nil || !bytes.Equal(got, content)):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
			if len(got) > len(content) {
				t.Errorf("%d bytes were returned", len(got))
			}
		})
	}
}
