package cacheserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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
	"arch.network/builder/store"
)

// expression builds, without a network or nixpkgs, a program that refers to itself and to a library.
const expression = `
{ busybox }:
let
  bb = builtins.path { path = busybox; name = "bb"; };
  build = name: script: derivation {
    inherit name; system = builtins.currentSystem;
    builder = "${bb}/busybox"; args = [ "sh" "-c" script ]; PATH = bb;
  };
  lib = build "lib-1.0" "echo a library > $out";
in build "top" "busybox mkdir -p $out/bin; echo $out ${lib} > $out/bin/hello; busybox ln -s ${lib} $out/lib; busybox touch $out/empty"
`

// world is a chroot store that Nix has built, with what Nix needs to use another one.
type world struct {
	t    *testing.T
	dir  string
	root string // of the store
	top  string
	key  binarycache.SecretKey
	// command starts a program where Nix is: on this machine, or on one that sees dir at the same place.
	command func(program string, args ...string) *exec.Cmd
}

func newWorld(t *testing.T) *world {
	t.Helper()
	for _, program := range []string{"nix-build", "nix-store", "nix", "/bin/busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin and busybox-static)", program)
		}
	}
	w := newWorldAt(t, t.TempDir(), func(program string, args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), program, args...)
	})
	w.top = w.build(expression)
	return w
}

// newWorldAt is a world without a store.
func newWorldAt(t *testing.T, dir string, command func(string, ...string) *exec.Cmd) *world {
	t.Helper()
	key, err := binarycache.GenerateKey("test-1", strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, key: key, command: command}
	w.root = w.newStore("built")
	return w
}

