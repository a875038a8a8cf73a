package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// Result is what became of an execution.
type Result struct {
	Exit      int
	Outputs   map[string][]byte // NARs by name
	Anomalies []string          // any of them quarantines the result
	Gas       uint64
}

// Options are what Memory needs from its test.
type Options struct {
	// Execute is what jobs do. It must return when ctx ends. Nil: they end at once, with 0.
	Execute func(ctx context.Context, job *manifest.Job, stdout, stderr io.Writer) Result
	// Judge returns what speaks against a job. Nil: nothing ever does.
	Judge func(job *manifest.Job) []agent.Reason
	// Director reports whether a key may give directives. Nil: nobody may.
	Director func(env *dsse.Envelope) bool
	// Recorder gets every decision. Nil: decisions are only counted.
	Recorder agent.Recorder
	Now      func() time.Time // nil: time.Now
	Queue    int              // jobs that may wait; zero: 1000
	Slots    int              // executions at one time; zero: 1
	Events   int              // events that are kept; zero: 1000
	Status   agent.Status     // what of it no job changes
}

// Memory is a node that lives in memory. New jobs wait until Run runs.
type Memory struct {
	o Options

	mu      sync.Mutex // guards all below
	jobs    []*task    // in the order in which they were handed in
	byID    map[digest.SHA256]*task
	events  []agent.Event // the newest last
	next    int64         // number of the next event
	entries int64
	drained *agent.Drain
	changed chan struct{} // closed, and replaced, whenever anything changes
}

// task is a job and what is kept of it.
type task struct {
	job      agent.Job
	doc      *manifest.Job
	envelope []byte
	findings []agent.Finding
	logs     []map[string]*bytes.Buffer // by attempt
	outputs  map[string][]byte
	stop     context.CancelFunc // of the execution; nil: none goes on
}

var _ agent.Node = (*Memory)(nil)

