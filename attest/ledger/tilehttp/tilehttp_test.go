package tilehttp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/tilehttp"
)

// files makes a directory like a log's.
func files(t *testing.T) ledger.Dir {
	t.Helper()
	dir := t.TempDir()
	var bundle []byte
	for i := range 256 {
		bundle, _ = ledger.AppendEntry(bundle, fmt.Append(nil, i))
	}
	for path, data := range map[string][]byte{
		"checkpoint": []byte("a checkpoint"), "tile/0/000": bytes.Repeat([]byte("x"), 8192), "tile/0/001.p/3": make([]byte, 96),
		"tile/entries/000": bundle, ".state/treeState": []byte("private"), "tile/0/secret": []byte("private"),
	} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return ledger.Dir(dir)
}

func TestServer(t *testing.T) {
	s := tilehttp.NewServer(files(t))
	for _, tt := range []struct {
		method, path string
		status, size int
		cache        string
	}{
		{"GET", "/checkpoint", 200, 12, "no-cache"},
		{"HEAD", "/checkpoint", 200, 0, "no-cache"},
		{"GET", "/tile/0/000", 200, 8192, "public, max-age=31536000, immutable"},
		{"GET", "/tile/0/001.p/3", 200, 96, "public, max-age=600"},
		{"GET", "/tile/0/000.p/2", 200, 64, "public, max-age=600"},
		{"GET", "/tile/entries/000.p/2", 200, 6, "public, max-age=600"},
		{"GET", "/tile/0/002", 404, -1, ""},
		{"GET", "/tile/0/001.p/4", 404, -1, ""},
		{"GET", "/tile/0/secret", 404, -1, ""},
		{"GET", "/.state/treeState", 404, -1, ""},
		{"GET", "/tile/../.state/treeState", 404, -1, ""},
		{"GET", "//checkpoint", 404, -1, ""},
		{"GET", "/checkpoint?x", 404, -1, ""},
		{"GET", "/tile/0/x000/000", 404, -1, ""},
		{"GET", "/", 404, -1, ""},
		{"POST", "/checkpoint", 405, -1, ""},
		{"DELETE", "/tile/0/000", 405, -1, ""},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(tt.method, "/", nil)
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(tt.path, "?")
		s.ServeHTTP(w, r)
		if w.Code != tt.status || w.Header().Get("Cache-Control") != tt.cache || tt.size >= 0 && w.Body.Len() != tt.size {
			t.Errorf("%s %s: %d, %d bytes, %q", tt.method, tt.path, w.Code, w.Body.Len(), w.Header().Get("Cache-Control"))
		}
	}
}

func TestClient(t *testing.T) {
	h := httptest.NewServer(tilehttp.NewServer(files(t)))
	defer h.Close()
	c, err := tilehttp.NewClient(h.URL+"/", http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := c.ReadTile(t.Context(), "tile/0/000.p/2"); err != nil || len(data) != 64 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if _, err := c.ReadBundle(t.Context(), "tile/entries/007"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, base := range []string{"", "x", "file:///x", "http://", "http://x?y"} {
		if _, err := tilehttp.NewClient(base, http.DefaultClient); err == nil {
			t.Errorf("%q was accepted", base)
		}
	}
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 20<<20)) }))
	defer endless.Close()
	c, err = tilehttp.NewClient(endless.URL, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadCheckpoint(t.Context()); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Error(err)
	}
}
