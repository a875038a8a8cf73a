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
	v.eachTrusted(ctx, v.Receipt.Claims, func(id digest.SHA256, by signers, payload []byte) {
		c := &trustedClaim{id: id, by: by}
		c.err = c.parse(payload)
		out = append(out, c)
	})
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

// trustedProvenance is a provenance that someone in the trust root signed.
type trustedProvenance struct {
	id        digest.SHA256
	by        signers
	statement *Statement
	account   *account
	err       error // it is signed, but wrong
}

func (v *verification) trustedProvenances(ctx context.Context) []*trustedProvenance {
	var out []*trustedProvenance
	v.eachTrusted(ctx, v.Receipt.Provenances, func(id digest.SHA256, by signers, payload []byte) {
		p := &trustedProvenance{id: id, by: by}
		p.statement, p.account, p.err = readAccount(payload)
		out = append(out, p)
	})
	return out
}

// trustedNegative is a negative result that someone in the trust root signed.
type trustedNegative struct {
	id       digest.SHA256
	by       signers
	negative *Negative
	err      error // it is signed, but wrong
}

func (v *verification) trustedNegatives(ctx context.Context) []*trustedNegative {
	var out []*trustedNegative
	v.eachTrusted(ctx, v.Receipt.Negatives, func(id digest.SHA256, by signers, payload []byte) {
		n := &trustedNegative{id: id, by: by}
		s, err := ParseStatement(payload)
		if err == nil {
			n.negative, err = s.Negative()
		}
		n.err = err
		out = append(out, n)
	})
	return out
}

// eachTrusted calls visit for every statement that someone trusted signed.
func (v *verification) eachTrusted(ctx context.Context, list []*dsse.Envelope, visit func(id digest.SHA256, by signers, payload []byte)) {
	for _, group := range byStatement(list) {
		if ctx.Err() != nil {
			return // Verify returns the error
		}
		if by := v.trust.signed(group); len(by.principals) > 0 { // else no one, or such as one half of a hybrid
			visit(by.id, by, group.payload())
		}
	}
}

// group is what envelopes say of one statement.
type group struct {
	id        digest.SHA256
	envelopes []*dsse.Envelope // at least one
}

func (g group) payload() []byte { return g.envelopes[0].Payload }

// byStatement groups envelopes by statement, in the order of the first of each.
func byStatement(list []*dsse.Envelope) []group {
	var groups []group
	at := map[digest.SHA256]int{}
	for _, env := range list {
		id := env.ID()
		i, ok := at[id]
		if !ok {
			i = len(groups)
			at[id] = i
			groups = append(groups, group{id: id})
		}
		groups[i].envelopes = append(groups[i].envelopes, env)
	}
	return groups
}
