package attest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"

	"github.com/google/go-cmp/cmp"
)

func write(t testing.TB, r *attest.Receipt) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := r.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d bytes", n, err, b.Len())
	}
	return b.Bytes()
}

func read(t testing.TB, data []byte) *attest.Receipt {
	t.Helper()
	r, err := attest.ReadReceipt(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newSource(t testing.TB, name string, content []byte) attest.Source {
	t.Helper()
	s, err := attest.NewSource(attest.MediaNARZstd, name, content)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A receipt reads back as it was written, in whatever order its lines come.
func TestReceiptRoundTrip(t *testing.T) {
	w := newWorld(t)
	r := w.receipt(w.alice, w.bob)
	r.Add(w.sign(w.negative(attest.InputsMissing), w.carol))
	r.AddSource(newSource(t, "source", []byte("the source")))
	r.Others = append(r.Others, []byte(`{"sbom":"of someone else"}`))
	data := write(t, r)

	lines := bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	shuffle := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		shuffle.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		var shuffled bytes.Buffer
		for _, l := range lines {
			fmt.Fprintf(&shuffled, "%s\n\n", bytes.TrimSpace(l))
		}
		back := read(t, shuffled.Bytes())
		if diff := cmp.Diff(string(data), string(write(t, back))); diff != "" {
			t.Fatalf("receipt changed (-want +got):\n%s", diff)
		}
		if got := w.verify(w.input(back)); got.OK || got.Class != attest.ClassPolicy {
			t.Fatalf("class %q\n%s", got.Class, got.Text()) // carol could not build it
		}
	}
}

func TestReceiptLines(t *testing.T) {
	w := newWorld(t)
	claim := string(w.sign(w.claim, w.alice).Marshal())
	type counts struct{ Claims, Provenances, Negatives, Summaries, Sources, Others, Ignored int }
	foreign, err := attest.NewStatement(w.claim.Subject, sbom{})
	if err != nil {
		t.Fatal(err)
	}
	source := `{"mediaType":"application/x-nix-nar+zstd","digest":{"sha256":"` + strings.Repeat("0a", 32) + `"},"content":"AAAA"}`
	tests := []struct {
		name, lines string
		want        counts
	}{
		{"nothing", "", counts{}},
		{"empty lines", "\n\n \n", counts{}},
		{"no newline at the end", strings.TrimSpace(claim), counts{Claims: 1}},
		{"the same line twice", claim + "\n" + claim, counts{Claims: 1}},
		{"no JSON", "hello\n{\n[]\n\x00\n", counts{Ignored: 4}},
		{"JSON, but nothing we know", `{"a":1}`, counts{Others: 1}},
		{"a predicate of someone else", string(w.sign(foreign, w.alice).Marshal()), counts{Others: 1}},
		{"an envelope of something else", `{"payloadType":"text/plain","payload":"aGk=","signatures":[{"sig":"AAAA"}]}`, counts{Others: 1}},
		{"an envelope that is malformed", `{"payloadType":"application/vnd.in-toto+json","payload":7}`, counts{Ignored: 1}},
		{"a source", source, counts{Sources: 1}},
		{"a source twice", source + "\n" + source, counts{Sources: 1}},
		{"a source without digest", `{"mediaType":"application/x-nix-nar+zstd","content":"AAAA"}`, counts{Ignored: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := read(t, []byte(tt.lines))
			got := counts{len(r.Claims), len(r.Provenances), len(r.Negatives), len(r.Summaries), len(r.Sources), len(r.Others), r.Ignored}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// sbom is a predicate that is none of ours.
type sbom struct{}

func (sbom) PredicateType() string { return "https://spdx.dev/Document" }
func (sbom) Validate() error       { return nil }

// Envelopes of one statement become one, with the union of their signatures.
func TestReceiptMerge(t *testing.T) {
	w := newWorld(t)
	a, b := w.receipt(w.alice), w.receipt(w.bob)
	a.Merge(b)
	a.Merge(b)
	if len(a.Claims) != 1 || len(a.Claims[0].Signatures) != 2 || len(a.Provenances) != 2 {
		t.Fatalf("%d claims with %d signatures, %d provenances", len(a.Claims), len(a.Claims[0].Signatures), len(a.Provenances))
	}
	if len(b.Claims[0].Signatures) != 1 {
		t.Error("merging changed the other receipt")
	}
	in := w.input(a)
	in.Rebuilds, in.Operators = 2, 2
	if r := w.verify(in); !r.OK {
		t.Errorf("merged receipt does not verify:\n%s", r.Text())
	}
}

// Useless signatures fill one envelope, never push out good ones.
func TestReceiptMergeOverflow(t *testing.T) {
	w := newWorld(t)
	r := &attest.Receipt{}
	for i := range 40 {
		env := w.sign(w.claim)
		env.Signatures = []dsse.Signature{{KeyID: "x", Sig: []byte{byte(i), 1}}}
		r.Add(env)
	}
	r.Add(w.sign(w.claim, w.alice))
	r.Add(w.sign(w.provenance(w.claim), w.alice))
	for _, env := range r.Claims {
		if len(env.Signatures) > attest.MaxSignatures {
			t.Errorf("an envelope has %d signatures", len(env.Signatures))
		}
	}
	if got := w.verify(w.input(read(t, write(t, r)))); !got.OK {
		t.Errorf("the good signature was lost:\n%s", got.Text())
	}
}

func TestReceiptLimits(t *testing.T) {
	tests := []struct {
		name string
		in   io.Reader
	}{
		{"lines", strings.NewReader(strings.Repeat("{}\n", attest.MaxReceiptLines+1))},
		{"bytes", io.LimitReader(endless{}, attest.MaxReceipt+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := attest.ReadReceipt(tt.in)
			if limit, ok := errors.AsType[*attest.LimitError](err); !ok || limit.What != tt.name {
				t.Errorf("ReadReceipt: %v", err)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestReceiptReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, err := attest.ReadReceipt(io.MultiReader(strings.NewReader("{}\n"), errorReader{broken})); !errors.Is(err, broken) {
		t.Errorf("ReadReceipt: %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// A carried source opens only if it is what it says, and never to more than it declares.
func TestSource(t *testing.T) {
	content := bytes.Repeat([]byte("source "), 10_000)
	r := &attest.Receipt{}
	r.AddSource(newSource(t, "source", content))
	back := read(t, write(t, r))
	carried, err := back.Carried()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[digest.SHA256][]byte{digest.Of(content): content}, carried); diff != "" {
		t.Errorf("carried (-want +got):\n%s", diff)
	}
	size, err := back.Sources[0].Size()
	if err != nil || size != int64(len(content)) {
		t.Errorf("Size = %d, %v", size, err)
	}

	line := write(t, r)
	for name, change := range map[string]func(map[string]any){
		"another digest":   func(m map[string]any) { m["digest"] = map[string]string{"sha256": digest.Of(nil).Hex()} },
		"no compression":   func(m map[string]any) { m["content"] = []byte("plain") },
		"cut":              func(m map[string]any) { m["content"] = decode(t, m["content"])[:20] },
		"two frames":       func(m map[string]any) { c := decode(t, m["content"]); m["content"] = append(c, c...) },
		"declares more":    func(m map[string]any) { m["content"] = huge() },
		"declares nothing": func(m map[string]any) { m["content"] = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 1, 0, 0} },
	} {
		t.Run(name, func(t *testing.T) {
			var m map[string]any
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			bad, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			r := read(t, bad)
			if len(r.Sources) != 1 {
				t.Fatalf("%d sources", len(r.Sources))
			}
			if got, err := r.Carried(); err == nil {
				t.Errorf("opened %d bytes", len(got))
			}
		})
	}
	if _, err := attest.NewSource("text/plain", "x", nil); err == nil {
		t.Error("a source of an unknown type was made")
	}
}

func decode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// huge is the start of a zstd frame that declares 1 TiB.
func huge() []byte {
	return []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 0x01, 0, 0}
}

func FuzzReadReceipt(f *testing.F) {
	w := newWorld(f)
	r := w.receipt(w.alice)
	r.AddSource(newSource(f, "source", []byte("the source")))
	f.Add(write(f, r))
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[]}`))
	f.Add([]byte("{}\n\n[]\nnull\n"))
	f.Add(append([]byte(`{"mediaType":"application/octet-stream+zstd","content":"`), huge()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := attest.ReadReceipt(bytes.NewReader(data))
		if err != nil {
			return
		}
		once := write(t, r)
		back := read(t, once)
		if diff := cmp.Diff(string(once), string(write(t, back))); diff != "" {
			t.Fatalf("writing is not stable (-first +second):\n%s", diff)
		}
		_, _ = back.Carried()
	})
}
