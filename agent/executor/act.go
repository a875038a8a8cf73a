package executor

import (
	"context"
	"errors"
	"fmt"

	"arch.network/agent"
)

// Act implements agent.Node.
func (e *Engine) Act(_ context.Context, act agent.Act) error {
	if act.Reason == "" || act.By == "" {
		return errors.New("act: who wants it and why are required")
	}
	switch act.Verb {
	case agent.VerbDrain, agent.VerbResume:
		return e.setDraining(act)
	case agent.VerbCancel:
		return e.cancelJob(act)
	case agent.VerbRelease, agent.VerbDiscard:
		return e.review(act)
	}
	return fmt.Errorf("act: there is no act %q", act.Verb)
}

// setDraining is recorded first, and outlives the process: who drains a node may be about to start its machine again.
func (e *Engine) setDraining(act agent.Act) error {
	d := agent.Decision{
		Kind: agent.KindNode, Verdict: string(act.Verb), At: e.o.Now().UTC(), By: act.By, Policy: e.o.Judge.Policy().ID,
		Summary: fmt.Sprintf("%s wants the node to %s: %s", act.By, act.Verb, act.Reason),
	}
	if _, err := e.record([]agent.Decision{d}); err != nil {
		return err
	}
	var drained *agent.Drain
	if act.Verb == agent.VerbDrain {
		drained = &agent.Drain{By: act.By, Reason: act.Reason, At: d.At}
	}
	if err := e.db.setDrained(drained); err != nil {
		return err
	}
	e.mu.Lock()
	e.drained = drained
	e.mu.Unlock()
	e.poke()
	return nil
}

// cancelJob makes the wish durable, in the ledger and in the record; then it is obeyed, which takes as long as the execution takes to
// die.
func (e *Engine) cancelJob(act agent.Act) error {
	rec, err := e.must(act.Job)
	if err != nil {
		return err
	}
	h := e.jobs.hold(rec.Number)
	defer e.jobs.drop(h)
	if err := e.jobs.lock(h); err != nil {
		return err
	}
	defer h.mu.Unlock()
	state := h.rec.Job.State
	if _, err := agent.Step(state, agent.Cancelled); err != nil {
		return err
	}
	if h.rec.Cancel != nil {
		return nil // it is wanted already
	}
	now := e.o.Now().UTC()
	w := &cancellation{By: act.By, Reason: act.Reason}
	d := h.rec.decision(agent.KindCancellation, w.move(), now)
	d.Policy = h.rec.Job.Policy
	entries, err := e.record([]agent.Decision{d})
	if err != nil {
		return err
	}
	w.Entry = entries[0]
	if state == agent.Verified {
		if err := e.pass(h, nil, func(r *record) { r.Cancel = w }, w.move()); err != nil {
			return err
		}
		e.mu.Lock()
		e.queue.Remove(act.Job, now)
		e.mu.Unlock()
		return nil
	}
	if err := e.pass(h, nil, func(r *record) { r.Cancel = w }); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.active[act.Job]; a != nil {
		a.cancel(errCancelled)
	}
	return nil
}

// review is a person's word about a result that is held back.
func (e *Engine) review(act agent.Act) error {
	rec, err := e.must(act.Job)
	if err != nil {
		return err
	}
	h := e.jobs.hold(rec.Number)
	defer e.jobs.drop(h)
	if err := e.jobs.lock(h); err != nil {
		return err
	}
	defer h.mu.Unlock()
	if act.Verb == agent.VerbDiscard {
		m := move{to: agent.Discarded, verdict: "discarded", by: act.By, summary: fmt.Sprintf("%s dropped the result: %s", act.By, act.Reason)}
		return e.pass(h, nil, func(r *record) { r.Content = nil }, m)
	}
	if h.rec.Job.State != agent.Quarantined {
		return &agent.StepError{From: h.rec.Job.State, To: agent.Anchored}
	}
	p, _, err := e.proposal(h.rec)
	if err != nil {
		return err
	}
	m := move{to: agent.Anchored, verdict: "released", by: act.By, summary: fmt.Sprintf("%s released the result: %s", act.By, act.Reason)}
	last := h.rec.Executions[len(h.rec.Executions)-1:]
	r, err := e.anchoring(h, p.Doc, nil, last, m, func(r *record) { r.Executions = last }, nil)
	if err != nil {
		return err
	}
	if err := e.pass(h, r.change, r.note, r.moves...); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopping {
		e.queue.Resume(h.rec.waiting(), e.o.Now())
		e.begin(h.rec.waiting())
	}
	return nil
}

// Direct implements agent.Node.
func (e *Engine) Direct(ctx context.Context, envelope []byte, by string) error {
	if e.o.Directive == nil {
		if _, _, err := readEnvelope(envelope, "Directive"); err != nil {
			return err
		}
		return &agent.DeniedError{By: by, Verb: "give directives", Cure: "this node takes acts of its operators only"}
	}
	return e.o.Directive(ctx, envelope, by)
}
