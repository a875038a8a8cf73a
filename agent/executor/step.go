package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// move is one step of a life, with what is told of it.
type move struct {
	to       agent.State
	verdict  string
	summary  string
	by       string // empty: the node itself
	reasons  []agent.Reason
	evidence []agent.Evidence
	entry    *agent.Entry // it is in the ledger already
}

// batchRecorder is a Recorder that writes several decisions at once, in order.
type batchRecorder interface {
	RecordAll(ctx context.Context, d []agent.Decision) ([]agent.Entry, error)
}

// pass takes a job through steps that follow each other without anything happening between them. change, if not nil, changes
// the copy that becomes the record. It returns when all of it is durable: first the decisions in the ledger, then the record. x is
// locked. After an error nothing has changed but, perhaps, the ledger.
func (e *Engine) pass(x *handle, c *change, change func(r *record), moves ...move) error {
	now := e.o.Now().UTC()
	next, before := x.next()
	if err := e.advance(next, change, now, moves...); err != nil {
		return err
	}
	return e.write(x, c, next, before, now)
}

// next is a copy of the record that may be changed, and the state that it is in; empty: it is not on disk yet. x is locked.
func (x *handle) next() (next *record, before agent.State) {
	next = x.rec.copy()
	if len(next.Job.Steps) > 0 {
		before = next.Job.State
	}
	return next, before
}

// advance takes next through steps, whose decisions are durable in the ledger when it returns; next is still to be written.
func (e *Engine) advance(next *record, change func(r *record), now time.Time, moves ...move) error {
	var decisions []agent.Decision
	kinds := make([]agent.Kind, len(moves))
	state := next.Job.State
	if len(next.Job.Steps) == 0 {
		state = ""
	}
	for i, m := range moves {
		t, err := agent.Step(state, m.to)
		if err != nil {
			return err
		}
		state, kinds[i] = m.to, t.Entry
		if t.Entry != "" && m.entry == nil {
			decisions = append(decisions, next.decision(t.Entry, m, now))
		}
	}
	if change != nil {
		change(next)
	}
	for i := range decisions {
		decisions[i].Policy = next.Job.Policy
	}
	entries, err := e.record(decisions)
	if err != nil {
		return err
	}
	for i, m := range moves {
		entry := m.entry
		if entry == nil && kinds[i] != "" {
			entry, entries = &entries[0], entries[1:]
		}
		next.step(m, kinds[i], now, entry)
	}
	return nil
}

// decision is what the ledger gets of a move.
func (r *record) decision(kind agent.Kind, m move, now time.Time) agent.Decision {
	return agent.Decision{
		Kind: kind, Verdict: m.verdict, Subject: r.Job.ID, Name: r.Job.Name, At: now, By: m.by, Summary: m.summary, Reasons: m.reasons,
		Evidence: m.evidence,
	}
}

// step notes a move in the record.
func (r *record) step(m move, kind agent.Kind, now time.Time, entry *agent.Entry) {
	r.Job.State, r.Job.Since, r.Job.Summary = m.to, now, m.summary
	r.Job.Reasons = m.reasons
	r.Job.Steps = append(r.Job.Steps, agent.Passed{State: m.to, At: now, Entry: entry})
	r.find(agent.Finding{At: now, Kind: kind, Verdict: m.verdict, Summary: m.summary, Reasons: m.reasons, Entry: entry})
}

// record writes decisions into the ledger, in order.
func (e *Engine) record(list []agent.Decision) ([]agent.Entry, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if b, ok := e.o.Recorder.(batchRecorder); ok && len(list) > 1 {
		entries, err := b.RecordAll(e.life, list)
		if err == nil && len(entries) != len(list) {
			err = fmt.Errorf("%d decisions became %d entries", len(list), len(entries))
		}
		if err != nil {
			return nil, fmt.Errorf("write ledger: %w", err)
		}
		return entries, nil
	}
	var out []agent.Entry
	for _, d := range list {
		entry, err := e.o.Recorder.Record(e.life, d)
		if err != nil {
			return nil, fmt.Errorf("write ledger: %w", err)
		}
		out = append(out, entry)
	}
	return out, nil
}

// write makes next the record of x.
func (e *Engine) write(x *handle, c *change, next *record, before agent.State, now time.Time) (err error) {
	if c == nil {
		c = &change{}
	}
	if forgettable(next.Job.State) && before != next.Job.State {
		if c, err = e.ending(next, c, now); err != nil {
			return err
		}
	}
	c.number, c.before, c.after = next.Number, before, next.Job.State
	if c.record, err = next.encode(); err != nil {
		return err
	}
	c.adds, c.drops = difference(next.Content, x.rec.Content), difference(x.rec.Content, next.Content)
	if before != c.after {
		told := next.Job
		told.Steps = nil
		c.event = &agent.Event{At: now, Kind: "job", Job: &told, Text: fmt.Sprintf("job %s is %s: %s", told.Name, told.State, told.Summary)}
	}
	if err := e.roots.keep(c.adds); err != nil {
		return err
	}
	err = e.db.commit(c)
	e.roots.kept(c.adds)
	if err == nil {
		x.rec = next
	}
	return err
}

// difference is what is in a and not in b.
func difference(a, b []digest.SHA256) (out []digest.SHA256) {
	if len(a) == 0 {
		return nil
	}
	in := make(map[digest.SHA256]bool, len(b))
	for _, d := range b {
		in[d] = true
	}
	for _, d := range a {
		if !in[d] {
			in[d] = true // once
			out = append(out, d)
		}
	}
	return out
}

// insist does what must be written, and tries again as long as the disk or the ledger says no. It gives up when the node
// ends: what is on disk then is what the next process goes on from.
func (e *Engine) insist(do func() error) error {
	const first, most = 50 * time.Millisecond, 10 * time.Second
	for pause := first; ; pause = min(2*pause, most) {
		err := do()
		var step *agent.StepError
		if err == nil || errors.As(err, &step) || errors.Is(err, errClosed) {
			return err
		}
		e.trouble("state-not-written", err)
		if err := e.o.Wait(e.life, pause); err != nil {
			return err
		}
		e.trouble("", nil)
	}
}
