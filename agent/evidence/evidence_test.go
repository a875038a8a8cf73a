package evidence

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"arch.network/agent/admission"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/builder/binarycache"
	"arch.network/builder/store"
)

// receipt is a line that says of itself that it holds a claim. Nothing here verifies it: cmd/arch has the tests that do.
func receipt(name string) []byte {
	env := &dsse.Envelope{
		PayloadType: attest.PayloadType,
		Payload:     fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicate":{"name":%q},"predicateType":%q,"subject":[]}`, name, attest.ClaimType),
		Signatures:  []dsse.Signature{{Sig: []byte("x")}},
	}
	return append(env.Marshal(), '\n')
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	beside, named, dir := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(beside, "count.wasm.receipt.jsonl"), receipt("beside"))
	write(t, filepath.Join(beside, "notes.txt"), receipt("no receipt by its name"))
	write(t, filepath.Join(named, "a.intoto.jsonl"), receipt("named"))
	write(t, filepath.Join(named, "b.receipt.jsonl"), receipt("named")) // once more
	write(t, filepath.Join(dir, "file"), receipt("file"))
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref := manifest.Ref{Scheme: manifest.RefURL, Location: "file://" + beside + "/count.wasm", Digest: digest.Of([]byte("count"))}
	far := manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/count.wasm", Digest: ref.Digest}
	f := &Finder{Dirs: []string{named, filepath.Join(dir, "file"), filepath.Join(dir, "missing")}, Store: s}
	for _, tt := range []struct {
		name string
		ref  manifest.Ref
		want int
	}{{"beside a file and in directories", ref, 3}, {"in directories", far, 2}} {
		got, err := f.Find(t.Context(), tt.ref)
		if err != nil || len(got.Claims) != tt.want {
			t.Errorf("%s: %d claims, want %d: %v", tt.name, len(got.Claims), tt.want, err)
		}
	}
	found, err := f.Find(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Keep(ref.Digest, found); err != nil {
		t.Fatal(err)
	}
	again, err := (&Finder{Store: s}).Find(t.Context(), far)
	if err != nil || len(again.Claims) != 3 {
		t.Errorf("kept by digest: %d claims: %v", len(again.Claims), err)
	}
	other := manifest.Ref{Scheme: manifest.RefURL, Location: far.Location, Digest: digest.Of([]byte("other"))}
	if got, err := (&Finder{Store: s}).Find(t.Context(), other); err != nil || !got.Empty() {
		t.Errorf("of other bytes: %v, %v", got, err)
	}
}

// TestFindInCache finds what is published beside a binary cache, of this store path and of this content, and nothing else there.
func TestFindInCache(t *testing.T) {
	cache := t.TempDir()
	ref := manifest.Ref{Scheme: manifest.RefStore, Location: "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello", Digest: digest.Of([]byte("hello"))}
	path, err := storepath.Parse(ref.Location)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(cache, binarycache.ReceiptDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{binarycache.ReceiptPath(path), binarycache.ReceiptPathOfNAR(ref.Digest), binarycache.ReceiptPathOfNAR(digest.Of([]byte("other")))} {
		write(t, filepath.Join(cache, name), receipt(fmt.Sprint(i)))
	}
	got, err := (&Finder{Dirs: []string{cache}}).Find(t.Context(), ref)
	if err != nil || len(got.Claims) != 2 {
		t.Errorf("%d claims, want 2: %v", len(got.Claims), err)
	}
}

func TestNoEvidence(t *testing.T) {
	d := admission.Demand{Field: "spec.image", Ref: manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/x", Digest: digest.Of(nil)}, Rules: []int{0}}
	for _, r := range []*attest.Receipt{nil, {}} {
		reasons, err := Check(t.Context(), d, r, nil, time.Time{})
		if err != nil || len(reasons) != 1 || reasons[0].Check != admission.CheckAttestation || reasons[0].Cure == "" {
			t.Errorf("%v, %v", reasons, err)
		}
	}
}