// build builds an expression in the store.
func (w *world) build(expression string) string {
	t := w.t
	t.Helper()
	bb := filepath.Join(w.dir, "bb")
	data, err := os.ReadFile("/bin/busybox")
	if err := errors.Join(err, os.Mkdir(bb, 0o755), os.WriteFile(bb+"/busybox", data, 0o755), os.WriteFile(filepath.Join(w.dir, "default.nix"), []byte(expression), 0o644)); err != nil {
		t.Fatal(err)
	}
	out, err := w.run("nix-build", "--store", w.root, "--no-out-link", "--arg", "busybox", bb, filepath.Join(w.dir, "default.nix"))
	if err != nil {
		if strings.Contains(out, "namespaces") || strings.Contains(out, "Operation not permitted") {
			t.Skipf("cannot run here: Nix cannot build in a sandbox: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// secret returns a file with the secret key.
func (w *world) secret() string {
	w.t.Helper()
	file := filepath.Join(w.dir, "secret")
	if err := os.WriteFile(file, []byte(w.key.Reveal()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// newStore returns a place for a chroot store.
func (w *world) newStore(name string) string {
	dir := filepath.Join(w.dir, name)
	w.t.Cleanup(func() { _ = nar.RemoveAll(dir) }) // its directories are read-only; it may not have come to be
	return dir
}

// run returns what a program writes, stdout last.
func (w *world) run(program string, args ...string) (string, error) {
	c := w.command(program, args...)
	if c.Env == nil {
		c.Env = os.Environ()
	}
	cache, err := os.MkdirTemp(w.dir, "cache-") // Nix remembers what a cache said
	if err != nil {
		w.t.Fatal(err)
	}
	c.Env = append(c.Env, "HOME="+w.dir, "XDG_CACHE_HOME="+cache,
		"NIX_CONFIG=experimental-features = nix-command ca-derivations\nsubstituters =\nbuild-users-group =\nsandbox = true\nsandbox-fallback = false\nconnect-timeout = 5\ndownload-attempts = 1\n")
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	return stderr.String() + stdout.String(), err
}

func (w *world) must(program string, args ...string) string {
	w.t.Helper()
	out, err := w.run(program, args...)
	if err != nil {
		w.t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return out
}

// serve publishes the built store.
func (w *world) serve() *httptest.Server {
	w.t.Helper()
	s, err := cacheserver.OpenDir(w.root, "/nix/store")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	server := httptest.NewServer(cacheserver.New(s, cacheserver.Options{Keys: []binarycache.SecretKey{w.key}}))
	w.t.Cleanup(server.Close)
	return server
}

// substitute makes Nix fetch path from url into a new store.
func (w *world) substitute(to, url, path string) (string, error) {
	return w.run("nix-store", "--store", to, "-r", path, "--option", "substituters", url, "--option", "trusted-public-keys", w.key.Public().String())
}

// TestNix lets the real Nix use the cache in each way that it knows, and refuse it in each way in which it was tampered with.
func TestNix(t *testing.T) {
	w := newWorld(t)
	server := w.serve()
	t.Run("nix-store -r and nix store verify", func(t *testing.T) {
		to := w.newStore("substituted")
		if out, err := w.substitute(to, server.URL, w.top); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		w.must("nix", "store", "verify", "--store", to, "-r", "--sigs-needed", "1", "--trusted-public-keys", w.key.Public().String(), w.top)
		want := w.must("nix-store", "--store", w.root, "-q", "--requisites", w.top)
		if got := w.must("nix-store", "--store", to, "-q", "--requisites", w.top); got != want {
			t.Errorf("closure:\n%swant:\n%s", got, want)
		}
	})
	t.Run("nix copy, path-info and store ls", func(t *testing.T) {
		w.must("nix", "copy", "--from", server.URL, "--to", w.newStore("copied"), w.top, "--option", "trusted-public-keys", w.key.Public().String())
		if out := w.must("nix", "path-info", "--store", server.URL, "-r", "--sigs", w.top); !strings.Contains(out, "test-1:") {
			t.Errorf("path-info shows no signature: %s", out)
		}
		if out := w.must("nix", "store", "ls", "--store", server.URL, "-lR", w.top); !strings.Contains(out, "./bin/hello") || !strings.Contains(out, "-> /nix/store/") {
			t.Errorf("ls:\n%s", out)
		}
	})
	w.tampering(server)
	t.Run("trees of arch", w.trees)
	t.Run("caches that Nix writes", w.caches)
}

// tampering changes one thing of what the cache says or serves at a time. What is not signed and not in the list (FileHash, FileSize, Deriver) misleads
// nobody about content: the NAR is compared with NarHash, which is signed.
func (w *world) tampering(server *httptest.Server) {
	lib := strings.Fields(w.must("nix-store", "--store", w.root, "-q", "--references", w.top))[0]
	other, _ := binarycache.GenerateKey("test-1", strings.NewReader(strings.Repeat("x", 32)))
	for i, c := range []struct {
		name, want string
		narinfo    func(n *binarycache.NarInfo)
		nar        func(data []byte) []byte
	}{
		{"StorePath", "", func(n *binarycache.NarInfo) { n.StorePath, _ = storepath.Parse(lib) }, nil},
		{"NarHash", "not signed", func(n *binarycache.NarInfo) { n.NarHash = digest.Of([]byte("other")) }, nil},
		{"NarSize", "not signed", func(n *binarycache.NarInfo) { n.NarSize += 8 }, nil},
		{"References", "not signed", func(n *binarycache.NarInfo) { n.References = n.References[:1] }, nil},
		{"URL", "hash mismatch", func(n *binarycache.NarInfo) { n.Files[0].URL = "nar/other" }, nil},
		{"Compression", "", func(n *binarycache.NarInfo) { n.Files[0].Compression = binarycache.None }, nil},
		{"no Sig", "not signed", func(n *binarycache.NarInfo) { n.Sigs = nil }, nil},
		{"Sig by another key", "not signed", func(n *binarycache.NarInfo) { n.Sigs[0] = other.Sign(n.Fingerprint().String()) }, nil},
		{"Sig of another path", "not signed", func(n *binarycache.NarInfo) { n.Sigs[0] = w.key.Sign("1;" + lib) }, nil},
		{"CA", "", func(n *binarycache.NarInfo) { n.Sigs, n.CA = nil, binarycache.SourceCA(n.NarHash) }, nil},
		{"NAR", "", nil, func(data []byte) []byte { data[len(data)/2] ^= 1; return data }},
		{"truncated NAR", "", nil, func(data []byte) []byte { return data[:len(data)-9] }},
	} {
		w.t.Run("refused: "+c.name, func(t *testing.T) {
			evil := httptest.NewServer(w.tamper(server, lib, c.narinfo, c.nar))
			defer evil.Close()
			to := w.newStore(fmt.Sprint("refused", i))
			out, err := w.substitute(to, evil.URL, w.top)
			if err == nil {
				t.Fatalf("Nix has taken it:\n%s", out)
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("Nix says\n%swithout %q", out, c.want)
			}
			if _, err := w.run("nix-store", "--store", to, "--check-validity", w.top); err == nil {
				t.Error("the path is valid")
			}
		})
	}
}

// tamper passes on what server says, but for the narinfo and the NAR of the top path.
func (w *world) tamper(server *httptest.Server, lib string, narinfo func(*binarycache.NarInfo), change func([]byte) []byte) http.Handler {
	get := func(path string) (int, []byte) {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			w.t.Error(err)
			return http.StatusBadGateway, nil
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, data
	}
	libPath, _ := storepath.Parse(lib)
	top, _ := storepath.Parse(w.top)
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if path == "/nar/other" { // the one of the library
			_, data := get("/" + libPath.Hash + ".narinfo")
			n, _ := binarycache.ParseNarInfo(data)
			path = "/" + n.Files[0].URL
		}
		status, data := get(path)
		switch {
		case path == "/"+top.Hash+".narinfo" && narinfo != nil:
			n, err := binarycache.ParseNarInfo(data)
			if err != nil {
				w.t.Error(err)
			}
			narinfo(n)
			if data, err = n.Encode(); err != nil {
				w.t.Error(err)
			}
		case strings.HasPrefix(path, "/nar/"+top.Hash) && change != nil:
			data = change(data)
		}
		out.WriteHeader(status)
		_, _ = out.Write(data)
	})
}

// trees publishes a tree of the store of arch, which Nix takes without any signature, since its path says what it is.
func (w *world) trees(t *testing.T) {
	s, err := store.Open(filepath.Join(w.dir, "arch"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sum, err := s.AddTreeFrom(t.Context(), filepath.Join(w.dir, "bb"), nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(cacheserver.New(&cacheserver.Trees{Store: s, Names: map[digest.SHA256][]string{sum: {"bb"}}}, cacheserver.Options{}))
	defer server.Close()
	for _, name := range []string{"source", "bb"} {
		p, err := storepath.Source(storepath.Nix, name, sum, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.run("nix-store", "--store", w.newStore("trees-"+name), "-r", p.String(), "--option", "substituters", server.URL); err != nil {
			t.Errorf("%s: %v\n%s", p, err, out)
		}
	}
	// Nix computes the same path: it has it already, from where the derivation took it.
	p, _ := storepath.Source(storepath.Nix, "bb", sum, nil, false)
	w.must("nix-store", "--store", w.root, "--check-validity", p.String())
}

// caches reads what the real Nix writes, in each packing that it knows and we do.
func (w *world) caches(t *testing.T) {
	secret := w.secret()
	top, err := storepath.Parse(w.top)
	if err != nil {
		t.Fatal(err)
	}
	want, wantList, err := nar.HashListing(t.Context(), filepath.Join(w.root, w.top), nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, packing := range []binarycache.Compression{binarycache.None, binarycache.XZ, binarycache.Zstd, binarycache.Gzip, binarycache.Bzip2, binarycache.Lzip} {
		t.Run(string(packing), func(t *testing.T) {
			dir := filepath.Join(w.dir, string(packing))
			w.must("nix", "copy", "--store", w.root, "--to", "file://"+dir+"?compression="+string(packing)+"&secret-key="+secret+"&write-nar-listing=true", w.top)
			cache, err := cacheclient.Open("file://" + dir)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := cache.Info(t.Context()); err != nil || info.StoreDir != "/nix/store" {
				t.Errorf("%v, %v", info, err)
			}
			n, _, err := cache.NarInfo(t.Context(), top)
			if err != nil {
				t.Fatal(err)
			}
			if n.Files[0].Compression != packing || n.NarHash != want || !w.key.Public().Verify(n.Fingerprint().String(), n.Sigs[0]) {
				t.Errorf("%+v", n)
			}
			r, err := cache.NAR(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Error(err)
			}
			data, err := os.ReadFile(filepath.Join(dir, top.Hash+".ls"))
			if err != nil {
				t.Fatal(err)
			}
			list, err := binarycache.ParseListing(data)
			if diff := cmp.Diff(wantList, list); err != nil || diff != "" {
				t.Errorf("listing: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}
