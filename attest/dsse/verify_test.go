package dsse_test

import (
	"bytes"
	"slices"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
)

// signedBy returns an envelope signed by keys.
func signedBy(t testing.TB, keys ...*identity.Key) *dsse.Envelope {
	t.Helper()
	signers := make([]identity.Signer, len(keys))
	for i, k := range keys {
		signers[i] = k
	}
	env, err := dsse.Sign(t.Context(), "application/vnd.arch.network.build.v1+json", []byte(`{"kind":"Build"}`), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestVerified(t *testing.T) {
	ed := newKeys(t, 5)
	p256, mldsa := newKey(t, identity.ECDSAP256, 1), newKey(t, identity.MLDSA65, 1)
	all := append(slices.Clone(ed), p256, mldsa)
	forged := dsse.Signature{KeyID: ed[1].Public().String(), Sig: make([]byte, 64)}

	for name, c := range map[string]struct {
		change  func(*dsse.Envelope)
		trusted []*identity.Key
		want    []*identity.Key
	}{
		"all, in the order of the keys":   {nil, []*identity.Key{mldsa, ed[2], p256, ed[0]}, []*identity.Key{mldsa, ed[2], p256, ed[0]}},
		"some":                            {nil, []*identity.Key{ed[3], newKey(t, identity.Ed25519, 99)}, []*identity.Key{ed[3]}},
		"no keys":                         {nil, nil, nil},
		"one key listed three times":      {nil, []*identity.Key{ed[0], ed[0], newKey(t, identity.Ed25519, 1)}, []*identity.Key{ed[0]}},
		"other payload":                   {func(e *dsse.Envelope) { e.Payload = []byte("{}") }, all, nil},
		"other payload type":              {func(e *dsse.Envelope) { e.PayloadType = "application/json" }, all, nil},
		"payload moved into the type":     {func(e *dsse.Envelope) { e.PayloadType += " 16 {"; e.Payload = e.Payload[1:] }, all, nil},
		"without hints":                   {func(e *dsse.Envelope) { eachSig(e, func(s *dsse.Signature) { s.KeyID = "" }) }, all, all},
		"strange hints":                   {func(e *dsse.Envelope) { eachSig(e, func(s *dsse.Signature) { s.KeyID = "\x00" }) }, all, all},
		"hints at the neighbour":          {func(e *dsse.Envelope) { rotateHints(e) }, all, all},
		"all hint at the first":           {func(e *dsse.Envelope) { eachSig(e, func(s *dsse.Signature) { s.KeyID = e.Signatures[0].KeyID }) }, all, all},
		"forged ones in front":            {func(e *dsse.Envelope) { e.Signatures = append(repeat(forged, 9), e.Signatures...) }, all, all},
		"forged under another's name":     {func(e *dsse.Envelope) { e.Signatures[1] = forged }, ed, []*identity.Key{ed[0], ed[2], ed[3], ed[4]}},
		"one that was no base64":          {func(e *dsse.Envelope) { e.Signatures[0].Sig = nil }, ed, ed[1:]},
		"one cut short":                   {func(e *dsse.Envelope) { e.Signatures[0].Sig = e.Signatures[0].Sig[:63] }, ed, ed[1:]},
		"one twice":                       {func(e *dsse.Envelope) { e.Signatures = append(e.Signatures[:1], e.Signatures[0], e.Signatures[0]) }, ed, ed[:1]},
		"one twice under different hints": {func(e *dsse.Envelope) { e.Signatures = twice(e.Signatures[0], ed[1].Public().String()) }, ed, ed[:1]},
		"the 17th":                        {func(e *dsse.Envelope) { e.Signatures = append(repeat(forged, 16), e.Signatures[0]) }, ed, nil},
		"no signatures":                   {func(e *dsse.Envelope) { e.Signatures = nil }, all, nil},
	} {
		t.Run(name, func(t *testing.T) {
			env := signedBy(t, all...)
			if c.change != nil {
				c.change(env)
			}
			if diff := cmp.Diff(ids(public(c.want...)), ids(env.Verified(public(c.trusted...)))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func eachSig(e *dsse.Envelope, f func(*dsse.Signature)) {
	for i := range e.Signatures {
		f(&e.Signatures[i])
	}
}

func rotateHints(e *dsse.Envelope) {
	first := e.Signatures[0].KeyID
	for i := range e.Signatures[1:] {
		e.Signatures[i].KeyID = e.Signatures[i+1].KeyID
	}
	e.Signatures[len(e.Signatures)-1].KeyID = first
}

func twice(s dsse.Signature, hint string) []dsse.Signature {
	return []dsse.Signature{s, {KeyID: hint, Sig: s.Sig}}
}

func TestVerifiedIgnoresNoKey(t *testing.T) {
	env := signedBy(t, newKeys(t, 1)...)
	if got := env.Verified([]identity.PublicKey{{}, {}}); got != nil {
		t.Errorf("the zero key verified: %v", got)
	}
}

// Signatures in ASN.1, as other tools make them with P-256, count too.
func TestVerifiedTakesASN1(t *testing.T) {
	sv, key := libraryP256(t)
	message := dsse.PAE("t", []byte("p"))
	for range 20 { // the length of ASN.1 varies
		sig, err := sv.Sign(t.Context(), message)
		if err != nil {
			t.Fatal(err)
		}
		env := &dsse.Envelope{PayloadType: "t", Payload: []byte("p"), Signatures: []dsse.Signature{{Sig: sig}}}
		if len(env.Verified([]identity.PublicKey{key})) != 1 {
			t.Fatalf("signature of %d bytes does not verify", len(sig))
		}
	}
}

// Verified changes neither the envelope nor the list it is given.
func TestVerifiedIsPure(t *testing.T) {
	keys := newKeys(t, 3)
	env := signedBy(t, keys...)
	before := env.Marshal()
	trusted := public(keys[2], keys[2], keys[0])
	env.Verified(trusted)
	if !bytes.Equal(before, env.Marshal()) {
		t.Error("envelope changed")
	}
	if diff := cmp.Diff(ids(public(keys[2], keys[2], keys[0])), ids(trusted)); diff != "" {
		t.Errorf("keys changed (-want +got):\n%s", diff)
	}
}
