package imagespec

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/builder/source/unpack"
)

var d = digest.Of([]byte("x"))

// conf is the member config of a manifest.
func conf(mediaType string) string {
	return fmt.Sprintf(`"config":{"mediaType":%q,"digest":%q,"size":1}`, mediaType, d)
}

// layer is an element of the member layers.
func layer(mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, mediaType, d)
}

func TestParse(t *testing.T) {
	const tarLayer, wasm = "application/vnd.oci.image.layer.v1.tar+zstd", "application/wasm"
	for name, tt := range map[string]struct {
		text string
		kind Kind
		err  string
	}{
		"image":                  {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[` + layer(tarLayer) + `]}`, Image, ""},
		"image of Docker":        {`{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `",` + conf(MediaTypeDockerConfig) + `,"layers":[` + layer("application/vnd.docker.image.rootfs.diff.tar.gzip") + `]}`, Image, ""},
		"image without layers":   {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[]}`, Image, ""},
		"index":                  {`{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[]}`, Index, ""},
		"module":                 {`{"schemaVersion":2,` + conf("application/vnd.wasm.config.v0+json") + `,"layers":[` + layer(wasm) + `]}`, Module, ""},
		"module of wasm-to-oci":  {`{"schemaVersion":2,` + conf("application/vnd.wasm.config.v1+json") + `,"layers":[` + layer("application/vnd.wasm.content.layer.v1+wasm") + `]}`, Module, ""},
		"module in an image":     {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[` + layer(wasm) + `]}`, "", `unknown media type "application/wasm"`},
		"two modules":            {`{"schemaVersion":2,` + conf("application/vnd.wasm.config.v0+json") + `,"layers":[` + layer(wasm) + `,` + layer(wasm) + `]}`, "", "an artifact of another type"},
		"other artifact":         {`{"schemaVersion":2,` + conf("application/vnd.cncf.helm.config.v1+json") + `,"layers":[]}`, "", "an artifact of another type"},
		"no configuration":       {`{"schemaVersion":2,"layers":[]}`, "", "an artifact of another type"},
		"both":                   {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[],"manifests":[]}`, "", "it must be either an index or an image"},
		"neither":                {`{"schemaVersion":2}`, "", "it must be either an index or an image"},
		"index that says image":  {`{"schemaVersion":2,"mediaType":"` + MediaTypeManifest + `","manifests":[]}`, "", "is that of something else"},
		"image that says index":  {`{"schemaVersion":2,"mediaType":"` + MediaTypeDockerIndex + `",` + conf(MediaTypeConfig) + `,"layers":[]}`, "", "is that of something else"},
		"schema 1":               {`{"schemaVersion":1,` + conf(MediaTypeConfig) + `,"layers":[]}`, "", "schema version is 1, not 2"},
		"layer without digest":   {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[{"mediaType":"` + tarLayer + `"}]}`, "", "a descriptor has no digest"},
		"config without digest":  {`{"schemaVersion":2,"config":{"mediaType":"` + MediaTypeConfig + `"},"layers":[]}`, "", "the descriptor of the configuration has no digest"},
		"two lists":              {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[],"layers":[]}`, "", "readers differ in what that means"},
		"list of another case":   {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"Layers":[]}`, "", "readers differ in what that means"},
		"two artifact types":     {`{"schemaVersion":2,"artifactType":"a","artifactType":"b",` + conf(MediaTypeConfig) + `,"layers":[]}`, "", "readers differ in what that means"},
		"too many layers":        {`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[` + strings.Repeat(layer(tarLayer)+",", 512) + layer(tarLayer) + `]}`, "", "it has 513 layers, more than 512"},
		"too large":              {`{"x":"` + strings.Repeat("x", MaxDocument) + `"}`, "", "bytes, more than 4194304"},
		"digest out of the blob": {`{"schemaVersion":2,"config":{"mediaType":"` + MediaTypeConfig + `","digest":"sha256:../../x"},"layers":[]}`, "", "digest"},
		"something behind":       {`{"schemaVersion":2,"manifests":[]}{}`, "", "invalid character"},
	} {
		got, err := Parse([]byte(tt.text))
		if tt.err == "" && err != nil || err != nil && !strings.Contains(err.Error(), tt.err) || tt.err != "" && err == nil {
			t.Errorf("%s: error is %v", name, err)
		}
		if err == nil && (got.Kind() != tt.kind || got.MediaType == "") {
			t.Errorf("%s: %q of type %q", name, got.Kind(), got.MediaType)
		}
	}
}

