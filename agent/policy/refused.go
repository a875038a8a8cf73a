package policy

import (
	"fmt"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// What was refused.
const (
	Policy    = "Policy"
	TrustRoot = "TrustRoot"
)

// Rule names what a document broke.
type Rule string

// The rules.
const (
	RuleFile        Rule = "file"         // it cannot be read, or others could change it
	RuleForm        Rule = "form"         // it is no valid document of its kind
	RuleQuorum      Rule = "quorum"       // too few of those who must sign did, or nobody
	RuleExpired     Rule = "expired"      // its time, and its grace, are over: a freeze if it goes on
	RuleRollback    Rule = "rollback"     // a newer version was in force
	RuleFastForward Rule = "fast-forward" // versions were left out
	RuleSameVersion Rule = "same-version" // another document of that version was in force
	RuleMix         Rule = "mix"          // it was written for another trust root
	RuleLineage     Rule = "lineage"      // it has another name than what was in force
	RuleClock       Rule = "clock"        // it comes from after what this machine's clock says
)

// RefusedError says why a document is not put in force. What was in force stays in force as long as it may.
type RefusedError struct {
	Kind    string // Policy or TrustRoot
	Rule    Rule
	File    string        // where it lies; may be empty
	Name    string        // metadata.name; empty if it could not be read
	Version int64         // zero if it could not be read
	ID      digest.SHA256 // document id; zero if there is no envelope
	Err     error
}

func refused(kind string, rule Rule, err error) *RefusedError {
	return &RefusedError{Kind: kind, Rule: rule, Err: err}
}

func (e *RefusedError) Error() string {
	what := map[string]string{Policy: "policy", TrustRoot: "trust root"}[e.Kind]
	if e.Name != "" {
		what += " " + e.Name
	}
	if e.Version > 0 {
		what += fmt.Sprintf(" version %d", e.Version)
	}
	where := ""
	if e.File != "" {
		where = " in " + e.File
	}
	return fmt.Sprintf("refuse %s%s (%s): %v", what, where, e.Rule, e.Err)
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *RefusedError) Hint() string {
	if h, ok := e.Err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch e.Rule {
	case RuleFile:
		return "put a regular file there that only root may change"
	case RuleQuorum:
		if e.Kind == TrustRoot {
			return "have the governance of the trust root in force, and its own, sign it: arch sign FILE"
		}
		return "have enough members of role policy sign it: arch policy sign FILE"
	case RuleExpired:
		return "get a newer version, or check this machine's clock"
	case RuleRollback, RuleSameVersion:
		return "write the next version: arch policy propose FILE"
	case RuleFastForward:
		return "put the versions in force one after the other, none left out"
	case RuleMix:
		return "have it written anew for the trust root in force: arch policy propose fills in its id"
	case RuleLineage:
		return "one name is one line of versions: keep the name, or remove the floor in the state directory by hand"
	case RuleClock:
		return "check this machine's clock, and metadata.created"
	}
	return ""
}

// about fills in what can be told of the document; only for messages, for it may be anybody's.
func (e *RefusedError) about(env *dsse.Envelope) *RefusedError {
	if env == nil {
		return e
	}
	e.ID = env.ID()
	doc, err := manifest.Payload(env)
	if err != nil {
		return e
	}
	switch doc := doc.(type) {
	case *manifest.Policy:
		e.Name, e.Version = doc.Metadata.Name, doc.Spec.Version
	case *manifest.TrustRoot:
		e.Name, e.Version = doc.Metadata.Name, doc.Spec.Version
	}
	return e
}

// whyRefused finds the rule that a policy broke which attest.OpenPolicy refused for err.
func whyRefused(env *dsse.Envelope, trust *attest.Trust, at time.Time, err error) *RefusedError {
	e := refused(Policy, RuleForm, err)
	doc, errDoc := manifest.Payload(env)
	p, ok := doc.(*manifest.Policy)
	if errDoc != nil || !ok {
		return e
	}
	e.about(env)
	keys := env.Verified(trust.Root().KeysAt(manifest.RolePolicy, at))
	if !trust.Root().Evaluate(manifest.RolePolicy, keys, at, QuorumOptions()).OK {
		e.Rule = RuleQuorum
		if !at.Before(trust.Root().Expires()) {
			e.Rule = RuleExpired
		}
		return e
	}
	if !p.Spec.TrustRoot.IsZero() && p.Spec.TrustRoot != trust.ID() {
		e.Rule = RuleMix
		return e
	}
	e.Rule = RuleExpired
	return e
}
