package cacheserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest/nar"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheserver"
	"arch.network/builder/nix/realisation"
	"arch.network/runner/closure/daemon"
	"arch.network/tests/debroot"
)

// addressed builds a program and a library that are named by their content.
const addressed = `
{ busybox }:
let
  bb = builtins.path { path = busybox; name = "bb"; };
  build = name: script: derivation {
    inherit name; system = builtins.currentSystem;
    builder = "${bb}/busybox"; args = [ "sh" "-c" script ]; PATH = bb;
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
  };
  lib = build "lib-1.0" "echo a library > $out";
in build "top" "busybox mkdir $out; echo $out > $out/self; busybox ln -s ${lib} $out/lib"
`

// TestRealisations lets the real Nix of this machine, and the newer one of a newer Debian, substitute what is named by its content.
func TestRealisations(t *testing.T) {
	for _, program := range []string{"nix-build", "/bin/busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin and busybox-static)", program)
		}
	}
	t.Run("Nix", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		realisations(newWorldAt(t, t.TempDir(), func(program string, args ...string) *exec.Cmd {
			return exec.CommandContext(t.Context(), program, args...)
		}), listener, true)
	})
	t.Run("newer Nix", func(t *testing.T) {
		t.Parallel()
		dir, err := os.MkdirTemp("", "arch-realise-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nar.RemoveAll(dir) })
		m := debroot.Start(t, debroot.Options{Write: []string{dir}})
		realisations(newWorldAt(t, dir, func(program string, args ...string) *exec.Cmd {
			return m.Command(t.Context(), append([]string{program}, args...)...)
		}), m.Listen(t), false)
	})
}

// realisations does that with the cache at a listener; copies says whether this Nix can copy signed ones.
func realisations(w *world, listener net.Listener, copies bool) {
	t := w.t
	w.top = w.build(addressed)
	list := &cacheserver.Realisations{Open: func(ctx context.Context) (*daemon.Client, error) {
		return daemon.Start(ctx, w.command("nix-daemon", "--stdio", "--store", w.root, "--option", "build-users-group", "", "--option", "extra-experimental-features", "ca-derivations"), nil)
	}}
	defer list.Close()
	store, err := cacheserver.OpenDir(w.root, "/nix/store")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	handler := cacheserver.New(store, cacheserver.Options{Keys: []binarycache.SecretKey{w.key}, Realisations: list})
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	defer server.Close()
	url := "http://" + listener.Addr().String()
	file, bb := filepath.Join(w.dir, "default.nix"), filepath.Join(w.dir, "bb")
	trust := []string{"--option", "trusted-public-keys", w.key.Public().String()}

	to := w.newStore("substituted")
	out := w.must("nix-build", append([]string{"--store", to, "--no-out-link", "--arg", "busybox", bb, file, "--option", "substituters", url}, trust...)...)
	if strings.Contains(out, "building '") || !strings.Contains(out, "copying path '"+w.top) || !strings.HasSuffix(strings.TrimSpace(out), w.top) {
		t.Errorf("it was not substituted: %s", out)
	}

	// What Nix itself writes is read, and but for the signatures it is what we write and serve.
	cache := filepath.Join(w.dir, "cache")
	w.must("nix", "copy", "--store", w.root, "--to", "file://"+cache+"?secret-key="+w.secret(), "--arg", "busybox", bb, "-f", file)
	w.must("nix", "copy", "--derivation", "--store", w.root, "--to", "file://"+cache, "--arg", "busybox", bb, "-f", file)
	names, err := filepath.Glob(filepath.Join(cache, realisation.Dir, "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("Nix wrote %q, %v", names, err)
	}
	served := map[string]*realisation.Realisation{}
	for _, name := range names {
		theirs, data := read(t, os.DirFS(cache), name[len(cache)+1:])
		answer := get(handler, theirs.Name())
		ours, err := realisation.Parse(theirs.Name(), answer.Body.Bytes())
		if err != nil || answer.Code != http.StatusOK {
			t.Fatalf("%d, %v", answer.Code, err)
		}
		sigs := ours.Signatures
		ours.Signatures = theirs.Signatures
		if text, err := ours.Encode(); err != nil || !sameJSON(data, text) {
			t.Errorf("Nix writes\n%s\nwe serve, but for signatures, %v,\n%s", data, err, text)
		}
		ours.Signatures = sigs
		served[name] = ours
	}
	for _, name := range []string{"sha256:" + strings.Repeat("0", 64) + "!out.doi", "sha256:0!out.doi", "x"} {
		if answer := get(handler, realisation.Dir+"/"+name); answer.Code != http.StatusNotFound {
			t.Errorf("%s, which is unknown: %d", name, answer.Code)
		}
	}

	// Substituting, neither Nix looks at the signatures of realisations. Copying, Nix 2.8 does: it takes ours, and no others. Nix 2.34 does, too, but first puts a
	// realisation without any signature in the place of the one in the cache that it copies from, which it writes to: no signature passes.
	if !copies {
		return
	}
	for i, c := range []struct {
		name   string
		change func(*realisation.Realisation)
		fails  bool
	}{
		{"as served", func(*realisation.Realisation) {}, false},
		{"unsigned", func(r *realisation.Realisation) { r.Signatures = nil }, true},
		{"of something else", func(r *realisation.Realisation) { r.Signatures[0] = w.key.Sign("something else") }, true},
	} {
		for name, r := range served {
			lie := *r
			lie.Signatures = slices.Clone(r.Signatures)
			c.change(&lie)
			text, err := lie.Encode()
			if err := errors.Join(err, os.WriteFile(name, text, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		out, err := w.run("nix", append([]string{"copy", "--from", "file://" + cache, "--eval-store", w.root, "--to", w.newStore(fmt.Sprint("copied", i)), "--arg", "busybox", bb, "-f", file}, trust...)...)
		if (err != nil) != c.fails || c.fails && !strings.Contains(out, "cannot register realisation") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}

// read reads a realisation of a cache.
func read(t *testing.T, cache fs.FS, name string) (*realisation.Realisation, []byte) {
	t.Helper()
	data, err := fs.ReadFile(cache, name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := realisation.Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return r, data
}

// get asks a handler.
func get(h http.Handler, name string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/"+name, nil))
	return answer
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && cmp.Equal(x, y)
}
