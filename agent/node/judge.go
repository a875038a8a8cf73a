package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"arch.network/agent"
	"arch.network/agent/admission"
	"arch.network/agent/executor"
	"arch.network/agent/policy"
	"arch.network/agent/replay"
	"arch.network/attest/manifest"
)

// judge has admission judge under the policy in force, and spends what may be used once.
type judge struct {
	keeper *policy.Keeper
	window *replay.Window
	names  []string
	facts  func() map[string]manifest.Raw // the measured ones
	now    func() time.Time
}

// Policy implements executor.Judge.
func (j *judge) Policy() executor.Policy {
	p := executor.Policy{}
	if refused := j.keeper.Refused(); refused != nil {
		p.Status.Refused = refused.Error()
	}
	active, err := j.keeper.Current(j.now())
	if err != nil {
		if p.Status.Refused == "" {
			p.Status.Refused = err.Error()
		}
		return p
	}
	doc := active.Policy()
	p.Doc, p.ID = doc, active.ID()
	p.Status.Name, p.Status.Version, p.Status.ID, p.Status.Expires = doc.Metadata.Name, doc.Spec.Version, active.ID(), active.Expires()
	return p
}

// Judge implements executor.Judge. Where no policy is in force nothing is decided: the job can be handed in again.
func (j *judge) Judge(_ context.Context, p executor.Proposal) (executor.Verdict, error) {
	active, err := j.keeper.Current(p.At)
	if err != nil {
		return executor.Verdict{}, err
	}
	in := admission.Input{
		Proposal: admission.Open(p.Envelope.Marshal(), active, p.At), Active: active, Names: j.names, Facts: j.facts(), At: p.At,
	}
	spends, once, err := replay.EntryOf(p.Doc, p.ID)
	if err != nil {
		return executor.Verdict{}, err
	}
	if once && !p.Admitted {
		in.Replay = j.window.Seen(spends)
	}
	v := admission.Judge(in)
	if v.Admitted && once && !p.Admitted {
		err := j.window.Spend(spends, p.At)
		if again, ok := errors.AsType[*replay.ReplayError](err); ok { // somebody else was faster
			in.Replay = again.Answer
			v = admission.Judge(in)
		} else if err != nil {
			return executor.Verdict{}, fmt.Errorf("remember the nonce: %w", err)
		}
	}
	return verdictOf(v, active, p.Doc), nil
}

// verdictOf is a verdict as the engine takes it.
func verdictOf(v *admission.Verdict, active *policy.Active, doc *manifest.Job) executor.Verdict {
	out := executor.Verdict{
		Accepted: v.Admitted, Summary: v.Summary(), Policy: active.ID(), Weight: weight(active.Policy(), doc.Metadata.Owner), Until: active.Ends(),
	}
	for _, r := range v.Reasons {
		out.Reasons = append(out.Reasons, agent.Reason{Field: r.Field, Msg: r.Msg, Cure: r.Cure})
	}
	if v.Issued != nil {
		out.Signers = v.Issued.Principals
	}
	if t, err := time.Parse(time.RFC3339, doc.Metadata.Expires); err == nil && (out.Until.IsZero() || t.Before(out.Until)) {
		out.Until = t
	}
	return out
}

// weight is an owner's share: that of the most specific pattern that matches, by its length, then its text.
func weight(p *manifest.Policy, owner string) int {
	best, found := "", false
	for pattern := range p.Spec.Queue.Weights {
		if manifest.Matches(pattern, owner) && (!found || len(pattern) > len(best) || len(pattern) == len(best) && pattern > best) {
			best, found = pattern, true
		}
	}
	if !found {
		return 1
	}
	return p.Spec.Queue.Weights[best]
}

// names are what a job's audience may call this node.
func names(identity string, more []string) []string {
	out := append([]string{identity}, more...)
	slices.Sort(out)
	return slices.Compact(out)
}
