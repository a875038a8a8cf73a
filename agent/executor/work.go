package executor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"arch.network/agent"
	"arch.network/agent/content"
	"arch.network/agent/scheduler"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
)

// active is a job that is worked at: it holds a place of the scheduler's, and one goroutine takes it through its life.
type active struct {
	*Engine
	h      *handle
	ctx    context.Context // ends with a cancellation, or with ErrLeave
	cancel context.CancelCauseFunc

	id       digest.SHA256
	proposal Proposal
	envelope []byte
	content  *content.Content
	policy   *manifest.Policy // in force when the work began; one that allows nothing, if none was
	gas      uint64           // used by all executions
	fetching atomic.Pointer[agent.Fetching]
}

// fetched notes how far a transfer is.
func (a *active) fetched(e source.Event) {
	switch e.Kind {
	case source.EventStart, source.EventProgress:
		a.fetching.Store(&agent.Fetching{What: e.What, Bytes: e.Bytes, Total: e.Total})
	case source.EventDone, source.EventSkip:
		a.fetching.Store(nil)
	}
}

// errCancelled is the cause with which an execution is ended that somebody wants ended.
var errCancelled = errors.New("somebody who may ended it")

// schedule starts what can start.
func (e *Engine) schedule() {
	for {
		e.mu.Lock()
		if !e.starts() {
			e.mu.Unlock()
			return
		}
		j, ok := e.queue.Next(e.o.Now())
		if !ok {
			e.mu.Unlock()
			return
		}
		e.begin(j)
		e.mu.Unlock()
	}
}

// begin works at a job, which holds its place already. e.mu is held.
func (e *Engine) begin(j scheduler.Job) {
	a := e.activate(j.ID)
	e.running.Go(func() {
		again, err := a.work()
		a.leave(j, again, err)
	})
}

// activate notes that a job is worked at. e.mu is held.
func (e *Engine) activate(id digest.SHA256) *active {
	ctx, cancel := context.WithCancelCause(e.life)
	a := &active{Engine: e, ctx: ctx, cancel: cancel, id: id}
	e.active[id] = a
	return a
}

// leave gives the place back. Again: the job waits once more.
func (a *active) leave(j scheduler.Job, again bool, err error) {
	if err != nil && !errors.Is(err, errClosed) && !errors.Is(err, ErrLeave) {
		a.o.Log.ErrorContext(a.life, "job left as it is", "job", j.ID.String(), "error", err)
	}
	a.cancel(nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.active, j.ID)
	now := a.o.Now()
	a.queue.Done(j.ID, scheduler.Usage{Gas: a.gas}, now)
	if again {
		a.queue.Push(j, now)
	}
	a.poke()
}

// work takes a job on from where it is. Again: it waits once more.
func (a *active) work() (again bool, err error) {
	number, err := a.numberOf(a.id)
	if err != nil {
		return false, err
	}
	a.h = a.jobs.hold(number)
	defer a.jobs.drop(a.h)
	if err := a.jobs.lock(a.h); err != nil {
		return false, err
	}
	rec := a.h.rec
	a.h.mu.Unlock()
	if a.proposal, a.envelope, err = a.Engine.proposal(rec); err != nil {
		return false, err
	}
	if a.policy = a.o.Judge.Policy().Doc; a.policy == nil {
		a.policy = &manifest.Policy{}
	}
	switch rec.Job.State {
	case agent.Verified:
		lease, here := a.atHand()
		if here { // it is placed when it is started: nothing happens in between
			return a.run(lease)
		}
		if ok, err := a.place(); err != nil || !ok {
			return false, err
		}
	case agent.Placed: // by an earlier process
		err := a.pass(nil, move{to: agent.Verified, verdict: "waits", summary: "the node ended before it was started: it waits again"})
		return err == nil, err
	case agent.Running:
		return a.takeUp(rec)
	case agent.Validating:
		next, err := a.validate()
		if err != nil || next != agent.Running {
			return false, err
		}
	case agent.Anchored:
		return false, a.archive()
	default:
		return false, nil // it was cancelled in the meantime
	}
	lease, err := a.o.Store.Lease(a.ctx)
	if err != nil {
		return a.notFetched(err)
	}
	return a.run(lease)
}

// atHand reports whether everything that the job pins is in the store, and keeps it there.
func (a *active) atHand() (*store.Lease, bool) {
	s, ok := a.o.Source.(LocalSource)
	if !ok {
		return nil, false
	}
	lease, err := a.o.Store.Lease(a.ctx)
	if err != nil {
		return nil, false // place says it
	}
	if !s.AtHand(a.proposal.Doc) {
		lease.Release()
		return nil, false
	}
	return lease, true
}

// pass is Engine.pass for this job, which insists.
func (a *active) pass(change func(*record), moves ...move) error {
	return a.insist(func() error {
		if err := a.jobs.lock(a.h); err != nil {
			return err
		}
		defer a.h.mu.Unlock()
		return a.Engine.pass(a.h, nil, change, moves...)
	})
}

// wished reports whether the job is to be ended, and does it if nothing of it runs. a.h is locked.
func (a *active) wished() (bool, error) {
	w := a.h.rec.Cancel
	if w == nil {
		return false, nil
	}
	return true, a.Engine.pass(a.h, nil, nil, w.move())
}

