package job

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// Issue is the rule of a policy that lets a job be issued, and who agreed to it.
type Issue struct {
	Rule     int // index in spec.issuers of the policy
	Decision quorum.Decision
}

// IssuerKeys returns the keys of all roles that the policy lets issue anything, for dsse.Envelope.Verified.
func IssuerKeys(policy *manifest.Policy, root *quorum.Root, at time.Time) []identity.PublicKey {
	var keys []identity.PublicKey
	seen := map[string]bool{}
	for _, i := range policy.Spec.Issuers {
		if !seen[i.Role] {
			seen[i.Role] = true
			keys = append(keys, root.KeysAt(i.Role, at)...)
		}
	}
	return keys
}

// Issued looks for the first rule of the policy that concerns doc and whose role's quorum is among the keys that verified.
// With reasons, there is none.
func Issued(policy *manifest.Policy, root *quorum.Root, doc *manifest.Job, verified []identity.PublicKey, at time.Time, o quorum.Options) (Issue, []Reason) {
	var why []string
	var tried []string
	for i, rule := range policy.Spec.Issuers {
		if !issues(&rule, doc) || slices.Contains(tried, rule.Role) {
			continue
		}
		tried = append(tried, rule.Role)
		d := root.Evaluate(rule.Role, verified, at, o)
		if d.OK {
			return Issue{i, d}, nil
		}
		why = append(why, fmt.Sprintf("role %s: %s", rule.Role, d))
	}
	if len(tried) == 0 {
		return Issue{}, []Reason{{
			Field: "metadata.owner",
			Msg:   fmt.Sprintf("policy %s lets nobody issue jobs of owner %q for runtime %s", policy.Metadata.Name, doc.Metadata.Owner, doc.Spec.Runtime),
			Cure:  "add to the policy: issuers: [{role: job}]",
		}}
	}
	return Issue{}, []Reason{{
		Field: "signatures", Msg: strings.Join(why, "; "),
		Cure: "have enough members of role " + strings.Join(tried, ", or of role ") + " sign it: arch sign FILE",
	}}
}

// issues reports whether a rule speaks of doc.
func issues(rule *manifest.PolicyIssuer, doc *manifest.Job) bool {
	owner := len(rule.Owners) == 0 || slices.ContainsFunc(rule.Owners, func(p string) bool { return glob(p, doc.Metadata.Owner) })
	return owner && (len(rule.Runtimes) == 0 || slices.Contains(rule.Runtimes, doc.Spec.Runtime))
}

// Addressed returns what speaks against doc on a node that has these names: its identity, its own name and those of its pools.
func Addressed(doc *manifest.Job, names []string) []Reason {
	a := doc.Spec.Audience
	if len(a) == 0 || slices.ContainsFunc(a, func(n string) bool { return slices.Contains(names, n) }) {
		return nil
	}
	return []Reason{{"spec.audience", fmt.Sprintf("it is for %q", a), "send it to one of those whom it names"}}
}

// Replayable returns what speaks against remembering that doc was accepted: a nonce without an end until which to remember it.
func Replayable(doc *manifest.Job) []Reason {
	if doc.Spec.Nonce == "" || doc.Metadata.Expires != "" {
		return nil
	}
	return []Reason{{"spec.nonce", "it has a nonce, but no end until which that would have to be remembered", "add metadata.expires"}}
}