func TestChoose(t *testing.T) {
	one := func(mediaType, os, arch string, n byte) Descriptor {
		return Descriptor{MediaType: mediaType, Digest: digest.SHA256{n}, Platform: &Platform{OS: os, Architecture: arch}}
	}
	index := &Document{Manifests: []Descriptor{
		one(MediaTypeManifest, "linux", "amd64", 1), one(MediaTypeManifest, "linux", "arm64", 2), one(MediaTypeManifest, "linux", "arm64", 3),
		one(MediaTypeIndex, "linux", "riscv64", 4), one(MediaTypeManifest, "unknown", "unknown", 5),
		{MediaType: MediaTypeManifest, Digest: digest.SHA256{6}},
	}}
	for platform, want := range map[string]string{
		"linux/amd64":   "",
		"linux/arm64":   "has 2 images for linux/arm64",
		"linux/riscv64": `has no image for linux/riscv64, only for ["linux/amd64" "linux/arm64" "linux/arm64" "unknown/unknown"]`,
		"":              `has no image for , only for ["linux/amd64" "linux/arm64" "linux/arm64" "unknown/unknown"]`,
	} {
		got, err := index.Choose(platform)
		if err != nil && err.Error() != want || err == nil && (want != "" || got.Digest != digest.SHA256{1}) {
			t.Errorf("%q: %v, %v", platform, got.Digest, err)
		}
	}
}

func TestParseConfiguration(t *testing.T) {
	const rootfs = `"rootfs":{"type":"layers","diff_ids":["sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]}`
	got, err := ParseConfiguration([]byte(`{"os":"linux","architecture":"amd64","config":{"User":"u","Env":["A=b"],"Cmd":["c"],"Entrypoint":["e"],"WorkingDir":"/w","Volumes":{"/v":{}},"Labels":{"x":"y"}},`+rootfs+`}`), 1)
	want := Execution{User: "u", Env: []string{"A=b"}, Cmd: []string{"c"}, Entrypoint: []string{"e"}, WorkingDir: "/w", Volumes: map[string]struct{}{"/v": {}}}
	if err != nil || got.OS != "linux" || got.Architecture != "amd64" || got.RootFS.DiffIDs[0] != d {
		t.Fatalf("%+v, %v", got, err)
	}
	if diff := cmp.Diff(want, got.Config); diff != "" {
		t.Errorf("execution (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		`{` + rootfs + `,"config":{"User":"a","user":"root"}}`:              "readers differ in what that means",
		`{` + rootfs + `,"config":{"Entrypoint":["a"],"Entrypoint":["b"]}}`: "readers differ in what that means",
		`{` + rootfs + `,"config":{"User":"a"},"config":{"User":"b"}}`:      "readers differ in what that means",
		`{` + rootfs + `,"os":"linux","OS":"windows"}`:                      "readers differ in what that means",
		`{"rootfs":{"type":"layers","diff_ids":[]}}`:                        "it lists 0 layers, its manifest 1",
		`{"rootfs":{"type":"other","diff_ids":["` + d.String() + `"]}}`:     "its manifest 1",
		`{"rootfs":{"type":"layers","diff_ids":[""]}}`:                      "the digest of a layer is missing",
		`{"rootfs":{"type":"layers","diff_ids":["sha512:00"]}}`:             "digest",
		`{` + rootfs + `,"config":{"Env":"A=b"}}`:                           "cannot unmarshal string",
		`{` + rootfs + `,"x":"` + strings.Repeat("x", MaxDocument) + `"}`:   "more than 4194304",
		`[]`: "cannot unmarshal array",
	} {
		if _, err := ParseConfiguration([]byte(text), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: error is %v", text, err)
		}
	}
}

func TestLayerCompression(t *testing.T) {
	for mediaType, want := range map[string]unpack.Compression{
		"application/vnd.oci.image.layer.v1.tar": unpack.None, "application/vnd.oci.image.layer.v1.tar+gzip": unpack.Gzip, "application/vnd.oci.image.layer.v1.tar+zstd": unpack.Zstd,
	} {
		if got, ok := LayerCompression(mediaType); !ok || got != want {
			t.Errorf("%s: %q, %v", mediaType, got, ok)
		}
	}
	for _, mediaType := range []string{"", "application/vnd.oci.image.layer.v1.tar+xz", "application/vnd.oci.image.layer.nondistributable.v1.tar", "APPLICATION/VND.OCI.IMAGE.LAYER.V1.TAR"} {
		if got, ok := LayerCompression(mediaType); ok {
			t.Errorf("%q is packed with %q", mediaType, got)
		}
	}
}

// FuzzParse: whatever a document says, what is accepted is of one kind, within the limits, and keeps its meaning when it is written
// again from what was read.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,` + conf(MediaTypeConfig) + `,"layers":[` + layer("application/vnd.oci.image.layer.v1.tar") + `]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"` + MediaTypeManifest + `","digest":"` + d.String() + `","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,` + conf("application/vnd.wasm.config.v0+json") + `,"layers":[` + layer("application/wasm") + `]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(b)
		if err != nil {
			return
		}
		if isIndex := got.Kind() == Index; isIndex != (got.Manifests != nil) || isIndex == (got.Config != nil) || len(got.Layers) > MaxLayers {
			t.Errorf("%+v", got)
		}
		out, err := json.Marshal(map[string]any{"schemaVersion": got.SchemaVersion, "mediaType": got.MediaType, "config": got.Config, "layers": got.Layers, "manifests": got.Manifests})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil || again.Kind() != got.Kind() {
			t.Errorf("again: %v, %v", again, err)
		}
	})
}
