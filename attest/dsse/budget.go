package dsse

import "arch.network/attest/identity"

// Budget bounds what many envelopes may cost together: those of one receipt, which strangers may have filled up to its
// limits. It counts in units of about one Ed25519 verification of a short message, 50 µs; long messages, which are hashed
// for each check, and long lists of keys cost more. A Budget is for one goroutine.
type Budget struct {
	left    int64
	spent   bool
	message []byte // memory for what is verified, used again for each envelope
}

const (
	bytesPerUnit = 32 << 10 // of message: SHA-512, SHA-256 and SHAKE256 hash about 0.6 GB/s or more
	keysPerUnit  = 256      // of the list that one envelope is held against
)

// NewBudget returns a budget of units.
func NewBudget(units int) *Budget { return &Budget{left: int64(units)} }

// Exhausted reports whether work was left undone because it would have been over the budget. Then whatever VerifiedWithin
// returned may lack keys, and MUST NOT be the ground for any decision but a refusal.
func (b *Budget) Exhausted() bool { return b.spent }

// spend reports whether there is that much left, and takes it.
func (b *Budget) spend(units int) bool {
	if b.spent || int64(units) > b.left {
		b.spent = true
		return false
	}
	b.left -= int64(units)
	return true
}

// VerifiedWithin is Verified at the cost of b. Once b is exhausted it returns at once, with the keys found until then.
func (e *Envelope) VerifiedWithin(keys []identity.PublicKey, b *Budget) []identity.PublicKey {
	size := len(e.PayloadType) + len(e.Payload)
	if !b.spend(1 + size/bytesPerUnit + len(keys)/keysPerUnit) {
		return nil
	}
	return verify(e, keys, b).signed()
}
