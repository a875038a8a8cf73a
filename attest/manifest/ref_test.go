package manifest

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

const (
	hexPin = "sha256:abababababababababababababababababababababababababababababababab"
	sriPin = "sha256-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="
	h1Pin  = "h1:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="
	commit = "0123456789abcdef0123456789abcdef01234567"
	store  = "/nix/store/00000000000000000000000000000000-hello-2.12"
)

func pinned() (d digest.SHA256) {
	for i := range d {
		d[i] = 0xab
	}
	return d
}

var validRefs = []struct {
	text string
	want Ref
}{
	{"ghcr.io/arch/os/embeddings@" + hexPin, Ref{RefOCI, "ghcr.io/arch/os/embeddings", "", pinned()}},
	{"ghcr.io/arch/os/embeddings:1.2.3@" + hexPin, Ref{RefOCI, "ghcr.io/arch/os/embeddings", "1.2.3", pinned()}},
	{"localhost:5000/a@" + hexPin, Ref{RefOCI, "localhost:5000/a", "", pinned()}},
	{"localhost/a:b@" + hexPin, Ref{RefOCI, "localhost/a", "b", pinned()}},
	{"[::1]:5000/a@" + hexPin, Ref{RefOCI, "[::1]:5000/a", "", pinned()}},
	{store + "#" + sriPin, Ref{RefStore, store, "", pinned()}},
	{"/gnu/store/00000000000000000000000000000000-hello#" + sriPin, Ref{RefStore, "/gnu/store/00000000000000000000000000000000-hello", "", pinned()}},
	{"https://example.org/a.tar.gz?x=1&y=%20#" + sriPin, Ref{RefURL, "https://example.org/a.tar.gz?x=1&y=%20", "", pinned()}},
	{"https://example.org/compare/v1...v2#" + sriPin, Ref{RefURL, "https://example.org/compare/v1...v2", "", pinned()}},
	{"http://127.0.0.1:8080/a#" + sriPin, Ref{RefURL, "http://127.0.0.1:8080/a", "", pinned()}},
	{"file:///srv/a.tar#" + sriPin, Ref{RefURL, "file:///srv/a.tar", "", pinned()}},
	{"onnx://sentence-transformers/all-MiniLM-L6-v2@" + hexPin, Ref{RefModel, "onnx://sentence-transformers/all-MiniLM-L6-v2", "", pinned()}},
	{"go:golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64#" + h1Pin, Ref{RefGo, "golang.org/toolchain", "v0.0.1-go1.26.8.linux-amd64", pinned()}},
	{"go:github.com/BurntSushi/x@v2.0.0+incompatible#" + h1Pin, Ref{RefGo, "github.com/BurntSushi/x", "v2.0.0+incompatible", pinned()}},
	{"git+https://example.org/r.git@" + commit + "#" + sriPin, Ref{RefGit, "git+https://example.org/r.git", commit, pinned()}},
	{"git+file:///srv/r@" + commit + "#" + sriPin, Ref{RefGit, "git+file:///srv/r", commit, pinned()}},
	{"tree:go-1.26+x#" + sriPin, Ref{RefTree, "go-1.26+x", "", pinned()}},
	{"ipfs://" + pinned().CID(), Ref{RefCID, pinned().CID(), "", pinned()}},
}

func TestParseRef(t *testing.T) {
	for _, tt := range validRefs {
		got, err := ParseRef(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, diff)
		}
		if got.String() != tt.text {
			t.Errorf("%q is written %q", tt.text, got)
		}
	}
}

func TestParseRefPrefix(t *testing.T) {
	ref, err := ParseRef("oci:ghcr.io/a/b@" + hexPin)
	if err != nil {
		t.Fatal(err)
	}
	if want := "ghcr.io/a/b@" + hexPin; ref.String() != want {
		t.Errorf("written %q; want %q", ref, want)
	}
}

func TestParseRefNode(t *testing.T) {
	const text = "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/wiki/index.html"
	ref, err := ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	if ref.String() != text || ref.Digest.IsZero() {
		t.Errorf("read as %+v", ref)
	}
}

var unpinnedRefs = []string{
	"ghcr.io/arch/os/embeddings:1.2.3",
	"ghcr.io/arch/os/embeddings",
	"oci:ghcr.io/a/b:latest",
	"localhost:5000/a",
	"ghcr.io/a/b@sha256:…",
	"ipfs://bafy…",
	"ipfs://bafy...",
	"onnx://sentence-transformers/all-MiniLM-L6-v2",
	"onnx://sentence-transformers/all-MiniLM-L6-v2@sha256:…",
	"https://example.org/a.tar",
	"https://example.org/a.tar#",
	"git+https://example.org/r.git",
	"git+https://example.org/r.git@main",
	"git+https://example.org/r.git@0123456",
	"git+https://example.org/r.git@" + commit,
	"go:example.org/m",
	"go:example.org/m@latest",
	"go:example.org/m@v1.0.0",
	store,
	"tree:src",
	"ipns://example.org",
}

func TestParseRefUnpinned(t *testing.T) {
	for _, s := range unpinnedRefs {
		_, err := ParseRef(s)
		unpinned, ok := errors.AsType[*UnpinnedError](err)
		if !ok {
			t.Errorf("%q: %v; want an *UnpinnedError", s, err)
		} else if !strings.Contains(unpinned.Hint(), "arch pin") {
			t.Errorf("%q: hint %q", s, unpinned.Hint())
		}
	}
}

