package closure

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNarinfo(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	path, ref := storePath(1), storePath(2)
	sign := func(text string) string {
		return "cache-1:" + base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(text)))
	}
	good := sign(fmt.Sprintf("1;%s;%s;120;%s,%s", path, someHash.Nix32(), min(path, ref), max(path, ref)))
	lines := func(change ...string) string {
		text := "StorePath: " + path + "\nURL: nar/x\nCompression: none\nNarHash: " + someHash.Nix32() + "\nNarSize: 120\nReferences: " +
			ref[len("/nix/store/"):] + " " + path[len("/nix/store/"):] + "\nDeriver: x.drv\nSig: other-1:" + strings.Repeat("A", 86) + "==\nSig: " + good + "\n"
		return strings.NewReplacer(change...).Replace(text)
	}
	keys, err := ParseKeys("cache-1:"+base64.StdEncoding.EncodeToString(public), "unused-1:"+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ text, err string }{
		"as it should be":    {lines(), ""},
		"another place":      {lines("nar/x", "https://evil.example/x"), ""},
		"another hash":       {lines(someHash.Nix32(), "sha256:"+strings.Repeat("0", 52)), "digest"},
		"one more byte":      {lines("120", "121"), `the signature of "cache-1" on ` + path + " is wrong"},
		"a reference less":   {lines(" "+path[11:]+"\nDeriver", "\nDeriver"), `the signature of "cache-1" on ` + path + " is wrong"},
		"another path":       {lines("StorePath: "+path, "StorePath: "+ref), "it is that of"},
		"unknown key":        {lines("Sig: cache-1", "Sig: cache-2"), "no trusted key signed " + path},
		"signed by nobody":   {lines("Sig: ", "X: "), "no trusted key signed " + path},
		"damaged signature":  {lines("Sig: cache-1:", "Sig: cache-1:!"), "it is not NAME:BASE64 of 64 bytes"},
		"two hashes":         {lines("URL: nar/x", "NarHash: "+someHash.Nix32()), `"NarHash" is there twice`},
		"two paths":          {lines("URL: nar/x", "StorePath: "+ref), `"StorePath" is there twice`},
		"reference outside":  {lines("References: ", "References: ../../etc "), "is no store path"},
		"no narinfo":         {"<html>", "is not KEY: VALUE"},
		"nothing":            {"", `StorePath is ""`},
		"negative size":      {lines("120", "-1"), `NarSize is "-1"`},
		"hash of other kind": {lines(someHash.Nix32(), "md5:x"), "md5"},
	} {
		got, err := keys.Verify([]byte(tt.text), path)
		if tt.err == "" && err != nil || err != nil && !strings.Contains(err.Error(), tt.err) || tt.err != "" && err == nil {
			t.Errorf("%s: error is %v", name, err)
		}
		want := Proof{NAR: someHash, References: []string{min(path, ref), max(path, ref)}, Source: "signature of cache-1"}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, text := range []string{"", "x", "x:", ":AAAA", "x:AAAA", "cache-1:" + base64.StdEncoding.EncodeToString(public) + "\n"} {
		if _, err := ParseKeys(text); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
	if _, err := ParseKeys("a:"+strings.Repeat("A", 43)+"=", "a:"+strings.Repeat("B", 42)+"A="); err == nil {
		t.Error("two keys of one name")
	}
}

// FuzzNarinfo: whatever a cache says, nothing is believed that the key did not sign.
func FuzzNarinfo(f *testing.F) {
	f.Add([]byte("StorePath: " + storePath(1) + "\nNarHash: " + someHash.Nix32() + "\nNarSize: 1\nReferences: \nSig: k:" + strings.Repeat("A", 86) + "==\n"))
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	keys := Keys{"k": public}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := keys.Verify(b, storePath(1)); err == nil {
			t.Errorf("%+v", p)
		}
	})
}
