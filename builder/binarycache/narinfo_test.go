package binarycache_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gonix "github.com/nix-community/go-nix/pkg/narinfo"

	"arch.network/builder/binarycache"
)

const (
	hashA = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	hashB = "7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc"
	sum   = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
)

// narinfo is one as Nix writes it.
const narinfo = `StorePath: /nix/store/` + hashA + `-net-tools-1.60_p20170221182432
URL: nar/1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d.nar.xz
Compression: xz
FileHash: sha256:1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d
FileSize: 114980
NarHash: sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6
NarSize: 464152
References: ` + hashB + `-glibc-2.27
Deriver: 10dx1q4ivjb115y3h90mipaaz533nr0d-net-tools-1.60_p20170221182432.drv
Sig: cache.nixos.org-1:sn5s/RrqEI+YG6/PjwdbPjcAC7rcta7sJU4mFOawGvJBLsWkyLtBrT2EuFt/LJjWkTZ+ZWOI9NTtjo/woMdvAg==
`

func parse(t *testing.T, text string) *binarycache.NarInfo {
	t.Helper()
	n, err := binarycache.ParseNarInfo([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRealNarInfo reads a narinfo of the largest cache there is, and verifies the signature that the world trusts.
func TestRealNarInfo(t *testing.T) {
	n := parse(t, narinfo)
	key, err := binarycache.ParsePublicKey("cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=")
	if err != nil {
		t.Fatal(err)
	}
	if !key.Verify(n.Fingerprint().String(), n.Sigs[0]) {
		t.Error("the signature does not verify")
	}
	n.NarSize++
	if key.Verify(n.Fingerprint().String(), n.Sigs[0]) {
		t.Error("the signature verifies over another size")
	}
	n.NarSize--
	f, err := binarycache.ParseFingerprint(n.Fingerprint().String())
	if diff := cmp.Diff(n.Fingerprint(), f); err != nil || diff != "" {
		t.Errorf("fingerprint: %v (-want +got):\n%s", err, diff)
	}
	data, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n, parse(t, string(data))); diff != "" {
		t.Errorf("written and read again (-want +got):\n%s", diff)
	}
}

// TestGoNix holds what we read and write against another implementation.
func TestGoNix(t *testing.T) {
	ours := parse(t, narinfo)
	written, err := ours.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{narinfo, string(written)} {
		theirs, err := gonix.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := theirs.Check(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(theirs.Fingerprint(), ours.Fingerprint().String()); diff != "" {
			t.Errorf("fingerprint (-go-nix +ours):\n%s", diff)
		}
		if theirs.URL != ours.Files[0].URL || theirs.Compression != string(ours.Files[0].Compression) || theirs.FileSize != uint64(ours.Files[0].Size) {
			t.Errorf("go-nix reads %v, we %v", theirs, ours.Files)
		}
	}
}

func TestGuixNarInfo(t *testing.T) {
	data, err := os.ReadFile("testdata/guix.narinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := parse(t, string(data))
	if diff := cmp.Diff([]binarycache.File{{URL: "nar/zstd/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml", Compression: binarycache.Zstd}}, n.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if n.Guix == nil || !bytes.HasPrefix(data, n.Guix.Signed) || !strings.HasPrefix(n.Guix.Value, "1;vm;") {
		t.Errorf("signature: %v", n.Guix)
	}
	path, nar, err := binarycache.ReadSigned(n.Guix.Signed)
	if err != nil || path != n.StorePath || nar != n.NarHash {
		t.Errorf("signed: %v, %v, %v", path, nar, err)
	}
	// Several packings, as a server with a cache writes them.
	n = parse(t, string(data)+"FileSize: 200\nURL: nar/lzip/x\nCompression: lzip\nFileSize: 180\n")
	if f, err := n.File(); err != nil || f.Compression != binarycache.Zstd || f.Size != 200 || len(n.Files) != 2 {
		t.Errorf("files: %v, %v", n.Files, err)
	}
	for _, line := range []string{"NarHash: " + sum, "References: ", "StorePath: /gnu/store/" + hashA + "-x", "Deriver: x", "Signature: 1;vm;eA=="} {
		if _, err := binarycache.ParseNarInfo(append(bytes.Clone(data), line+"\n"...)); err == nil {
			t.Errorf("%q behind the signature is accepted", line)
		}
	}
}

func TestNarInfoRefused(t *testing.T) {
	many := "References:" + strings.Repeat(" "+hashA+"-x", binarycache.MaxReferences+1)
	for _, c := range []struct{ name, old, new, want string }{
		{"field twice", "NarSize: 464152", "NarSize: 464152\nNarSize: 464152", "NarSize: it is there twice"},
		{"no NarHash", "NarHash", "Narhash", "NarHash: it is not there"},
		{"no URL", "URL: nar/1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d.nar.xz\nCompression: xz\nFileHash: sha256:1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d\nFileSize: 114980\n", "", "URL: it is not there"},
		{"compression first", "URL: nar/", "Compression: xz\nURL: nar/", "before the URL"},
		{"absolute URL", "URL: nar/", "URL: https://evil.example/", "not lie below"},
		{"URL of another host", "URL: nar/", "URL: //evil.example/", "not lie below"},
		{"URL upwards", "URL: nar/", "URL: ../", "not lie below"},
		{"URL upwards, escaped", "URL: nar/", "URL: nar/%2e%2e/%2e%2e/", "not lie below"},
		{"URL from the root", "URL: nar/", "URL: /", "not lie below"},
		{"negative size", "NarSize: 464152", "NarSize: -1", "no number of bytes"},
		{"size with a sign", "NarSize: 464152", "NarSize: +464152", "no number of bytes"},
		{"size with zeros", "NarSize: 464152", "NarSize: 0464152", "no number of bytes"},
		{"no size", "NarSize: 464152", "NarSize: 0", "no NAR has 0 bytes"},
		{"huge", "NarSize: 464152", "NarSize: 999999999999999", "over the limit"},
		{"sha1", "NarHash: sha256:", "NarHash: sha1:", "NarHash"},
		{"path below the path", "-net-tools-1.60_p20170221182432\nURL", "-net/tools\nURL", "StorePath"},
		{"path with dots", "StorePath: /nix/store/", "StorePath: /nix/store/../store/", "StorePath"},
		{"reference with a slash", "-glibc-2.27", "-glibc/2.27", "References"},
		{"reference twice", "-glibc-2.27", "-glibc-2.27 " + hashB + "-glibc-2.27", "twice"},
		{"too many references", "References: ", many + "\nReferences: ", "more than"},
		{"signature without a name", "Sig: cache.nixos.org-1:", "Sig: ", "Sig"},
		{"signature not base64", "Sig: cache.nixos.org-1:", "Sig: cache.nixos.org-1:!", "Sig"},
		{"no colon", "NarSize: ", "NarSize ", "not KEY: VALUE"},
		{"empty line", "NarSize: ", "\nNarSize: ", "not KEY: VALUE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(narinfo, c.old, c.new, 1)
			if text == narinfo {
				t.Fatal("nothing was replaced")
			}
			_, err := binarycache.ParseNarInfo([]byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := binarycache.ParseNarInfo(make([]byte, binarycache.MaxNarInfo+1)); err == nil {
		t.Error("one over the limit is accepted")
	}
	if _, err := binarycache.ParseNarInfo([]byte(narinfo + strings.Repeat("Sig: a:eA==\n", binarycache.MaxSignatures))); err == nil {
		t.Error("too many signatures are accepted")
	}
}

func TestKeys(t *testing.T) {
	key, err := binarycache.GenerateKey("k-1", strings.NewReader(strings.Repeat("s", 32)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := binarycache.ParseSecretKey(key.Reveal() + "\n")
	if err != nil || again.Public().String() != key.Public().String() {
		t.Errorf("%v, %v", again, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if text := fmt.Sprintf(verb, key); strings.Contains(text, "sss") || text != `secret key "k-1"` {
			t.Errorf("%s shows %q", verb, text)
		}
	}
	for _, text := range []string{"", "k-1", "k-1:", ":" + "AAAA", "k 1:AAAA", key.Public().String(), strings.Replace(key.Reveal(), "==", "=", 1)} {
		if _, err := binarycache.ParseSecretKey(text); err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%q: %v", text, err)
		}
	}
	other, _ := binarycache.GenerateKey("k-2", strings.NewReader(strings.Repeat("s", 32)))
	if other.Public().Verify("x", key.Sign("x")) {
		t.Error("the name does not matter")
	}
}

func TestInfo(t *testing.T) {
	want := binarycache.Info{StoreDir: "/gnu/store", WantMassQuery: true, Priority: 100}
	got, err := binarycache.ParseInfo(want.Encode())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"", "StoreDir: nix/store\n", "StoreDir: /nix/store/\n", "StoreDir: /a\nStoreDir: /b\n", "StoreDir: /a\nPriority: x\n", "StoreDir\n"} {
		if _, err := binarycache.ParseInfo([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestListingRefused(t *testing.T) {
	for _, text := range []string{
		"", "{}", `{"version":2,"root":{"type":"directory","entries":{}}}`, `{"version":1,"root":null}`, `{"version":1,"root":{"type":"fifo"}}`,
		`{"version":1,"root":{"type":"directory"}}`, `{"version":1,"root":{"type":"regular"}}`, `{"version":1,"root":{"type":"symlink"}}`,
		`{"version":1,"root":{"type":"directory","entries":{"..":{"type":"regular","size":0}}}}`,
		`{"version":1,"root":{"type":"directory","entries":{"a/b":{"type":"regular","size":0}}}}`,
		`{"version":1,"root":{"type":"directory","entries":{"a":null}}}`,
		`{"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":0},"a":{"type":"regular","size":0}}}}`,
	} {
		if _, err := binarycache.ParseListing([]byte(text)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

func FuzzNarInfo(f *testing.F) {
	f.Add([]byte(narinfo))
	if data, err := os.ReadFile("testdata/guix.narinfo"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := binarycache.ParseNarInfo(data)
		if err != nil {
			return
		}
		// What is signed names exactly what was read.
		if p, err := binarycache.ParseFingerprint(n.Fingerprint().String()); err != nil || p.NAR != n.NarHash || p.Path != n.StorePath {
			t.Fatalf("%q: %v", n.Fingerprint(), err)
		}
		if n.Guix != nil {
			if _, _, err := binarycache.ReadSigned(n.Guix.Signed); err != nil {
				t.Fatal(err)
			}
			return
		}
		out, err := n.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := binarycache.ParseNarInfo(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":3,"narOffset":400},"b":{"type":"symlink","target":"a"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := binarycache.ParseListing(data)
		if err != nil {
			return
		}
		out, err := binarycache.EncodeListing(list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := binarycache.ParseListing(out)
		if diff := cmp.Diff(list, again); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add("1;/nix/store/" + hashA + "-x;" + sum + ";120;/nix/store/" + hashB + "-y")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := binarycache.ParseFingerprint(text); err == nil && p.String() != text {
			t.Fatalf("%q is read as %q", text, p)
		}
	})
}

func FuzzInfo(f *testing.F) {
	f.Add([]byte("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := binarycache.ParseInfo(data)
		if err != nil {
			return
		}
		again, err := binarycache.ParseInfo(info.Encode())
		if diff := cmp.Diff(info, again); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}
