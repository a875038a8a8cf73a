package storepath_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"

	"github.com/google/go-cmp/cmp"
	gonix "github.com/nix-community/go-nix/pkg/storepath"
)

func hex(t *testing.T, s string) digest.SHA256 {
	t.Helper()
	d, err := digest.ParseHex(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestVectors holds the paths that Nix 2.8 gave a file with the line "fixed", called plain, and a tree (see tree), by nix-store --add and
// --add-fixed and builtins.toFile.
func TestVectors(t *testing.T) {
	const (
		treeNAR    = "4314196385bb736e45eed97533bcdc7212e0fe9c4ca68a637a6b9b6f27fd5c86"
		treeSHA512 = "7e307181b87d4b21aff61e01ac52e3a702b68b2bf558272dc2c169e2d515ea14f027536946c3d7d2a8afa1eb43380c99f6d4cf9c5ca3bfedbbdd3e48fd0b7424"
		plainNAR   = "37ccfcce3135809b5003d8cdb7d07399d208dcd18ee7d74ce1ef7e892515c31f"
		plainSHA   = "0c3071418e6356e614898c84ed064ca95e88551bc0811b534bdf1952ecdae534"
		plainSHA1  = "c06798cf02af363e9b65e98484ed4156b85fd5fc"
		toFileA    = "/nix/store/6wwzxsyyv5b8p3wv7nblfcjxkb9dlgb7-a"
	)
	for _, tt := range []struct {
		name string
		path func() (storepath.Path, error)
		want string
	}{
		{"file added", func() (storepath.Path, error) {
			return storepath.Source(storepath.Nix, "plain", hex(t, plainNAR), nil, false)
		}, "/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain"},
		{"tree added", func() (storepath.Path, error) {
			return storepath.Source(storepath.Nix, "tree", hex(t, treeNAR), nil, false)
		}, "/nix/store/h70i8085vlpdgc34gprcwszavg3l967x-tree"},
		{"fixed, flat, sha256", func() (storepath.Path, error) {
			return storepath.Fixed(storepath.Nix, "plain", storepath.Flat, "sha256", plainSHA)
		}, "/nix/store/49xdx5359d1w6irj0fxa2k9175cvaygm-plain"},
		{"fixed, flat, sha1", func() (storepath.Path, error) {
			return storepath.Fixed(storepath.Nix, "plain", storepath.Flat, "sha1", plainSHA1)
		}, "/nix/store/k4dxh3ipgf84g8lsxqgl98694ai25qii-plain"},
		{"fixed, recursive, sha256", func() (storepath.Path, error) {
			return storepath.Fixed(storepath.Nix, "tree", storepath.Recursive, "sha256", treeNAR)
		}, "/nix/store/h70i8085vlpdgc34gprcwszavg3l967x-tree"},
		{"fixed, recursive, sha512", func() (storepath.Path, error) {
			return storepath.Fixed(storepath.Nix, "tree", storepath.Recursive, "sha512", treeSHA512)
		}, "/nix/store/yx64syngfj3gbwf2rr7kaxy3x784wib8-tree"},
		{"text", func() (storepath.Path, error) {
			return storepath.Text(storepath.Nix, "a", digest.Of([]byte("one")), nil)
		}, toFileA},
		{"text with a reference", func() (storepath.Path, error) {
			return storepath.Text(storepath.Nix, "b", digest.Of([]byte("two "+toFileA)), []string{toFileA})
		}, "/nix/store/458n25cj8sk7igh8v0j361z20gzcn1cb-b"},
	} {
		got, err := tt.path()
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

// TestSelfReference computes the path of an output that Nix 2.8 named by its content, which holds that path twice.
func TestSelfReference(t *testing.T) {
	const want = "/nix/store/v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self"
	at, err := storepath.Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 7, 31, 32, 33, 4096} {
		scan := storepath.NewScanner([]storepath.Path{at}, at)
		if _, err := io.CopyBuffer(struct{ io.Writer }{scan}, chunks(narOf(want+" "+want+"\n"), size), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		sum, _, self := scan.Modulo()
		got, err := storepath.Source(storepath.Nix, "self", sum, nil, self)
		if err != nil || got != at || !self {
			t.Errorf("by %d bytes: %s, %v, self %v; want %s", size, got, err, self, want)
		}
		if diff := cmp.Diff([]string{want}, scan.References()); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
	}
}

func chunks(data []byte, size int) io.Reader {
	if size == 1 {
		return iotest.OneByteReader(bytes.NewReader(data))
	}
	return struct{ io.Reader }{bytes.NewReader(data)}
}

// narOf is the NAR of a regular file, by hand.
func narOf(content string) []byte {
	var b bytes.Buffer
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents", content, ")"} {
		b.Write([]byte{byte(len(s)), byte(len(s) >> 8), 0, 0, 0, 0, 0, 0})
		b.WriteString(s + strings.Repeat("\x00", (8-len(s)%8)%8))
	}
	return b.Bytes()
}

func TestParse(t *testing.T) {
	const good = "/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain"
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{good, true},
		{"/gnu/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-a+b_c?d=e.f", true},
		{good + "/bin", false},
		{"nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain", false},
		{"/nix/store/../6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain", false},
		{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ce-plain", false}, // no digit e
		{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-", false},
		{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-.links", false},
		{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-a b", false},
		{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-" + strings.Repeat("a", 212), false},
		{"", false},
	} {
		p, err := storepath.Parse(tt.text)
		if (err == nil) != tt.ok || tt.ok && p.String() != tt.text {
			t.Errorf("Parse(%q) = %v, %v", tt.text, p, err)
		}
	}
}

// TestScannerFindsNothingElse looks at texts that are nearly a path's hash.
func TestScannerFindsNothingElse(t *testing.T) {
	a, _ := storepath.Parse("/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain")
	b, _ := storepath.Parse("/nix/store/h70i8085vlpdgc34gprcwszavg3l967x-tree")
	scan := storepath.NewScanner([]storepath.Path{a, b}, storepath.Path{})
	io.WriteString(scan, "6va974l5kw88ij3hw6knmb4l4a2qm1c-plain 6VA974L5KW88IJ3HW6KNMB4L4A2QM1CA 0h70i8085vlpdgc34gprcwszavg3l967x0")
	if diff := cmp.Diff([]string{b.String()}, scan.References()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzParse holds Parse to one spelling, and to what go-nix accepts.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain", "/gnu/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-x.drv", "/nix/store/x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := storepath.Parse(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, p)
		}
		if p.Dir == storepath.Nix && gonix.Validate(s) != nil {
			t.Errorf("go-nix refuses %q", s)
		}
	})
}

// FuzzScanner holds the result to be the same however the content is cut into writes.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("x6va974l5kw88ij3hw6knmb4l4a2qm1cax"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		a, _ := storepath.Parse("/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain")
		whole, cut := storepath.NewScanner([]storepath.Path{a}, a), storepath.NewScanner([]storepath.Path{a}, a)
		whole.Write(bytes.Clone(data))
		for part := range chunk(data, int(size)+1) {
			cut.Write(bytes.Clone(part))
		}
		sumA, plainA, selfA := whole.Modulo()
		sumB, plainB, selfB := cut.Modulo()
		if sumA != sumB || plainA != plainB || selfA != selfB || !cmp.Equal(whole.References(), cut.References()) {
			t.Errorf("cut by %d: %s %v, whole: %s %v", int(size)+1, sumB, selfB, sumA, selfA)
		}
	})
}

func chunk(data []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := min(size, len(data))
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}
