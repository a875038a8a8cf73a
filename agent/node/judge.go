package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"arch.network/agent"
	"arch.network/agent/admission"
	"arch.network/agent/content"
	"arch.network/agent/evidence"
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
	// receipts are looked for in the directories of content, the store and registries.
	receipts *evidence.Finder
	facts    func() map[string]manifest.Raw // the measured ones
	now      func() time.Time
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
		Proposal: admission.Reopen(p.Envelope, p.Doc, active, p.At), Active: active, Names: j.names, Facts: j.facts(), At: p.At,
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

// TakeBack implements executor.Forgiving: a document that was admitted and could not be kept may be handed in again.
func (j *judge) TakeBack(p executor.Proposal) {
	if spends, once, err := replay.EntryOf(p.Doc, p.ID); err == nil && once {
		j.window.TakeBack(spends)
	}
}

// JudgeContent implements executor.ContentJudge: what the policy demands to be proven of an image or an input must be, by receipts that
// are found beside it, before anything of it runs.
func (j *judge) JudgeContent(ctx context.Context, p executor.Proposal, _ *content.Content) ([]agent.Reason, error) {
	active, err := j.keeper.Current(p.At)
	if err != nil {
		return nil, err
	}
	v := admission.Judge(admission.Input{
		Proposal: admission.Reopen(p.Envelope, p.Doc, active, p.At), Active: active, Names: j.names, Facts: j.facts(), At: p.At,
	})
	reasons := v.Reasons
	for _, d := range v.Demands {
		found, err := j.receipts.Find(ctx, d.Ref)
		if err != nil {
			return nil, fmt.Errorf("find receipts of %s: %w", d.Ref, err)
		}
		missing, err := evidence.Check(ctx, d, found, active, p.At)
		if err != nil {
			return nil, fmt.Errorf("check receipts of %s: %w", d.Ref, err)
		}
		reasons = append(reasons, missing...)
	}
	return reasonsOf(reasons), nil
}

func reasonsOf(list []admission.Reason) (out []agent.Reason) {
	for _, r := range list {
		out = append(out, agent.Reason{Field: r.Field, Msg: r.Msg, Cure: r.Cure})
	}
	return out
}

// verdictOf is a verdict as the engine takes it.
func verdictOf(v *admission.Verdict, active *policy.Active, doc *manifest.Job) executor.Verdict {
	out := executor.Verdict{
		Accepted: v.Admitted, Summary: v.Summary(), Policy: active.ID(), Weight: weight(active.Policy(), doc.Metadata.Owner), Until: active.Ends(),
	}
	out.Reasons = reasonsOf(v.Reasons)
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
