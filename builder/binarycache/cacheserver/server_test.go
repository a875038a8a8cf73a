package cacheserver_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheclient"
	"arch.network/builder/binarycache/cacheserver"
)

// fakeDir is a directory that looks like a store of Nix.
func fakeDir(t *testing.T) (root string, top, lib storepath.Path) {
	t.Helper()
	root = t.TempDir()
	dir := filepath.Join(root, "nix/store")
	lib = storepath.Path{Dir: "/nix/store", Hash: strings.Repeat("a", 32), Name: "lib"}
	top = storepath.Path{Dir: "/nix/store", Hash: strings.Repeat("b", 32), Name: "top"}
	locked := strings.Repeat("c", 32) + "-locked"
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, top.Base(), "bin"), 0o755),
		os.WriteFile(filepath.Join(dir, top.Base(), "bin/hello"), []byte("#!"+lib.String()+" "+top.String()), 0o755),
		os.WriteFile(filepath.Join(dir, lib.Base()), []byte("a library"), 0o644),
		os.WriteFile(filepath.Join(dir, locked), nil, 0o644), os.WriteFile(filepath.Join(dir, locked+".lock"), nil, 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return root, top, lib
}

func newServer(t *testing.T, root string, o cacheserver.Options) *httptest.Server {
	t.Helper()
	s, err := cacheserver.OpenDir(root, "/nix/store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	server := httptest.NewServer(cacheserver.New(s, o))
	t.Cleanup(server.Close)
	return server
}

// TestClientReadsServer lets the two halves of the protocol meet.
func TestClientReadsServer(t *testing.T) {
	root, top, lib := fakeDir(t)
	key, err := binarycache.GenerateKey("k-1", strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(t, root, cacheserver.Options{Keys: []binarycache.SecretKey{key}})
	cache, err := cacheclient.Open(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	info, err := cache.Info(t.Context())
	if diff := cmp.Diff(binarycache.Info{StoreDir: "/nix/store", WantMassQuery: true, Priority: 50}, info); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	n, _, err := cache.NarInfo(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{lib.Base(), top.Base()}, n.References); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	if len(n.Sigs) != 1 || !key.Public().Verify(n.Fingerprint().String(), n.Sigs[0]) {
		t.Errorf("signatures: %v", n.Sigs)
	}
	r, err := cache.NAR(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, _, err := digest.OfReader(r)
	want, _, _ := nar.Hash(t.Context(), filepath.Join(root, top.String()), nar.Options{})
	if err != nil || got != want {
		t.Errorf("NAR %s, want %s: %v", got, want, err)
	}
	resp, err := http.Get(server.URL + "/" + top.Hash + ".ls")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	list, err := binarycache.ParseListing(data)
	_, wantList, _ := nar.HashListing(t.Context(), filepath.Join(root, top.String()), nar.Options{})
	if diff := cmp.Diff(wantList, list); err != nil || diff != "" {
		t.Errorf("listing: %v (-want +got):\n%s", err, diff)
	}
}

// TestChangedPath changes a path after its narinfo was signed: its NAR never ends.
func TestChangedPath(t *testing.T) {
	root, top, _ := fakeDir(t)
	server := newServer(t, root, cacheserver.Options{})
	cache, _ := cacheclient.Open(server.URL)
	n, _, err := cache.NarInfo(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, top.String(), "bin/hello"), []byte("something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := cache.NAR(t.Context(), n)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		r.Close()
	}
	if err == nil {
		t.Error("the NAR of other content was served to its end")
	}
	again, _, err := cache.NarInfo(t.Context(), top)
	if err != nil || again.NarHash == n.NarHash {
		t.Errorf("afterwards: %v, %v", again, err)
	}
}

func TestServerOpensNothingElse(t *testing.T) {
	root, top, _ := fakeDir(t)
	receipts := t.TempDir()
	name := binarycache.ReceiptPath(top)
	secret := filepath.Join(receipts, "receipts", "secret")
	if err := errors.Join(os.Mkdir(filepath.Dir(secret), 0o755), os.WriteFile(secret, []byte("x"), 0o644), os.WriteFile(filepath.Join(receipts, name), []byte("{}\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	server := newServer(t, root, cacheserver.Options{Receipts: receipts})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/nix-cache-info", 200},
		{"HEAD", "/" + top.Hash + ".narinfo", 200},
		{"GET", "/" + name, 200},
		{"GET", "/receipts/secret", 404},
		{"GET", "/receipts/../receipts/secret", 404},
		{"GET", "/receipts/", 404},
		{"GET", "/", 404},
		{"GET", "/" + top.Base(), 404},
		{"GET", "/" + strings.Repeat("d", 32) + ".narinfo", 404},
		{"GET", "/" + strings.Repeat("c", 32) + ".narinfo", 404}, // locked: being written
		{"GET", "/" + strings.Repeat("e", 32) + ".narinfo", 404}, // no hash
		{"GET", "/nar/" + top.Hash + "-0.nar.zst", 404},
		{"GET", "/nar/../../etc/passwd", 404},
		{"GET", "/nix-cache-info?x=y", 404},
		{"PUT", "/" + top.Hash + ".narinfo", 405},
		{"DELETE", "/nix-cache-info", 405},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = c.path // not cleaned
		if path, query, ok := strings.Cut(c.path, "?"); ok {
			req.URL.Opaque, req.URL.RawQuery = path, query
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, resp.StatusCode, c.want)
		}
	}
}

// stuck is a store that answers when it is told to.
type stuck struct {
	asked chan struct{}
	free  chan struct{}
}

func (*stuck) Dir() string { return "/nix/store" }

func (*stuck) Hold(context.Context) (func() error, error) { return func() error { return nil }, nil }

func (s *stuck) Find(ctx context.Context, _ string) (cacheserver.Object, error) {
	s.asked <- struct{}{}
	select {
	case <-s.free:
	case <-ctx.Done():
	}
	return cacheserver.Object{}, fs.ErrNotExist
}

func TestBounded(t *testing.T) {
	s := &stuck{asked: make(chan struct{}, 1000), free: make(chan struct{})}
	h := cacheserver.New(s, cacheserver.Options{Parallel: 2})
	statuses := make(chan int, 400)
	for range cap(statuses) {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+strings.Repeat("a", 32)+".narinfo", nil))
			statuses <- w.Code
		}()
	}
	// All but those that work or wait are told to come again.
	for range cap(statuses) - 256 - 2 {
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Fatalf("status %d", got)
		}
	}
	<-s.asked
	<-s.asked
	if len(s.asked) > 0 {
		t.Error("more than two are worked on at a time")
	}
	close(s.free)
	for range 256 + 2 {
		if got := <-statuses; got != http.StatusNotFound {
			t.Fatalf("status %d", got)
		}
	}
}