// New returns a node that runs nothing yet.
func New(o Options) *Memory {
	if o.Execute == nil {
		o.Execute = func(context.Context, *manifest.Job, io.Writer, io.Writer) Result { return Result{} }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Queue == 0 {
		o.Queue = 1000
	}
	if o.Slots == 0 {
		o.Slots = 1
	}
	if o.Events == 0 {
		o.Events = 1000
	}
	return &Memory{o: o, byID: map[digest.SHA256]*task{}, next: 1, changed: make(chan struct{})}
}

// Run executes jobs, one after the other in each of its slots, until ctx ends.
func (m *Memory) Run(ctx context.Context) {
	var slots sync.WaitGroup
	for range m.o.Slots {
		slots.Go(func() {
			for {
				t, err := m.pick(ctx)
				if err != nil {
					return
				}
				m.execute(ctx, t)
			}
		})
	}
	slots.Wait()
}

// wait waits until something changed, as seen by ready, which is called with mu held.
func (m *Memory) wait(ctx context.Context, ready func() bool) error {
	for {
		m.mu.Lock()
		done, changed := ready(), m.changed
		m.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake tells everybody who waits to look again. mu must be held.
func (m *Memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// step moves a job on, as agent.Life says. mu must be held.
func (m *Memory) step(t *task, to agent.State, verdict, by, summary string, reasons ...agent.Reason) {
	s, err := agent.Step(t.job.State, to)
	if err != nil {
		panic("nodetest: " + err.Error())
	}
	now := m.o.Now()
	passed := agent.Passed{State: to, At: now}
	if s.Entry != "" {
		passed.Entry = m.record(agent.Decision{
			Kind: s.Entry, Verdict: verdict, Subject: t.job.ID, Name: t.job.Name, At: now, By: by, Summary: summary, Reasons: reasons,
		})
		t.findings = append(t.findings, agent.Finding{At: now, Kind: s.Entry, Verdict: verdict, Summary: summary, Reasons: reasons, Entry: passed.Entry})
	}
	t.job.State, t.job.Since, t.job.Summary, t.job.Reasons = to, now, summary, reasons
	t.job.Steps = append(t.job.Steps, passed)
	m.tell("job", t, fmt.Sprintf("%s is %s: %s", t.job.Name, to, summary))
}

func (m *Memory) record(d agent.Decision) *agent.Entry {
	e := agent.Entry{Index: m.entries, Sequence: m.entries + 1, ID: digest.Of(fmt.Appendf(nil, "%d %s", m.entries, d.Summary))}
	if m.o.Recorder != nil {
		recorded, err := m.o.Recorder.Record(context.Background(), d)
		if err != nil {
			panic("nodetest: " + err.Error())
		}
		e = recorded
	}
	m.entries++
	return &e
}

// tell adds an event. mu must be held.
func (m *Memory) tell(kind string, t *task, text string) {
	e := agent.Event{Number: m.next, At: m.o.Now(), Kind: kind, Text: text}
	if t != nil {
		j := m.show(t)
		j.Steps = nil
		e.Job = &j
	}
	m.next++
	m.events = append(m.events, e)
	if len(m.events) > m.o.Events {
		m.events = m.events[1:]
	}
	m.wake()
}

// show returns a copy of what is told of a job. mu must be held.
func (m *Memory) show(t *task) agent.Job {
	j := t.job
	j.Steps, j.Attempts, j.Outputs = slices.Clone(j.Steps), slices.Clone(j.Attempts), slices.Clone(j.Outputs)
	if j.State.Waits() {
		for _, other := range m.jobs {
			if other.job.State.Waits() {
				j.Position++
			}
			if other == t {
				break
			}
		}
	}
	return j
}

// Submit implements agent.Node.
func (m *Memory) Submit(_ context.Context, envelope []byte, by string) (agent.Job, error) {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return agent.Job{}, &agent.EnvelopeError{Err: err}
	}
	doc, err := manifest.Payload(env)
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		return agent.Job{}, &agent.EnvelopeError{Err: err}
	}
	job, ok := doc.(*manifest.Job)
	if !ok {
		return agent.Job{}, &agent.EnvelopeError{Err: fmt.Errorf("it holds a %s, not a Job", doc.DocumentKind())}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.byID[env.ID()]; t != nil {
		return m.show(t), nil
	}
	if waiting := m.count(func(j *agent.Job) bool { return j.State.Waits() }); waiting >= m.o.Queue {
		return agent.Job{}, &agent.FullError{Max: m.o.Queue}
	}
	t := &task{doc: job, envelope: slices.Clone(envelope), job: agent.Job{
		ID: env.ID(), Name: job.Metadata.Name, Owner: job.Metadata.Owner, Runtime: string(job.Spec.Runtime), Priority: job.Spec.Priority,
		Submitted: m.o.Now(), By: by, Policy: m.o.Status.Policy.ID,
	}}
	for _, s := range env.Signatures {
		t.job.Signers = append(t.job.Signers, s.KeyID)
	}
	m.jobs = append(m.jobs, t)
	m.byID[t.job.ID] = t
	m.step(t, agent.Proposed, "handed in", by, "it waits to be judged")
	var reasons []agent.Reason
	if m.o.Judge != nil {
		reasons = m.o.Judge(job)
	}
	if len(reasons) > 0 {
		m.step(t, agent.Refused, "refused", "", reasons[0].Msg, reasons...)
	} else {
		m.step(t, agent.Verified, "accepted", "", "the policy allows it")
	}
	return m.show(t), nil
}

func (m *Memory) count(is func(*agent.Job) bool) int {
	n := 0
	for _, t := range m.jobs {
		if is(&t.job) {
			n++
		}
	}
	return n
}

// pick waits for a job to run.
func (m *Memory) pick(ctx context.Context) (*task, error) {
	var picked *task
	err := m.wait(ctx, func() bool {
		if m.drained != nil {
			return false
		}
		for _, t := range m.jobs {
			if t.job.State == agent.Verified {
				picked = t
				m.step(t, agent.Placed, "placed", "", "what it pins is fetched")
				return true
			}
		}
		return false
	})
	return picked, err
}

// execute runs a job from placed to its end.
func (m *Memory) execute(ctx context.Context, t *task) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m.mu.Lock()
	if t.job.State != agent.Placed { // it was cancelled meanwhile
		m.mu.Unlock()
		return
	}
	n := len(t.job.Attempts) + 1
	t.stop = stop
	t.job.Attempts = append(t.job.Attempts, agent.Attempt{Number: n, Name: fmt.Sprintf("memory-%d", n), Started: m.o.Now(), Driver: "memory"})
	logs := map[string]*bytes.Buffer{"stdout": {}, "stderr": {}}
	t.logs = append(t.logs, logs)
	m.step(t, agent.Running, "started", "", "it runs")
	m.mu.Unlock()

	res := m.o.Execute(ctx, t.doc, &logWriter{m, logs["stdout"]}, &logWriter{m, logs["stderr"]})

	m.mu.Lock()
	defer m.mu.Unlock()
	a := &t.job.Attempts[n-1]
	a.Finished, a.Exit, a.Gas, a.Anomalies = m.o.Now(), res.Exit, res.Gas, res.Anomalies
	a.WallMicros = a.Finished.Sub(a.Started).Microseconds()
	t.stop = nil
	switch {
	case t.job.State != agent.Running: // it was cancelled
		a.Reason = "cancelled"
		m.wake()
	case ctx.Err() != nil: // the node ends
		a.Reason = "stopped"
		m.wake()
	case res.Exit != 0:
		a.Reason = "exited"
		msg := fmt.Sprintf("it ended with status %d", res.Exit)
		m.step(t, agent.Failed, "failed", "", msg, agent.Reason{Msg: msg})
	default:
		a.Reason = "exited"
		m.validate(t, res)
	}
}

func (m *Memory) validate(t *task, res Result) {
	m.step(t, agent.Validating, "", "", "its outputs are compared")
	t.outputs = res.Outputs
	for name, nar := range res.Outputs {
		t.job.Outputs = append(t.job.Outputs, agent.Output{Name: name, NAR: digest.Of(nar), Size: int64(len(nar))})
	}
	slices.SortFunc(t.job.Outputs, func(a, b agent.Output) int { return strings.Compare(a.Name, b.Name) })
	if len(res.Anomalies) > 0 {
		m.step(t, agent.Quarantined, "held back", "", "an anomaly was seen", agent.Reason{Msg: res.Anomalies[0]})
		return
	}
	m.anchor(t, "result", "", "the result holds")
}

// anchor makes a result count. mu must be held.
func (m *Memory) anchor(t *task, verdict, by, summary string) {
	t.job.Result = digest.Of(fmt.Appendf(nil, "result of %s", t.job.ID))
	m.step(t, agent.Anchored, verdict, by, summary)
	m.step(t, agent.Archived, "kept", "", "everything is kept that replaying it needs")
}

// logWriter appends to a log and wakes those who follow it.
type logWriter struct {
	m *Memory
	b *bytes.Buffer
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.b.Write(p)
	w.m.wake()
	return len(p), nil
}

// Jobs implements agent.Node.
func (m *Memory) Jobs(_ context.Context, q agent.Query) ([]agent.Job, error) {
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	m.mu.Lock()
	defer m.mu.Unlock()
	jobs, i := []agent.Job{}, len(m.jobs)-1
	if !q.Before.IsZero() {
		at := slices.IndexFunc(m.jobs, func(t *task) bool { return t.job.ID == q.Before })
		if at < 0 {
			return nil, &agent.UnknownError{Ref: q.Before.String()}
		}
		i = at - 1
	}
	for ; i >= 0 && len(jobs) < limit; i-- {
		j := &m.jobs[i].job
		if len(q.States) > 0 && !slices.Contains(q.States, j.State) || q.Owner != "" && q.Owner != j.Owner || q.Name != "" && q.Name != j.Name {
			continue
		}
		jobs = append(jobs, m.show(m.jobs[i]))
	}
	return jobs, nil
}

// Job implements agent.Node.
func (m *Memory) Job(_ context.Context, ref string) (agent.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	prefix := strings.TrimPrefix(ref, "sha256:")
	var found []*task
	for _, t := range slices.Backward(m.jobs) {
		if t.job.Name == ref {
			return m.show(t), nil
		}
		if len(prefix) >= 6 && strings.HasPrefix(t.job.ID.Hex(), prefix) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return agent.Job{}, &agent.UnknownError{Ref: ref}
	case 1:
		return m.show(found[0]), nil
	}
	return agent.Job{}, &agent.UnknownError{Ref: ref, Many: len(found)}
}

// find returns the task of an id. mu must be held.
func (m *Memory) find(id digest.SHA256) (*task, error) {
	if t := m.byID[id]; t != nil {
		return t, nil
	}
	return nil, &agent.UnknownError{Ref: id.String()}
}

// Why implements agent.Node.
func (m *Memory) Why(_ context.Context, id digest.SHA256) ([]agent.Finding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return slices.Clone(t.findings), nil
}

// Envelope implements agent.Node.
func (m *Memory) Envelope(_ context.Context, id digest.SHA256) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return slices.Clone(t.envelope), nil
}

// Log implements agent.Node.
func (m *Memory) Log(ctx context.Context, id digest.SHA256, q agent.LogQuery) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if q.Stream != "stdout" && q.Stream != "stderr" {
		return nil, fmt.Errorf("read log of job %s: there is no stream %q", t.job.Name, q.Stream)
	}
	if q.Offset < 0 || q.Attempt < 0 {
		return nil, fmt.Errorf("read log of job %s: a number is below zero", t.job.Name)
	}
	if q.Attempt == 0 {
		q.Attempt = max(len(t.job.Attempts), 1)
	}
	if q.Attempt > len(t.job.Attempts) && (!q.Follow || t.job.State.Ended()) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	ctx, stop := context.WithCancel(ctx)
	return &logReader{ctx: ctx, stop: stop, m: m, t: t, q: q}, nil
}

