package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"arch.network/agent"
	"arch.network/agent/scheduler"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/runner/job"
)

// Submit implements agent.Node. The proposal and the verdict about it are one write.
func (e *Engine) Submit(ctx context.Context, envelope []byte, by string) (agent.Job, error) {
	p, err := readProposal(envelope)
	if err != nil {
		return agent.Job{}, err
	}
	leave, err := e.enter(ctx, p.ID)
	if err != nil {
		return agent.Job{}, err
	}
	defer leave()
	if known, err := e.find(p.ID); err != nil || known != nil {
		if err != nil {
			return agent.Job{}, err
		}
		return e.tell(known), nil
	}
	owner := p.Doc.Metadata.Owner
	e.mu.Lock()
	e.limits()
	err = errClosed
	if !e.stopping {
		err = e.queue.Reserve(owner)
	}
	e.number++
	number := e.number
	e.mu.Unlock()
	if err != nil {
		return agent.Job{}, err
	}
	rec, claimed, err := e.propose(ctx, p, number, envelope, by)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case claimed: // its place was taken
	case err != nil || rec.Job.State != agent.Verified:
		e.queue.Unreserve(owner)
	default:
		e.fresh.keep(p, envelope)
		e.queue.Push(rec.waiting(), e.o.Now())
		e.poke()
	}
	if err != nil {
		return agent.Job{}, err
	}
	return rec.Job, nil
}

// readProposal reads an envelope of a valid Job. What it returns is what the verified bytes say.
func readProposal(envelope []byte) (Proposal, error) {
	env, doc, err := readEnvelope(envelope, "Job")
	if err != nil {
		return Proposal{}, err
	}
	return Proposal{Envelope: env, Doc: doc.(*manifest.Job), ID: env.ID()}, nil
}

// readEnvelope reads an envelope of a valid document of one kind. The error is an *agent.EnvelopeError.
func readEnvelope(envelope []byte, kind string) (*dsse.Envelope, manifest.Document, error) {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return nil, nil, &agent.EnvelopeError{Err: err}
	}
	doc, err := manifest.Payload(env)
	if err == nil {
		err = doc.Validate()
	}
	switch {
	case err != nil:
	case doc.DocumentKind() != kind:
		err = fmt.Errorf("it is a %s, not a %s", doc.DocumentKind(), kind)
	case env.PayloadType != manifest.PayloadType(kind):
		err = fmt.Errorf("its payload type is %q", env.PayloadType)
	}
	if err != nil {
		return nil, nil, &agent.EnvelopeError{Err: err}
	}
	return env, doc, nil
}

// enter waits until nobody else submits the same document.
func (e *Engine) enter(ctx context.Context, id digest.SHA256) (leave func(), err error) {
	for {
		e.entering.Lock()
		busy := e.entered[id]
		if busy == nil {
			done := make(chan struct{})
			e.entered[id] = done
			e.entering.Unlock()
			return func() {
				e.entering.Lock()
				delete(e.entered, id)
				e.entering.Unlock()
				close(done)
			}, nil
		}
		e.entering.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-busy:
		}
	}
}

