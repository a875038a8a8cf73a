package closure

import (
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

// What `guix publish` of Guix 1.5.0 answered for a path, and the key that it made for the occasion.
const (
	guixPath    = "/gnu/store/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml"
	guixNarinfo = `StorePath: /gnu/store/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml
NarHash: sha256:13hlpk5by2awv0inxhcx76znrcd8imshj52y61h5yxcy2w1apnmd
NarSize: 272
References: 1r6ffg0d0b9p0f4qv3q76rcqddn4xcx3-policy.yaml
Deriver: mh1vrjxih3mzn8hxcplxjkhqbrwgp9ia-arch-node-agent.yaml.drv
` + guixSignature + `
URL: nar/zstd/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml
Compression: zstd
`
	guixSignature = "Signature: 1;vm;KHNpZ25hdHVyZSAKIChkYXRhIAogIChmbGFncyByZmM2OTc5KQogIChoYXNoIHNoYTI1NiAjOTNDMTg0NTgxMTM5Mjc4MEM3NjM5QzJEMzBCMUVCNTAzRUYzOTAxMTFEMEM2MEIyRUU2QkIxQjk4QTgwRTMyRSMpCiAgKQogKHNpZy12YWwgCiAgKGVjZHNhIAogICAociAjMEUzRDIxMkRBOTRFRDBCMTIzNUFBQUI1MjVDREFEOTQ4ODVFNTI0NjRBRkM1NEMzRjE5MjU3NjAxRTUzRUQ5RSMpCiAgIChzICMwRjAzMDhCRjUwN0REMUM4NDJFNDczNkE5RkYzOURCNTE2ODA4QzQzNzVGOUMwRUM2NDdBQjY2OEQ1NDNCRjY3IykKICAgKQogICkKIChwdWJsaWMta2V5IAogIChlY2MgCiAgIChjdXJ2ZSBFZDI1NTE5KQogICAocSAjQzJGODc1REM5N0MyQkE4RTJBMzQ4NDJFNDRGMDhFOUQ2N0MzRkQ0REUxNDc2MjExRDNDQTRDNEE4MkRFMjM4NyMpCiAgICkKICApCiApCg=="
	guixPublic    = `(public-key 
 (ecc 
  (curve Ed25519)
  (q #C2F875DC97C2BA8E2A34842E44F08E9D67C3FD4DE1476211D3CA4C4A82DE2387#)
  )
 )
`
)

func TestGuixSignature(t *testing.T) {
	keys, err := ParseGuixKeys("(acl (entry " + guixPublic + " (tag (guix import))))")
	if err != nil {
		t.Fatal(err)
	}
	alone, err := ParseGuixKeys(guixPublic)
	if diff := cmp.Diff(keys, alone); err != nil || diff != "" {
		t.Errorf("%v (-list +alone):\n%s", err, diff)
	}
	nar, err := digest.Parse("sha256:13hlpk5by2awv0inxhcx76znrcd8imshj52y61h5yxcy2w1apnmd")
	if err != nil {
		t.Fatal(err)
	}
	want := Proof{NAR: nar, References: []string{"/gnu/store/1r6ffg0d0b9p0f4qv3q76rcqddn4xcx3-policy.yaml"}, Source: "signature of a Guix server"}
	text := func(change func(s string) string) string {
		return "1;vm;" + base64.StdEncoding.EncodeToString([]byte(change(plainSignature(t))))
	}
	for name, tt := range map[string]struct{ text, err string }{
		"as it was":         {guixNarinfo, ""},
		"another place":     {strings.Replace(guixNarinfo, "URL: nar/zstd", "URL: https://evil.example", 1), ""},
		"another hash":      {strings.Replace(guixNarinfo, "13hlpk", "03hlpk", 1), "it is over something else"},
		"another size":      {strings.Replace(guixNarinfo, "272", "273", 1), "it is over something else"},
		"another reference": {strings.Replace(guixNarinfo, "1r6ffg", "0r6ffg", 1), "it is over something else"},
		"hash behind it":    {strings.Replace(guixNarinfo, "URL: ", "NarHash: sha256:"+strings.Repeat("0", 52)+"\nURL: ", 1), ""},
		"two signatures":    {guixNarinfo + guixSignature + "\n", "it has not exactly one signature"},
		"none":              {strings.Replace(guixNarinfo, "Signature", "Sig", 1), "it has not exactly one signature"},
		"not of this form":  {strings.Replace(guixNarinfo, "1;vm;", "2;vm;", 1), "it is not 1;HOST;BASE64"},
		"damaged text":      {strings.Replace(guixNarinfo, "1;vm;K", "1;vm;!", 1), "it is not 1;HOST;BASE64"},
		"another r":         {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], text(func(s string) string { return strings.Replace(s, "#0E3D", "#0E3C", 1) }), 1), "it is wrong"},
		"another s":         {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], text(func(s string) string { return strings.Replace(s, "#0F03", "#0F02", 1) }), 1), "it is wrong"},
		"another key":       {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], text(func(s string) string { return strings.Replace(s, "#C2F8", "#C2F9", 1) }), 1), "no trusted key made it"},
		"another curve":     {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], text(func(s string) string { return strings.Replace(s, "Ed25519", "NIST P-256", 1) }), 1), "it is no public key on the curve Ed25519"},
		"two hashes":        {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], text(func(s string) string { return strings.Replace(s, "(flags", "(hash sha256 #00#) (flags", 1) }), 1), "it is over something else"},
		"no expression":     {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], "1;vm;KCgo", 1), "it is no S-expression"},
		"something else":    {strings.Replace(guixNarinfo, guixSignature[len("Signature: "):], "1;vm;"+base64.StdEncoding.EncodeToString([]byte("(x)")), 1), "it is no signature"},
	} {
		got, err := keys.Verify([]byte(tt.text), guixPath)
		if tt.err == "" && err != nil || err != nil && !strings.HasSuffix(err.Error(), tt.err) || tt.err != "" && err == nil {
			t.Errorf("%s: error is %v", name, err)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := keys.Verify([]byte(guixNarinfo), strings.Replace(guixPath, "p0gj", "00gj", 1)); err == nil || !strings.Contains(err.Error(), "it is that of") {
		t.Errorf("for another path: %v", err)
	}
	for _, text := range []string{"", "(acl)x", "x", "(x)", "(acl (entry))", "(acl (entry (x) (tag (guix import))))", strings.Repeat("(", 100), "(acl (entry " + guixPublic + "))"} {
		if keys, err := ParseGuixKeys(text); err == nil {
			t.Errorf("%.40q has the keys %v", text, keys)
		}
	}
	if keys, err := ParseGuixKeys("(acl (entry " + guixPublic + " (tag (guix archive))))"); err != nil || len(keys) != 0 {
		t.Errorf("a key for something else: %v, %v", keys, err)
	}
}

func plainSignature(t testing.TB) string {
	t.Helper()
	_, value, _ := strings.Cut(guixSignature, "1;vm;")
	text, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Numbers out of range are refused, whatever they would prove.
func TestECDSARange(t *testing.T) {
	key := [32]byte(edwards25519.NewGeneratorPoint().Bytes())
	one := big.NewInt(1)
	for _, n := range []*big.Int{new(big.Int), order, new(big.Int).Add(order, one), new(big.Int).Lsh(one, 255), new(big.Int).Lsh(one, 300)} {
		if verifyECDSA(key, sha256.Sum256(nil), n.Bytes(), one.Bytes()) == nil || verifyECDSA(key, sha256.Sum256(nil), one.Bytes(), n.Bytes()) == nil {
			t.Errorf("%v is accepted", n)
		}
	}
	if err := verifyECDSA([32]byte{2}, sha256.Sum256(nil), []byte{1}, []byte{1}); err == nil {
		t.Error("a key that is no point is accepted")
	}
}

// FuzzExpression: what is read is a tree of bounded depth; and whatever is signed, nothing is believed that the key did not sign.
func FuzzExpression(f *testing.F) {
	f.Add(plainSignature(f))
	f.Add("(acl (entry (public-key (ecc (curve Ed25519) (q #00#))) (tag (guix import))))")
	f.Add(`("a" b #63#)`)
	keys, err := ParseGuixKeys(guixPublic)
	if err != nil {
		f.Fatal(err)
	}
	var depth func(e expression) int
	depth = func(e expression) int {
		deepest := 0
		for _, one := range e.list {
			deepest = max(deepest, 1+depth(one))
		}
		return deepest
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := parseExpression(text); err == nil && depth(e) > maxNesting+1 {
			t.Errorf("depth %d", depth(e))
		}
		_, _ = ParseGuixKeys(text)
		if keys.check(sha256.Sum256([]byte("something else")), "1;x;"+base64.StdEncoding.EncodeToString([]byte(text))) == nil {
			t.Errorf("%q is believed", text)
		}
	})
}
