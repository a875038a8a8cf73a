package executor

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"arch.network/agent"
	"arch.network/agent/content"
	"arch.network/agent/validation"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/gas"
	"arch.network/runner/job"
)

// execution is one run of a job by the driver.
type execution struct {
	*active
	attempt        agent.Attempt
	stdout, stderr *stream

	mu    sync.Mutex // guards trees and sizes: a driver may collect from a goroutine of its own
	trees map[string]digest.SHA256
	sizes map[string]int64
}

// execute runs the job once, and takes it to the state after that. placed is called when the start is durable.
func (a *active) execute(placed func()) (agent.State, error) {
	x := &execution{active: a}
	started, err := x.start()
	if err != nil || !started {
		return "", err
	}
	placed()
	return x.perform()
}

// perform has the driver execute what was started, and takes the job to the state after that.
func (x *execution) perform() (agent.State, error) {
	outcome, err := x.o.Driver.Run(x.ctx, x.prepare(false))
	return x.finish(outcome, err)
}

// start makes the decision to start durable. False: the job does not go on.
func (x *execution) start() (ok bool, err error) {
	x.name()
	err = x.insist(func() error {
		ok = false
		if err := x.jobs.lock(x.h); err != nil {
			return err
		}
		defer x.h.mu.Unlock()
		if done, err := x.wished(); done || err != nil {
			return err
		}
		x.attempt.Number = len(x.h.rec.Job.Attempts) + 1
		starting := []move{x.starting()}
		change := func(*record) {}
		if x.h.rec.Job.State == agent.Verified {
			var refused *move
			var err error
			if change, refused, err = x.stands(); err != nil {
				return err
			}
			if refused != nil {
				return x.Engine.pass(x.h, nil, change, *refused)
			}
			starting = append([]move{placing}, starting...)
		}
		ok = true
		return x.Engine.pass(x.h, nil, func(r *record) {
			change(r)
			x.note(r)
		}, starting...)
	})
	return ok && err == nil, err
}

// name gives the execution the name by which the driver finds it.
func (x *execution) name() {
	x.attempt = agent.Attempt{Name: x.o.Driver.Name(x.id, newInstance()), Started: x.o.Now().UTC()}
}

// starting is the step that says of its start.
func (x *execution) starting() move {
	return move{to: agent.Running, verdict: "started", summary: fmt.Sprintf("execution %d was started", x.attempt.Number)}
}

// note notes its start, and what it needs.
func (x *execution) note(r *record) {
	r.Job.Attempts = append(r.Job.Attempts, x.attempt)
	r.Content, r.Sources, r.Resolved = join(r.Content, x.content.All()), x.content.Objects, x.content.Resolved
}

// join is a with what of b is not in it.
func join(a, b []digest.SHA256) []digest.SHA256 {
	return append(slices.Clip(a), difference(b, a)...)
}

// prepare makes what the driver gets; again says that an earlier process has begun this attempt.
func (x *execution) prepare(again bool) Work {
	x.trees, x.sizes = map[string]digest.SHA256{}, map[string]int64{}
	x.stdout = x.logs.create(logKey{x.h.number, x.attempt.Number, "stdout"}, again)
	x.stderr = x.logs.create(logKey{x.h.number, x.attempt.Number, "stderr"}, again)
	return Work{
		ID: x.id, Doc: x.proposal.Doc, Envelope: x.envelope, Name: x.attempt.Name, Content: x.content, Policy: x.policy,
		Started: x.named, Stdout: x.stdout, Stderr: x.stderr, Collect: x.collect, Resume: x.resume,
	}
}

// resume goes on with what an earlier process kept of what was printed. Of outputs nothing is: those that it had are in the store, but nobody
// knows any more which is which.
func (x *execution) resume() (runner.Kept, error) {
	stdout, err := x.stdout.resume()
	if err != nil {
		return runner.Kept{}, err
	}
	stderr, err := x.stderr.resume()
	return runner.Kept{Stdout: stdout, Stderr: stderr}, err
}

