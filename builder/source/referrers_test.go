package source

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
)

// envelope is one that says of itself that it holds a claim. Nothing here verifies it.
func envelope(name string) []byte {
	env := &dsse.Envelope{
		PayloadType: attest.PayloadType,
		Payload:     fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicate":{"name":%q},"predicateType":%q,"subject":[]}`, name, attest.ClaimType),
		Signatures:  []dsse.Signature{{Sig: []byte("x")}},
	}
	return env.Marshal()
}

// attach pushes a manifest with one layer, whose subject is an image.
func (i *image) attach(subject digest.SHA256, mediaType string, layer []byte, tags ...string) {
	i.t.Helper()
	config := []byte("{}")
	doc := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}],"subject":{"mediaType":%q,"digest":%q,"size":1}}`,
		imagespec.MediaTypeManifest, mediaType, i.blob(config), mediaType, i.blob(layer), len(layer), imagespec.MediaTypeManifest, subject)
	i.put(doc, imagespec.MediaTypeManifest, tags...)
}

func TestReceipts(t *testing.T) {
	claim, second := envelope("one"), envelope("two")
	tests := []struct {
		name      string
		referrers bool // the registry knows them
		attach    func(i *image)
		want      int
	}{
		{"none", true, func(*image) {}, 0},
		{"none, and the registry knows none", false, func(*image) {}, 0},
		{"one", true, func(i *image) { i.attach(i.manifest, "application/vnd.dsse.envelope.v1+json", claim) }, 1},
		{"two, one of them twice", true, func(i *image) {
			i.attach(i.manifest, "application/vnd.in-toto.bundle", []byte(string(claim)+"\n"+string(second)+"\n"))
			i.attach(i.manifest, "application/vnd.in-toto+json", claim)
		}, 2},
		{"an SBOM", true, func(i *image) { i.attach(i.manifest, "application/spdx+json", []byte("{}")) }, 0},
		{"of another image", true, func(i *image) { i.attach(i.index, "application/vnd.in-toto+json", claim) }, 0},
		{"garbage", true, func(i *image) { i.attach(i.manifest, "application/vnd.in-toto+json", []byte("\x00\xff")) }, 0},
		{"by tag", false, func(i *image) {
			i.attach(i.manifest, "application/vnd.in-toto+json", claim)
			var d digest.SHA256
			for have, b := range i.blobs {
				if strings.Contains(string(b), `"subject"`) {
					d = have
				}
			}
			index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, imagespec.MediaTypeIndex, imagespec.MediaTypeManifest, d, len(i.blobs[d]))
			i.put(index, imagespec.MediaTypeIndex, "sha256-"+i.manifest.Hex())
		}, 1},
		{"too large, beside a good one", true, func(i *image) {
			i.attach(i.manifest, "application/vnd.in-toto+json", make([]byte, maxReferrerBytes+1))
			i.attach(i.manifest, "application/vnd.in-toto+json", claim)
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := newImage(t)
			// The same content, in a registry that knows referrers or does not.
			i.server.Close()
			i.server = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(tt.referrers)))
			t.Cleanup(i.server.Close)
			i.host = strings.TrimPrefix(i.server.URL, "http://")
			tt.attach(i)
			f := newFetcher(t)
			ref := manifest.Ref{Scheme: manifest.RefOCI, Location: i.host + "/base/os", Digest: i.manifest}
			got, err := f.Receipts(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Claims) != tt.want {
				t.Errorf("%d claims, want %d", len(got.Claims), tt.want)
			}
		})
	}
	f := newFetcher(t)
	f.Offline = true
	if _, err := f.Receipts(t.Context(), manifest.Ref{Scheme: manifest.RefOCI, Location: "localhost:1/x", Digest: digest.Of(nil)}); err == nil {
		t.Error("offline, somebody was asked")
	}
}
