package closure

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

// What signatures are worth, package signature tests; here, what is read under one.
func TestGuixSignature(t *testing.T) {
	const path = "/gnu/store/p0gj8d94sd81swjvvp8zgrzgx82m9afj-arch-node-agent.yaml"
	file := func(name string) string {
		data, err := os.ReadFile("../../builder/guix/signature/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	keys, err := ParseGuixKeys(file("signing-key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	nar, err := digest.Parse("sha256:13hlpk5by2awv0inxhcx76znrcd8imshj52y61h5yxcy2w1apnmd")
	if err != nil {
		t.Fatal(err)
	}
	want := Proof{NAR: nar, References: []string{"/gnu/store/1r6ffg0d0b9p0f4qv3q76rcqddn4xcx3-policy.yaml"}, Source: "signature of a Guix server"}
	narinfo := file("real.narinfo")
	for name, tt := range map[string]struct{ text, err string }{
		"as it was":      {narinfo, ""},
		"another place":  {strings.Replace(narinfo, "URL: nar/zstd", "URL: https://evil.example", 1), ""},
		"hash behind it": {strings.Replace(narinfo, "URL: ", "NarHash: sha256:"+strings.Repeat("0", 52)+"\nURL: ", 1), ""},
		"another hash":   {strings.Replace(narinfo, "13hlpk", "03hlpk", 1), "it is over something else"},
		"none":           {strings.Replace(narinfo, "Signature", "Sig", 1), "it has not exactly one signature"},
		"too large":      {narinfo + strings.Repeat("a", maxNarinfo), "more than 1048576"},
	} {
		got, err := keys.Verify([]byte(tt.text), path)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.err)) {
			t.Errorf("%s: error is %v", name, err)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := keys.Verify([]byte(narinfo), strings.Replace(path, "p0gj", "00gj", 1)); err == nil || !strings.Contains(err.Error(), "it is that of") {
		t.Errorf("for another path: %v", err)
	}
	if _, err := ParseGuixKeys("(acl)x"); err == nil {
		t.Error("keys are read from something else")
	}
}
