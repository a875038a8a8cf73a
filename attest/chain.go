package attest

import (
	"errors"
	"fmt"
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

// Record is a decision as it was found in a ledger, with its signature verified.
type Record struct {
	Decision
	ID      digest.SHA256 // of the statement
	Subject []ResourceDescriptor
}

// ReadRecord reads an entry of a ledger: the envelope of a Decision, in the form that dsse.Envelope.Marshal writes, signed by the key
// that its node names, and first by it. That key must be one of keys; with none, it may be any did:key (the entry is then bound to that key, and whose it is
// stays open).
func ReadRecord(entry []byte, keys ...identity.PublicKey) (*Record, error) {
	env, err := dsse.ParseLimit(entry, dsse.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	if string(env.Marshal()) != string(entry) {
		return nil, errors.New("read decision: its envelope is not in its one form")
	}
	if len(keys) == 0 {
		keys = hinted(env)
	}
	signers := env.Verified(keys)
	if len(signers) == 0 {
		return nil, errors.New("read decision: no known node's signature verifies")
	}
	if env.PayloadType != PayloadType {
		return nil, fmt.Errorf("read decision: its payload is a %q", shorten(env.PayloadType, 100))
	}
	s, err := ParseStatement(env.Payload)
	if err != nil {
		return nil, err
	}
	d, err := s.Decision()
	if err != nil {
		return nil, err
	}
	if env.Signatures[0].KeyID != d.Node || !slices.ContainsFunc(signers, func(k identity.PublicKey) bool { return dsse.KeyID(k) == d.Node }) {
		return nil, fmt.Errorf("read decision: its node %q did not sign it", shorten(d.Node, 100))
	}
	return &Record{Decision: *d, ID: env.ID(), Subject: s.Subject}, nil
}

// hinted returns the keys that an envelope's own hints name.
func hinted(env *dsse.Envelope) []identity.PublicKey {
	var keys []identity.PublicKey
	for _, s := range env.Signatures {
		if k, err := identity.ParsePublicKey(s.KeyID); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// Chain checks that the decisions of a ledger are one chain: each sequence from 1 on once, and each the one before it. They may come in
// any order. The zero Chain is empty.
type Chain struct {
	next    int64                 // sequence that comes after the linked ones
	last    digest.SHA256         // id of the last linked one
	waiting map[int64]chainedLink // those that came early
}

type chainedLink struct{ id, previous digest.SHA256 }

// maxWaiting bounds what came early: no writer has as many entries on the way.
const maxWaiting = 1 << 16

// ChainError says where a chain is broken.
type ChainError struct {
	Sequence int64
	Why      string
}

func (e *ChainError) Error() string { return fmt.Sprintf("check decision %d: %s", e.Sequence, e.Why) }

// Hint tells the way out.
func (e *ChainError) Hint() string {
	return "keep the log as it is: its node has left out, rewritten or repeated a decision"
}

// Add adds a decision.
func (c *Chain) Add(r *Record) error {
	if c.next == 0 {
		c.next = 1
	}
	_, known := c.waiting[r.Sequence]
	switch {
	case r.Sequence < c.next || known:
		return &ChainError{Sequence: r.Sequence, Why: "the sequence occurs twice"}
	case len(c.waiting) >= maxWaiting:
		return &ChainError{Sequence: c.next, Why: "it is missing"}
	case c.waiting == nil:
		c.waiting = map[int64]chainedLink{}
	}
	c.waiting[r.Sequence] = chainedLink{r.ID, r.Previous}
	for {
		link, ok := c.waiting[c.next]
		if !ok {
			return nil
		}
		if link.previous != c.last {
			return &ChainError{Sequence: c.next, Why: fmt.Sprintf("it follows %s, but the one before it is %s", link.previous, c.last)}
		}
		delete(c.waiting, c.next)
		c.last = link.id
		c.next++
	}
}

// End returns the sequence and the id of the last decision, 0 and zero if there is none; it is an error if one is missing.
func (c *Chain) End() (int64, digest.SHA256, error) {
	if len(c.waiting) > 0 {
		return 0, digest.SHA256{}, &ChainError{Sequence: max(c.next, 1), Why: "it is missing"}
	}
	return max(c.next, 1) - 1, c.last, nil
}