func TestParseRefRefused(t *testing.T) {
	for _, s := range []string{
		"", " ", "sha256:" + strings.Repeat("ab", 32), strings.Repeat("ab", 32), "hello", "debian@" + hexPin, "library/debian@" + hexPin,
		"GHCR.io/Arch/x@" + hexPin, "ghcr.io/a//b@" + hexPin, "ghcr.io/a:@" + hexPin, "ghcr.io/a@" + hexPin + "0", "ghcr.io/a@" + strings.ToUpper(hexPin),
		"ghcr.io/a@sha512:" + strings.Repeat("ab", 64), "ghcr.io/a @" + hexPin, "docker://ghcr.io/a/b@" + hexPin,
		"https://alice:secret@example.org/a#" + sriPin, "https:///a#" + sriPin, "file://host/a#" + sriPin, "https://example.org/a#" + sriPin + "#" + sriPin,
		"https://example.org/a#sha512-abc", "https://example.org/\"#" + sriPin, "HTTPS://example.org/a#" + sriPin, "ftp+https://x/a@" + hexPin,
		store + "/bin/x#" + sriPin, "/etc/passwd#" + sriPin, "/nix/store/../../etc/passwd#" + sriPin, "/nix/store/.hidden#" + sriPin,
		"go:example.org/m@1.0.0#" + h1Pin, "go:example.org/m@v1#" + h1Pin, "go:../m@v1.0.0#" + h1Pin, "go:example.org/m@v1.0.0#h1:short",
		"tree:../x#" + sriPin, "tree:#" + sriPin, "tree:a b#" + sriPin,
		"ipfs://QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKtMT1", "ipfs://" + strings.ToUpper(pinned().CID()), "ipfs://" + pinned().CID() + "/path", "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/../x",
		"ipfs://" + digest.SHA256{}.CID(), "go:example.org/m@v1.0.0#h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"https://example.org/" + strings.Repeat("a", 3000) + "#" + sriPin, "https://example.org/é#" + sriPin, "a\x00b",
	} {
		ref, err := ParseRef(s)
		if err == nil {
			t.Errorf("%q is accepted as %+v", s, ref)
			continue
		}
		if _, ok := errors.AsType[*UnpinnedError](err); ok {
			t.Errorf("%q: %v: pinning cannot cure that", s, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the message shows the password: %v", err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, s := range []string{"store", "ipfs", "oci:ghcr.io/a/b", "oci:ghcr.io/a/b:1", "file:///var/out", "ipfs://" + pinned().CID(), "tree:x#" + sriPin} {
		got, err := ParseTarget(s)
		if err != nil || got.String() != s || got.Validate() != nil {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "stores", "oci:", "oci:ghcr.io/a/b:", "oci:a/b", "file:///", "file:///a/../b", "file:///a%2fb", "file:///a?b", "ghcr.io/a/b:1"} {
		if got, err := ParseTarget(s); err == nil {
			t.Errorf("%q is accepted as %+v", s, got)
		}
	}
}

// TestRefPatterns checks the patterns of the schema against the parser.
func TestRefPatterns(t *testing.T) {
	for _, tt := range validRefs {
		if !matchesSchema(refPatterns, tt.want.Scheme, tt.text) {
			t.Errorf("%q does not match the pattern of %s", tt.text, tt.want.Scheme)
		}
	}
	for _, s := range unpinnedRefs {
		for scheme := range refPatterns {
			if matchesSchema(refPatterns, scheme, s) {
				t.Errorf("%q, which is no pin, matches the pattern of %s", s, scheme)
			}
		}
	}
}

func matchesSchema(patterns map[RefScheme]string, scheme RefScheme, s string) bool {
	return regexp.MustCompile(patterns[scheme]).MatchString(s)
}

func TestQuantity(t *testing.T) {
	for _, tt := range []struct {
		in    Quantity
		bytes int64 // -1: no whole number
		milli int64
	}{
		{"", 0, 0},
		{"4", 4, 4000},
		{"0", 0, 0},
		{"500m", -1, 500},
		{"8Gi", 8 << 30, 8 << 30 * 1000},
		{"1G", 1e9, 1e12},
		{"1.5Gi", 3 << 29, 3 << 29 * 1000},
		{"1k", 1000, 1e6},
		{"1Ki", 1024, 1024000},
		{"1e3", 1000, 1e6},
		{"1E3", 1000, 1e6},
		{"1E", 1e18, -1},
		{".5", -1, 500},
		{"5.", 5, 5000},
		{"1e-3", -1, 1},
		{"1e-4", -1, -1},
	} {
		checkWhole(t, string(tt.in)+" in bytes", tt.bytes, tt.in.Bytes)
		checkWhole(t, string(tt.in)+" in thousandths", tt.milli, tt.in.Milli)
	}
	for _, bad := range []Quantity{"-1", "+1", "1 Gi", "1gi", "1K", "1Mb", "Gi", "1e100", "8Ei", "٣", "1e", "0x10", "1_000", " 1", "100000000000000000000000000000000"} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func checkWhole(t *testing.T, what string, want int64, get func() (int64, error)) {
	t.Helper()
	got, err := get()
	if (err != nil) != (want == -1) || (err == nil && got != want) {
		t.Errorf("%s is %d, %v; want %d", what, got, err, want)
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[Duration]string{"": "0s", "90s": "1m30s", "1h30m": "1h30m0s", "2d": "48h0m0s", "36500d": "876000h0m0s"} {
		if got, err := in.Duration(); err != nil || got.String() != want {
			t.Errorf("%q lasts %v, %v; want %s", in, got, err, want)
		}
	}
	for _, bad := range []Duration{"1", "1.5h", "-1h", "30m1h", "1w", "36501d", "1h ", "99999d", "9999999999s9", "forever"} {
		if d, err := bad.Duration(); err == nil {
			t.Errorf("%q is accepted as %v", bad, d)
		}
	}
}
