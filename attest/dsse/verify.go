package dsse

import (
	"bytes"
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
)

// Verified returns those of keys whose signature over the payload is in the envelope: each public key once, told
// apart by its ID whatever a signature calls it, in the order of keys. To accept a document means to count
// these, or to hand them to attest/quorum.
//
// A signature that no key verifies is skipped, and so is every signature after the first MaxSignatures. Key IDs
// only say which key to try first. At most MaxVerifications checks are made: first each signature with
// the key it hints at, then the rest of the budget in even shares for the signatures that are left, so that
// useless signatures cannot crowd out good ones. Whoever trusts more than MaxVerifications/MaxSignatures keys of one
// algorithm depends on hints, which Sign writes: without them the answer may lack keys, but it never has a
// wrong one.
//
// Two keys with different IDs may still share a signer: an OpenPGP certificate and a did:key of its subkey. Each is
// returned if it verifies. A trust root that lists both is refused by attest/quorum; whoever counts by hand compares
// identity.PublicKey.Components.
func (e *Envelope) Verified(keys []identity.PublicKey) []identity.PublicKey {
	return verify(e, keys, nil).signed()
}

func verify(e *Envelope, keys []identity.PublicKey, total *Budget) *verification {
	v := &verification{
		keys:   candidates(keys),
		budget: MaxVerifications,
		total:  total,
	}
	if total == nil {
		v.message = PAE(e.PayloadType, e.Payload)
	} else {
		total.message = appendPAE(total.message[:0], e.PayloadType, e.Payload)
		v.message = total.message
	}
	v.tryOthers(v.tryHinted(attempts(e.Signatures)))
	return v
}

// verification is the work of one call of Verified.
type verification struct {
	message []byte
	keys    []candidate
	budget  int     // checks left
	total   *Budget // of all envelopes together; nil: no bound
}

// signed returns the keys of which a signature was found.
func (v *verification) signed() []identity.PublicKey {
	var out []identity.PublicKey
	for _, k := range v.keys {
		if k.signed {
			out = append(out, k.PublicKey)
		}
	}
	return out
}

// candidate is one distinct key.
type candidate struct {
	identity.PublicKey
	signed bool // a signature of it was found
}

// attempt is a signature that no key has verified yet.
type attempt struct {
	Signature
	tried *candidate // the hinted key, which did not verify it; nil if the hint names none
}

// candidates returns each public key once.
func candidates(keys []identity.PublicKey) []candidate {
	out := make([]candidate, 0, len(keys))
	seen := make(map[digest.SHA256]bool, len(keys))
	for _, k := range keys {
		if id := k.ID(); !k.IsZero() && !seen[id] {
			seen[id] = true
			out = append(out, candidate{PublicKey: k})
		}
	}
	return out
}

// attempts returns the signatures that hold any bytes, up to the limit, and repeated ones once.
func attempts(sigs []Signature) []attempt {
	sigs = sigs[:min(len(sigs), MaxSignatures)]
	out := make([]attempt, 0, len(sigs))
	for _, s := range sigs {
		repeated := func(a attempt) bool { return a.KeyID == s.KeyID && bytes.Equal(a.Sig, s.Sig) }
		if len(s.Sig) > 0 && !slices.ContainsFunc(out, repeated) {
			out = append(out, attempt{Signature: s})
		}
	}
	return out
}

// tryHinted tries each signature with the key it names, and returns those that are left.
func (v *verification) tryHinted(open []attempt) []attempt {
	var left []attempt
	for _, a := range open {
		if a.KeyID != "" {
			a.tried = v.named(a.KeyID)
		}
		// A hint at a key that has signed already may be a wrong one: some other key may have made this.
		if a.tried == nil || a.tried.signed || !v.try(a.tried, a.Sig) {
			left = append(left, a)
		}
	}
	return left
}

// named returns the key that a hint names, or nil.
func (v *verification) named(hint string) *candidate {
	for i := range v.keys {
		if KeyID(v.keys[i].PublicKey) == hint {
			return &v.keys[i]
		}
	}
	return nil
}

// tryOthers tries each signature with the keys that have not signed yet, in even shares of the budget.
func (v *verification) tryOthers(open []attempt) {
	for i, a := range open {
		repeated := func(b attempt) bool { return bytes.Equal(a.Sig, b.Sig) } // under another hint
		if slices.ContainsFunc(open[:i], repeated) {
			continue
		}
		share := v.budget / (len(open) - i)
		for k := range v.keys {
			key := &v.keys[k]
			if key.signed || key == a.tried || !fits(key.Algorithm(), len(a.Sig)) {
				continue
			}
			if share == 0 || v.try(key, a.Sig) {
				break
			}
			share--
		}
	}
}

// try checks one signature with one key, and notes success.
func (v *verification) try(key *candidate, sig []byte) bool {
	if v.total != nil && !v.total.spend(1+len(v.message)/bytesPerUnit) {
		return false
	}
	v.budget--
	key.signed = key.Verify(v.message, sig) == nil
	return key.signed
}

// fits reports whether a signature of an algorithm can have this many bytes. It only saves useless checks.
func fits(alg identity.Algorithm, size int) bool {
	switch alg {
	case identity.Ed25519:
		return size == 64 // RFC 8032 section 5.1.6
	case identity.ECDSAP256:
		return 8 <= size && size <= 72 // r‖s has 64; ASN.1 DER of two integers of 1 to 33 bytes
	case identity.MLDSA65:
		return size == 3309 // FIPS 204 table 2
	}
	return true // OpenPGP packets
}
