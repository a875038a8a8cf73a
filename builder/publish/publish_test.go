package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/builder/publish"
)

// serve starts a real registry on loopback.
func serve(t *testing.T) string {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func push(t *testing.T, location, path string) digest.SHA256 {
	t.Helper()
	r, err := publish.Open(t.Context(), location)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := r.Push(t.Context(), path, "index")
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// pull returns the manifest that a reference names, and the bytes of its only layer.
func pull(t *testing.T, ref string) (m v1.Manifest, raw, layer []byte) {
	t.Helper()
	at, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(d.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	l, err := remote.Layer(at.Context().Digest(m.Layers[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if layer, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return m, d.Manifest, layer
}

func TestArtifacts(t *testing.T) {
	host, dir := serve(t), t.TempDir()
	write(t, filepath.Join(dir, "file"), "content", 0o644)
	write(t, filepath.Join(dir, "program"), "#!/bin/sh", 0o755)
	write(t, filepath.Join(dir, "tree/a/b"), "deep", 0o644)
	for path, mediaType := range map[string]string{"file": "application/octet-stream", "program": nar.MediaType, "tree": nar.MediaType} {
		t.Run(path, func(t *testing.T) {
			at := filepath.Join(dir, path)
			want := []byte("content")
			if mediaType == nar.MediaType {
				var b bytes.Buffer
				if err := nar.Dump(t.Context(), &b, at, nar.Options{}); err != nil {
					t.Fatal(err)
				}
				want = b.Bytes()
			}
			sum := push(t, host+"/out/"+path+":v1", at)
			for _, ref := range []string{host + "/out/" + path + ":v1", host + "/out/" + path + "@" + sum.String()} {
				m, raw, layer := pull(t, ref)
				if digest.Of(raw) != sum || string(m.Layers[0].MediaType) != mediaType || !bytes.Equal(layer, want) {
					t.Errorf("%s: manifest %s, layer %q", ref, raw, layer)
				}
				if diff := cmp.Diff(map[string]string{"org.opencontainers.image.title": "index"}, m.Layers[0].Annotations); diff != "" {
					t.Error(diff)
				}
			}
			if again := push(t, host+"/other", at); again != sum { // without a tag, by digest alone
				t.Errorf("elsewhere it is %s, not %s", again, sum)
			}
			pull(t, host+"/other@"+sum.String())
		})
	}
}

// TestImage pushes what an image layout holds, as it is.
func TestImage(t *testing.T) {
	host, dir := serve(t), t.TempDir()
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte("layer"), "application/vnd.oci.image.layer.v1.tar"))
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(image)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if sum := push(t, host+"/image:latest", dir); sum.String() != want.String() {
		t.Errorf("pushed %s, want %s", sum, want)
	}
	if _, _, layer := pull(t, host+"/image:latest"); string(layer) != "layer" {
		t.Errorf("layer %q", layer)
	}
	if err := path.AppendImage(mutate.Annotations(image, map[string]string{"a": "b"}).(v1.Image)); err != nil {
		t.Fatal(err)
	}
	r, err := publish.Open(t.Context(), host+"/image")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push(t.Context(), dir, "x"); err == nil || !strings.Contains(err.Error(), "holds 2 images, not one") {
		t.Errorf("got %v", err)
	}
}

// TestRefused has nothing run for a registry that will not take what comes of it.
func TestRefused(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			return
		}
		http.Error(w, `{"errors":[{"code":"DENIED","message":"not you"}]}`, http.StatusForbidden)
	}))
	defer closed.Close()
	_, err := publish.Open(t.Context(), strings.TrimPrefix(closed.URL, "http://")+"/x:y")
	if e, ok := errors.AsType[*publish.Error](err); !ok || e.Hint() == "" || !strings.Contains(e.Error(), "not you") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "no-host", "example.org/UPPER", "example.org/x@sha256:y"} {
		if _, err := publish.Open(t.Context(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := publish.Open(ctx, serve(t)+"/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
