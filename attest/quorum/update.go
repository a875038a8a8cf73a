package quorum

import (
	"fmt"
	"strings"
	"time"

	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// maxSignatures is how many signatures an envelope of a trust root may have.
const maxSignatures = 16

// Rule names the rule for updates that a trust root broke (The Update Framework, section 5.3).
type Rule string

// The rules.
const (
	RuleForm       Rule = "form"          // it is no valid trust root in an envelope of ours
	RuleOldQuorum  Rule = "old-quorum"    // governance of the root in force did not sign it (5.3.4)
	RuleNewQuorum  Rule = "new-quorum"    // its own governance did not sign it (5.3.4)
	RuleVersion    Rule = "version"       // its version is not exactly the next: rollback or fast-forward (5.3.5)
	RuleExpired    Rule = "expired"       // it has expired: freeze (5.3.10)
	RuleOtherChain Rule = "other-lineage" // it has another name: a root of something else
)

// UpdateError says why a new trust root is refused. The root in force stays in force.
type UpdateError struct {
	Rule    Rule
	Name    string   // of the root in force
	Version int64    // of the root in force
	Reasons []string // of the decision, for the quorum rules
	Err     error
}

func (e *UpdateError) Error() string {
	return fmt.Sprintf("update trust root %q version %d: %v", e.Name, e.Version, e.Err)
}

// Unwrap returns the cause.
func (e *UpdateError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *UpdateError) Hint() string {
	switch e.Rule {
	case RuleOldQuorum:
		return "a new root is signed by the governance of the root before it: have them run arch sign"
	case RuleNewQuorum:
		return "a new root is signed by its own governance, too: have them run arch sign"
	case RuleVersion:
		return "apply the versions one after the other, none left out"
	case RuleExpired:
		return "get a newer trust root, or check this machine's clock"
	}
	return ""
}

// Update returns the trust root in env if it may replace old at the time at. See UpdateChain.
func Update(old *manifest.TrustRoot, env *dsse.Envelope, at time.Time) (*manifest.TrustRoot, error) {
	return UpdateChain(old, []*dsse.Envelope{env}, at)
}

// UpdateChain applies new versions one after the other and returns the last (The Update Framework, section 5.3):
//
//   - each is signed by the governance of the version before it and by its own, with at most 16 signatures;
//   - its version is exactly one more, so nothing can be rolled back, left out, or driven to the end of the numbers at once;
//   - it has the same name;
//   - the last has not expired. Those before it may have, and so may old: whoever was away for long must be able to catch up.
//
// Signatures are verified before the payload is parsed. The caller stores the result durably before use, and drops
// whatever it cached of documents that the old root vouched for. Certificates and revocations are judged at the time at.
func UpdateChain(old *manifest.TrustRoot, envs []*dsse.Envelope, at time.Time) (*manifest.TrustRoot, error) {
	current, err := Compile(old)
	if err != nil {
		return nil, err
	}
	doc := old
	for _, env := range envs {
		if doc, current, err = current.next(env, at); err != nil {
			return nil, err
		}
	}
	if !at.Before(current.expires) {
		return nil, current.refuse(RuleExpired, nil, "version %d expired on %s", current.version, instant(current.expires))
	}
	return doc, nil
}

// next checks one step but for expiry.
func (r *Root) next(env *dsse.Envelope, at time.Time) (*manifest.TrustRoot, *Root, error) {
	if n := len(env.Signatures); n > maxSignatures {
		return nil, nil, r.refuse(RuleForm, nil, "%d signatures; at most %d are allowed", n, maxSignatures)
	}
	if want := manifest.PayloadType((*manifest.TrustRoot)(nil).DocumentKind()); env.PayloadType != want {
		return nil, nil, r.refuse(RuleForm, nil, "the payload is of type %q, not %s", short(env.PayloadType), want)
	}
	if d := r.governed(env, at); !d.OK {
		return nil, nil, r.refuse(RuleOldQuorum, d.Reasons, "the governance in force did not agree: %s", d)
	}
	doc, err := unwrap(env)
	if err != nil {
		return nil, nil, r.refuse(RuleForm, nil, "%w", err)
	}
	if doc.Metadata.Name != r.name {
		return nil, nil, r.refuse(RuleOtherChain, nil, "the new root is named %q", doc.Metadata.Name)
	}
	if doc.Spec.Version != r.version+1 {
		return nil, nil, r.refuse(RuleVersion, nil, "the new root has version %d, not %d", doc.Spec.Version, r.version+1)
	}
	next, err := Compile(doc)
	if err != nil {
		return nil, nil, r.refuse(RuleForm, nil, "%w", err)
	}
	if d := next.governed(env, at); !d.OK {
		return nil, nil, r.refuse(RuleNewQuorum, d.Reasons, "the new root's own governance did not agree: %s", d)
	}
	return doc, next, nil
}

// governed reports whether r's governance signed env. Whether r has expired does not matter.
func (r *Root) governed(env *dsse.Envelope, at time.Time) Decision {
	e := newEvaluation(r, env.Verified(r.KeysAt(manifest.RoleGovernance, at)), at, Options{})
	return e.role(manifest.RoleGovernance)
}

func (r *Root) refuse(rule Rule, reasons []string, format string, args ...any) *UpdateError {
	return &UpdateError{Rule: rule, Name: r.name, Version: r.version, Reasons: reasons, Err: fmt.Errorf(format, args...)}
}

// Verify returns the trust root in env if its own governance signed it and it has not expired: what can be said of a first
// root, which no other vouches for. Whether to trust it at all is for whoever installs it to know.
func Verify(env *dsse.Envelope, at time.Time) (*manifest.TrustRoot, error) {
	if n := len(env.Signatures); n > maxSignatures {
		return nil, fmt.Errorf("verify trust root: %d signatures; at most %d are allowed", n, maxSignatures)
	}
	doc, err := unwrap(env)
	if err != nil {
		return nil, fmt.Errorf("verify trust root: %w", err)
	}
	r, err := Compile(doc)
	if err != nil {
		return nil, err
	}
	d := r.governed(env, at)
	switch {
	case !d.OK:
		return nil, r.refuse(RuleNewQuorum, d.Reasons, "its own governance did not agree: %s", d)
	case !at.Before(r.expires):
		return nil, r.refuse(RuleExpired, nil, "it expired on %s", instant(r.expires))
	}
	return doc, nil
}

func unwrap(env *dsse.Envelope) (*manifest.TrustRoot, error) {
	doc, err := manifest.Payload(env)
	if err != nil {
		return nil, err
	}
	root, ok := doc.(*manifest.TrustRoot)
	if !ok {
		return nil, fmt.Errorf("it holds a %s, not a TrustRoot", doc.DocumentKind())
	}
	return root, nil
}

// short keeps what a peer sent to a readable length.
func short(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
