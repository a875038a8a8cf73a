package executor

import (
	"arch.network/agent/content"
	"arch.network/agent/scheduler"
	"arch.network/builder/store"
)

// claim is a job that need not wait: the scheduler would choose it at once, and everything that it pins is in the store. It is proposed,
// admitted, placed and started in one step, which is one entry of the ledger and one write.
type claim struct {
	*active
	job   scheduler.Job
	first *execution
	lease *store.Lease
}

// claim takes a place for a job that was just admitted, and is not on disk yet, and keeps its envelope; nil: it waits for its turn. If it is not nil, begin
// gives the place back.
func (e *Engine) claim(rec *record, p Proposal, envelope []byte) *claim {
	source, ok := e.o.Source.(LocalSource)
	policy := e.o.Judge.Policy()
	if !ok || policy.Doc == nil || rec.due(policy.ID, e.o.Now()) {
		return nil
	}
	if _, ok := e.o.Judge.(ContentJudge); ok && len(policy.Doc.Spec.Attestations) > 0 {
		return nil // what it pins must be judged first
	}
	c := &claim{job: rec.waiting()}
	e.mu.Lock()
	room := e.starts() && e.queue.Room(c.job)
	e.mu.Unlock()
	if !room {
		return nil
	}
	var err error
	if c.lease, err = e.o.Store.Lease(e.life); err != nil {
		return nil
	}
	var found *content.Content
	if source.AtHand(p.Doc) {
		found, err = e.o.Source.Gather(e.life, p.Doc, content.Options{})
	}
	if found == nil || err != nil || !e.take(c) {
		c.lease.Release()
		return nil
	}
	c.proposal, c.envelope, c.content, c.policy = p, envelope, found, policy.Doc
	c.h = e.jobs.hold(rec.Number)
	c.first = &execution{active: c.active}
	c.first.name()
	c.first.attempt.Number = 1
	return c
}

// take takes the place, if it is still free.
func (e *Engine) take(c *claim) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.starts() || !e.queue.Claim(c.job, e.o.Now()) {
		return false
	}
	c.active = e.activate(c.job.ID)
	e.running.Add(1)
	return true
}

// starts reports whether jobs are started. e.mu is held.
func (e *Engine) starts() bool {
	e.limits()
	return e.serving && e.drained == nil && !e.stopping && e.policy.Doc != nil
}

// begin executes the job if its start is on disk, and gives the place back.
func (c *claim) begin(written bool) {
	c.lease.Release() // its content has roots, if it needs any
	if !written {
		c.over(false, nil)
		return
	}
	go func() { c.over(c.repeat(c.first.perform())) }()
}

func (c *claim) over(again bool, err error) {
	c.leave(c.job, again, err)
	c.jobs.drop(c.h)
	c.running.Done()
}
