package cacheclient_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheclient"
)

var top = storepath.Path{Dir: "/nix/store", Hash: strings.Repeat("b", 32), Name: "top"}

// content is what stands for a NAR; whether it is one is not the client's matter.
func content() []byte { return bytes.Repeat([]byte("0123456789"), 100_000) }

func narinfo(t *testing.T, url string) []byte {
	t.Helper()
	n := binarycache.NarInfo{
		StorePath: top, NarHash: digest.Of(content()), NarSize: int64(len(content())),
		Files: []binarycache.File{{URL: url, Compression: binarycache.None}},
	}
	data, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func open(t *testing.T, location string) *cacheclient.Cache {
	t.Helper()
	c, err := cacheclient.Open(location)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(t *testing.T, c *cacheclient.Cache) ([]byte, error) {
	t.Helper()
	n, _, err := c.NarInfo(t.Context(), top)
	if err != nil {
		return nil, err
	}
	r, err := c.NAR(t.Context(), n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestOpenRefuses(t *testing.T) {
	for _, location := range []string{"", "x", "/srv/cache", "ftp://x/", "file://host/srv", "file:srv", "https://", "https://user:secret@x/", "https://x/?a=b", "https://x/#a", "s3://bucket", "http://[::1"} {
		_, err := cacheclient.Open(location)
		if _, ok := errors.AsType[*cacheclient.LocationError](err); !ok {
			t.Errorf("%q: %v", location, err)
		}
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, top.Hash+".narinfo"), narinfo(t, "nar/x"), 0o644), os.Mkdir(filepath.Join(dir, "nar"), 0o755),
		os.WriteFile(filepath.Join(dir, "nar/x"), content(), 0o644), os.WriteFile(outside, content(), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	c := open(t, "file://"+dir)
	if got, err := fetch(t, c); err != nil || !bytes.Equal(got, content()) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	other := top
	other.Hash = strings.Repeat("c", 32)
	if _, _, err := c.NarInfo(t.Context(), other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
	other = top
	other.Name = "another"
	if _, _, err := c.NarInfo(t.Context(), other); err == nil || !strings.Contains(err.Error(), "StorePath") {
		t.Errorf("the narinfo of another path: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "nar/x")), os.Symlink(outside, filepath.Join(dir, "nar/x"))); err != nil {
		t.Fatal(err)
	}
	if got, err := fetch(t, c); err == nil {
		t.Errorf("a link leads out of the cache: %d bytes", len(got))
	}
	gone := open(t, "file://"+dir+"/gone")
	if _, _, err := gone.NarInfo(t.Context(), top); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cache that is not there: %v", err)
	}
}

// TestResume breaks every answer off after a while.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name   string
		honest bool // about ranges
		want   string
	}{
		{"ranges", true, ""},
		{"no ranges", false, "cannot be resumed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".narinfo") {
					_, _ = w.Write(narinfo(t, "nar/x"))
					return
				}
				requests++
				data, from := content(), 0
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && c.honest {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
					w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
					w.WriteHeader(http.StatusPartialContent)
					data = data[from:]
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				}
				_, _ = w.Write(data[:min(len(data), 300_000)])
			}))
			defer server.Close()
			got, err := fetch(t, open(t, server.URL))
			if c.want == "" && (err != nil || !bytes.Equal(got, content()) || requests != 4) {
				t.Errorf("%d bytes in %d requests, %v", len(got), requests, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestHostileServer(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"endless narinfo", func(w http.ResponseWriter, r *http.Request) {
			for line := []byte(strings.Repeat("X: y\n", 1000)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "over the limit"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, "redirects more than"},
		{"redirects to a file", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "not encrypted"},
		{"an error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }, "500"},
		{"a page", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, "KEY: VALUE"},
		{"escape sequences", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "\x1b[2J") }, `\x1b`},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			_, err := fetch(t, open(t, server.URL))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestReceipts(t *testing.T) {
	dir := t.TempDir()
	c := open(t, "file://"+dir)
	r, err := c.Receipts(t.Context(), top)
	if err != nil || !r.Empty() {
		t.Errorf("none: %v, %v", r, err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "receipts"), 0o755), os.WriteFile(filepath.Join(dir, binarycache.ReceiptPath(top)), []byte("{}\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if r, err = c.Receipts(t.Context(), top); err != nil || len(r.Others) != 1 {
		t.Errorf("one: %v, %v", r, err)
	}
}