type logReader struct {
	ctx  context.Context
	stop context.CancelFunc
	m    *Memory
	t    *task
	q    agent.LogQuery
}

func (r *logReader) Read(p []byte) (int, error) {
	n, ended := 0, false
	err := r.m.wait(r.ctx, func() bool {
		if r.q.Attempt > len(r.t.logs) {
			ended = !r.q.Follow || r.t.job.State.Ended()
			return ended
		}
		data := r.t.logs[r.q.Attempt-1][r.q.Stream].Bytes()
		if r.q.Offset < int64(len(data)) {
			n = copy(p, data[r.q.Offset:])
			r.q.Offset += int64(n)
			return true
		}
		ended = !r.q.Follow || !r.t.job.Attempts[r.q.Attempt-1].Finished.IsZero()
		return ended
	})
	if ended {
		return 0, io.EOF
	}
	return n, err
}

func (r *logReader) Close() error {
	r.stop()
	return nil
}

// OutputNAR implements agent.Node.
func (m *Memory) OutputNAR(_ context.Context, id digest.SHA256, name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if t.job.State != agent.Anchored && t.job.State != agent.Archived {
		return nil, fmt.Errorf("read output %q of job %s: it is %s, so it has no result that holds", name, t.job.Name, t.job.State)
	}
	nar, ok := t.outputs[name]
	if !ok {
		return nil, fmt.Errorf("read output %q of job %s: it has no such output", name, t.job.Name)
	}
	return io.NopCloser(bytes.NewReader(nar)), nil
}

