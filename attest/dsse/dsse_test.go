package dsse_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multibase"
)

// The example of the specification (protocol.md, "Test Vectors").
const (
	helloType = "http://example.com/HelloWorld"
	hello     = "hello world"
	helloPAE  = "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
	helloJSON = `{"payload": "aGVsbG8gd29ybGQ=",
 "payloadType": "http://example.com/HelloWorld",
 "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}`

	helloX = "46950820868899156662930047687818585632848591499744589407958293238635476079160"
	helloY = "5640078356564379163099075877009565129882514886557779369047442380624545832820"
	helloD = "97358161215184420915383655311931858321456579547487070936769975997791359926199"
)

func decimal(t *testing.T, s string) []byte {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		t.Fatalf("%s is no number", s)
	}
	return n.FillBytes(make([]byte, 32))
}

func TestSpecificationVector(t *testing.T) {
	if diff := cmp.Diff(helloPAE, string(dsse.PAE(helloType, []byte(hello)))); diff != "" {
		t.Errorf("PAE (-want +got):\n%s", diff)
	}
	env, err := dsse.Parse([]byte(helloJSON))
	if err != nil {
		t.Fatal(err)
	}
	compressed := append([]byte{0x80, 0x24, 2 + decimal(t, helloY)[31]&1}, decimal(t, helloX)...)
	name, err := multibase.Encode(multibase.Base58BTC, compressed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParsePublicKey("did:key:" + name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{key.ID().String()}, ids(env.Verified([]identity.PublicKey{key}))); diff != "" {
		t.Errorf("verified (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sha256.Sum256([]byte(helloPAE)), [32]byte(env.ID())); diff != "" {
		t.Errorf("id (-want +got):\n%s", diff)
	}

	// The vector's signature is deterministic (RFC 6979): signing gives the same.
	signer, err := identity.Generate(identity.ECDSAP256, bytes.NewReader(decimal(t, helloD)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := dsse.Sign(t.Context(), helloType, []byte(hello), signer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(env.Signatures[0].Sig, signed.Signatures[0].Sig); diff != "" {
		t.Errorf("signature (-want +got):\n%s", diff)
	}
}

func TestPAE(t *testing.T) {
	for want, c := range map[string]struct{ typ, payload string }{
		"DSSEv1 0  0 ":                  {"", ""},
		"DSSEv1 2 é 3 €":                {"é", "€"}, // lengths are of bytes
		"DSSEv1 3 a b 5 1 2 x":          {"a b", "1 2 x"},
		"DSSEv1 1 a 2 \x00\xff":         {"a", "\x00\xff"},
		"DSSEv1 10 aaaaaaaaaa 1 " + "b": {"aaaaaaaaaa", "b"},
	} {
		if diff := cmp.Diff(want, string(dsse.PAE(c.typ, []byte(c.payload)))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		env := dsse.Envelope{PayloadType: c.typ, Payload: []byte(c.payload)}
		if diff := cmp.Diff(sha256.Sum256([]byte(want)), [32]byte(env.ID())); diff != "" {
			t.Errorf("id of %q (-want +got):\n%s", want, diff)
		}
	}
}

func TestParse(t *testing.T) {
	plain := &dsse.Envelope{PayloadType: "t", Payload: []byte{0xfb, 0xff, 'x', 'y'}, Signatures: []dsse.Signature{
		{KeyID: "k", Sig: []byte{0xff, 0xfe}},
	}}
	for name, c := range map[string]struct {
		in   string
		want *dsse.Envelope
	}{
		"standard alphabet": {`{"payloadType":"t","payload":"+/94eQ==","signatures":[{"keyid":"k","sig":"//4="}]}`, plain},
		"URL alphabet":      {`{"payloadType":"t","payload":"-_94eQ==","signatures":[{"keyid":"k","sig":"__4="}]}`, plain},
		"without padding":   {`{"payloadType":"t","payload":"+/94eQ","signatures":[{"keyid":"k","sig":"__4"}]}`, plain},
		"unknown members, escapes, white space": {` {
			"x": {"payload": "no", "n": [1e400, -0, {}]},
			"signatures": [ {"\u0073ig": "\/\/4=", "cert": null, "keyid": "\u006b"} ],
			"payload\u0054ype": "t", "payload": "+/94eQ==", "Payload": "other", "SIGNATURES": 1 } ` + "\n", plain},
		"unknown key IDs": {
			`{"payloadType":"t","payload":"","signatures":[{"sig":"eA=="},{"keyid":null,"sig":"eQ=="},{"keyid":"","sig":"eg=="}]}`,
			&dsse.Envelope{PayloadType: "t", Payload: []byte{}, Signatures: []dsse.Signature{
				{Sig: []byte("x")}, {Sig: []byte("y")}, {Sig: []byte("z")},
			}},
		},
		"signatures that are no base64 keep their place": {
			`{"payloadType":"t","payload":"","signatures":[{"keyid":"a","sig":"!!"},{"sig":""},{"sig":"eA=="},{"sig":"eB=="},{"sig":"+_=="}]}`,
			&dsse.Envelope{PayloadType: "t", Payload: []byte{}, Signatures: []dsse.Signature{
				{KeyID: "a"}, {}, {Sig: []byte("x")}, {}, {},
			}},
		},
		"not signed": {
			`{"payloadType":"t","payload":"eA==","signatures":[]}`,
			&dsse.Envelope{PayloadType: "t", Payload: []byte("x")},
		},
		"16 signatures": {
			`{"payloadType":"t","payload":"","signatures":[` + strings.Repeat(`{"sig":"eA=="},`, 15) + `{"sig":"eA=="}]}`,
			&dsse.Envelope{PayloadType: "t", Payload: []byte{}, Signatures: repeat(dsse.Signature{Sig: []byte("x")}, 16)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dsse.Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, err := dsse.Parse(got.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("after Marshal (-want +got):\n%s", diff)
			}
		})
	}
}

func repeat(s dsse.Signature, n int) []dsse.Signature {
	out := make([]dsse.Signature, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestParseRefuses(t *testing.T) {
	sig := `"signatures":[{"sig":"eA=="}]`
	for name, c := range map[string]struct{ in, want string }{
		"nothing":                  {``, `read JSON at byte 0: unexpected end, want "{"`},
		"no object":                {`[]`, `read JSON at byte 0: unexpected "[", want "{"`},
		"no payload":               {`{"payloadType":"t",` + sig + `}`, `no member "payload"`},
		"no payload type":          {`{"payload":"",` + sig + `}`, `no member "payloadType"`},
		"no signatures":            {`{"payload":"","payloadType":"t"}`, `no member "signatures"`},
		"members in another case":  {`{"Payload":"","payloadType":"t",` + sig + `}`, `no member "payload"`},
		"empty payload type":       {`{"payload":"","payloadType":"",` + sig + `}`, `the payload type is empty`},
		"second payload":           {`{"payload":"eA==","payload":"eQ==","payloadType":"t",` + sig + `}`, `read JSON at byte 18: duplicate member "payload"`},
		"second payload, escaped":  {`{"payload":"eA==","p\u0061yload":"eQ==","payloadType":"t",` + sig + `}`, `read JSON at byte 18: duplicate member "payload"`},
		"second sig":               {`{"signatures":[{"sig":"eA==","sig":"eQ=="}]}`, `read JSON at byte 29: duplicate member "sig"`},
		"duplicate unknown member": {`{"x":{"a":1,"a":1}}`, `read JSON at byte 12: duplicate member "a"`},
		"payload of another type":  {`{"payload":null}`, `read JSON at byte 11: unexpected "n", want a string`},
		"signatures as object":     {`{"signatures":{}}`, `read JSON at byte 14: unexpected "{", want "["`},
		"signature as text":        {`{"signatures":["eA=="]}`, `read JSON at byte 15: unexpected "\"", want "{"`},
		"signature without sig":    {`{"signatures":[{"sig":"eA=="},{"keyid":"a"}]}`, `signature 2 has no member "sig"`},
		"sig as number":            {`{"signatures":[{"sig":1}]}`, `read JSON at byte 22: unexpected "1", want a string`},
		"payload with line break":  {`{"payload":"eA\n==","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload with garbage":     {`{"payload":"eA==eA==","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload in a mixture":     {`{"payload":"+_94eQ==","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload with stray bits":  {`{"payload":"eB==","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload badly padded":     {`{"payload":"eA=","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload of one character": {`{"payload":"e","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"payload with space":       {`{"payload":" eA==","payloadType":"t",` + sig + `}`, `the payload is not base64`},
		"trailing data":            {`{"payload":"","payloadType":"t",` + sig + `}{}`, `read JSON at byte 62: unexpected "{", want the end`},
		"invalid UTF-8":            {"{\"payloadType\":\"\xff\"}", `read JSON at byte 16: invalid UTF-8`},
		"lone surrogate":           {`{"payloadType":"\ud800"}`, `read JSON at byte 16: lone surrogate \ud800`},
		"depth":                    {`{"x":` + strings.Repeat("[", 100), `read JSON at byte 68: over 64 levels deep`},
		"17 signatures":            {`{"signatures":[` + strings.Repeat(`{"sig":""},`, 17), `17 signatures are over the limit of 16`},
		"65537 bytes":              {strings.Repeat(" ", 64<<10) + "{", `65537 bytes are over the limit of 65536`},
	} {
		t.Run(name, func(t *testing.T) {
			env, err := dsse.Parse([]byte(c.in))
			if err == nil {
				t.Fatal("accepted")
			}
			if env != nil {
				t.Error("envelope beside an error")
			}
			if diff := cmp.Diff("read envelope: "+c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseLimit(t *testing.T) {
	env := dsse.Envelope{PayloadType: "t", Payload: make([]byte, 1<<20)}
	data := env.Marshal()
	if _, err := dsse.Parse(data); err == nil {
		t.Error("Parse accepted an envelope of a receipt's size")
	}
	if _, err := dsse.ParseLimit(data, len(data)-1); err == nil {
		t.Error("accepted above the limit")
	}
	got, err := dsse.ParseLimit(data, dsse.MaxReceipt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(env.Payload, got.Payload) { // go-cmp takes seconds for a mebibyte
		t.Error("another payload")
	}
	huge := bytes.Repeat([]byte(" "), dsse.MaxReceipt+1)
	if _, err := dsse.ParseLimit(huge, 1<<40); err == nil {
		t.Error("accepted above the limit of the package")
	}
}

// What is read shares no memory with what it was read from.
func TestParseCopies(t *testing.T) {
	data := []byte(`{"payloadType":"type","payload":"aGVsbG8=","signatures":[{"keyid":"key","sig":"c2ln"}]}`)
	got, err := dsse.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	want := &dsse.Envelope{PayloadType: "type", Payload: []byte("hello"), Signatures: []dsse.Signature{{KeyID: "key", Sig: []byte("sig")}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMarshal(t *testing.T) {
	env := dsse.Envelope{PayloadType: "a/\"b\"<\n", Payload: []byte{0xfb, 0xff}, Signatures: []dsse.Signature{
		{KeyID: "did:key:z6", Sig: []byte{0xff}}, {Sig: []byte("x")}, {},
	}}
	want := `{"payload":"+/8=","payloadType":"a/\"b\"<\n","signatures":[{"keyid":"did:key:z6","sig":"/w=="},{"sig":"eA=="},{"sig":""}]}`
	if diff := cmp.Diff(want, string(env.Marshal())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !json.Valid((&dsse.Envelope{PayloadType: "\xff"}).Marshal()) {
		t.Error("a type that is not UTF-8 gives invalid JSON")
	}
}

// An envelope can be written in many ways and still verify: only ID names what is in it.
func TestMalleable(t *testing.T) {
	key := newKey(t, identity.Ed25519, 1)
	env, err := dsse.Sign(t.Context(), "t", []byte("\xfb\xff payload"), key)
	if err != nil {
		t.Fatal(err)
	}
	url := base64.RawURLEncoding
	for name, text := range map[string]string{
		"URL alphabet": fmt.Sprintf(`{"signatures":[{"sig":%q}],"payloadType":"\u0074","payload":%q}`,
			url.EncodeToString(env.Signatures[0].Sig), url.EncodeToString(env.Payload)),
		"more signatures": strings.Replace(string(env.Marshal()), `[{`, `[{"sig":"eA=="},{`, 1),
		"more members":    strings.Replace(string(env.Marshal()), `{`, `{"x":0,`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			other, err := dsse.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(env.ID(), other.ID()); diff != "" {
				t.Errorf("id (-want +got):\n%s", diff)
			}
			if len(other.Verified(public(key))) != 1 {
				t.Error("does not verify")
			}
		})
	}
	if env.ID() == (&dsse.Envelope{PayloadType: "u", Payload: env.Payload}).ID() {
		t.Error("two payload types, one id")
	}
}
