package dsse

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/identity"
)

// Sign returns a new envelope of a copy of payload, signed by each of signers in turn.
func Sign(ctx context.Context, payloadType string, payload []byte, signers ...identity.Signer) (*Envelope, error) {
	if payloadType == "" {
		return nil, errors.New("sign envelope: the payload type is empty")
	}
	if len(signers) == 0 {
		return nil, errors.New("sign envelope: no signer")
	}
	env := &Envelope{PayloadType: payloadType, Payload: slices.Clone(payload)}
	for _, s := range signers {
		if err := env.Add(ctx, s); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// Add signs the envelope's payload and appends the signature; it never replaces or removes one. If a valid
// signature of the same key is there already, nothing changes. A signature that does not verify with
// the signer's own public key (a broken device, a wrong command) is an error and not added; what a key in this
// process's memory has signed is not verified at once, which would cost twice the signing.
func (e *Envelope) Add(ctx context.Context, s identity.Signer) error {
	key := s.Public()
	id := KeyID(key)
	if len(e.Signatures) > 0 && len(e.Verified([]identity.PublicKey{key})) == 1 {
		return nil
	}
	if len(e.Signatures) >= MaxSignatures {
		return fmt.Errorf("sign envelope with %s: it has %d signatures, the most allowed", id, len(e.Signatures))
	}
	message := PAE(e.PayloadType, e.Payload)
	sig, err := s.Sign(ctx, message)
	if err != nil {
		return fmt.Errorf("sign envelope with %s: %w", id, err)
	}
	if _, own := s.(*identity.Key); !own {
		err = key.Verify(message, sig)
	}
	if err != nil {
		return fmt.Errorf("sign envelope with %s: the signer's signature does not verify: %w", id, err)
	}
	e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: sig})
	return nil
}

// KeyID returns the hint that Add writes for a key: its did:key or openpgp string, or, for ML-DSA-65, whose did:key has 2,678
// characters, "sha256:" and the hexadecimal key ID.
func KeyID(key identity.PublicKey) string {
	if key.Algorithm() == identity.MLDSA65 {
		return key.ID().String()
	}
	return key.String()
}
