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

// RecordAll records decisions that follow each other, which wait for the disk together; those about the same document share an entry. After
// an error it is unknown which of them are in the log.
func (r recorder) RecordAll(ctx context.Context, list []agent.Decision) ([]agent.Entry, error) {
	var items []sequencer.Item
	at := make([]int, len(list)) // of items
	for i, d := range list {
		statement, subjects, err := statementOf(d)
		if err != nil {
			return nil, err
		}
		if i > 0 && follows(list[i-1], d) && join(items[len(items)-1].Decision, &statement, r.to.Node()) {
			items[len(items)-1].Decision = statement
		} else {
			items = append(items, sequencer.Item{Decision: statement, Subjects: subjects})
		}
		at[i] = len(items) - 1
	}
	entries, err := r.to.RecordAll(ctx, items)
	if err != nil {
		return nil, fmt.Errorf("record decisions: %w", err)
	}
	out := make([]agent.Entry, len(list))
	for i := range list {
		e := entries[at[i]]
		out[i] = agent.Entry{Index: e.Index, Sequence: e.Sequence, ID: e.ID}
	}
	return out, nil
}

// follows reports whether what is said of a holds for b, but for its words.
func follows(a, b agent.Decision) bool {
	return a.Subject == b.Subject && !a.Subject.IsZero() && a.Name == b.Name && a.Policy == b.Policy && a.At.Equal(b.At)
}

// join puts an earlier decision, and those before it, into a later one. False: they must be entries of their own.
func join(earlier attest.Decision, later *attest.Decision, node string) bool {
	if len(earlier.Reasons) > 0 || len(earlier.Before) == attest.MaxBefore || len(earlier.Evidence) > attest.MaxBeforeEvidence {
		return false
	}
	later.Before = append(earlier.Before, attest.EarlierDecision{
		Kind: earlier.Kind, Verdict: earlier.Verdict, By: cmp.Or(earlier.By, node), Summary: earlier.Summary, Evidence: earlier.Evidence,
	})
	return true
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
