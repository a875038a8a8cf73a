package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"arch.network/agent"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/ledger/sequencer"
)

// recorder writes the node's decisions into its ledger.
type recorder struct{ to *sequencer.Recorder }

// Record implements agent.Recorder.
func (r recorder) Record(ctx context.Context, d agent.Decision) (agent.Entry, error) {
	statement, subjects, err := statementOf(d)
	if err != nil {
		return agent.Entry{}, err
	}
	entry, err := r.to.Record(ctx, statement, subjects...)
	if err != nil {
		return agent.Entry{}, fmt.Errorf("record decision: %w", err)
	}
	return agent.Entry{Index: entry.Index, Sequence: entry.Sequence, ID: entry.ID}, nil
}

// RecordAll records decisions that follow each other, which wait for the disk together. After an error it is unknown which of them are in
// the log.
func (r recorder) RecordAll(ctx context.Context, list []agent.Decision) ([]agent.Entry, error) {
	items := make([]sequencer.Item, len(list))
	for i, d := range list {
		var err error
		if items[i].Decision, items[i].Subjects, err = statementOf(d); err != nil {
			return nil, err
		}
	}
	entries, err := r.to.RecordAll(ctx, items)
	if err != nil {
		return nil, fmt.Errorf("record decisions: %w", err)
	}
	out := make([]agent.Entry, len(entries))
	for i, e := range entries {
		out[i] = agent.Entry{Index: e.Index, Sequence: e.Sequence, ID: e.ID}
	}
	return out, nil
}

// statementOf returns a decision as the ledger keeps it. What is private becomes a commitment, and is forgotten with its salt: a
// node that has to open it later keeps it elsewhere.
func statementOf(d agent.Decision) (attest.Decision, []attest.ResourceDescriptor, error) {
	s := attest.Decision{
		At: attest.FormatDecisionTime(d.At), Kind: string(d.Kind), Verdict: d.Verdict, By: d.By, Summary: d.Summary, Policy: d.Policy,
	}
	for _, r := range d.Reasons {
		s.Reasons = append(s.Reasons, attest.DecisionReason(r))
	}
	for _, e := range d.Evidence {
		s.Evidence = append(s.Evidence, descriptor(e.Name, e.Digest))
	}
	slices.SortStableFunc(s.Evidence, func(a, b attest.ResourceDescriptor) int { return cmp.Compare(a.Name, b.Name) })
	if len(d.Private) > 0 {
		return s, nil, fmt.Errorf("record decision: it has private values, and nobody keeps their salts")
	}
	subject := descriptor(cmp.Or(d.Name, "job"), d.Subject)
	if d.Subject.IsZero() {
		subject = descriptor("policy", d.Policy) // the node itself, as it stands under its policy
	}
	return s, []attest.ResourceDescriptor{subject}, nil
}

func descriptor(name string, d digest.SHA256) attest.ResourceDescriptor {
	return attest.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": d.Hex()}}
}
