package policy

import (
	"fmt"
	"time"

	"arch.network/attest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// accepted is a trust root that may be in force.
type accepted struct {
	env   *dsse.Envelope
	doc   *manifest.TrustRoot
	trust *attest.Trust
}

func (a *accepted) document() document {
	return document{a.doc.Metadata.Name, a.doc.Spec.Version, a.trust.ID(), a.env.Marshal()}
}

// openRoot reads a trust root that is believed because of where it lies, or lay.
func openRoot(env *dsse.Envelope) (*accepted, error) {
	doc, err := manifest.Payload(env)
	if err != nil {
		return nil, err
	}
	root, ok := doc.(*manifest.TrustRoot)
	if !ok {
		return nil, fmt.Errorf("it is a %s, not a TrustRoot", doc.DocumentKind())
	}
	trust, err := attest.NewTrust(root)
	if err != nil {
		return nil, err
	}
	return &accepted{env, root, trust}, nil
}

// acceptRoot decides whether a trust root may be in force after the one of the floor. The first one is believed for where
// it lies; after that, The Update Framework's rules hold (quorum.Update), which know no exception for an old root
// that has expired: it still says who comes after it.
func acceptRoot(f floor, env *dsse.Envelope, at time.Time) (*accepted, *RefusedError) {
	no := func(rule Rule, err error) (*accepted, *RefusedError) {
		return nil, refused(TrustRoot, rule, err).about(env)
	}
	next, err := openRoot(env)
	if err != nil {
		return no(RuleForm, err)
	}
	was, version := f.Root, next.doc.Spec.Version
	switch {
	case was.isZero() || was.ID == next.trust.ID():
		return next, nil
	case was.Name != next.doc.Metadata.Name:
		return no(RuleLineage, fmt.Errorf("trust root %q was in force", was.Name))
	case version < was.Version:
		return no(RuleRollback, fmt.Errorf("version %d was in force", was.Version))
	case version == was.Version:
		return no(RuleSameVersion, fmt.Errorf("version %d was in force as %s", was.Version, was.ID))
	case version > was.Version+1:
		return no(RuleFastForward, fmt.Errorf("version %d was in force, and versions between were left out", was.Version))
	}
	oldEnv, err := dsse.Parse(was.Envelope)
	if err != nil {
		return no(RuleForm, err)
	}
	old, err := openRoot(oldEnv)
	if err != nil {
		return no(RuleForm, err)
	}
	if _, err := quorum.Update(old.doc, env, at); err != nil {
		return no(ruleOf(err), err)
	}
	return next, nil
}

// ruleOf translates what quorum found.
func ruleOf(err error) Rule {
	u, ok := err.(*quorum.UpdateError)
	if !ok {
		return RuleForm
	}
	switch u.Rule {
	case quorum.RuleOldQuorum, quorum.RuleNewQuorum:
		return RuleQuorum
	case quorum.RuleExpired:
		return RuleExpired
	}
	return RuleForm
}

// acceptPolicy decides whether a policy may be in force after the one of the floor, under a trust root. Versions go up by
// exactly one, unless nothing is known yet or what was in force is over: whoever was away for long must be able to come back.
func acceptPolicy(f floor, trust *attest.Trust, env *dsse.Envelope, at time.Time, skew time.Duration) (*Active, *RefusedError) {
	next, err := New(trust, env, at)
	if err != nil {
		return nil, err.(*RefusedError)
	}
	no := func(rule Rule, format string, args ...any) (*Active, *RefusedError) {
		return nil, refused(Policy, rule, fmt.Errorf(format, args...)).about(env)
	}
	if created := created(next.policy.Metadata); created.After(at.Add(skew)) {
		return no(RuleClock, "it was made on %s, and it is only %s here", next.policy.Metadata.Created, at.UTC().Format(time.RFC3339))
	}
	was, version := f.Policy, next.policy.Spec.Version
	switch {
	case was.isZero() || was.ID == next.id:
		return next, nil
	case was.Name != next.policy.Metadata.Name:
		return no(RuleLineage, "policy %q was in force", was.Name)
	case version < was.Version:
		return no(RuleRollback, "version %d was in force", was.Version)
	case version == was.Version:
		return no(RuleSameVersion, "version %d was in force as %s", was.Version, was.ID)
	case version > was.Version+1 && !over(was, at):
		return no(RuleFastForward, "version %d is in force, and versions between were left out", was.Version)
	}
	return next, nil
}

// over reports whether a policy that was in force may let nothing new run any more.
func over(was document, at time.Time) bool {
	env, err := dsse.Parse(was.Envelope)
	if err != nil {
		return false
	}
	doc, err := manifest.Payload(env)
	if err != nil {
		return false
	}
	p, ok := doc.(*manifest.Policy)
	if !ok {
		return false
	}
	expires, err := time.Parse(time.RFC3339, p.Metadata.Expires)
	grace, errGrace := p.Spec.OfflineGrace.Duration()
	return err == nil && errGrace == nil && !at.Before(expires.Add(grace))
}

// created is when a document was made; zero if it does not say.
func created(m manifest.Metadata) time.Time {
	t, err := time.Parse(time.RFC3339, m.Created)
	if err != nil {
		return time.Time{}
	}
	return t
}
