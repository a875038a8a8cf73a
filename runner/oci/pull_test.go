package oci_test

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
	"arch.network/builder/source"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/oci"
	"arch.network/runner/runnertest"
)

func newFetcher(t testing.TB) *source.Fetcher {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		nar.RemoveAll(dir) // its directories are read-only
	})
	return &source.Fetcher{Store: s, Platform: platform}
}

// push copies all blobs of a layout to a registry, and its only image as a manifest.
func push(t testing.TB, url, layout string, image digest.SHA256) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, path, mediaType string, data []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
	}
	var main []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := digest.Of(data)
		if d == image {
			main = data
			continue
		}
		send(http.MethodPost, "/v2/job/image/blobs/uploads/?digest="+d.String(), "application/octet-stream", data)
	}
	send(http.MethodPut, "/v2/job/image/manifests/latest", imagespec.MediaTypeManifest, main)
}

// From a real registry, from a layout on disk and from what `arch build` writes to a running program.
func TestFetchAndRun(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	w := newWorld(t)
	img := busyboxImage(t, w, busyboxLayers(t), nil)
	push(t, server.URL, w.dir, img.Digest)
	built, layout := builtImage(t)

	for name, tt := range map[string]struct {
		ref      string
		archives []string
		want     string
	}{
		"registry":          {host + "/job/image@" + img.Digest.String(), nil, "home\n"},
		"layout":            {"example.org/job/image@" + img.Digest.String(), []string{w.dir}, "home\n"},
		"layout of a build": {"example.org/built@" + built.String(), []string{layout}, "built\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			f.Archives, f.Offline = tt.archives, tt.archives != nil
			ref, err := manifest.ParseRef(tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			content, err := f.FetchRef(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			root, err := openCache(t, oci.Options{}).Root(t.Context(), oci.Image{Digest: content.Digest, Platform: platform, Blobs: f.Store.OpenBlob})
			if err != nil {
				t.Fatal(err)
			}
			spec, err := oci.Spec(root, oci.Run{})
			if err != nil {
				t.Fatal(err)
			}
			driver, err := namespace.New(namespace.Options{Executable: runnertest.First(t)})
			if err != nil {
				t.Fatal(err)
			}
			var stdout bytes.Buffer
			spec.Stdout, spec.Stderr = &stdout, &stdout
			result, err := driver.Run(t.Context(), spec)
			if s, ok := errors.AsType[*runner.SetupError](err); ok {
				t.Skipf("cannot run here: %v", s)
			}
			if err != nil || !result.OK() || stdout.String() != tt.want {
				t.Errorf("%v %d, %v: %q", result.Reason, result.Exit, err, stdout.String())
			}
		})
	}
}

// builtImage is what a build with an image as its output leaves.
func builtImage(t testing.TB) (digest.SHA256, string) {
	t.Helper()
	tree, layout := t.TempDir(), filepath.Join(t.TempDir(), "layout")
	if err := errors.Join(os.Mkdir(filepath.Join(tree, "bin"), 0o755), os.WriteFile(filepath.Join(tree, "bin/busybox"), []byte(busybox(t)), 0o755)); err != nil {
		t.Fatal(err)
	}
	img := artifact.Image{Platform: platform, Epoch: 1, Config: manifest.BuildImage{Entrypoint: []string{"/bin/busybox", "echo"}, Cmd: []string{"built"}}}
	d, err := img.WriteLayout(t.Context(), layout, tree)
	if err != nil {
		t.Fatal(err)
	}
	return d, layout
}
