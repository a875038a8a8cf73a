package receiptdir_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/identity"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/receiptdir"
)

var (
	path = storepath.Path{Dir: "/nix/store", Hash: strings.Repeat("a", 32), Name: "hello"}
	sum  = digest.Of([]byte("x"))
)

// receipt is one builder's word.
func receipt(t *testing.T, seed string, subjects ...attest.ResourceDescriptor) *attest.Receipt {
	t.Helper()
	key, err := identity.Generate(identity.Ed25519, strings.NewReader(strings.Repeat(seed, 64)))
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := attest.NewStatement(subjects, &attest.Provenance{
		BuildDefinition: attest.BuildDefinition{BuildType: "https://example.org/b", ExternalParameters: json.RawMessage(`{}`)},
		RunDetails:      attest.RunDetails{Builder: attest.Builder{ID: "https://example.org/" + seed}},
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := stmt.Sign(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := &attest.Receipt{}
	r.Add(env)
	return r
}

// TestManyBuilders has several publish at the same time: nobody's word is lost.
func TestManyBuilders(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for _, seed := range []string{"a", "b", "c", "d", "e", "f"} {
		r := receipt(t, seed, binarycache.Subject(path, sum))
		all.Go(func() {
			changed, err := receiptdir.Add(dir, r)
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{binarycache.ReceiptPath(path), binarycache.ReceiptPathOfNAR(sum)}, changed); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
		})
	}
	all.Wait()
	r, err := receiptdir.Read(dir, path, sum)
	if err != nil || len(r.Provenances) != 6 {
		t.Errorf("%d statements, %v", len(r.Provenances), err)
	}
	// The same again changes nothing.
	before, _ := os.ReadFile(filepath.Join(dir, binarycache.ReceiptPath(path)))
	if _, err := receiptdir.Add(dir, r); err != nil {
		t.Error(err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, binarycache.ReceiptPath(path)))
	if string(before) != string(after) {
		t.Error("the same receipts were added twice")
	}
	// By one of the two names alone, they are found, too.
	other := path
	other.Hash = strings.Repeat("b", 32)
	if r, err := receiptdir.Read(dir, other, sum); err != nil || len(r.Provenances) != 6 {
		t.Errorf("by the NAR hash: %d statements, %v", len(r.Provenances), err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []attest.ResourceDescriptor{
		{Name: "hello", MediaType: attest.MediaNAR, Digest: map[string]string{"sha256": sum.Hex()}},
		{URI: "/nix/store/../../etc/passwd", MediaType: attest.MediaNAR, Digest: map[string]string{"sha256": sum.Hex()}},
		{URI: path.String(), Digest: map[string]string{"sha256": sum.Hex()}},
		{URI: path.String(), MediaType: attest.MediaNAR, Digest: map[string]string{"sha512": strings.Repeat("0", 128)}},
	} {
		if changed, err := receiptdir.Add(dir, receipt(t, "a", d)); err == nil {
			t.Errorf("%v: %q was written", d, changed)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v was left", entries)
	}
}
