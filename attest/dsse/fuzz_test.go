package dsse_test

import (
	"encoding/json"
	"strings"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
	library "github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Whatever Parse accepts is JSON, survives Marshal and Parse, holds to the limits, and is read by the library as the same payload.
func FuzzParse(f *testing.F) {
	key := newKey(f, identity.Ed25519, 1)
	f.Add([]byte(helloJSON))
	f.Add(signedBy(f, key).Marshal())
	f.Add([]byte(`{"payloadType":"t","payload":"-_94eQ","signatures":[{"keyid":null,"sig":"!"},{"sig":"","x":[{}]}],"y":1e9}`))
	f.Add([]byte(`{"payload":"eA==","payload":"eQ==","payloadType":"t","signatures":[]}`))
	f.Add([]byte(`{"Payload":"eA==","payloadType":"\ud800","signatures":{}}`))
	trusted := public(key)
	f.Fuzz(func(t *testing.T, in []byte) {
		env, err := dsse.Parse(in)
		if err != nil {
			return
		}
		if !json.Valid(in) || len(in) > dsse.MaxEnvelope || len(env.Signatures) > dsse.MaxSignatures || env.PayloadType == "" {
			t.Fatalf("accepted %q", in)
		}
		var theirs library.Envelope
		if json.Unmarshal(in, &theirs) == nil && theirs.Payload != "" {
			if payload, err := theirs.DecodeB64Payload(); err == nil && !foldsTwice(in) && string(payload) != string(env.Payload) {
				t.Fatalf("the library reads %q, not %q", payload, env.Payload)
			}
		}
		again, err := dsse.ParseLimit(env.Marshal(), dsse.MaxReceipt)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(env, again); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if env.ID() != again.ID() {
			t.Fatal("id changed")
		}
		if n := len(env.Verified(trusted)); n > 0 && string(env.Payload) != `{"kind":"Build"}` {
			t.Fatalf("forged %q", in)
		}
	})
}

func FuzzPAE(f *testing.F) {
	f.Add("", []byte(nil))
	f.Add(helloType, []byte(hello))
	f.Add("é 1 ", []byte("\x00\xff"))
	f.Fuzz(func(t *testing.T, payloadType string, payload []byte) {
		if diff := cmp.Diff(library.PAE(payloadType, payload), dsse.PAE(payloadType, payload)); diff != "" {
			t.Errorf("(-library +ours):\n%s", diff)
		}
	})
}

// foldsTwice reports whether encoding/json could take another member for the payload.
func foldsTwice(in []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(in, &members) != nil {
		return true
	}
	n := 0
	for name := range members {
		if strings.EqualFold(name, "payload") {
			n++
		}
	}
	return n != 1
}