func (w *cancellation) move() move {
	return move{to: agent.Cancelled, verdict: "cancelled", by: w.By, entry: &w.Entry, summary: fmt.Sprintf("%s ended it: %s", w.By, w.Reason)}
}

// placing is the step of a job whose turn it is.
var placing = move{to: agent.Placed, verdict: "here", summary: "it is its turn: what it pins is fetched"}

// place takes the place, if the job may still run. False: it does not go on.
func (a *active) place() (ok bool, err error) {
	err = a.insist(func() error {
		ok = false
		if err := a.jobs.lock(a.h); err != nil {
			return err
		}
		defer a.h.mu.Unlock()
		if a.h.rec.Job.State != agent.Verified {
			return nil
		}
		change, refused, err := a.stands()
		if err != nil {
			return err
		}
		if refused != nil {
			return a.Engine.pass(a.h, nil, change, *refused)
		}
		ok = true
		return a.Engine.pass(a.h, nil, change, placing)
	})
	return ok && err == nil, err
}

// stands asks the judge again if need be: refused, if not nil, is the step that follows. a.h is locked.
func (a *active) stands() (change func(*record), refused *move, err error) {
	change = func(*record) {}
	if !a.h.rec.due(a.o.Judge.Policy().ID, a.o.Now()) {
		return change, nil, nil
	}
	a.proposal.At, a.proposal.Admitted = a.o.Now().UTC(), true
	v, err := a.o.Judge.Judge(a.ctx, a.proposal)
	if err != nil {
		return nil, nil, fmt.Errorf("judge job: %w", err)
	}
	fresh := a.h.rec.copy()
	if err := a.admit(fresh, a.proposal, &v); err != nil {
		return nil, nil, err
	}
	change = func(r *record) {
		r.Job.Signers, r.Job.Policy, r.Weight, r.Until, r.Need = fresh.Job.Signers, fresh.Job.Policy, fresh.Weight, fresh.Until, fresh.Need
	}
	if !v.Accepted {
		m := verdictMove(v)
		refused = &m
	}
	return change, refused, nil
}

// run fetches what the job pins and executes it, as often as needed. It gives the lease back.
func (a *active) run(lease *store.Lease) (again bool, err error) {
	defer lease.Release()
	a.content, err = a.o.Source.Gather(a.ctx, a.proposal.Doc, content.Options{Log: a.fetched})
	a.fetching.Store(nil)
	if err == nil {
		var more bool
		if more, err = a.judgeContent(); err == nil && !more {
			return false, nil
		}
	}
	if err != nil {
		return a.notFetched(err)
	}
	next, err := a.execute(func() {
		lease.Release() // its content has roots now
	})
	return a.repeat(next, err)
}

// repeat executes the job once more as long as another execution is needed.
func (a *active) repeat(next agent.State, err error) (again bool, _ error) {
	for err == nil && next == agent.Validating {
		next, err = a.execute(func() {})
	}
	return next == agent.Verified && err == nil, err
}

// judgeContent asks a judge that looks at content, unless the verdict still stands and the policy demands no proof of content. False: it
// was refused.
func (a *active) judgeContent() (bool, error) {
	j, ok := a.o.Judge.(ContentJudge)
	if !ok {
		return true, nil
	}
	if err := a.jobs.lock(a.h); err != nil {
		return false, err
	}
	rec := a.h.rec
	a.h.mu.Unlock()
	if p := a.o.Judge.Policy(); p.Doc != nil && len(p.Doc.Spec.Attestations) == 0 && !rec.due(p.ID, a.o.Now()) {
		return true, nil
	}
	a.proposal.At, a.proposal.Admitted = a.o.Now().UTC(), true
	reasons, err := j.JudgeContent(a.ctx, a.proposal, a.content)
	if err != nil || len(reasons) == 0 {
		return err == nil, err
	}
	return false, a.pass(nil, move{to: agent.Refused, verdict: "refused", reasons: reasons, summary: "what it pins is not what the policy demands: " + reasons[0].Msg})
}

// notFetched says what becomes of a job whose content is not there.
func (a *active) notFetched(cause error) (again bool, err error) {
	if errors.Is(context.Cause(a.ctx), ErrLeave) {
		return false, ErrLeave // the next process begins anew
	}
	err = a.insist(func() error {
		if err := a.jobs.lock(a.h); err != nil {
			return err
		}
		defer a.h.mu.Unlock()
		if done, err := a.wished(); done || err != nil {
			return err
		}
		r := agent.Reason{Field: "spec", Msg: cause.Error(), Cure: hint(cause)}
		to := move{to: agent.Failed, verdict: "not-fetched", reasons: []agent.Reason{r}, summary: "what it pins could not be fetched: " + cause.Error()}
		if a.h.rec.Job.State == agent.Validating {
			to.verdict = "not-executed"
		}
		moves := []move{to}
		if a.h.rec.Job.State == agent.Verified { // what was at hand could not be read
			moves = []move{placing, to}
		}
		return a.Engine.pass(a.h, nil, func(r *record) { r.Content = nil }, moves...)
	})
	return false, err
}

// hint returns the cure that an error knows, or that its cause has.
func hint(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "make room where the node's state lies, and hand it in with another spec.nonce"
	}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}

// newInstance tells an execution apart from others of the same document.
func newInstance() string {
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}
