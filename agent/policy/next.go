package policy

import (
	"time"

	"arch.network/attest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// Next decides whether a Keeper that has current in force would put next in force, without a Keeper: for whoever installs
// files. A nil current: nothing was in force yet. The error is a *RefusedError.
func Next(trust *attest.Trust, current, next *dsse.Envelope, at time.Time) (*Active, error) {
	f := floor{Format: floorFormat}
	if current != nil {
		if doc, err := manifest.Payload(current); err == nil {
			if p, ok := doc.(*manifest.Policy); ok {
				f.Policy = document{p.Metadata.Name, p.Spec.Version, current.ID(), current.Marshal()}
			}
		}
	}
	a, no := acceptPolicy(f, trust, next, at, DefaultSkew)
	if no != nil {
		return nil, no
	}
	return a, nil
}

// Draft makes an Active of a policy that nobody has signed yet, to see how it would judge. No node may use one.
func Draft(trust *attest.Trust, doc *manifest.Policy) (*Active, error) {
	if err := doc.Validate(); err != nil {
		return nil, refused(Policy, RuleForm, err)
	}
	id, err := manifest.ID(doc)
	if err != nil {
		return nil, refused(Policy, RuleForm, err)
	}
	return newActive(trust, doc, id)
}
