package executor

import (
	"context"
	"fmt"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/attest/digest"
)

// Bundle returns a job's archive entry with the document and the statements that it names, for archive.Export and a Replayer.
func (e *Engine) Bundle(ctx context.Context, id digest.SHA256) (*archive.Bundle, error) {
	data, err := e.Entry(ctx, id)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("job %s is not in the archive", id)
	}
	b := &archive.Bundle{Statements: map[digest.SHA256][]byte{}}
	if b.Entry, err = archive.Decode(data); err != nil {
		return nil, err
	}
	if b.Envelope, err = e.Envelope(ctx, id); err != nil {
		return nil, err
	}
	for _, s := range append([]digest.SHA256{b.Entry.Result}, b.Entry.Runs...) {
		if b.Statements[s], err = e.Statement(ctx, s); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Replayed records that an archived job was run again, and what came of it; the receipt is kept with the statements.
func (e *Engine) Replayed(ctx context.Context, id digest.SHA256, by string, r *archive.Replay) (agent.Entry, error) {
	rec, err := e.must(id)
	if err != nil {
		return agent.Entry{}, err
	}
	h := e.jobs.hold(rec.Number)
	defer e.jobs.drop(h)
	if err := e.jobs.lock(h); err != nil {
		return agent.Entry{}, err
	}
	defer h.mu.Unlock()
	m := move{verdict: "same", by: by, summary: "it was run again: " + r.Sentence}
	c := &change{}
	if !r.Same {
		m.verdict = "differs"
		if r.Receipt != nil {
			d := r.Receipt.ID()
			m.evidence = []agent.Evidence{{Name: "negative", Digest: d}}
			c.puts = append(c.puts, put{bucketStatements, d[:], r.Receipt.Marshal()})
		}
	}
	now := e.o.Now().UTC()
	d := h.rec.decision(agent.KindReplay, m, now)
	d.Policy = e.o.Judge.Policy().ID
	entries, err := e.record([]agent.Decision{d})
	if err != nil {
		return agent.Entry{}, err
	}
	return entries[0], e.pass(h, c, func(next *record) {
		next.find(agent.Finding{At: now, Kind: agent.KindReplay, Verdict: m.verdict, Summary: m.summary, Entry: &entries[0]})
	})
}
