package admission

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"arch.network/agent/policy"
	"arch.network/attest/manifest"
	"arch.network/runner/job"
)

// Replay is what is known of a job's document and nonce. See replay.Window.
type Replay int

// The answers.
const (
	Fresh  Replay = iota // never accepted here; also for a job without a nonce, which its issuer lets run again and again
	Spent                // this very document was accepted before
	Reused               // another document of the same owner with this nonce was
)

// Input is everything that a verdict depends on. Two with equal values give equal verdicts.
type Input struct {
	Proposal *Proposal // of Open, with the same Active and the same time
	Active   *policy.Active
	Names    []string // this node's identity, name and pools: who it is for an audience
	// Facts are the measured ones about this node. Those in the policy, which a quorum signed, count before them.
	Facts  map[string]manifest.Raw
	Replay Replay
	At     time.Time
}

// Judge decides. It finds every reason that speaks against a job at once, but of a job that nobody who may issue jobs has
// signed, nothing is believed, and nothing else is said.
func Judge(in Input) *Verdict {
	doc, root := in.Active.Policy(), in.Active.Trust().Root()
	v := &Verdict{
		Job: in.Proposal.ID, At: in.At.UTC().Format(time.RFC3339),
		Policy: Document{doc.Metadata.Name, doc.Spec.Version, in.Active.ID()},
		Root:   Document{root.Name(), root.Version(), in.Active.Trust().ID()},
		Graced: in.Active.Graced(in.At),
	}
	j := in.Proposal.Job
	if j == nil {
		v.Reasons = in.Proposal.Reasons
		return v
	}
	v.Name, v.Owner = j.Metadata.Name, j.Metadata.Owner
	if !in.At.Before(in.Active.Ends()) {
		v.add(CheckPolicy, []job.Reason{{
			Field: "", Msg: fmt.Sprintf("policy %s expired on %s, and its offline grace is over", doc.Metadata.Name, doc.Metadata.Expires),
			Cure: "have the policy role sign a newer version",
		}})
	}
	issue, reasons := job.Issued(doc, root, j, in.Proposal.Verified, in.At, policy.QuorumOptions())
	v.add(CheckQuorum, reasons)
	v.add(CheckTime, job.Due(j, in.At))
	v.add(CheckAudience, job.Addressed(j, in.Names))
	v.add(CheckReplay, append(job.Replayable(j), replayed(j, in.Replay)...))
	v.add(CheckRules, job.Allowed(doc, j))
	v.add(CheckConditions, job.Conditions(doc, j, in.At, job.Facts{Known: []map[string]manifest.Raw{in.Facts}}))
	v.add(CheckPlacement, job.Placed(j, job.Facts{Known: []map[string]manifest.Raw{doc.Spec.Facts, in.Facts}}))
	limits, err := job.Limits(j, doc)
	gas, errGas := job.Gas(j, doc)
	if err = errors.Join(err, errGas); err != nil {
		v.add(CheckLimits, []job.Reason{{Field: "spec.resources", Msg: err.Error(), Cure: "mend the quantity"}})
	} else {
		v.add(CheckLimits, job.Fits(j, doc, limits))
	}
	if len(v.Reasons) > 0 {
		return v
	}
	v.Admitted = true
	v.Graced = v.Graced || issue.Decision.Graced
	v.Issued = &Issued{issue.Rule, issue.Decision.Role, issue.Decision.Principals, issue.Decision.Operators}
	v.Limits = limitsOf(limits, int64(gas))
	v.Replicas = job.Replicas(j, doc)
	v.Demands = demands(j, doc)
	return v
}

func (v *Verdict) add(check Check, list []job.Reason) {
	v.Reasons = append(v.Reasons, reasonsOf(check, list)...)
}

func replayed(j *manifest.Job, answer Replay) []job.Reason {
	switch answer {
	case Fresh:
		return nil
	case Spent:
		return []job.Reason{{Field: "spec.nonce", Msg: "this document was accepted before, and its nonce lets it count once", Cure: "have a document with another nonce signed"}}
	}
	return []job.Reason{{Field: "spec.nonce", Msg: fmt.Sprintf("another document of %q with this nonce was accepted before", j.Metadata.Owner), Cure: "have a document with another nonce signed"}}
}

// demands lists what the policy's attestation rules say of the image and the inputs, in this order: those rules that
// match a reference's location or its last element, which is the artifact's name.
func demands(j *manifest.Job, doc *manifest.Policy) []Demand {
	var out []Demand
	look := func(field string, ref manifest.Ref) {
		d := Demand{Field: field, Ref: ref}
		for i, rule := range doc.Spec.Attestations {
			if rule.Match == "" || manifest.Matches(rule.Match, ref.Location) || manifest.Matches(rule.Match, path.Base(ref.Location)) {
				d.Rules = append(d.Rules, i)
			}
		}
		if len(d.Rules) > 0 {
			out = append(out, d)
		}
	}
	look("spec.image", j.Spec.Image)
	for _, name := range slices.Sorted(maps.Keys(j.Spec.Inputs)) {
		look("spec.inputs."+name, j.Spec.Inputs[name])
	}
	return out
}
