package attest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"

	intoto "github.com/in-toto/in-toto-golang/in_toto"

	"github.com/google/go-cmp/cmp"
)

// functionary is a key as in-toto has it.
type functionary struct {
	key intoto.Key // with its private half
	pem []byte     // public
}

func newFunctionary(t *testing.T) functionary {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	var f functionary
	if err := f.key.LoadKeyReaderDefaults(bytes.NewReader(block("PRIVATE KEY", der, err))); err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKIXPublicKey(public)
	f.pem = block("PUBLIC KEY", der, err)
	return f
}

// public returns the key without its private half.
func (f functionary) public() intoto.Key {
	k := f.key
	k.KeyVal.Private = ""
	return k
}

// supplyChain is a layout of two steps, checkout and build, with its owner and functionaries.
type supplyChain struct {
	owner, dev, ci1, ci2, eve functionary
	layout                    intoto.Layout
	checkout, build           intoto.Link
}

func newSupplyChain(t *testing.T) *supplyChain {
	t.Helper()
	c := &supplyChain{owner: newFunctionary(t), dev: newFunctionary(t), ci1: newFunctionary(t), ci2: newFunctionary(t), eve: newFunctionary(t)}
	source := map[string]intoto.HashObj{"main.go": {"sha256": digest.Of([]byte("source")).Hex()}}
	c.checkout = intoto.Link{
		Type: "link", Name: "checkout", Command: []string{"git", "checkout"}, Materials: map[string]intoto.HashObj{},
		Products: source, ByProducts: map[string]any{"return-value": 0}, Environment: map[string]any{},
	}
	c.build = intoto.Link{
		Type: "link", Name: "build", Command: []string{"go", "build"}, Materials: source,
		Products:   map[string]intoto.HashObj{"hello": {"sha256": digest.Of(artifact).Hex()}},
		ByProducts: map[string]any{"return-value": 0}, Environment: map[string]any{},
	}
	c.layout = intoto.Layout{
		Type: "layout", Expires: "2026-12-31T00:00:00Z", Inspect: []intoto.Inspection{},
		Keys: map[string]intoto.Key{c.dev.key.KeyID: c.dev.public(), c.ci1.key.KeyID: c.ci1.public(), c.ci2.key.KeyID: c.ci2.public()},
		Steps: []intoto.Step{
			{
				Type: "step", PubKeys: []string{c.dev.key.KeyID}, Threshold: 1, ExpectedCommand: []string{"git", "checkout"},
				SupplyChainItem: intoto.SupplyChainItem{
					Name: "checkout", ExpectedMaterials: [][]string{{"DISALLOW", "*"}},
					ExpectedProducts: [][]string{{"CREATE", "main.go"}, {"DISALLOW", "*"}},
				},
			},
			{
				Type: "step", PubKeys: []string{c.ci1.key.KeyID, c.ci2.key.KeyID}, Threshold: 2, ExpectedCommand: []string{"go", "build"},
				SupplyChainItem: intoto.SupplyChainItem{
					Name:              "build",
					ExpectedMaterials: [][]string{{"MATCH", "*", "WITH", "PRODUCTS", "FROM", "checkout"}, {"DISALLOW", "*"}},
					ExpectedProducts:  [][]string{{"CREATE", "hello"}, {"DISALLOW", "*"}},
				},
			},
		},
	}
	return c
}

// metablock signs a layout or link as in-toto's own tool does.
func metablock(t *testing.T, payload any, by ...functionary) []byte {
	t.Helper()
	mb := &intoto.Metablock{Signed: payload, Signatures: []intoto.Signature{}}
	for _, f := range by {
		if err := mb.Sign(f.key); err != nil {
			t.Fatal(err)
		}
	}
	return marshal(t, mb)
}

