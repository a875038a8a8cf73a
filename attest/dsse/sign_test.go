package dsse_test

import (
	"bytes"
	"context"
	"testing"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
)

func TestSignAndAdd(t *testing.T) {
	ed, p256, mldsa := newKey(t, identity.Ed25519, 1), newKey(t, identity.ECDSAP256, 1), newKey(t, identity.MLDSA65, 1)
	payload := []byte("payload")
	env, err := dsse.Sign(t.Context(), "t", payload, ed, p256)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.Clone(env.Marshal())
	clear(payload)
	if err := env.Add(t.Context(), mldsa); err != nil {
		t.Fatal(err)
	}
	var hints []string
	for _, s := range env.Signatures {
		hints = append(hints, s.KeyID)
	}
	want := []string{ed.Public().String(), p256.Public().String(), mldsa.Public().ID().String()}
	if diff := cmp.Diff(want, hints); diff != "" {
		t.Errorf("key IDs (-want +got):\n%s", diff)
	}
	keys := public(mldsa, ed, p256)
	if diff := cmp.Diff(ids(keys), ids(env.Verified(keys))); diff != "" {
		t.Errorf("verified (-want +got):\n%s", diff)
	}
	if !bytes.HasPrefix(env.Marshal(), first[:len(first)-2]) {
		t.Error("Add changed what was there")
	}

	// Signing again changes nothing.
	all := env.Marshal()
	for _, k := range []*identity.Key{ed, p256, mldsa} {
		if err := env.Add(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(all), string(env.Marshal())); diff != "" {
		t.Errorf("signed again (-want +got):\n%s", diff)
	}
}

// A bad signature that names a key does not keep that key from signing.
func TestAddBesideForgery(t *testing.T) {
	key := newKey(t, identity.Ed25519, 1)
	env := &dsse.Envelope{PayloadType: "t", Payload: []byte("p"), Signatures: []dsse.Signature{
		{KeyID: key.Public().String(), Sig: make([]byte, 64)},
	}}
	if err := env.Add(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids(public(key)), ids(env.Verified(public(key)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSignRefuses(t *testing.T) {
	key := newKey(t, identity.Ed25519, 1)
	name := key.Public().String()
	for what, c := range map[string]struct {
		typ     string
		signers []identity.Signer
		want    string
	}{
		"no type":          {"", []identity.Signer{key}, "sign envelope: the payload type is empty"},
		"no signer":        {"t", nil, "sign envelope: no signer"},
		"broken device":    {"t", []identity.Signer{oddSigner{key, nil, errDevice}}, "sign envelope with " + name + ": device is gone"},
		"wrong signature":  {"t", []identity.Signer{oddSigner{key, make([]byte, 64), nil}}, "sign envelope with " + name + ": the signer's signature does not verify: verify signature by " + name + ": signature does not verify"},
		"second is broken": {"t", []identity.Signer{newKey(t, identity.Ed25519, 2), oddSigner{key, nil, errDevice}}, "sign envelope with " + name + ": device is gone"},
	} {
		t.Run(what, func(t *testing.T) {
			env, err := dsse.Sign(t.Context(), c.typ, []byte("p"), c.signers...)
			if err == nil {
				t.Fatal("no error")
			}
			if env != nil {
				t.Error("envelope beside an error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddLeavesEnvelopeOnError(t *testing.T) {
	keys := newKeys(t, dsse.MaxSignatures+1)
	env := &dsse.Envelope{PayloadType: "t", Payload: []byte("p")}
	for _, k := range keys[:dsse.MaxSignatures] {
		if err := env.Add(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	before := env.Marshal()
	last := keys[dsse.MaxSignatures]
	want := "sign envelope with " + last.Public().String() + ": it has 16 signatures, the most allowed"
	if err := env.Add(t.Context(), last); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	env.Signatures = env.Signatures[:15]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := env.Add(ctx, last); err == nil {
		t.Error("signed although cancelled")
	}
	env.Signatures = env.Signatures[:16]
	if diff := cmp.Diff(string(before), string(env.Marshal())); diff != "" {
		t.Errorf("changed by errors (-want +got):\n%s", diff)
	}
}
