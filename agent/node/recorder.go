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