// propose judges a job and writes it. Claimed: a place was taken for it at once, and if there is no error it has started.
func (e *Engine) propose(ctx context.Context, p Proposal, number uint64, envelope []byte, by string) (_ *record, claimed bool, err error) {
	p.At, envelope = e.o.Now().UTC(), bytes.Clone(envelope) // the caller may change it afterwards
	v, err := e.o.Judge.Judge(ctx, p)
	if err != nil {
		return nil, false, fmt.Errorf("judge job: %w", err)
	}
	rec := newRecord(p, number, by)
	if err := e.admit(rec, p, &v); err != nil {
		return nil, false, err
	}
	h := e.jobs.hold(number)
	defer e.jobs.drop(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rec = rec
	c := &change{puts: []put{
		{bucketEnvelopes, numberKey(number), envelope},
		{bucketIDs, p.ID[:], numberKey(number)},
		{bucketNames, nameKey(rec.Job.Name, number), []byte{}},
		{bucketForgotten, p.ID[:], nil}, // it is told of again
	}}
	proposed := move{to: agent.Proposed, verdict: "received", by: by, summary: fmt.Sprintf("job %s was handed in by %s", rec.Job.Name, by)}
	moves, note := []move{proposed, verdictMove(v)}, func(*record) {}
	var started *claim
	if v.Accepted {
		if started = e.claim(rec, p, envelope); started != nil {
			moves, note = append(moves, placing, started.first.starting()), started.first.note
		}
	}
	err = e.pass(h, c, note, moves...)
	if started != nil {
		started.begin(err == nil)
	}
	if err != nil {
		if j, ok := e.o.Judge.(Forgiving); ok && v.Accepted {
			j.TakeBack(p)
		}
		return nil, started != nil, err
	}
	return h.rec, started != nil, nil
}

func newRecord(p Proposal, number uint64, by string) *record {
	m, s := p.Doc.Metadata, p.Doc.Spec
	return &record{Number: number, Job: agent.Job{
		ID: p.ID, Name: m.Name, Owner: m.Owner, Runtime: string(s.Runtime), Priority: s.Priority, Submitted: p.At, By: by,
	}}
}

func verdictMove(v Verdict) move {
	if v.Accepted {
		return move{to: agent.Verified, verdict: "accepted", summary: v.Summary, evidence: v.Evidence}
	}
	return move{to: agent.Refused, verdict: "refused", summary: v.Summary, reasons: v.Reasons, evidence: v.Evidence}
}

// admit notes in the record what a verdict says. What could never run here is refused.
func (e *Engine) admit(rec *record, p Proposal, v *Verdict) error {
	policy := e.o.Judge.Policy()
	rec.Job.Signers, rec.Job.Policy = v.Signers, v.Policy
	rec.Weight, rec.Until = max(v.Weight, 1), v.Until
	if !v.Accepted || policy.Doc == nil {
		return nil
	}
	need, err := need(p.Doc, policy.Doc)
	if err != nil {
		return err
	}
	rec.Need = need
	if err := e.queueLimits(policy).Fits(need); err != nil {
		v.Accepted = false
		v.Reasons = append(v.Reasons, agent.Reason{Field: "spec.resources", Msg: err.Error(), Cure: "ask for less, or submit it to a larger node"})
		v.Summary = "it asks for more than this node has"
	}
	return nil
}

// need is what a job is promised. One that sets no bound for its processor time is promised none, and shares.
func need(doc *manifest.Job, policy *manifest.Policy) (agent.Resources, error) {
	l, err := job.Limits(doc, policy)
	if err != nil {
		return agent.Resources{}, err
	}
	gpu, err := doc.Spec.Resources.GPU.Milli()
	if err != nil {
		return agent.Resources{}, fmt.Errorf("resources.gpu: %w", err)
	}
	return agent.Resources{CPU: l.CPU, Memory: l.Memory, GPU: gpu / 1000}, nil
}

// waiting is what the scheduler gets.
func (r *record) waiting() scheduler.Job {
	return scheduler.Job{ID: r.Job.ID, Owner: r.Job.Owner, Priority: r.Job.Priority, Weight: r.Weight, Need: r.Need}
}

// limits has the queue's be those of the policy in force. e.mu is held.
func (e *Engine) limits() {
	p := e.o.Judge.Policy()
	if p.ID == e.policy.ID && e.policy.Doc != nil {
		return
	}
	e.policy = p
	e.queue.SetLimits(e.queueLimits(p))
}

// queueLimits are what the policy says, within what the machine has.
func (e *Engine) queueLimits(p Policy) scheduler.Limits {
	l := scheduler.Limits{Node: e.o.Capacity, Slots: e.o.Slots, GasRate: gasRate * uint64(e.o.Capacity.CPU) / 1000}
	if p.Doc == nil {
		return l
	}
	l.Max, l.PerOwner = p.Doc.Spec.Queue.Max, p.Doc.Spec.Queue.PerOwner
	l.Node = bounded(l.Node, p.Doc.Spec.Resources.Node)
	l.Owner = bounded(agent.Resources{}, p.Doc.Spec.Resources.Owner)
	return l
}

// gasRate is how many units of package runner/gas a processor makes in a second, roughly: the scheduler weighs a module's work
// by it against time.
const gasRate = 1_000_000_000

// bounded is the smaller of both where both say something. The quantities were validated.
func bounded(a agent.Resources, by manifest.JobResources) agent.Resources {
	least := func(a, b int64) int64 {
		if b > 0 && (a == 0 || b < a) {
			return b
		}
		return a
	}
	cpu, _ := by.CPU.Milli()
	memory, _ := by.Memory.Bytes()
	gpu, _ := by.GPU.Milli()
	return agent.Resources{CPU: least(a.CPU, cpu), Memory: least(a.Memory, memory), GPU: least(a.GPU, gpu/1000)}
}

// numberOf finds a job's number by its document id; zero: there is none.
func (e *Engine) numberOf(id digest.SHA256) (uint64, error) {
	v, err := e.db.get(bucketIDs, id[:])
	return number(v), err
}

// find returns a job's record by its document id; nil: there is none.
func (e *Engine) find(id digest.SHA256) (*record, error) {
	number, err := e.numberOf(id)
	if err != nil || number == 0 {
		return nil, err
	}
	return e.db.load(number)
}

// must is find for what has to be there.
func (e *Engine) must(id digest.SHA256) (*record, error) {
	rec, err := e.find(id)
	if err == nil && rec == nil {
		err = e.unknown(id.String(), id)
	}
	return rec, err
}

// proposal reads what a job was handed in as.
func (e *Engine) proposal(rec *record) (Proposal, []byte, error) {
	if p, data, ok := e.fresh.take(rec.Job.ID); ok {
		p.At = e.o.Now().UTC()
		return p, data, nil
	}
	data, err := e.db.get(bucketEnvelopes, numberKey(rec.Number))
	if err == nil && data == nil {
		err = errors.New("it is not kept any more")
	}
	if err != nil {
		return Proposal{}, nil, fmt.Errorf("read envelope of job %s: %w", rec.Job.ID, err)
	}
	p, err := readProposal(data)
	p.At = e.o.Now().UTC()
	return p, data, err
}

// due reports whether a verdict has to be made again.
func (r *record) due(policy digest.SHA256, now time.Time) bool {
	return r.Job.Policy != policy || !r.Until.IsZero() && !now.Before(r.Until)
}
