package broker

import (
	"fmt"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
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
	verified := env.Verified(job.IssuerKeys(t.policy, t.root, at))
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
	if _, reasons := job.Issued(t.policy, t.root, j, verified, at, trustOptions()); len(reasons) > 0 {
		return nil, refuseFor(CodeQuorum, j, reasons)
	}
	if reasons := job.Due(j, at); len(reasons) > 0 {
		return nil, refuseFor(CodeTime, j, reasons)
	}
	if reasons := job.Addressed(j, names); len(reasons) > 0 {
		return nil, refuseFor(CodeAudience, j, reasons)
	}
	reasons := job.Allowed(t.policy, j)
	// What the node measured is for the agent to judge by.
	reasons = append(reasons, job.Conditions(t.policy, j, at, job.Facts{Partial: true})...)
	if len(reasons) > 0 {
		denied := &job.DeniedError{Job: j.Metadata.Name, Policy: t.policy.Metadata.Name, Reasons: reasons}
		return nil, refusalOf(denied)
	}
	if reasons := job.Replayable(j); len(reasons) > 0 {
		return nil, refuseFor(CodeReplay, j, reasons)
	}
	return &admitted{doc: j, id: env.ID(), trust: t}, nil
}

// refuseFor refuses a job for reasons of one kind.
func refuseFor(code Code, j *manifest.Job, reasons []job.Reason) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf("job %s: %s", j.Metadata.Name, reasons[0].Msg), Cure: reasons[0].Cure, Reasons: reasons}
}

// trustOptions let an expired trust root and an expired policy go on for the grace that they themselves name: whether
// newer ones could be had is for the agent, which fetches them, to know.
func trustOptions() quorum.Options { return quorum.Options{Offline: true} }
