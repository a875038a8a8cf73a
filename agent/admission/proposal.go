package admission

import (
	"fmt"
	"time"

	"arch.network/agent/policy"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner/job"
)

// Proposal is what was handed in, read as far as it may be believed.
type Proposal struct {
	ID       digest.SHA256        // document id; zero: it is no envelope
	Job      *manifest.Job        // nil: nothing of it may be believed, for Reasons
	Verified []identity.PublicKey // keys of those who may issue jobs whose signatures verify
	Reasons  []Reason
}

// Open verifies the signatures of an envelope, and only if somebody signed it whom the policy lets issue anything, reads it.
// The proposal is for this policy and this time only.
func Open(envelope []byte, active *policy.Active, at time.Time) *Proposal {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return (&Proposal{}).refuse(CheckEnvelope, "", "hand in the DSSE envelope of a Job: arch wrap FILE", "%v", err)
	}
	return open(env, nil, active, at)
}

// Reopen is Open for an envelope that was read already: doc is what manifest.Payload has made of it.
func Reopen(env *dsse.Envelope, doc *manifest.Job, active *policy.Active, at time.Time) *Proposal {
	return open(env, doc, active, at)
}

// open verifies env, and reads what is in it unless that is known: doc.
func open(env *dsse.Envelope, doc manifest.Document, active *policy.Active, at time.Time) *Proposal {
	p := &Proposal{ID: env.ID()}
	if want := manifest.PayloadType("Job"); env.PayloadType != want {
		return p.refuse(CheckEnvelope, "", "hand in the DSSE envelope of a Job: arch wrap FILE", "payload type %.100q is not %q", env.PayloadType, want)
	}
	p.Verified = env.Verified(job.IssuerKeys(active.Policy(), active.Trust().Root(), at))
	if len(p.Verified) == 0 {
		return p.refuse(CheckSignature, "signatures", "have those sign it whom the trust root and the policy let issue jobs: arch sign FILE", "no signature of anyone who may issue jobs verifies")
	}
	if doc == nil {
		var err error
		if doc, err = manifest.Payload(env); err != nil {
			return p.refuse(CheckEnvelope, "", "mend the document and have it signed anew: arch check FILE", "%v", err)
		}
	}
	j, ok := doc.(*manifest.Job)
	if !ok {
		return p.refuse(CheckEnvelope, "kind", "hand in a Job", "it is a %s, not a Job", doc.DocumentKind())
	}
	p.Job = j
	return p
}

func (p *Proposal) refuse(check Check, field, cure, format string, args ...any) *Proposal {
	p.Reasons = []Reason{{Check: check, Field: field, Msg: fmt.Sprintf(format, args...), Cure: cure}}
	return p
}
