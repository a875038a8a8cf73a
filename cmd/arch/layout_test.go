package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	intoto "github.com/in-toto/in-toto-golang/in_toto"

	"arch.network/attest/digest"
)

// functionary is a key as in-toto has it: with its private half, and the public half as PEM.
type functionary struct {
	key intoto.Key
	pem []byte
}

func newFunctionary(t *testing.T) functionary {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	var f functionary
	if err := f.key.LoadKeyReaderDefaults(bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))); err != nil {
		t.Fatal(err)
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	f.pem = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open})
	return f
}

// writeSigned writes a layout or link as in-toto's own tool signs it.
func (f functionary) writeSigned(t *testing.T, path string, payload any) {
	t.Helper()
	block := &intoto.Metablock{Signed: payload, Signatures: []intoto.Signature{}}
	if err := block.Sign(f.key); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(block)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data)
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLayout verifies an artifact against its receipt and, beside it, against an in-toto layout.
func TestLayout(t *testing.T) {
	tool := buildTool(t)
	dir := ownHome(t)
	if err := writeManifest(filepath.Join(dir, "build.yaml"), tool, "hello", []string{"write", "/build/out", "hello"}); err != nil {
		t.Fatal(err)
	}
	if status, _, errout := arch(t, nil, "build", "--attest", "."); status != exitOK {
		t.Fatal(errout)
	}
	owner, builder, eve := newFunctionary(t), newFunctionary(t), newFunctionary(t)
	public := builder.key
	public.KeyVal.Private = ""
	layout := intoto.Layout{
		Type: "layout", Expires: "2099-01-01T00:00:00Z", Inspect: []intoto.Inspection{},
		Keys: map[string]intoto.Key{public.KeyID: public},
		Steps: []intoto.Step{{
			Type: "step", PubKeys: []string{public.KeyID}, Threshold: 1, ExpectedCommand: []string{},
			SupplyChainItem: intoto.SupplyChainItem{
				Name: "build", ExpectedMaterials: [][]string{{"DISALLOW", "*"}}, ExpectedProducts: [][]string{{"CREATE", "hello"}, {"DISALLOW", "*"}},
			},
		}},
	}
	link := func(content string) intoto.Link {
		return intoto.Link{
			Type: "link", Name: "build", Command: []string{}, Materials: map[string]intoto.HashObj{}, Environment: map[string]any{},
			Products: map[string]intoto.HashObj{"hello": {"sha256": digest.Of([]byte(content)).Hex()}}, ByProducts: map[string]any{},
		}
	}
	owner.writeSigned(t, "root.layout", layout)
	writeFile(t, "owner.pub", owner.pem)
	writeFile(t, "eve.pub", eve.pem)
	for name, signed := range map[string]struct {
		by      functionary
		content string
	}{"good": {builder, "hello"}, "others": {eve, "hello"}, "changed": {builder, "hullo"}} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		signed.by.writeSigned(t, filepath.Join(name, "build."+signed.by.key.KeyID[:8]+".link"), link(signed.content))
	}
	if err := os.Mkdir("none", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key, links string
		flags            []string
		status           int
	}{
		{"as laid out", "owner.pub", "good", nil, exitOK},
		{"layout not signed by that key", "eve.pub", "good", nil, exitVerification},
		{"link signed by another", "owner.pub", "others", nil, exitVerification},
		{"link of other bits", "owner.pub", "changed", nil, exitVerification},
		{"no link", "owner.pub", "none", nil, exitVerification},
		{"expired", "owner.pub", "good", []string{"--at", "2099-06-01T00:00:00Z"}, exitVerification},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"verify", "result/hello", "--layout", "root.layout", "--layout-key", c.key, "--links", c.links}, c.flags...)
			status, out, errout := arch(t, nil, args...)
			if status != c.status || strings.Contains(out, "hello verified") != (c.status == exitOK) {
				t.Errorf("exit status %d, want %d\n%s%s", status, c.status, out, errout)
			}
			if c.status == exitOK && !strings.Contains(out, "PASS  layout-product") {
				t.Errorf("the report does not tell of the layout:\n%s", out)
			}
		})
	}
}
