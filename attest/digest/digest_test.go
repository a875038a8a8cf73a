package digest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"arch.network/attest/digest"

	"github.com/google/go-cmp/cmp"
)

// The hash of "hello\n" as other programs write it: sha256sum, nix-hash --base32, nix hash to-sri, and
// ipfs add --raw-leaves --cid-version=1.
const (
	helloHex   = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	helloNix32 = "sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq"
	helloSRI   = "sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM="
	helloCID   = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
)

func TestSpellings(t *testing.T) {
	d := digest.Of([]byte("hello\n"))
	got := []string{d.Hex(), d.String(), d.Nix32(), d.SRI(), d.CID()}
	want := []string{helloHex, "sha256:" + helloHex, helloNix32, helloSRI, helloCID}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spellings (-want +got):\n%s", diff)
	}
	for _, s := range want {
		got, err := digest.Parse(s)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", s, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ text, reason string }{
		"nothing":               {"", "it is empty"},
		"a word":                {"latest", "none of the known forms"},
		"algorithm in capitals": {"SHA256:" + helloHex, "in lower case"},
		"other algorithm":       {"sha512:" + helloHex + helloHex, `algorithm "sha512" is not used here`},
		"other SRI algorithm":   {"sha512-" + strings.Repeat("A", 88), `algorithm "sha512" is not used here`},
		"md5":                   {"md5:d41d8cd98f00b204e9800998ecf8427e", `algorithm "md5"`},
		"short hex":             {"sha256:" + helloHex[1:], "63 characters"},
		"long hex":              {"sha256:" + helloHex + "0", "65 characters"},
		"upper-case hex":        {"sha256:" + strings.ToUpper(helloHex), "lower case"},
		"upper-case bare hex":   {strings.ToUpper(helloHex), "lower case"},
		"no hex":                {"sha256:" + helloHex[:63] + "g", "something else than hexadecimal"},
		"leading space":         {" sha256:" + helloHex, `algorithm " sha256"`},
		"trailing line break":   {"sha256:" + helloHex + "\n", "65 characters"},
		"SRI without padding":   {strings.TrimSuffix(helloSRI, "="), "43 characters"},
		"SRI with stray bits":   {helloSRI[:len(helloSRI)-2] + "N=", "canonical"},
		"SRI of 33 bytes":       {"sha256-" + strings.Repeat("0", 44), "not the canonical"},
		"SRI of 31 bytes":       {"sha256-" + strings.Repeat("0", 41) + "A==", "not the canonical"},
		"SRI url alphabet":      {strings.Replace(helloSRI, "/", "_", 1), "canonical"},
		"SRI with line break":   {helloSRI[:20] + "\n" + helloSRI[21:], "canonical"},
		"two SRIs":              {helloSRI + " " + helloSRI, "several digests"},
		"SRI with options":      {helloSRI + "?ct=x", "49 characters"},
		"nix32 stray bits":      {"sha256:z" + helloNix32[8:], "not canonical Nix base 32"},
		"nix32 letter e":        {"sha256:0e" + helloNix32[9:], "not canonical Nix base 32"},
		"nix32 upper case":      {"sha256:" + strings.ToUpper(helloNix32[7:]), "not canonical Nix base 32"},
		"CID stray bits":        {helloCID[:58] + "n", "canonical"},
		"CID upper case":        {"b" + strings.ToUpper(helloCID[1:]), "canonical"},
		"CID of a DAG":          {"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", "raw blocks"},
		"CIDv0":                 {"QmYwAPJzv5CZsnA625s1Xf2nemtYgPpHdWEz79ojWnPbdG", "CIDv0"},
		"zero hex":              {"sha256:" + strings.Repeat("0", 64), "names nothing"},
		"zero SRI":              {"sha256-" + strings.Repeat("A", 43) + "=", "names nothing"},
		"zero nix32":            {"sha256:" + strings.Repeat("0", 52), "names nothing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := digest.Parse(test.text)
			syntax, ok := errors.AsType[*digest.SyntaxError](err)
			if !ok {
				t.Fatalf("Parse(%q) = %v, %v; want a *SyntaxError", test.text, d, err)
			}
			if !strings.Contains(syntax.Reason, test.reason) {
				t.Errorf("Parse(%q): %q, want a reason with %q", test.text, syntax.Reason, test.reason)
			}
			if !d.IsZero() {
				t.Errorf("Parse(%q) = %v beside an error", test.text, d)
			}
			if syntax.Hint() == "" {
				t.Error("no hint")
			}
		})
	}
}

func TestErrorIsShortAndQuoted(t *testing.T) {
	_, err := digest.Parse("\x1b[2J" + strings.Repeat("x", 10_000))
	if got := err.Error(); len(got) > 200 || strings.Contains(got, "\x1b") {
		t.Errorf("error of %d bytes: %q", len(got), got)
	}
}

