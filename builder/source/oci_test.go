package source

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/zstd"

	"arch.network/attest/digest"
	"arch.network/builder/source/imagespec"
)

// image is an image of two layers in a registry on loopback, as an index of two platforms.
type image struct {
	t        testing.TB
	server   *httptest.Server
	host     string
	manifest digest.SHA256
	index    digest.SHA256
	blobs    map[digest.SHA256][]byte
}

func layerTar(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := h.Uname
		h.Uname, h.Size = "", int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newImage(t testing.TB) *image {
	t.Helper()
	i := &image{t: t, blobs: map[digest.SHA256][]byte{}}
	i.server = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(i.server.Close)
	i.host = strings.TrimPrefix(i.server.URL, "http://")
	// The content of a file is in Uname, which the layer does not keep.
	one := layerTar(t, tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "/usr/lib"},
		tar.Header{Name: "lib/x", Mode: 0o755, Uname: "1"}, tar.Header{Name: "etc/old", Mode: 0o644})
	two := layerTar(t, tar.Header{Name: "etc/.wh.old"}, tar.Header{Name: "etc/new", Uname: "2"}, tar.Header{Name: "dev/null", Typeflag: tar.TypeChar})
	i.manifest, i.index = i.push(one, two)
	return i
}

func (i *image) blob(b []byte) digest.SHA256 {
	i.t.Helper()
	d := digest.Of(b)
	i.blobs[d] = b
	i.do(http.MethodPost, "/v2/base/os/blobs/uploads/?digest="+d.String(), "application/octet-stream", b)
	return d
}

func (i *image) put(b []byte, mediaType string, names ...string) digest.SHA256 {
	i.t.Helper()
	d := digest.Of(b)
	i.blobs[d] = b
	for _, name := range append(names, d.String()) {
		i.do(http.MethodPut, "/v2/base/os/manifests/"+name, mediaType, b)
	}
	return d
}

func (i *image) do(method, path, mediaType string, b []byte) {
	i.t.Helper()
	req, err := http.NewRequest(method, i.server.URL+path, bytes.NewReader(b))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		i.t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
	}
}

