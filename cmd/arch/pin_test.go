package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ociname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	gomodule "golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// TestPinFromServers pins one document from a registry, a web server, a module proxy and a repository, all on loopback. What is
// expected is computed from what they serve, not asked of them.
func TestPinFromServers(t *testing.T) {
	ownHome(t)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("GOSUMDB", "off")
	host, image := pinRegistry(t)
	web := httptest.NewServer(http.FileServerFS(os.DirFS(pinFiles(t, map[string]string{"data.txt": "data\n"}))))
	defer web.Close()
	h1 := pinProxy(t, gomodule.Version{Path: "example.com/Mod", Version: "v1.2.0"})
	repository, commit, tree := pinRepository(t)

	const format = `apiVersion: arch.network/v1
kind: Build
metadata: {name: pins} # stays
spec:
  platform: linux/amd64
  sourceDateEpoch: 1767225600
  inputs:
    - {name: image, ref: "%s", mount: /} # a tag
    - name: data # a URL
      ref: %s
      mount: /data
    - {name: module, mount: /module, ref: "%s"}
    - {name: git, mount: /git, ref: '%s'}
  steps: [{argv: [/x]}]
  outputs: [{name: x, path: /build/x, type: file}]
`
	unpinned := []any{host + "/base/os:12", web.URL + "/data.txt", "go:example.com/Mod@latest", "git+" + repository + "@main"}
	want := fmt.Sprintf(format, host+"/base/os:12@"+image, web.URL+"/data.txt#"+digest.Of([]byte("data\n")).SRI(),
		"go:example.com/Mod@v1.2.0#"+h1, "git+"+repository+"@"+commit+"#"+tree)
	write := func(refs ...any) string {
		t.Helper()
		text := fmt.Sprintf(format, refs...)
		if err := os.WriteFile("build.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return text
	}
	file := func() string {
		t.Helper()
		text, err := os.ReadFile("build.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	before := write(unpinned...)
	if firstOut(t, "pin", "--dry-run", "build.yaml"); file() != before {
		t.Error("--dry-run wrote")
	}
	if diff := cmp.Diff(want, firstOut(t, "pin", "--out", "-", "build.yaml")); diff != "" {
		t.Errorf("--out - (-want +got):\n%s", diff)
	}
	firstOut(t, "pin", "build.yaml")
	if diff := cmp.Diff(want, file()); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
	if out := firstOut(t, "pin", "build.yaml"); out != "build.yaml: every reference is pinned already\n" {
		t.Errorf("pinned again: %s", out)
	}
	firstOut(t, "check", "build.yaml")

	// One reference that its server does not have, and nothing is written.
	for i, missing := range []string{host + "/base/os:13", web.URL + "/none", "go:example.com/Mod@v9.9.9", "git+" + repository + "@none"} {
		refs := append([]any{}, unpinned...)
		refs[i] = missing
		before := write(refs...)
		status, _, errout := arch(t, nil, "pin", "build.yaml")
		if status != exitError && status != exitInputsMissing || !strings.Contains(errout, missing) || !strings.Contains(errout, "arch: hint: ") {
			t.Errorf("%s: exit status %d\n%s", missing, status, errout)
		}
		if file() != before {
			t.Errorf("%s: the file has changed", missing)
		}
	}
}

// pinRegistry serves an image under the tag base/os:12 and returns the registry's host and the image's digest.
func pinRegistry(t *testing.T) (host, image string) {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	host = strings.TrimPrefix(s.URL, "http://")
	tag, err := ociname.NewTag(host + "/base/os:12")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, empty.Image); err != nil {
		t.Fatal(err)
	}
	text, err := empty.Image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	return host, digest.Of(text).String()
}

// pinProxy makes GOPROXY a module proxy that has m, and returns the module's hash.
func pinProxy(t *testing.T, m gomodule.Version) string {
	t.Helper()
	var zip bytes.Buffer
	if err := modzip.CreateFromDir(&zip, m, pinFiles(t, map[string]string{"go.mod": "module " + m.Path + "\n", "m.go": "package m\n"})); err != nil {
		t.Fatal(err)
	}
	path, err := gomodule.EscapePath(m.Path)
	if err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf(`{"Version":"%s","Time":"2026-01-01T00:00:00Z"}`, m.Version)
	root := pinFiles(t, map[string]string{
		path + "/@latest": info, path + "/@v/list": m.Version + "\n", path + "/@v/" + m.Version + ".info": info,
		path + "/@v/" + m.Version + ".mod": "module " + m.Path + "\n", path + "/@v/" + m.Version + ".zip": zip.String(),
	})
	s := httptest.NewServer(http.FileServerFS(os.DirFS(root)))
	t.Cleanup(s.Close)
	t.Setenv("GOPROXY", s.URL)
	h1, err := dirhash.HashZip(filepath.Join(root, path, "@v", m.Version+".zip"), dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	return h1
}

// pinRepository serves a repository with one commit on main over git's HTTP protocol, and returns its URL, the commit and the NAR
// hash of its tree.
func pinRepository(t *testing.T) (url, commit, tree string) {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, missing := os.Stat(backend); err != nil || missing != nil {
		t.Skip("cannot run here: git with http-backend is not installed")
	}
	files := map[string]string{"a": "1\n", "dir/b": "2\n"}
	dir := pinFiles(t, files)
	git := func(args ...string) string {
		t.Helper()
		c := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	sum, _, err := nar.Hash(context.Background(), pinFiles(t, files), nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(&cgi.Handler{Path: backend, Env: []string{
		"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}})
	t.Cleanup(s.Close)
	return s.URL + "/.git", git("rev-parse", "HEAD"), sum.SRI()
}

// pinFiles writes files, by their relative paths, into a new directory.
func pinFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
