package source

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
)

// answering is a network of one server, which is asked for paths.
type answering func(path string) []byte

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusNotFound, Body: http.NoBody, Header: http.Header{}, Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if data := a(r.URL.Path); data != nil {
		resp.StatusCode, resp.Body, resp.ContentLength = http.StatusOK, io.NopCloser(bytes.NewReader(data)), int64(len(data))
	}
	return resp, nil
}

// fuzzFetcher is a Fetcher with that network. It uses no store.
func fuzzFetcher(a answering) *Fetcher {
	return &Fetcher{Platform: "linux/amd64", GoProxy: "https://proxy.example", HTTP: &http.Client{Transport: a}}
}

// FuzzReceipts: whatever a registry says is attached to an image, it is an error or a receipt. $MANIFEST and $LAYER stand for the
// digests of the manifest and the layer, which no fuzzer guesses.
func FuzzReceipts(f *testing.F) {
	const kind = "application/vnd.in-toto+json"
	index := `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$MANIFEST","size":1}]}`
	f.Add([]byte(index), []byte(`{"layers":[{"mediaType":"`+kind+`","digest":"$LAYER"}]}`), envelope("one"))
	f.Add([]byte(index), []byte(`{"layers":[{"mediaType":"`+kind+`","digest":"$LAYER"},{"mediaType":"`+kind+`","digest":"$LAYER"}]}`), []byte("\n{}\n"))
	f.Add([]byte(`{"manifests":null}`), []byte(`[]`), []byte("x"))
	f.Fuzz(func(t *testing.T, index, doc, layer []byte) {
		layerSum := digest.Of(layer)
		doc = bytes.ReplaceAll(doc, []byte("$LAYER"), []byte(layerSum.String()))
		docSum := digest.Of(doc)
		index = bytes.ReplaceAll(index, []byte("$MANIFEST"), []byte(docSum.String()))
		fetcher := fuzzFetcher(func(path string) []byte {
			switch {
			case path == "/v2/":
				return []byte("{}")
			case strings.Contains(path, "/referrers/"):
				return index
			case strings.HasSuffix(path, docSum.String()):
				return doc
			case strings.HasSuffix(path, layerSum.String()):
				return layer
			}
			return nil
		})
		ref, err := manifest.ParseRef("registry.example/image@" + digest.Of(nil).String())
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := fetcher.Receipts(t.Context(), ref)
		if (receipt == nil) == (err == nil) {
			t.Errorf("%v, %v", receipt, err)
		}
	})
}

// FuzzLatest: whatever a proxy says is the latest version, it is one that a module can have, or an error.
func FuzzLatest(f *testing.F) {
	f.Add([]byte(`{"Version":"v1.2.3","Time":"2024-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"Version":"v0.0.0-20240101000000-0123456789ab"}`))
	f.Add([]byte(`{"Version":"../../x"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		const path = "example.com/m"
		version, err := fuzzFetcher(func(string) []byte { return data }).goVersion(t.Context(), path, "latest")
		if err == nil && module.Check(path, version) != nil {
			t.Errorf("version %q", version)
		}
	})
}

// FuzzGitObjects: whatever git lists and sends, files come to be in the directory alone.
func FuzzGitObjects(f *testing.F) {
	const id, other = "0123456789012345678901234567890123456789", "9876543210987654321098765432109876543210"
	f.Add([]byte("100644 blob "+id+"\ta\x00"), []byte(id+" blob 3\nabc\n"))
	f.Add([]byte("100755 blob "+id+"\td/a\x00120000 blob "+other+"\td/l\x00"), []byte(id+" blob 0\n\n"+other+" blob 1\na\n"))
	f.Add([]byte("120000 blob "+id+"\td\x00100644 blob "+other+"\td/a\x00"), []byte(id+" blob 2\n..\n"+other+" blob 1\na\n"))
	f.Add([]byte("100644 blob "+id+"\t../a\x00"), []byte(id+" blob -1\n"))
	f.Add([]byte("160000 commit "+id+"\tsub\x00"), []byte(nil))
	f.Fuzz(func(t *testing.T, tree, objects []byte) {
		entries, err := parseTree(tree, "https://git.example/x")
		if err != nil {
			return
		}
		parent := t.TempDir()
		dir := filepath.Join(parent, "tree")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		to, err := unpack.New(dir, unpack.Strict, unpack.Limits{Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		err = readObjects(bufio.NewReaderSize(bytes.NewReader(objects), 64<<10), entries, to)
		closed := to.Close()
		if there, listErr := os.ReadDir(parent); listErr != nil || len(there) != 1 {
			t.Errorf("beside the tree: %v, %v", there, listErr)
		}
		if err == nil && closed == nil {
			for _, e := range entries {
				if _, err := os.Lstat(filepath.Join(dir, e.name)); err != nil {
					t.Error(fmt.Errorf("%q was listed: %w", e.name, err))
				}
			}
		}
	})
}
