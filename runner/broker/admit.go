package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/runner/job"
)

// admitted is a job that may run.
type admitted struct {
	doc   *manifest.Job
	id    digest.SHA256
	trust trust
}

// admit judges an envelope. It is a pure function of what it is given, and its error is a *Refusal.
//
// Nothing of the payload is read before somebody who may issue jobs has signed it.
func admit(envelope []byte, t trust, names []string, at time.Time) (*admitted, error) {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return nil, refuse(CodeEnvelope, "", "%v", err)
	}
	if want := manifest.PayloadType("Job"); env.PayloadType != want {
		return nil, refuse(CodeEnvelope, "", "payload type %.100q is not %q", env.PayloadType, want)
	}
	verified := env.Verified(issuers(t, at))
	if len(verified) == 0 {
		return nil, refuse(CodeSignature, "have those sign it whom the trust root and the policy let issue jobs", "no signature of anyone who may issue jobs verifies")
	}
	doc, err := manifest.Payload(env)
	if err != nil {
		return nil, refuse(CodeEnvelope, "", "%v", err)
	}
	j, ok := doc.(*manifest.Job)
	if !ok {
		return nil, refuse(CodeEnvelope, "", "it is a %s, not a Job", doc.DocumentKind())
	}
	if err := checkQuorum(t, j, verified, at); err != nil {
		return nil, err
	}
	if reasons := job.Due(j, at); len(reasons) > 0 {
		return nil, &Refusal{Code: CodeTime, Message: fmt.Sprintf("job %s: %s", j.Metadata.Name, reasons[0].Msg), Cure: reasons[0].Cure, Reasons: reasons}
	}
	if a := j.Spec.Audience; len(a) > 0 && !slices.ContainsFunc(a, func(n string) bool { return slices.Contains(names, n) }) {
		return nil, refuse(CodeAudience, "send it to one of those whom it names", "job %s is for %q", j.Metadata.Name, a)
	}
	if reasons := job.Allowed(t.policy, j); len(reasons) > 0 {
		denied := &job.DeniedError{Job: j.Metadata.Name, Policy: t.policy.Metadata.Name, Reasons: reasons}
		return nil, refusalOf(denied)
	}
	if j.Spec.Nonce != "" && j.Metadata.Expires == "" {
		return nil, refuse(CodeReplay, "add metadata.expires", "job %s has a nonce, but no end until which it would have to be remembered", j.Metadata.Name)
	}
	return &admitted{doc: j, id: env.ID(), trust: t}, nil
}

// issuers are the keys of all roles that the policy lets issue anything.
func issuers(t trust, at time.Time) []identity.PublicKey {
	var keys []identity.PublicKey
	seen := map[string]bool{}
	for _, i := range t.policy.Spec.Issuers {
		if seen[i.Role] {
			continue
		}
		seen[i.Role] = true
		keys = append(keys, t.root.KeysAt(i.Role, at)...)
	}
	return keys
}

// checkQuorum wants the quorum of one of the roles that may issue this very job.
func checkQuorum(t trust, j *manifest.Job, verified []identity.PublicKey, at time.Time) error {
	roles := job.Roles(t.policy, j)
	if len(roles) == 0 {
		return refuse(CodeQuorum, "add to the policy: issuers: [{role: job}]", "policy %s lets nobody issue jobs of owner %q for runtime %s", t.policy.Metadata.Name, j.Metadata.Owner, j.Spec.Runtime)
	}
	var why []string
	for _, role := range roles {
		d := t.root.Evaluate(role, verified, at, quorum.Options{})
		if d.OK {
			return nil
		}
		why = append(why, fmt.Sprintf("role %s: %s", role, d))
	}
	return refuse(CodeQuorum, "have enough of the role sign it", "job %s: %s", j.Metadata.Name, strings.Join(why, "; "))
}
