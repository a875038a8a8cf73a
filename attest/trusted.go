package attest

import (
	"bytes"
	"context"
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// trustedClaim is a claim that someone in the trust root signed.
type trustedClaim struct {
	id        digest.SHA256
	statement *Statement
	claim     *Claim
	raw       rawDefinition
	by        signers
	err       error // it is signed, but wrong
}

// rawDefinition holds the parts of a build definition in canonical form, by which claims and provenances are compared.
type rawDefinition struct {
	BuildType            string `json:"buildType"`
	ExternalParameters   raw    `json:"externalParameters"`
	InternalParameters   raw    `json:"internalParameters"`
	ResolvedDependencies raw    `json:"resolvedDependencies"`
	Normalizer           raw    `json:"normalizer"`
}

// trustedClaims returns the claims of the receipt that someone trusted signed, sorted by id. Signatures are verified
// before anything is parsed; envelopes of one statement count together.
func (v *verification) trustedClaims(ctx context.Context) []*trustedClaim {
	var out []*trustedClaim
	for _, group := range byStatement(v.Receipt.Claims) {
		if ctx.Err() != nil {
			break // Verify returns the error
		}
		by := v.trust.signed(group)
		if len(by.principals) == 0 {
			continue // no one, or such as one half of a hybrid
		}
		c := &trustedClaim{id: group[0].ID(), by: by}
		c.err = c.parse(group[0].Payload)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *trustedClaim) int { return bytes.Compare(a.id[:], b.id[:]) })
	return out
}

func (c *trustedClaim) parse(payload []byte) (err error) {
	if c.statement, err = ParseStatement(payload); err != nil {
		c.statement = &Statement{}
		return err
	}
	if c.claim, err = c.statement.Claim(); err != nil {
		c.statement = &Statement{}
		return err
	}
	return decodeExact(c.statement.Predicate, &c.raw)
}

// byStatement groups envelopes of the same statement, in the order of their first. All are of one payload type.
func byStatement(list []*dsse.Envelope) [][]*dsse.Envelope {
	if len(list) == 1 {
		return [][]*dsse.Envelope{list}
	}
	var groups [][]*dsse.Envelope
	at := map[string]int{}
	for _, env := range list {
		i, ok := at[string(env.Payload)]
		if !ok {
			i = len(groups)
			at[string(env.Payload)] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], env)
	}
	return groups
}
