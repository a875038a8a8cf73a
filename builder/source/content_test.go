package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
)

func mustRef(t testing.TB, s string) manifest.Ref {
	t.Helper()
	ref, err := manifest.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// An image comes as blobs, from a registry or from a layout without any network, by its index or by its manifest.
func TestFetchRefImage(t *testing.T) {
	i := newImage(t)
	layout := t.TempDir()
	for _, b := range i.blobs {
		writeBlob(t, layout, b)
	}
	for name, tt := range map[string]struct {
		ref     string
		offline bool
	}{
		"manifest from the registry": {i.host + "/base/os@" + i.manifest.String(), false},
		"index from the registry":    {i.host + "/base/os:latest@" + i.index.String(), false},
		"manifest from a layout":     {"example.org/base/os@" + i.manifest.String(), true},
		"index from a layout":        {"example.org/base/os@" + i.index.String(), true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			f.Platform = "linux/amd64"
			if tt.offline {
				f.Offline, f.Archives = true, []string{layout}
			}
			ref := mustRef(t, tt.ref)
			got, err := f.FetchRef(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind != ContentImage || got.Digest != i.manifest || got.Ref != ref || got.Path != "" || len(got.Blobs) != 4 {
				t.Errorf("content is %+v", got)
			}
			for _, d := range got.Blobs {
				file, err := f.Store.OpenBlob(d)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(file)
				if file.Close(); err != nil || digest.Of(data) != d {
					t.Errorf("blob %s: %v", d, err)
				}
			}
			if want := 1 + strings.Count(name, "index"); len(got.Dependencies) != want {
				t.Errorf("dependencies are %v", got.Dependencies)
			}
			// A second time, nothing is asked.
			if again, err := (&Fetcher{Store: f.Store, Platform: f.Platform, Offline: true}).FetchRef(t.Context(), ref); err != nil || !cmp.Equal(got, again) {
				t.Errorf("second time: %+v, %v", again, err)
			}
		})
	}
}

// moduleManifest is a WebAssembly module as it is kept in a registry.
func moduleManifest(t testing.TB, i *image, config, layer string, layers int) digest.SHA256 {
	t.Helper()
	wasm, conf := i.blob([]byte("\x00asm\x01\x00\x00\x00")), i.blob([]byte("{}"))
	desc := map[string]any{"mediaType": layer, "digest": wasm, "size": 8}
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": imagespec.MediaTypeManifest, "artifactType": "application/wasm",
		"config": map[string]any{"mediaType": config, "digest": conf, "size": 2}, "layers": slices.Repeat([]any{desc}, layers),
	})
	if err != nil {
		t.Fatal(err)
	}
	return i.put(m, imagespec.MediaTypeManifest)
}

func TestFetchRefModule(t *testing.T) {
	i := newImage(t)
	for _, tt := range []struct {
		config, layer string
		layers        int
		err           string
	}{
		{"application/vnd.wasm.config.v0+json", "application/wasm", 1, ""},
		{"application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm", 1, ""},
		{"application/vnd.oci.empty.v1+json", "application/wasm", 1, ""},
		{"application/vnd.wasm.config.v0+json", "application/wasm", 2, "but an artifact of another type"},
		{"application/vnd.cncf.helm.config.v1+json", "application/wasm", 1, "but an artifact of another type"},
		{"application/vnd.wasm.config.v0+json", "application/octet-stream", 1, "but an artifact of another type"},
		{imagespec.MediaTypeConfig, "application/wasm", 1, `has the unknown media type "application/wasm"`},
	} {
		f := newFetcher(t)
		ref := mustRef(t, i.host+"/base/os@"+moduleManifest(t, i, tt.config, tt.layer, tt.layers).String())
		got, err := f.FetchRef(t.Context(), ref)
		if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
			t.Errorf("%s: error is %v", tt.config, err)
		}
		if err != nil {
			continue
		}
		data, err := os.ReadFile(got.Path)
		if err != nil || got.Kind != ContentFile || string(data) != "\x00asm\x01\x00\x00\x00" || got.Digest != digest.Of(data) || len(got.Dependencies) != 2 {
			t.Errorf("%s: content is %+v, %v", tt.config, got, err)
		}
		// As the root file system of a build it makes no sense.
		if _, err := f.Fetch(t.Context(), input(t, ref.String()), "", nil); !strings.Contains(errText(err), "but a WebAssembly module") {
			t.Errorf("%s: as an input: %v", tt.config, err)
		}
	}
}

func TestFetchRefFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), payload)
	writeBlob(t, dir, payload)
	d := digest.Of(payload)
	for _, s := range []string{"file://" + dir + "/file#" + d.SRI(), "onnx://a/b@" + d.String(), "ipfs://" + d.CID()} {
		f := newFetcher(t)
		f.Offline, f.Archives = true, []string{dir}
		got, err := f.FetchRef(t.Context(), mustRef(t, s))
		if err != nil {
			t.Error(err)
			continue
		}
		data, err := os.ReadFile(got.Path)
		if err != nil || got.Kind != ContentFile || got.Digest != d || string(data) != string(payload) {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		_, err = f.FetchRef(t.Context(), mustRef(t, strings.Replace(s, d.SRI(), digest.Of(nil).SRI(), 1)))
		if pin, ok := errors.AsType[*PinError](err); strings.HasPrefix(s, "file:") && !ok {
			t.Errorf("another pin: %v, %v", pin, err)
		}
	}
}

// A store path is not copied when it is on this machine; elsewhere it comes by its hash.
func TestFetchRefStorePath(t *testing.T) {
	const path = "/nix/store/00000000000000000000000000000000-arch-test"
	archive := t.TempDir()
	tree := filepath.Join(archive, "x")
	put(t, filepath.Join(tree, "bin/hello"), []byte("hello"))
	sum, _, err := nar.Hash(t.Context(), tree, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	writeNAR(t, archive, tree)
	f := newFetcher(t)
	f.Offline = true
	ref := mustRef(t, path+"#"+sum.SRI())
	if _, err := f.FetchRef(t.Context(), ref); !strings.Contains(errText(err), "is missing") {
		t.Errorf("error is %v", err)
	}
	f.Archives = []string{archive}
	got, err := f.FetchRef(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != ContentPath || got.Digest != sum || got.Path == path {
		t.Errorf("content is %+v", got)
	}
	if again, _, err := nar.Hash(t.Context(), got.Path, nar.Options{}); err != nil || again != sum {
		t.Errorf("%s has the hash %s, %v", got.Path, again, err)
	}
	if at, err := f.StorePath(t.Context(), "/etc/passwd", digest.Of(nil)); err == nil {
		t.Errorf("/etc/passwd is a store path at %s", at)
	}
}

func TestFetchRefTree(t *testing.T) {
	archive := t.TempDir()
	tree := filepath.Join(archive, "x")
	put(t, filepath.Join(tree, "a"), []byte("a"))
	sum, _, err := nar.Hash(t.Context(), tree, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	writeNAR(t, archive, tree)
	f := newFetcher(t)
	f.Offline, f.Archives = true, []string{archive}
	got, err := f.FetchRef(t.Context(), mustRef(t, "tree:data#"+sum.SRI()))
	if err != nil || got.Kind != ContentTree || got.Digest != sum {
		t.Fatalf("%+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("a %q", "a")}, list(t, got.Path)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}