// Act implements agent.Node.
func (m *Memory) Act(_ context.Context, act agent.Act) error {
	if act.Reason == "" {
		return errors.New("a reason is missing")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if act.Verb == agent.VerbDrain || act.Verb == agent.VerbResume {
		m.drained = nil
		if act.Verb == agent.VerbDrain {
			m.drained = &agent.Drain{By: act.By, Reason: act.Reason, At: m.o.Now().UTC()}
		}
		m.record(agent.Decision{Kind: agent.KindNode, Verdict: string(act.Verb), At: m.o.Now(), By: act.By, Summary: act.Reason})
		m.tell("node", nil, fmt.Sprintf("%s: %s", act.Verb, act.Reason))
		return nil
	}
	t, err := m.find(act.Job)
	if err != nil {
		return err
	}
	to := map[agent.Verb]agent.State{agent.VerbCancel: agent.Cancelled, agent.VerbRelease: agent.Anchored, agent.VerbDiscard: agent.Discarded}[act.Verb]
	if _, err := agent.Step(t.job.State, to); err != nil || act.Verb == agent.VerbRelease && t.job.State != agent.Quarantined {
		return &agent.StepError{From: t.job.State, To: to}
	}
	switch act.Verb {
	case agent.VerbRelease:
		m.anchor(t, "released", act.By, act.Reason)
	case agent.VerbDiscard:
		m.step(t, agent.Discarded, "dropped", act.By, act.Reason)
	case agent.VerbCancel:
		m.step(t, agent.Cancelled, "cancelled", act.By, act.Reason)
		if t.stop != nil {
			t.stop()
		}
	}
	return nil
}

// Direct implements agent.Node.
func (m *Memory) Direct(ctx context.Context, envelope []byte, by string) error {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return &agent.EnvelopeError{Err: err}
	}
	doc, err := manifest.Payload(env)
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		return &agent.EnvelopeError{Err: err}
	}
	d, ok := doc.(*manifest.Directive)
	if !ok {
		return &agent.EnvelopeError{Err: fmt.Errorf("it holds a %s, not a Directive", doc.DocumentKind())}
	}
	if m.o.Director == nil || !m.o.Director(env) {
		return &agent.DeniedError{By: by, Verb: d.Spec.Action, Cure: "sign the directive with a key that may"}
	}
	act := agent.Act{Verb: agent.Verb(d.Spec.Action), By: by, Reason: d.Spec.Reason}
	if d.Spec.Target != "" && act.Verb != agent.VerbDrain && act.Verb != agent.VerbResume {
		if err := act.Job.UnmarshalText([]byte(d.Spec.Target)); err != nil {
			return &agent.EnvelopeError{Err: err}
		}
	}
	return m.Act(ctx, act)
}