// push pushes an image with the first layer plain and the others packed with zstd.
func (i *image) push(layers ...[]byte) (manifest, index digest.SHA256) {
	i.t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		i.t.Fatal(err)
	}
	var diffs, list []string
	for n, l := range layers {
		diffs = append(diffs, fmt.Sprintf("%q", digest.Of(l).String()))
		mediaType := "application/vnd.oci.image.layer.v1.tar"
		if n > 0 {
			l, mediaType = enc.EncodeAll(l, nil), mediaType+"+zstd"
		}
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, i.blob(l), len(l)))
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffs, ","))
	doc := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`,
		imagespec.MediaTypeManifest, imagespec.MediaTypeConfig, i.blob(config), len(config), strings.Join(list, ","))
	manifest = i.put(doc, imagespec.MediaTypeManifest)
	other := i.put(bytes.Replace(doc, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":2,"annotations":{"for":"arm64"}`), 1), imagespec.MediaTypeManifest)
	entry := func(d digest.SHA256, arch string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, imagespec.MediaTypeManifest, d, len(i.blobs[d]), arch)
	}
	index = i.put(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s]}`, imagespec.MediaTypeIndex, entry(other, "arm64"), entry(manifest, "amd64")), imagespec.MediaTypeIndex, "latest")
	return manifest, index
}

func TestImageFromLayout(t *testing.T) {
	i := newImage(t)
	layout := t.TempDir()
	put(t, filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	for _, b := range i.blobs {
		writeBlob(t, layout, b)
	}
	f := newFetcher(t)
	f.Offline = true
	f.Archives = []string{layout}
	got, err := f.Fetch(t.Context(), input(t, "example.org/base/os@"+i.manifest.String()), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`etc/`, `etc/new "2"`, `lib -> /usr/lib`, `usr/`, `usr/lib/`, `usr/lib/x* "1"`}, list(t, got.Path)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestHostileImages(t *testing.T) {
	i := newImage(t)
	layer := layerTar(t, tar.Header{Name: "x"})
	l := i.blob(layer)
	config := fmt.Appendf(nil, `{"rootfs":{"type":"layers","diff_ids":[%q]}}`, l)
	c := i.blob(config)
	good := map[string]any{
		"schemaVersion": 2, "mediaType": imagespec.MediaTypeManifest,
		"config": map[string]any{"mediaType": imagespec.MediaTypeConfig, "digest": c, "size": len(config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": l, "size": len(layer)}},
	}
	layerOf := func(m map[string]any) map[string]any { return m["layers"].([]any)[0].(map[string]any) }
	tests := []struct {
		name   string
		change func(map[string]any)
		err    string
	}{
		{"as it should be", func(m map[string]any) {}, ""},
		{"index and image in one", func(m map[string]any) { m["manifests"] = []any{} }, "it must be either an index or an image"},
		{"neither", func(m map[string]any) { delete(m, "layers"); delete(m, "config") }, "it must be either an index or an image"},
		{"media type of an index", func(m map[string]any) { m["mediaType"] = imagespec.MediaTypeIndex }, "its media type \"application/vnd.oci.image.index.v1+json\" is that of something else"},
		{"old schema", func(m map[string]any) { m["schemaVersion"] = 1 }, "schema version is 1, not 2"},
		{"artifact", func(m map[string]any) { m["config"].(map[string]any)["mediaType"] = "application/x-helm" }, "it is no image that can be run"},
		{"unknown layer", func(m map[string]any) { layerOf(m)["mediaType"] = "application/x-foreign" }, "unknown media type \"application/x-foreign\""},
		{"layer of another compression", func(m map[string]any) { layerOf(m)["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip" }, `compressed with "", but said to be with "gzip"`},
		{"layer of another size", func(m map[string]any) { layerOf(m)["size"] = len(layer) + 1 }, "bytes, its descriptor says"},
		{"negative size", func(m map[string]any) { layerOf(m)["size"] = -1 }, "larger than the limit"},
		{"huge configuration", func(m map[string]any) { m["config"].(map[string]any)["size"] = 5 << 20 }, "larger than the limit of 4194304 bytes"},
		{"other number of layers", func(m map[string]any) { m["layers"] = []any{} }, "lists 1 layers, its manifest 0"},
		{"many layers", func(m map[string]any) {
			m["layers"] = make([]any, 513)
			for n := range m["layers"].([]any) {
				m["layers"].([]any)[n] = map[string]any{}
			}
		}, "it has 513 layers, more than 512"},
		{"digest of another algorithm", func(m map[string]any) { layerOf(m)["digest"] = "sha512:" + strings.Repeat("0", 128) }, "digest"},
		{"digest that leaves the directory", func(m map[string]any) { layerOf(m)["digest"] = "sha256:../../../etc/passwd" }, "digest"},
		{"no JSON", nil, "invalid character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFetcher(t)
			doc := []byte("<html>")
			if tt.change != nil {
				var m map[string]any
				b, err := json.Marshal(good)
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(b, &m); err != nil {
					t.Fatal(err)
				}
				tt.change(m)
				if doc, err = json.Marshal(m); err != nil {
					t.Fatal(err)
				}
			}
			layout := t.TempDir()
			for _, b := range [][]byte{doc, config, layer} {
				writeBlob(t, layout, b)
			}
			f.Archives = []string{layout}
			f.Offline = true
			_, err := f.Fetch(t.Context(), input(t, "example.org/x@"+digest.Of(doc).String()), "", nil)
			if tt.err == "" && err != nil || !strings.Contains(errText(err), tt.err) {
				t.Errorf("error %q does not say %q", errText(err), tt.err)
			}
		})
	}
	t.Run("uncompressed bytes differ from the configuration", func(t *testing.T) {
		lying := fmt.Appendf(nil, `{"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.Of(nil))
		doc := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
			imagespec.MediaTypeConfig, digest.Of(lying), len(lying), l, len(layer))
		layout := t.TempDir()
		for _, b := range [][]byte{doc, lying, layer} {
			writeBlob(t, layout, b)
		}
		f := newFetcher(t)
		f.Archives = []string{layout}
		_, err := f.Fetch(t.Context(), input(t, "example.org/x@"+digest.Of(doc).String()), "", nil)
		if !strings.Contains(errText(err), "the pin says "+digest.Of(nil).String()) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("platform that is not there", func(t *testing.T) {
		f := newFetcher(t)
		f.Platform = "linux/riscv64"
		_, err := f.Fetch(t.Context(), input(t, i.host+"/base/os@"+i.index.String()), "", nil)
		if !strings.Contains(errText(err), `has no image for linux/riscv64, only for ["linux/arm64" "linux/amd64"]`) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("corrupt blob from the registry", func(t *testing.T) {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", imagespec.MediaTypeManifest)
				io.WriteString(w, "{}")
			}
		}))
		defer proxy.Close()
		f := newFetcher(t)
		_, err := f.Fetch(t.Context(), input(t, strings.TrimPrefix(proxy.URL, "http://")+"/x@"+i.manifest.String()), "", nil)
		if !strings.Contains(errText(err), "the pin says "+i.manifest.SRI()) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("unencrypted registry elsewhere", func(t *testing.T) {
		req := httptest.NewRequest(http.MethodGet, "http://registry.example.org/v2/", nil)
		_, err := (&registryLine{next: noNetwork{t}}).RoundTrip(req)
		if errText(err) != "registry registry.example.org speaks only unencrypted HTTP" {
			t.Errorf("error is %v", err)
		}
	})
}

// FuzzOCI: whatever a manifest says, reading it gives a document that is one of the two kinds, or an error.
func FuzzOCI(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := imagespec.Parse(b)
		if err == nil && (doc.Kind() == imagespec.Index) != (doc.Manifests != nil) {
			t.Errorf("%q is both or neither", b)
		}
	})
}
