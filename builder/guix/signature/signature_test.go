package signature_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/builder/guix/signature"
)

// read returns a file that Guix 1.5.0 wrote, with a key made for the occasion.
func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func realKeys(t testing.TB) signature.Keys {
	t.Helper()
	keys, err := signature.ParseKeys(read(t, "signing-key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestRealNarinfo(t *testing.T) {
	signed, s, err := signature.Narinfo([]byte(read(t, "real.narinfo")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(realKeys(t), signed); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(signed), "URL") || !strings.HasSuffix(string(signed), ".drv\n") {
		t.Errorf("signed is %q", signed)
	}
	_, line, _ := strings.Cut(read(t, "real.narinfo"), "Signature: ")
	line, _, _ = strings.Cut(line, "\n")
	if diff := cmp.Diff(line, s.Line("vm")); diff != "" {
		t.Errorf("written again (-Guix +here):\n%s", diff)
	}
}

func TestTampered(t *testing.T) {
	narinfo := read(t, "real.narinfo")
	_, real, err := signature.Narinfo([]byte(narinfo))
	if err != nil {
		t.Fatal(err)
	}
	other, err := signature.GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// with changes the signature's text.
	with := func(from, to string) string {
		text := strings.Replace(real.String(), from, to, 1)
		if text == real.String() {
			t.Fatalf("%q is not in the signature", from)
		}
		s, err := signature.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Replace(narinfo, real.Line("vm"), s.Line("vm"), 1)
	}
	for name, tt := range map[string]struct{ text, err string }{
		"as it was":           {narinfo, ""},
		"another place":       {strings.Replace(narinfo, "URL: nar/zstd", "URL: https://evil.example", 1), ""},
		"another host":        {strings.Replace(narinfo, "1;vm;", "1;host.example;", 1), ""},
		"another path":        {strings.Replace(narinfo, "p0gj", "00gj", 1), "it is over something else"},
		"another hash":        {strings.Replace(narinfo, "13hlpk", "03hlpk", 1), "it is over something else"},
		"another size":        {strings.Replace(narinfo, "272", "273", 1), "it is over something else"},
		"another reference":   {strings.Replace(narinfo, "1r6ffg", "0r6ffg", 1), "it is over something else"},
		"a line more":         {"System: x\n" + narinfo, "it is over something else"},
		"its hash changed":    {with("#93C1", "#93C0"), "it is over something else"},
		"r changed":           {with("#0E3D", "#0E3C"), "it is wrong"},
		"s changed":           {with("#0F03", "#0F02"), "it is wrong"},
		"r is one":            {with(fmt.Sprintf("(r #%X#)", real.R), "(r #01#)"), "it is wrong"},
		"by another key":      {strings.Replace(narinfo, real.Line("vm"), other.Sign([]byte(narinfo[:strings.Index(narinfo, "Signature")])).Line("vm"), 1), "no trusted key made it"},
		"in the name of ours": {with(fmt.Sprintf("%X", real.R), fmt.Sprintf("%X", other.SignHash(real.Hash).R)), "it is wrong"},
	} {
		signed, got, err := signature.Narinfo([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		err = got.Verify(realKeys(t), signed)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", name, err, tt.err)
		}
		if untrusted, ok := errors.AsType[*signature.UntrustedError](err); ok && (untrusted.Key != other.Public() || untrusted.Hint() == "") {
			t.Errorf("%s: the key is %v", name, untrusted.Key)
		}
	}
}

func TestRefused(t *testing.T) {
	narinfo := read(t, "real.narinfo")
	_, real, err := signature.Narinfo([]byte(narinfo))
	if err != nil {
		t.Fatal(err)
	}
	text := real.String()
	change := func(from, to string) string { return strings.Replace(text, from, to, 1) }
	order := "1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED"
	r, s := fmt.Sprintf("(r #%X#)", real.R), fmt.Sprintf("(s #%X#)", real.S)
	for text, want := range map[string]string{
		change(r, "(r ##)"):                             "r is out of range",
		change(s, "(s #00#)"):                           "s is out of range",
		change(r, "(r #"+order+"#)"):                    "r is out of range",
		change(s, "(s #"+order+"#)"):                    "s is out of range",
		change(s, "(s #"+strings.Repeat("FF", 32)+"#)"): "s is out of range",
		"":            "ends too early",
		"x":           "no signature",
		"(signature)": "no signature",
		text + "x":    "something follows",
		change("(signature", "(signature (data)"): "no signature",
		change("(flags rfc6979)", ""):             "what it is over",
		change("rfc6979", "pkcs1"):                "flag rfc6979",
		change("rfc6979", "rfc6979 eddsa"):        "flag rfc6979",
		change("sha256", "sha512"):                "SHA-256",
		change("sha256 #93", "sha256 #00 93"):     "#HEX#",
		change("sha256 #93", "sha256 #0093"):      "SHA-256",
		change("(ecdsa", "(eddsa"):                "ECDSA",
		change("(ecdsa", "(rsa"):                  "RSA",
		change("(ecdsa", "(ecdsa (r #01#)"):       "ECDSA",
		change("(r #", "(r #000000"):              "r is no number",
		change("(s #", "(t #"):                    "s is no number",
		change("(public-key", "(private-key"):     "no public key",
		change("Ed25519", `"NIST P-256"`):         "curve Ed25519",
		change("(curve", "(flags eddsa) (curve"):  "curve Ed25519",
		change("(q #C2", "(q #00C2"):              "no point",
		change("#C2F875", "#C2F871"):              "no point",
		strings.Replace(text, fmt.Sprintf("%X", real.Key[:]), "01"+strings.Repeat("00", 31), 1):      "small order",
		strings.Replace(text, fmt.Sprintf("%X", real.Key[:]), "EE"+strings.Repeat("FF", 30)+"7F", 1): "no point", // 1, in a second way
	} {
		if _, err := signature.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300q: %v, want %q", text, err, want)
		}
	}
	for line, want := range map[string]string{
		"":                          "1;HOST;BASE64",
		"2;vm;" + real.Line("")[3:]: "1;HOST;BASE64",
		real.Line("a;b"):            "1;HOST;BASE64",
		real.Line("vm")[:100] + "\n" + real.Line("vm")[100:]: "1;HOST;BASE64",
		real.Line("vm") + "=":                                "1;HOST;BASE64",
		real.Line(strings.Repeat("a", 9000)):                 "more than",
	} {
		if _, err := signature.ParseLine(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300q: %v, want %q", line, err, want)
		}
	}
	for name, text := range map[string]string{
		"none":      strings.Replace(narinfo, "Signature", "Sig", 1),
		"two":       narinfo + "Signature: " + real.Line("vm") + "\n",
		"alone":     "Signature: " + real.Line("vm") + "\n",
		"no spaces": strings.Replace(narinfo, "Signature: ", "Signature:", 1),
	} {
		if _, _, err := signature.Narinfo([]byte(text)); err == nil || err.Error() != "it has not exactly one signature" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSign(t *testing.T) {
	key, err := signature.GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := signature.ParsePrivateKey(key.Expose())
	if err != nil || again.Public() != key.Public() {
		t.Fatalf("the key read again: %v, %v", again, err)
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%#v %+v", key, key)} {
		if strings.Contains(text, key.Expose()[80:140]) {
			t.Errorf("it shows itself: %s", text)
		}
	}
	keys := signature.Keys{key.Public(): true}
	short := 0
	for i := range 1000 { // of which some have numbers of 31 bytes
		message := fmt.Appendf(nil, "message %d", i)
		s, err := signature.ParseLine(key.Sign(message).Line("here"))
		if err != nil {
			t.Fatal(err)
		}
		if s.R[0] == 0 || s.S[0] == 0 {
			short++
		}
		if err := s.Verify(keys, message); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if err := s.Verify(keys, append(message, 'x')); err == nil {
			t.Fatalf("message %d is another, too", i)
		}
		if i == 0 && s != again.Sign(message) {
			t.Error("the same key and bytes give two signatures")
		}
	}
	if short == 0 {
		t.Error("no number was short")
	}
}

func TestKeys(t *testing.T) {
	public := read(t, "signing-key.pub")
	key, err := signature.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(public), strings.TrimSpace(key.String())); diff != "" {
		t.Errorf("written again (-Guix +here):\n%s", diff)
	}
	entry := func(key, tag string) string { return "(entry " + key + " (tag (guix " + tag + ")))" }
	want := signature.Keys{key: true}
	for _, text := range []string{public, "(acl " + entry(public, "import") + ")", "(acl " + entry(public, "import") + entry(public, "import") + entry("(rsa)", "archive") + ")", want.String()} {
		got, err := signature.ParseKeys(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"":                                   "ends too early",
		"(x)":                                "neither",
		"x":                                  "neither",
		"(acl (entry))":                      "not a key and a tag",
		"(acl (entry " + public + "))":       "not a key and a tag",
		"(acl (entry " + public + " (tag)))": "not a key and a tag",
		"(acl " + entry("(public-key (rsa (n #00#) (e #010001#)))", "import") + ")": "curve Ed25519",
		"(acl " + entry(public, "import") + ")x":                                    "something follows",
	} {
		if keys, err := signature.ParseKeys(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, keys, err, want)
		}
	}
}

func TestPrivateKeyRefused(t *testing.T) {
	key, err := signature.GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signature.GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q, otherQ := hex.EncodeToString(fmt.Append(nil, string(publicBytes(key)))), hex.EncodeToString(publicBytes(other))
	head := "(private-key (ecc (curve Ed25519) (q #" + q + "#) "
	for text, want := range map[string]string{
		"(secret":           "no private key",
		"(x)":               "no private key",
		head + "))":         "no key on the curve",
		head + "(d #00#)))": "the private key is out of range",
		head + "(d ##)))":   "the private key is out of range",
		head + "(d #00" + strings.Repeat("ff", 32) + "#)))":                               "more than 32",
		head + "(d #1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED#)))": "out of range",
		strings.Replace(key.Expose(), strings.ToUpper(q), strings.ToUpper(otherQ), 1):     "do not belong together",
	} {
		if _, err := signature.ParsePrivateKey(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestAsGuix signs as Guix 1.5.0 did, with a key that it made for nothing else. Some of the numbers have 31 bytes.
func TestAsGuix(t *testing.T) {
	key, err := signature.ParsePrivateKey(read(t, "signing.sec"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, "signing.sec"), key.Expose()); diff != "" {
		t.Errorf("the key written again (-Guix +here):\n%s", diff)
	}
	for line := range strings.Lines(read(t, "signed")) {
		want, err := signature.ParseLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), key.SignHash(want.Hash).String()); diff != "" {
			t.Errorf("(-Guix +here):\n%s", diff)
		}
	}
}

func publicBytes(k signature.PrivateKey) []byte { p := k.Public(); return p[:] }

// FuzzParse: what is read is written and read as the same, and nothing is believed that the key did not sign.
func FuzzParse(f *testing.F) {
	keys := realKeys(f)
	_, s, err := signature.Narinfo([]byte(read(f, "real.narinfo")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.String())
	f.Add(read(f, "signing-key.pub"))
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = signature.ParseKeys(text)
		_, _ = signature.ParsePrivateKey(text)
		s, err := signature.Parse(text)
		if err != nil {
			return
		}
		again, err := signature.ParseLine(s.Line("h"))
		if err != nil || again != s {
			t.Errorf("%q is written as %q: %v", text, s, err)
		}
		if s.Verify(keys, []byte("something else")) == nil {
			t.Errorf("%q is believed", text)
		}
	})
}