// envelope does the same in DSSE.
func envelope(t *testing.T, payload any, by functionary) []byte {
	t.Helper()
	env := &intoto.Envelope{}
	if err := env.SetPayload(payload); err != nil {
		t.Fatal(err)
	}
	if err := env.Sign(by.key); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "envelope")
	if err := env.Dump(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (c *supplyChain) input(t *testing.T) attest.LayoutInput {
	t.Helper()
	return attest.LayoutInput{
		Layout: metablock(t, c.layout, c.owner), Keys: [][]byte{c.owner.pem}, Name: "hello", Digest: digest.Of(artifact), At: now,
		Links: [][]byte{metablock(t, c.checkout, c.dev), metablock(t, c.build, c.ci1), metablock(t, c.build, c.ci2)},
	}
}

func TestVerifyLayout(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ran")
	tests := []struct {
		name   string
		chain  func(*supplyChain)
		change func(*testing.T, *supplyChain, *attest.LayoutInput)
		failed []string
		class  attest.Class
	}{
		{name: "honest"},
		{name: "without an artifact", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Digest = digest.SHA256{} }},
		{name: "in DSSE", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
			in.Layout = envelope(t, c.layout, c.owner)
			in.Links = [][]byte{envelope(t, c.checkout, c.dev), envelope(t, c.build, c.ci1), envelope(t, c.build, c.ci2)}
		}},
		{name: "links of strangers and rubbish beside", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
			evil := c.build
			evil.Products = map[string]intoto.HashObj{"hello": {"sha256": digest.Of([]byte("evil")).Hex()}}
			in.Links = append(in.Links, metablock(t, evil, c.eve), []byte("{}"), []byte("\x00"))
		}},
		{
			name: "layout by another", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Layout = metablock(t, c.layout, c.eve) },
			failed: []string{attest.CheckLayoutSignature}, class: attest.ClassVerification,
		},
		{
			name: "layout by one of two owners", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Keys = append(in.Keys, c.dev.pem) },
			failed: []string{attest.CheckLayoutSignature}, class: attest.ClassVerification,
		},
		{name: "layout changed after signing", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
			in.Layout = bytes.Replace(in.Layout, []byte(`"threshold":2`), []byte(`"threshold":1`), 1)
		}, failed: []string{attest.CheckLayoutSignature}, class: attest.ClassVerification},
		{
			name: "a link as layout", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Layout = metablock(t, c.build, c.owner) },
			failed: []string{attest.CheckLayoutForm}, class: attest.ClassVerification,
		},
		{
			name: "expired", chain: func(c *supplyChain) { c.layout.Expires = "2026-04-30T00:00:00Z" },
			failed: []string{attest.CheckLayoutExpiry}, class: attest.ClassVerification,
		},
		{
			name: "link by a wrong key", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Links[1] = metablock(t, c.build, c.dev) },
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "link missing", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Links = in.Links[:2] },
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "one signer's link twice", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Links[2] = in.Links[1] },
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{name: "one key under two key ids", chain: func(c *supplyChain) {
			twin := c.ci1.public()
			twin.KeyID = c.ci2.key.KeyID
			c.layout.Keys[twin.KeyID] = twin
		}, change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
			twin := c.ci1
			twin.key.KeyID = c.ci2.key.KeyID
			in.Links[2] = metablock(t, c.build, twin)
		}, failed: []string{attest.CheckStep}, class: attest.ClassVerification},
		{name: "materials that nobody checked out", chain: func(c *supplyChain) {
			c.build.Materials = map[string]intoto.HashObj{"main.go": {"sha256": digest.Of([]byte("evil")).Hex()}}
		}, failed: []string{attest.CheckRules}, class: attest.ClassVerification},
		{name: "functionaries that disagree", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
			other := c.build
			other.Products = map[string]intoto.HashObj{"hello": {"sha256": digest.Of([]byte("other")).Hex()}}
			in.Links[2] = metablock(t, other, c.ci2)
		}, failed: []string{attest.CheckStep}, class: attest.ClassVerification},
		{
			name: "paths that are not clean", chain: func(c *supplyChain) { c.build.Products["./hello"] = c.build.Products["hello"] },
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "another artifact", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Digest = digest.Of(nil) },
			failed: []string{attest.CheckProduct}, class: attest.ClassVerification,
		},
		{name: "another command is only told", chain: func(c *supplyChain) { c.build.Command = []string{"make"} }},
		{
			name: "inspections are refused", chain: func(c *supplyChain) { c.layout.Inspect = inspection(marker) },
			failed: []string{attest.CheckInspections}, class: attest.ClassPolicy,
		},
		{
			name: "inspections are skipped if asked", chain: func(c *supplyChain) { c.layout.Inspect = inspection(marker) },
			change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.SkipInspections = true },
		},
		{
			name: "a sublayout", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
				in.Links[0] = metablock(t, c.layout, c.dev)
			},
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "no links", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Links = nil },
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "links with more signatures than anyone checks", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) {
				forged := &intoto.Metablock{Signed: c.build}
				for range attest.MaxSignatures {
					forged.Signatures = append(forged.Signatures, intoto.Signature{KeyID: c.ci1.key.KeyID, Sig: strings.Repeat("00", 64)})
				}
				in.Links = slices.Concat(slices.Repeat([][]byte{marshal(t, forged)}, 1000), in.Links)
			},
			failed: []string{attest.CheckStep}, class: attest.ClassVerification,
		},
		{
			name: "no JSON", change: func(t *testing.T, c *supplyChain, in *attest.LayoutInput) { in.Layout = []byte("layout") },
			failed: []string{attest.CheckLayoutForm}, class: attest.ClassVerification,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newSupplyChain(t)
			if tt.chain != nil {
				tt.chain(c)
			}
			in := c.input(t)
			if tt.change != nil {
				tt.change(t, c, &in)
			}
			r, err := attest.VerifyLayout(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.failed, failures(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%s", diff, r.Text())
			}
			if r.OK != (tt.failed == nil) || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want %q\n%s", r.OK, r.Class, tt.class, r.Text())
			}
			checkErr(t, r)
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a command of the layout was run")
	}
}

func inspection(marker string) []intoto.Inspection {
	return []intoto.Inspection{{
		Type: "inspection", Run: []string{"touch", marker},
		SupplyChainItem: intoto.SupplyChainItem{Name: "look", ExpectedMaterials: [][]string{}, ExpectedProducts: [][]string{}},
	}}
}

func TestVerifyLayoutMistakes(t *testing.T) {
	c := newSupplyChain(t)
	for name, change := range map[string]func(*attest.LayoutInput){
		"no time":       func(in *attest.LayoutInput) { in.At = time.Time{} },
		"no keys":       func(in *attest.LayoutInput) { in.Keys = nil },
		"no public key": func(in *attest.LayoutInput) { in.Keys = [][]byte{[]byte("hello")} },
	} {
		t.Run(name, func(t *testing.T) {
			in := c.input(t)
			change(&in)
			if r, err := attest.VerifyLayout(t.Context(), in); err == nil {
				t.Errorf("VerifyLayout = %s", r.Text())
			}
		})
	}
}

func FuzzVerifyLayout(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"layout","steps":[],"inspect":[],"keys":{},"expires":"2026-12-31T00:00:00Z","readme":""},"signatures":[{"keyid":"aa","sig":"00"}]}`), []byte(`{"signed":{"_type":"link"},"signatures":[]}`))
	f.Fuzz(func(t *testing.T, layout, link []byte) {
		c := newSupplyChain(t)
		r, err := attest.VerifyLayout(t.Context(), attest.LayoutInput{
			Layout: layout, Keys: [][]byte{c.owner.pem}, Links: [][]byte{link}, At: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.OK {
			t.Fatal("rubbish verified")
		}
	})
}