// Events implements agent.Node.
func (m *Memory) Events(ctx context.Context, after int64) iter.Seq2[agent.Event, error] {
	return func(yield func(agent.Event, error) bool) {
		at := after
		if after < 0 {
			m.mu.Lock()
			at = m.next - 1
			m.mu.Unlock()
		}
		for {
			var e agent.Event
			var lagged *agent.LaggedError
			err := m.wait(ctx, func() bool {
				oldest := m.next - int64(len(m.events))
				switch {
				case at+1 < oldest, at >= m.next: // it is gone, or from another life of this node
					lagged = &agent.LaggedError{Next: oldest}
					return true
				case at+1 < m.next:
					e = m.events[at+1-oldest]
					return true
				}
				return false
			})
			if err != nil {
				return
			}
			if lagged != nil {
				yield(agent.Event{}, lagged)
				return
			}
			if !yield(e, nil) {
				return
			}
			at = e.Number
		}
	}
}

// Status implements agent.Node.
func (m *Memory) Status(context.Context) (agent.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.o.Status
	s.Draining, s.Drain, s.Slots, s.Jobs = m.drained != nil, m.drained, m.o.Slots, map[agent.State]int{}
	if m.o.Recorder == nil {
		s.Ledger.Size = m.entries
	}
	for _, t := range m.jobs {
		s.Jobs[t.job.State]++
	}
	return s, nil
}
