package dsse

import (
	"bytes"
	"encoding/binary"
	"testing"

	"arch.network/attest/identity"
	"github.com/google/go-cmp/cmp"
)

// numbered returns Ed25519 key number n.
func numbered(t testing.TB, n int) *identity.Key {
	t.Helper()
	seed := binary.BigEndian.AppendUint32(make([]byte, 28), uint32(n))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// However many keys and signatures there are, the checks are counted, and the good signature is found among bad ones.
func TestWorkIsBounded(t *testing.T) {
	const many = 1000
	var keys []identity.PublicKey
	for i := range many {
		keys = append(keys, numbered(t, i).Public())
	}
	good := func(n int, hint string) Signature {
		sig, err := numbered(t, n).Sign(t.Context(), PAE("t", []byte("p")))
		if err != nil {
			t.Fatal(err)
		}
		return Signature{KeyID: hint, Sig: sig}
	}
	bad := func(n int) []Signature {
		var out []Signature
		for i := range n {
			sig := make([]byte, 64)
			sig[0] = byte(i)
			out = append(out, Signature{KeyID: keys[i].String(), Sig: sig})
		}
		return out
	}
	for name, c := range map[string]struct {
		keys   int
		sigs   []Signature
		signed int
		checks int
	}{
		"hinted":                           {many, []Signature{good(999, keys[999].String())}, 1, 1},
		"no hint, found in time":           {many, []Signature{good(200, "")}, 1, 201},
		"no hint, too far":                 {many, []Signature{good(999, "")}, 0, MaxVerifications},
		"bomb":                             {many, bad(16), 0, MaxVerifications},
		"huge bomb":                        {many, bad(1000), 0, MaxVerifications},
		"hinted, behind a bomb":            {many, append(bad(15), good(999, keys[999].String())), 1, MaxVerifications},
		"no hint, behind a bomb":           {16, append(bad(15), good(15, "")), 1, 15 + 15*15 + 16},
		"same bad signature 16 times":      {16, repeated(bad(1)[0]), 0, 16},
		"the same under 16 hints":          {16, rehinted(bad(16)), 0, 16 + 15},
		"sizes that fit no key":            {many, []Signature{{Sig: make([]byte, 63)}, {Sig: make([]byte, 3309)}, {Sig: nil}}, 0, 0},
		"all 16 without hints, of 16 keys": {16, allOf(16, good), 16, 136},
	} {
		t.Run(name, func(t *testing.T) {
			v := verify(&Envelope{PayloadType: "t", Payload: []byte("p"), Signatures: c.sigs}, keys[:c.keys])
			signed := 0
			for _, k := range v.keys {
				if k.signed {
					signed++
				}
			}
			if diff := cmp.Diff([]int{c.signed, c.checks}, []int{signed, MaxVerifications - v.budget}); diff != "" {
				t.Errorf("signed, checks (-want +got):\n%s", diff)
			}
		})
	}
}

func repeated(s Signature) []Signature {
	out := make([]Signature, MaxSignatures)
	for i := range out {
		out[i] = s
	}
	return out
}

// rehinted gives every signature the bytes of the first.
func rehinted(sigs []Signature) []Signature {
	for i := range sigs {
		sigs[i].Sig = sigs[0].Sig
	}
	return sigs
}

// allOf returns the signatures of n keys, the last key's first, without hints.
func allOf(n int, good func(int, string) Signature) []Signature {
	var out []Signature
	for i := range n {
		out = append(out, good(n-1-i, ""))
	}
	return out
}