// named makes the name that the driver has found durable.
func (x *execution) named(name string) error {
	if name == x.attempt.Name {
		return nil
	}
	x.attempt.Name = name
	return x.insist(func() error {
		if err := x.jobs.lock(x.h); err != nil {
			return err
		}
		defer x.h.mu.Unlock()
		return x.Engine.pass(x.h, nil, func(r *record) { r.attempt().Name = name })
	})
}

// collect keeps an output in the store.
func (x *execution) collect(name string, nar io.Reader) error {
	counted := &counter{r: nar}
	sum, err := x.o.Store.AddTree(x.ctx, counted, digest.SHA256{})
	if err != nil {
		return fmt.Errorf("keep output %s: %w", name, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trees[name], x.sizes[name] = sum, counted.n
	return nil
}

type counter struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// finish notes how the execution ended, and takes the job to where that leads: Validating, if another is needed; Verified, if it waits
// again.
func (x *execution) finish(o Outcome, cause error) (agent.State, error) {
	defer func() {
		for _, s := range []*stream{x.stdout, x.stderr} {
			if s != nil {
				s.close()
			}
		}
	}()
	if errors.Is(cause, ErrLeave) {
		return "", ErrLeave // it goes on without us; the next process finds it by its name
	}
	end := x.describe(o, cause)
	var state agent.State
	err := x.insist(func() error {
		if err := x.sign(end); err != nil {
			return err
		}
		if err := x.jobs.lock(x.h); err != nil {
			return err
		}
		defer x.h.mu.Unlock()
		var err error
		state, err = x.conclude(end)
		return err
	})
	x.gas += o.Result.Gas
	if err == nil && state == agent.Anchored {
		err = x.archive()
	}
	return state, err
}

// ended is an execution that is over.
type ended struct {
	attempt  agent.Attempt
	puts     []put
	outcome  job.Outcome
	ran      bool              // it was started, and ended in a way that is known
	run      *attest.Statement // this node's account of it
	executed executed
	reason   *agent.Reason // why the job failed
	final    bool          // trying again is of no use
	verdict  string
}

// describe makes of an outcome what is remembered.
func (x *execution) describe(o Outcome, cause error) *ended {
	end := &ended{attempt: x.attempt, ran: cause == nil}
	now := x.o.Now().UTC()
	end.attempt.Finished = now
	if !o.Started.IsZero() {
		end.attempt.Started, end.attempt.Finished = o.Started.UTC(), o.Finished.UTC()
	}
	var printed [2]job.Printed
	for i, s := range []*stream{x.stdout, x.stderr} {
		if s == nil {
			continue
		}
		p, puts, err := s.end()
		printed[i], end.puts = p, append(end.puts, puts...)
		if err != nil && cause == nil {
			cause = err
		}
	}
	if cause == nil && o.Result.Reason != runner.ReasonCancelled {
		cause = x.ranToItsEnd(end, o, printed)
	}
	if cause != nil || o.Result.Reason == runner.ReasonCancelled {
		end.ran, end.run = false, nil
		end.attempt.Detail = "the node stopped it"
		if cause != nil {
			end.attempt.Detail = cause.Error()
		}
		end.attempt.Reason = ""
		end.verdict, end.reason = "unfinished", &agent.Reason{Msg: end.attempt.Detail}
		_, end.final = errors.AsType[*FinalError](cause)
		if cause != nil {
			end.reason.Cure = hint(cause)
		}
		return end
	}
	return end
}

// ranToItsEnd notes what is known of an execution that ended in a way that is known.
func (x *execution) ranToItsEnd(end *ended, o Outcome, printed [2]job.Printed) error {
	fill(&end.attempt, o.Result)
	end.outcome = job.Outcome{
		ID: x.id, Result: o.Result, Inputs: x.content.Resolved, Stdout: printed[0], Stderr: printed[1], Started: end.attempt.Started,
		Finished: end.attempt.Finished, Versions: map[string]string{"arch": x.o.Version},
	}
	if x.proposal.Doc.Spec.Runtime == manifest.RuntimeWasm {
		end.outcome.Schedule = gas.Version
	}
	x.outputs(end)
	return x.account(end)
}

// outputs names what the job left, if it ended well, and says why it failed, if it did not.
func (x *execution) outputs(end *ended) {
	r := end.outcome.Result
	if !r.OK() {
		end.verdict, end.reason = string(r.Reason), &agent.Reason{Msg: r.Sentence(), Cure: cure(r.Reason)}
		return
	}
	outputs, err := content.Outputs(x.o.Store, x.proposal.Doc, x.trees)
	if err != nil {
		end.verdict, end.reason = "output", &agent.Reason{Field: "spec.outputs", Msg: err.Error(), Cure: hint(err)}
		return
	}
	end.outcome.Outputs = outputs
	e := executed{
		Attempt: end.attempt.Number, Outputs: outputs, Sizes: x.sizes, Stdout: end.outcome.Stdout.Digest, Printed: end.outcome.Stdout.Size,
		Stderr: end.outcome.Stderr.Digest, Gas: r.Gas, Schedule: end.outcome.Schedule, Anomalies: end.attempt.Anomalies, Missing: r.Confinement.Missing,
	}
	for _, d := range content.Compare(x.proposal.Doc, outputs) {
		e.Differs = append(e.Differs, differs{d.Output, d.Want, d.Got})
	}
	end.executed = e
}

// account makes this node's account of an execution.
func (x *execution) account(end *ended) error {
	result, run, err := job.Statements(x.proposal.Doc, end.outcome)
	if err != nil {
		return err
	}
	end.run = run
	if result != nil {
		end.executed.statement = result
		end.executed.Result, err = result.ID()
	}
	return err
}

// sign signs that account, and keeps it with the record.
func (x *execution) sign(end *ended) error {
	if end.run == nil || !end.attempt.Run.IsZero() {
		return nil
	}
	id, envelope, err := x.signed(end.run)
	if err != nil {
		return err
	}
	end.attempt.Run, end.executed.Run = id, id
	end.puts = append(end.puts, put{bucketStatements, id[:], envelope})
	return nil
}

// signed signs a statement.
func (e *Engine) signed(s *attest.Statement) (digest.SHA256, []byte, error) {
	env, err := s.Sign(e.life, e.o.Signer)
	if err != nil {
		return digest.SHA256{}, nil, fmt.Errorf("sign receipt: %w", err)
	}
	return env.ID(), env.Marshal(), nil
}

// conclude writes what has become of the execution. x.h is locked.
func (x *execution) conclude(end *ended) (agent.State, error) {
	rec := x.h.rec
	c := &change{puts: end.puts}
	note := func(r *record) { *r.attempt() = end.attempt }
	forget := func(r *record) { note(r); r.Content, r.Executions = nil, nil }
	evidence := end.evidence()
	switch {
	case rec.Cancel != nil:
		return agent.Cancelled, x.Engine.pass(x.h, c, forget, rec.Cancel.move())
	case !end.ran:
		return x.unfinished(end, c)
	case end.reason != nil:
		return agent.Failed, x.Engine.pass(x.h, c, forget, move{
			to: agent.Failed, verdict: end.verdict, reasons: []agent.Reason{*end.reason}, evidence: evidence, summary: "it " + end.reason.Msg,
		})
	}
	list := append(slices.Clone(rec.Executions), end.executed)
	return x.conclusion(c, list, func(r *record) {
		note(r)
		r.Executions = list
		for _, o := range end.executed.Outputs {
			r.Content = join(r.Content, []digest.SHA256{o.NAR})
		}
	}, move{to: agent.Validating, verdict: "ended", summary: fmt.Sprintf("execution %d ended by itself", end.attempt.Number)})
}

// unfinished tries again, or gives up.
func (x *execution) unfinished(end *ended, c *change) (agent.State, error) {
	rec := x.h.rec.copy()
	*rec.attempt() = end.attempt
	m := move{to: agent.Failed, verdict: end.verdict, reasons: []agent.Reason{*end.reason}, summary: "it could not be finished: " + end.attempt.Detail}
	if n, most := rec.unfinished(), x.proposal.Doc.Spec.Retries; n <= most && !end.final {
		m.to, m.summary = agent.Verified, fmt.Sprintf("execution %d could not be finished, and is tried again (%d of %d times): %s", end.attempt.Number, n, most, end.attempt.Detail)
	}
	return m.to, x.Engine.pass(x.h, c, func(r *record) {
		*r.attempt() = end.attempt
		r.Content, r.Executions = nil, nil
	}, m)
}

// evidence is what can be looked up of an execution.
func (end *ended) evidence() []agent.Evidence {
	if !end.ran {
		return nil
	}
	out := []agent.Evidence{{Name: "job-run", Digest: end.attempt.Run}}
	if end.outcome.Stdout.Size > 0 {
		out = append(out, agent.Evidence{Name: "stdout", Digest: end.outcome.Stdout.Digest})
	}
	if end.outcome.Stderr.Size > 0 {
		out = append(out, agent.Evidence{Name: "stderr", Digest: end.outcome.Stderr.Digest})
	}
	return out
}

// takeUp goes on with an execution that an earlier process started: if it is still there it is followed, else it is unfinished.
func (a *active) takeUp(rec *record) (again bool, err error) {
	x := &execution{active: a, attempt: *rec.attempt()}
	a.content, err = a.o.Source.Gather(a.ctx, a.proposal.Doc, content.Options{})
	if err != nil {
		a.content = &content.Content{Resolved: rec.Resolved, Objects: rec.Sources}
	}
	work := x.prepare(true)
	if rec.Cancel != nil {
		a.cancel(errCancelled)
	}
	outcome, err := a.o.Driver.Attach(a.ctx, work)
	if errors.Is(err, ErrNoSurvivor) {
		err = errors.New("the node ended while it ran, and it ended with the node")
	}
	state, err := x.finish(outcome, err)
	for err == nil && state == agent.Validating {
		state, err = a.execute(func() {})
	}
	return state == agent.Verified && err == nil, err
}

// validate judges once more what an earlier process had executed.
func (a *active) validate() (next agent.State, err error) {
	err = a.insist(func() error {
		if err := a.jobs.lock(a.h); err != nil {
			return err
		}
		defer a.h.mu.Unlock()
		if done, err := a.wished(); done || err != nil {
			next = agent.Cancelled
			return err
		}
		next, err = a.conclusion(nil, a.h.rec.Executions, nil)
		if next == agent.Validating {
			next = agent.Running
		}
		return err
	})
	if err == nil && next == agent.Anchored {
		err = a.archive()
	}
	return next, err
}

// conclusion judges executions and writes what follows, after the moves that come before it. a.h is locked. Validating: another
// execution is needed.
func (a *active) conclusion(c *change, list []executed, change func(*record), before ...move) (agent.State, error) {
	demand := validation.DemandOf(a.proposal.Doc, a.id, a.policy)
	v := validation.Judge(demand, judged(list))
	switch v.Outcome {
	case validation.Again:
		if len(before) == 0 {
			return agent.Validating, nil
		}
		before[len(before)-1].summary = v.Summary
		return agent.Validating, a.Engine.pass(a.h, c, change, before...)
	case validation.Held:
		return agent.Quarantined, a.hold(c, list, v, change, before)
	}
	return agent.Anchored, a.anchor(c, list, v.Summary, change, before)
}

// judged is what package validation looks at.
func judged(list []executed) []validation.Execution {
	var out []validation.Execution
	for _, e := range list {
		v := validation.Execution{
			Number: e.Attempt, Outputs: e.Outputs, Stdout: e.Stdout, Gas: e.Gas, Anomalies: e.Anomalies, Missing: e.Missing,
		}
		for _, d := range e.Differs {
			v.Differs = append(v.Differs, validation.Difference{Output: d.Output, Want: d.Want, Got: d.Got})
		}
		out = append(out, v)
	}
	return out
}
