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
			v := verify(&Envelope{PayloadType: "t", Payload: []byte("p"), Signatures: c.sigs}, keys[:c.keys], nil)
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

// A budget stops the work of many envelopes, says so, and never gives a key that did not sign.
func TestBudget(t *testing.T) {
	var keys []identity.PublicKey
	for i := range 600 {
		keys = append(keys, numbered(t, i).Public())
	}
	signed := func(payload []byte) *Envelope {
		sig, err := numbered(t, 3).Sign(t.Context(), PAE("t", payload))
		if err != nil {
			t.Fatal(err)
		}
		return &Envelope{PayloadType: "t", Payload: payload, Signatures: []Signature{{KeyID: keys[3].String(), Sig: sig}}}
	}
	short, long := signed([]byte("p")), signed(make([]byte, 10*bytesPerUnit))
	bomb := &Envelope{PayloadType: "t", Payload: []byte("p"), Signatures: []Signature{{Sig: make([]byte, 64)}}}
	for name, c := range map[string]struct {
		units, keys int
		envelopes   []*Envelope
		found       int
		exhausted   bool
	}{
		"enough":                    {4, 5, []*Envelope{short, short}, 2, false},
		"one too few":               {3, 5, []*Envelope{short, short}, 1, true},
		"long messages cost more":   {21, 5, []*Envelope{long}, 0, true},
		"and no more than that":     {22, 5, []*Envelope{long}, 1, false},
		"many keys cost more":       {3, 600, []*Envelope{short}, 0, true},
		"and no more than they do":  {4, 600, []*Envelope{short}, 1, false},
		"a bomb costs each check":   {1 + 5, 5, []*Envelope{bomb}, 0, false},
		"and leaves nothing behind": {1 + 5, 5, []*Envelope{bomb, short}, 0, true},
		"no budget":                 {0, 5, []*Envelope{short}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(c.units)
			found := 0
			for _, e := range c.envelopes {
				found += len(e.VerifiedWithin(keys[:c.keys], b))
			}
			if found != c.found || b.Exhausted() != c.exhausted {
				t.Errorf("found %d, exhausted %v; want %d, %v", found, b.Exhausted(), c.found, c.exhausted)
			}
		})
	}
}
