package artifact_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"arch.network/attest/digest"
	"arch.network/builder/artifact"
)

// FuzzLayoutDigest: whatever an image layout holds, it is refused, or its digest is that of a manifest which lies in it. $MANIFEST and $BLOB stand for digests,
// which no fuzzer guesses, and $SIZE and $LEN for the sizes.
func FuzzLayoutDigest(f *testing.F) {
	const index = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$MANIFEST","size":$SIZE}]}`
	f.Add([]byte(index), []byte(`{"schemaVersion":2,"config":{"digest":"$BLOB","size":$LEN},"layers":[{"digest":"$BLOB","size":$LEN}]}`), []byte("layer"))
	f.Add([]byte(index), []byte(`{"config":{"digest":"sha256:../../index.json","size":1},"layers":null}`), []byte{})
	f.Add([]byte(`{"manifests":[{"digest":"$MANIFEST","size":-1},null]}`), []byte(`null`), []byte("x"))
	f.Fuzz(func(t *testing.T, index, doc, blob []byte) {
		dir := t.TempDir()
		blobs := filepath.Join(dir, "blobs", "sha256")
		blobSum := digest.Of(blob)
		doc = bytes.ReplaceAll(doc, []byte("$BLOB"), []byte(blobSum.String()))
		doc = bytes.ReplaceAll(doc, []byte("$LEN"), []byte(strconv.Itoa(len(blob))))
		docSum := digest.Of(doc)
		index = bytes.ReplaceAll(index, []byte("$MANIFEST"), []byte(docSum.String()))
		index = bytes.ReplaceAll(index, []byte("$SIZE"), []byte(strconv.Itoa(len(doc))))
		if err := errors.Join(os.MkdirAll(blobs, 0o755), os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644),
			os.WriteFile(filepath.Join(blobs, blobSum.Hex()), blob, 0o644), os.WriteFile(filepath.Join(blobs, docSum.Hex()), doc, 0o644)); err != nil {
			t.Fatal(err)
		}
		sum, err := artifact.LayoutDigest(dir)
		if err == nil && sum != docSum && sum != blobSum {
			t.Errorf("digest %s is of nothing that is there", sum)
		}
		if err != nil && !sum.IsZero() {
			t.Errorf("%s beside %v", sum, err)
		}
	})
}
