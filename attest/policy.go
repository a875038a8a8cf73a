package attest

import (
	"fmt"
	"slices"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// OpenPolicy verifies a policy against the trust root, and only then reads it: the quorum of the policy role must have
// signed it, it must not have expired at that time (with options.Offline: nor its offlineGrace have ended), and if it
// names a trust root, it must be this one. It returns the policy with its document id.
func OpenPolicy(env *dsse.Envelope, t *Trust, at time.Time, options quorum.Options) (*manifest.Policy, digest.SHA256, error) {
	if want := manifest.PayloadType("Policy"); env.PayloadType != want {
		return nil, digest.SHA256{}, fmt.Errorf("open policy: payload type is %q, not %q", env.PayloadType, want)
	}
	keys := env.Verified(t.root.KeysAt(manifest.RolePolicy, at))
	if d := t.root.Evaluate(manifest.RolePolicy, keys, at, options); !d.OK {
		return nil, digest.SHA256{}, &VerifyError{Artifact: "policy", Class: ClassVerification, Failed: []Check{{
			Name: CheckQuorum, Result: Fail, Detail: d.String(), Class: ClassVerification,
			Hint: "have the members of role policy sign it: `arch sign FILE`",
		}}}
	}
	doc, err := manifest.Payload(env)
	if err != nil {
		return nil, digest.SHA256{}, fmt.Errorf("open policy: %w", err)
	}
	policy, ok := doc.(*manifest.Policy)
	if !ok {
		return nil, digest.SHA256{}, fmt.Errorf("open policy: it is a %s", doc.DocumentKind())
	}
	expires, err := parseTime("metadata.expires", policy.Metadata.Expires)
	if err == nil && options.Offline && !expires.IsZero() {
		var grace time.Duration
		grace, err = policy.Spec.OfflineGrace.Duration()
		expires = expires.Add(grace)
	}
	switch {
	case err != nil:
		return nil, digest.SHA256{}, fmt.Errorf("open policy: %w", err)
	case !expires.IsZero() && !at.Before(expires):
		return nil, digest.SHA256{}, fmt.Errorf("open policy %s: it expired on %s", policy.Metadata.Name, policy.Metadata.Expires)
	case !policy.Spec.TrustRoot.IsZero() && policy.Spec.TrustRoot != t.id:
		return nil, digest.SHA256{}, fmt.Errorf("open policy %s: it was written for trust root %s, not %s", policy.Metadata.Name, policy.Spec.TrustRoot, t.id)
	}
	return policy, env.ID(), nil
}

// checkPolicy holds the artifact to every attestation rule of the policy that matches it, under the name that it has here
// or under the one that the claim gives it: a new name does not rid it of a rule.
func (v *verification) checkPolicy(r *Report, c *trustedClaim, votes []vote) {
	if v.Policy == nil {
		r.skip(CheckPolicy, "no policy was given")
		return
	}
	matched := 0
	for i, rule := range v.Policy.Spec.Attestations {
		if !v.matches(rule) && !manifest.Matches(rule.Match, calledName(v.subjectOf(c))) {
			continue
		}
		matched++
		v.checkRule(r, fmt.Sprintf("rule %d of policy %s", i+1, v.Policy.Metadata.Name), rule, c, votes)
	}
	if matched == 0 {
		r.fail(ClassPolicy, CheckPolicy, "", "add a rule to spec.attestations of the policy",
			"policy %s has no rule for %q, and what it does not allow is refused", v.Policy.Metadata.Name, v.Artifact.Name)
	}
}

// matches reports whether a rule concerns the artifact.
func (in VerifyInput) matches(rule manifest.PolicyAttestation) bool {
	return rule.Match == "" || manifest.Matches(rule.Match, in.Artifact.Name) || in.Location != "" && manifest.Matches(rule.Match, in.Location)
}

// checkRule counts those who satisfy one rule.
func (v *verification) checkRule(r *Report, name string, rule manifest.PolicyAttestation, c *trustedClaim, votes []vote) {
	counted, known := v.ruleVotes(rule, c, votes)
	if !known {
		r.fail(ClassPolicy, CheckPolicy, "", "", "%s asks for %s, which cannot be checked here", name, rule.PredicateType)
		return
	}
	threshold, wanted := rule.Threshold, rule.Operators
	if rule.Reproduced {
		threshold, wanted = max(threshold, 2), max(wanted, 2)
	}
	quorate := rule.Threshold > 0
	if !quorate { // the role's own threshold
		quorate = v.trust.decide(rule.Role, c.id, keysOf(c, counted)).OK
	}
	if rule.Reproduced && r.Disputed {
		r.fail(ClassPolicy, CheckPolicy, principalsOf(counted), "compare the two artifacts with `arch diff A B`",
			"%s asks for a reproduced artifact, but someone trusted reports another result", name)
		return
	}
	by := operators(counted)
	found := fmt.Sprintf("%s of role %s by %s", count(len(counted), "principal"), rule.Role, count(len(by), "operator"))
	if !quorate || len(counted) == 0 || len(counted) < threshold || len(by) < wanted {
		r.fail(ClassPolicy, CheckPolicy, principalsOf(counted), "have more of role "+rule.Role+" rebuild and sign: `arch rebuild RECEIPT`",
			"%s asks for %s, but there are %s", name, demand(rule.Threshold, threshold, wanted), found)
		return
	}
	r.pass(CheckPolicy, principalsOf(counted), "%s holds: %s", name, found)
}

func demand(asked, threshold, operators int) string {
	text := fmt.Sprintf("%d by %s", threshold, count(operators, "operator"))
	if asked == 0 {
		text = "the role's own quorum and " + text
	}
	return text
}

// keysOf returns the keys with which the principals of votes signed the claim.
func keysOf(c *trustedClaim, votes []vote) []identity.PublicKey {
	var out []identity.PublicKey
	for _, vote := range votes {
		out = append(out, c.by.keysOf[vote.Principal]...)
	}
	return out
}

// ruleVotes returns the votes that count for a rule; false if its predicate type is not known.
func (v *verification) ruleVotes(rule manifest.PolicyAttestation, c *trustedClaim, votes []vote) ([]vote, bool) {
	switch rule.PredicateType {
	case "", ProvenanceType:
	case ClaimType:
		if !rule.Reproduced && len(rule.BuilderIDs) == 0 {
			votes = v.claimVotes(c)
		}
	default:
		return nil, false
	}
	var out []vote
	for _, vote := range votes {
		accepted := len(rule.BuilderIDs) == 0 || slices.Contains(rule.BuilderIDs, vote.BuilderID)
		if accepted && slices.Contains(vote.roles, rule.Role) {
			out = append(out, vote)
		}
	}
	return out, true
}

// claimVotes returns everyone who signed the claim, whether or not a provenance tells more.
func (v *verification) claimVotes(c *trustedClaim) []vote {
	var out []vote
	for _, p := range c.by.principals {
		out = append(out, vote{BuilderVote: BuilderVote{Principal: p, Operator: v.trust.operators[p]}, roles: c.by.roles[p]})
	}
	return out
}