// Each parser takes its own form only.
func TestParsersAreApart(t *testing.T) {
	forms := []string{helloHex, "sha256:" + helloHex, helloNix32, helloSRI, helloCID}
	parsers := map[string]struct {
		parse func(string) (digest.SHA256, error)
		takes string
	}{
		"ParseHex":   {digest.ParseHex, helloHex},
		"ParseNix32": {digest.ParseNix32, helloNix32},
		"ParseSRI":   {digest.ParseSRI, helloSRI},
		"ParseCID":   {digest.ParseCID, helloCID},
	}
	for name, p := range parsers {
		for _, form := range forms {
			if _, err := p.parse(form); (err == nil) != (form == p.takes) {
				t.Errorf("%s(%q): error %v", name, form, err)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	type pair struct{ A, B digest.SHA256 }
	want := pair{A: digest.Of([]byte("hello\n"))}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"A":"sha256:`+helloHex+`","B":""}`, string(text)); diff != "" {
		t.Errorf("json (-want +got):\n%s", diff)
	}
	var got pair
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
	for _, other := range []string{helloHex, helloSRI, helloNix32, helloCID, "sha256:" + strings.Repeat("0", 64)} {
		if err := new(digest.SHA256).UnmarshalText([]byte(other)); err == nil {
			t.Errorf("UnmarshalText(%q) is no error, but MarshalText never writes that", other)
		}
	}
}

// sizes are around the buffers of OfReader and Stream.
func sizes() []int {
	return []int{0, 1, 63, 64, 128<<10 - 1, 128 << 10, 128<<10 + 1, 512<<10 - 1, 512 << 10, 512<<10 + 1, 4<<20 - 1, 4 << 20, 4<<20 + 1, 9<<20 + 17}
}

func sample(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

func TestOfReader(t *testing.T) {
	for _, size := range sizes() {
		data := sample(size)
		for name, r := range map[string]io.Reader{
			"whole":         bytes.NewReader(data),
			"halves":        iotest.HalfReader(bytes.NewReader(data)),
			"eof with data": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			got, n, err := digest.OfReader(r)
			if err != nil || n != int64(size) || got != digest.Of(data) {
				t.Errorf("%d bytes, %s: %v, %d, %v; want %v", size, name, got, n, err, digest.Of(data))
			}
		}
	}
}

// A reader that breaks off, even with the error of a truncated archive, has no digest.
func TestOfReaderBrokenOff(t *testing.T) {
	for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("disk on fire")} {
		for _, size := range sizes() {
			r := io.MultiReader(bytes.NewReader(sample(size)), iotest.ErrReader(cause))
			got, n, err := digest.OfReader(r)
			if !errors.Is(err, cause) || !got.IsZero() || n != int64(size) {
				t.Errorf("%d bytes, then %q: got %v, %d, %v", size, cause, got, n, err)
			}
		}
	}
}

func TestOfReaderWithoutProgress(t *testing.T) {
	if _, _, err := digest.OfReader(stuck{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want %v", err, io.ErrNoProgress)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestWriter(t *testing.T) {
	var w digest.Writer
	if got := w.Sum(); got != digest.Of(nil) {
		t.Errorf("zero Writer: %v", got)
	}
	io.WriteString(&w, "hel")
	io.WriteString(&w, "lo\n")
	if got := w.Sum(); got.Hex() != helloHex || w.Size() != 6 {
		t.Errorf("Sum() = %v, Size() = %d", got, w.Size())
	}
	w.Reset()
	if got := w.Sum(); got != digest.Of(nil) || w.Size() != 0 {
		t.Errorf("after Reset: %v, %d", got, w.Size())
	}
}

// However the buffers are filled, the hash is that of the bytes in order.
func TestStream(t *testing.T) {
	data := sample(9 << 20)
	for _, part := range []int{1000, 64 << 10, 256 << 10} {
		s := digest.NewStream()
		buf := s.Next(nil)
		for rest := data; len(rest) > 0; {
			n := copy(buf[:part], rest)
			rest = rest[n:]
			buf = s.Next(buf[:n])
		}
		if got, want := s.Sum(), digest.Of(data); got != want {
			t.Errorf("in parts of %d: %v, want %v", part, got, want)
		}
		s.Close()
		s.Close()
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{helloHex, "sha256:" + helloHex, helloNix32, helloSRI, helloCID, "sha256:", "sha256-", "b", "md5:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := digest.Parse(s)
		if err != nil {
			if !d.IsZero() {
				t.Errorf("Parse(%q) = %v beside error %v", s, d, err)
			}
			return
		}
		if slices.Contains([]string{d.Hex(), d.String(), d.Nix32(), d.SRI(), d.CID()}, s) {
			return
		}
		t.Errorf("Parse(%q) accepts another spelling of %v", s, d)
	})
}
