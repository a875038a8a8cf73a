package policy

import (
	"fmt"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// Active is a trust root and a policy that was verified against it: what jobs are judged by. It is immutable and may be
// shared; nothing that its methods return may be changed.
type Active struct {
	trust   *attest.Trust
	policy  *manifest.Policy
	id      digest.SHA256
	expires time.Time
	ends    time.Time // expires and offlineGrace
}

// New verifies the policy in env against a trust root, as of a time: its form, the quorum of the policy role, its expiry
// with its own grace, and that it was written for this trust root. The error is a *RefusedError.
func New(trust *attest.Trust, env *dsse.Envelope, at time.Time) (*Active, error) {
	doc, id, err := attest.OpenPolicy(env, trust, at, QuorumOptions())
	if err != nil {
		return nil, whyRefused(env, trust, at, err)
	}
	return newActive(trust, doc, id)
}

func newActive(trust *attest.Trust, doc *manifest.Policy, id digest.SHA256) (*Active, error) {
	a := &Active{trust: trust, policy: doc, id: id}
	var err error
	if a.expires, err = time.Parse(time.RFC3339, doc.Metadata.Expires); err != nil {
		return nil, refused(Policy, RuleForm, fmt.Errorf("metadata.expires: %w", err))
	}
	grace, err := doc.Spec.OfflineGrace.Duration()
	if err != nil {
		return nil, refused(Policy, RuleForm, fmt.Errorf("spec.offlineGrace: %w", err))
	}
	a.ends = a.expires.Add(grace)
	return a, nil
}

// QuorumOptions are what every quorum in a node is evaluated with: an expired trust root goes on for its own offlineGrace.
func QuorumOptions() quorum.Options { return quorum.Options{Offline: true} }

// Trust returns the trust root, ready to be asked.
func (a *Active) Trust() *attest.Trust { return a.trust }

// Policy returns the policy's document.
func (a *Active) Policy() *manifest.Policy { return a.policy }

// ID returns the policy's document id.
func (a *Active) ID() digest.SHA256 { return a.id }

// Expires returns when the policy expires. Its own offlineGrace may let it go on: see Ends.
func (a *Active) Expires() time.Time { return a.expires }

// Ends returns from when on nothing new may run, if no newer policy comes.
func (a *Active) Ends() time.Time { return a.ends }

// Graced reports whether at a time only the offlineGrace of the policy lets new jobs run.
func (a *Active) Graced(at time.Time) bool { return !at.Before(a.expires) && at.Before(a.ends) }
