package nodetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// Subject is a node under test, and what the suite must know of it.
type Subject struct {
	Node agent.Node // runs jobs by itself, and knows none yet
	By   string     // who hands in and acts; an operator
	// Envelope returns the envelope of a job that the node admits and that does what does says. Two calls return different documents.
	Envelope func(t *testing.T, name string, does Does) []byte
}

// patience is how long the suite waits for what must happen; it says nothing of how fast a node is.
const patience = time.Minute

// Test checks what agent.Node promises. open returns a new node, which lives until the test ends.
func Test(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"submit is idempotent":     testSubmit,
		"submit refuses":           testSubmitRefuses,
		"a job's life":             testLife,
		"a failure":                testFailure,
		"jobs come in pages":       testPages,
		"jobs are found":           testFind,
		"a log is read":            testLog,
		"a log is followed":        testFollow,
		"events are complete":      testEvents,
		"events of now":            testEventsNow,
		"cancel":                   testCancel,
		"acts are refused":         testActs,
		"drain and resume":         testDrain,
		"directives of strangers":  testDirect,
		"unknown jobs are unknown": testUnknown,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func (s Subject) submit(t *testing.T, name string, does Does) agent.Job {
	t.Helper()
	job, err := s.Node.Submit(t.Context(), s.Envelope(t, name, does), s.By)
	if err != nil {
		t.Fatalf("submit %s: %v", name, err)
	}
	return job
}

// Until waits until a job is as is says, by the node's events.
func (s Subject) Until(t *testing.T, id digest.SHA256, is func(agent.Job) bool) agent.Job {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for e, err := range s.Node.Events(ctx, 0) {
		if err != nil {
			t.Fatalf("events: %v", err)
		}
		if e.Job == nil || e.Job.ID != id {
			continue
		}
		job, err := s.Node.Job(ctx, id.String())
		if err != nil {
			t.Fatalf("job %s: %v", id, err)
		}
		if is(job) {
			return job
		}
	}
	job, err := s.Node.Job(t.Context(), id.String())
	t.Fatalf("job %s did not become what it had to: it is %+v (%v)", id, job, err)
	return agent.Job{}
}

func in(states ...agent.State) func(agent.Job) bool {
	return func(j agent.Job) bool { return slices.Contains(states, j.State) }
}

func ended(j agent.Job) bool { return j.State.Ended() }

func testSubmit(t *testing.T, s Subject) {
	envelope := s.Envelope(t, "once", Does{})
	first, err := s.Node.Submit(t.Context(), envelope, s.By)
	if err != nil {
		t.Fatal(err)
	}
	if first.Name != "once" || first.ID.IsZero() || first.Submitted.IsZero() || first.By == "" {
		t.Errorf("it tells %+v of the job", first)
	}
	s.Until(t, first.ID, ended)
	again, err := s.Node.Submit(t.Context(), envelope, s.By)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != first.ID || !again.Submitted.Equal(first.Submitted) || !again.State.Ended() {
		t.Errorf("again: %+v, first: %+v", again, first)
	}
	if jobs, err := s.Node.Jobs(t.Context(), agent.Query{}); err != nil || len(jobs) != 1 {
		t.Errorf("there are %d jobs (%v)", len(jobs), err)
	}
	got, err := s.Node.Envelope(t.Context(), first.ID)
	if err != nil || string(got) != string(envelope) {
		t.Errorf("the envelope came back as %q (%v)", got, err)
	}
}

func testSubmitRefuses(t *testing.T, s Subject) {
	for name, envelope := range map[string][]byte{
		"nothing": nil, "no JSON": []byte("\x00"), "no envelope": []byte("{}"), "no document": []byte(`{"payloadType":"x","payload":"eA==","signatures":[]}`),
		"another kind": Directive(t, "drain", digest.SHA256{}, "it is no job"),
	} {
		_, err := s.Node.Submit(t.Context(), envelope, s.By)
		if _, ok := errors.AsType[*agent.EnvelopeError](err); !ok {
			t.Errorf("%s: %v, want an EnvelopeError", name, err)
		}
	}
	if jobs, err := s.Node.Jobs(t.Context(), agent.Query{}); err != nil || len(jobs) != 0 {
		t.Errorf("%d jobs were kept (%v)", len(jobs), err)
	}
}

func testLife(t *testing.T, s Subject) {
	job := s.Until(t, s.submit(t, "alive", Does{Print: "hello\n"}).ID, ended)
	if job.State != agent.Archived || job.Result.IsZero() {
		t.Fatalf("it ended as %s, result %s: %s %v", job.State, job.Result, job.Summary, job.Reasons)
	}
	from := agent.State("")
	for _, p := range job.Steps {
		step, err := agent.Step(from, p.State)
		if err != nil {
			t.Error(err)
		}
		if (step.Entry != "") != (p.Entry != nil) {
			t.Errorf("%s: its entry in the ledger is %+v, want one of kind %q", p.State, p.Entry, step.Entry)
		}
		from = p.State
	}
	if len(job.Attempts) != 1 || job.Attempts[0].Number != 1 || job.Attempts[0].Finished.IsZero() || job.Attempts[0].Exit != 0 {
		t.Errorf("attempts: %+v", job.Attempts)
	}
	findings, err := s.Node.Why(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	kinds := []agent.Kind{}
	for _, f := range findings {
		kinds = append(kinds, f.Kind)
		if f.Summary == "" {
			t.Errorf("%s says nothing that a person could read", f.Kind)
		}
	}
	for _, k := range []agent.Kind{agent.KindProposal, agent.KindAdmission, agent.KindStart, agent.KindResult} {
		if !slices.Contains(kinds, k) {
			t.Errorf("why does not tell of the %s: %v", k, kinds)
		}
	}
	status, err := s.Node.Status(t.Context())
	if err != nil || status.Jobs[agent.Archived] != 1 {
		t.Errorf("status: %+v (%v)", status, err)
	}
	for _, o := range job.Outputs {
		r, err := s.Node.OutputNAR(t.Context(), job.ID, o.Name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || digest.Of(data) != o.NAR || int64(len(data)) != o.Size {
			t.Errorf("output %s: %d bytes of hash %s (%v), want %+v", o.Name, len(data), digest.Of(data), err, o)
		}
	}
	if _, err := s.Node.OutputNAR(t.Context(), job.ID, "no-such-output"); err == nil {
		t.Error("it has an output that it has not")
	}
}

func testFailure(t *testing.T, s Subject) {
	job := s.Until(t, s.submit(t, "fails", Does{Exit: 3}).ID, ended)
	if job.State != agent.Failed || len(job.Reasons) == 0 || job.Attempts[len(job.Attempts)-1].Exit != 3 {
		t.Errorf("it ended as %+v", job)
	}
}

func testPages(t *testing.T, s Subject) {
	var ids []digest.SHA256
	for range 5 {
		ids = append(ids, s.submit(t, "page", Does{}).ID)
	}
	other := s.submit(t, "other", Does{}).ID
	slices.Reverse(ids) // newest first
	var got []digest.SHA256
	q := agent.Query{Name: "page", Limit: 2}
	for range 4 {
		jobs, err := s.Node.Jobs(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(jobs) > 2 {
			t.Fatalf("a page of %d jobs, want at most 2", len(jobs))
		}
		for _, j := range jobs {
			got = append(got, j.ID)
		}
		if len(jobs) == 0 {
			break
		}
		q.Before = jobs[len(jobs)-1].ID
	}
	if !slices.Equal(got, ids) {
		t.Errorf("pages hold %v, want %v", got, ids)
	}
	s.Until(t, other, ended)
	if jobs, err := s.Node.Jobs(t.Context(), agent.Query{States: []agent.State{agent.Archived}, Owner: "nobody:here"}); err != nil || len(jobs) != 0 {
		t.Errorf("jobs of nobody: %v (%v)", jobs, err)
	}
	if jobs, err := s.Node.Jobs(t.Context(), agent.Query{States: []agent.State{agent.Archived}, Name: "other"}); err != nil || len(jobs) != 1 || jobs[0].ID != other {
		t.Errorf("archived jobs called other: %v (%v)", jobs, err)
	}
}

func testFind(t *testing.T, s Subject) {
	first := s.submit(t, "twin", Does{})
	second := s.submit(t, "twin", Does{})
	for ref, want := range map[string]digest.SHA256{
		first.ID.String(): first.ID, first.ID.Hex(): first.ID, second.ID.Hex()[:12]: second.ID, "twin": second.ID,
	} {
		if job, err := s.Node.Job(t.Context(), ref); err != nil || job.ID != want {
			t.Errorf("job %q is %s (%v), want %s", ref, job.ID, err, want)
		}
	}
	for _, ref := range []string{"", "nobody", first.ID.Hex()[:5], strings.Repeat("0", 64), "../twin", "sha256:"} {
		if _, err := s.Node.Job(t.Context(), ref); !isUnknown(err) {
			t.Errorf("job %q: %v, want an UnknownError", ref, err)
		}
	}
}

func isUnknown(err error) bool {
	_, ok := errors.AsType[*agent.UnknownError](err)
	return ok
}

func testLog(t *testing.T, s Subject) {
	job := s.Until(t, s.submit(t, "prints", Does{Print: "0123456789\n"}).ID, ended)
	for _, c := range []struct {
		q    agent.LogQuery
		want string
	}{
		{agent.LogQuery{Stream: "stdout"}, "0123456789\n"},
		{agent.LogQuery{Stream: "stdout", Attempt: 1, Offset: 8}, "89\n"},
		{agent.LogQuery{Stream: "stdout", Follow: true}, "0123456789\n"},
		{agent.LogQuery{Stream: "stdout", Offset: 11}, ""},
		{agent.LogQuery{Stream: "stdout", Offset: 1 << 40, Follow: true}, ""},
		{agent.LogQuery{Stream: "stderr"}, ""},
	} {
		r, err := s.Node.Log(t.Context(), job.ID, c.q)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(data) != c.want {
			t.Errorf("%+v: %q (%v), want %q", c.q, data, err, c.want)
		}
	}
	for _, q := range []agent.LogQuery{{Stream: "stdin"}, {}, {Stream: "stdout", Offset: -1}} {
		if r, err := s.Node.Log(t.Context(), job.ID, q); err == nil {
			r.Close()
			t.Errorf("%+v is no error", q)
		}
	}
}

func testFollow(t *testing.T, s Subject) {
	job := s.submit(t, "hangs", Does{Print: "first line\n", Hang: true})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	r, err := s.Node.Log(ctx, job.ID, agent.LogQuery{Stream: "stdout", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	line := make([]byte, len("first line\n"))
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "first line\n" {
		t.Fatalf("the log of a job that goes on: %q (%v)", line, err)
	}
	if err := s.Node.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: job.ID, By: s.By, Reason: "it was read"}); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("the log went on with %q (%v)", rest, err)
	}
}

func testEvents(t *testing.T, s Subject) {
	job := s.submit(t, "seen", Does{})
	s.Until(t, job.ID, ended)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var states []agent.State
	number := int64(0)
	for e, err := range s.Node.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Number != number+1 || e.At.IsZero() || e.Text == "" {
			t.Fatalf("after event %d comes %+v", number, e)
		}
		number = e.Number
		if e.Job != nil && e.Job.ID == job.ID {
			states = append(states, e.Job.State)
			if e.Job.Steps != nil {
				t.Error("an event carries the steps of its job")
			}
			if e.Job.State.Ended() {
				break
			}
		}
	}
	job, err := s.Node.Job(ctx, job.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	told := states
	for _, step := range job.Steps { // in their order, but several that were taken at once are one event
		if len(told) > 0 && told[0] == step.State {
			told = told[1:]
		}
	}
	if len(told) > 0 || states[len(states)-1] != agent.Archived {
		t.Errorf("the events told %v", states)
	}
	for e, err := range s.Node.Events(ctx, number-2) { // it goes on where it was left
		if err != nil || e.Number != number-1 {
			t.Errorf("after event %d comes %d (%v)", number-2, e.Number, err)
		}
		break
	}
	soon, cancel := context.WithCancel(t.Context())
	cancel()
	for e := range s.Node.Events(soon, number) {
		t.Errorf("an ended reader got %+v", e)
	}
}

func testEventsNow(t *testing.T, s Subject) {
	old := s.submit(t, "old", Does{})
	s.Until(t, old.ID, ended)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	got := make(chan agent.Event)
	go func() {
		defer close(got)
		for e, err := range s.Node.Events(ctx, -1) {
			if err != nil {
				return
			}
			select {
			case got <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	// The reader may start before or after this; jobs are handed in until it has seen one.
	for range 1000 {
		s.submit(t, "new", Does{})
		select {
		case e, ok := <-got:
			if !ok || e.Job != nil && e.Job.ID == old.ID {
				t.Errorf("a reader of what happens from now on got %+v", e)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Error("a reader of what happens from now on saw nothing")
}

func testCancel(t *testing.T, s Subject) {
	job := s.submit(t, "hangs", Does{Hang: true})
	s.Until(t, job.ID, in(agent.Running))
	if err := s.Node.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: job.ID, By: s.By, Reason: "no longer needed"}); err != nil {
		t.Fatal(err)
	}
	job = s.Until(t, job.ID, ended)
	if job.State != agent.Cancelled {
		t.Errorf("it is %s", job.State)
	}
	findings, err := s.Node.Why(t.Context(), job.ID)
	if err != nil || !slices.ContainsFunc(findings, func(f agent.Finding) bool { return f.Kind == agent.KindCancellation && f.Entry != nil }) {
		t.Errorf("why does not tell who cancelled it: %+v (%v)", findings, err)
	}
}

func testActs(t *testing.T, s Subject) {
	job := s.Until(t, s.submit(t, "done", Does{}).ID, ended)
	for _, v := range []agent.Verb{agent.VerbCancel, agent.VerbRelease, agent.VerbDiscard} {
		err := s.Node.Act(t.Context(), agent.Act{Verb: v, Job: job.ID, By: s.By, Reason: "it is tried"})
		if _, ok := errors.AsType[*agent.StepError](err); !ok {
			t.Errorf("%s of a job that is %s: %v, want a StepError", v, job.State, err)
		}
		if err := s.Node.Act(t.Context(), agent.Act{Verb: v, Job: digest.Of([]byte("x")), By: s.By, Reason: "it is tried"}); !isUnknown(err) {
			t.Errorf("%s of an unknown job: %v, want an UnknownError", v, err)
		}
	}
	if err := s.Node.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, By: s.By}); err == nil {
		t.Error("an act without a reason is no error")
	}
}

func testDrain(t *testing.T, s Subject) {
	if err := s.Node.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, By: s.By, Reason: "the kernel is replaced"}); err != nil {
		t.Fatal(err)
	}
	job := s.submit(t, "waits", Does{})
	status, err := s.Node.Status(t.Context())
	if err != nil || !status.Draining || status.Drain == nil || status.Drain.By != s.By || status.Drain.Reason != "the kernel is replaced" || status.Drain.At.IsZero() {
		t.Fatalf("it does not say that it drains, for whom and why: %+v (%v)", status, err)
	}
	job = s.Until(t, job.ID, in(agent.Verified))
	if job.Position != 1 {
		t.Errorf("its place in the queue is %d", job.Position)
	}
	if err := s.Node.Act(t.Context(), agent.Act{Verb: agent.VerbResume, By: s.By, Reason: "the kernel was replaced"}); err != nil {
		t.Fatal(err)
	}
	if job = s.Until(t, job.ID, ended); job.State != agent.Archived {
		t.Errorf("it ended as %s", job.State)
	}
}

func testDirect(t *testing.T, s Subject) {
	err := s.Node.Direct(t.Context(), []byte("{}"), s.By)
	if _, ok := errors.AsType[*agent.EnvelopeError](err); !ok {
		t.Errorf("no envelope: %v, want an EnvelopeError", err)
	}
	err = s.Node.Direct(t.Context(), Directive(t, "drain", digest.SHA256{}, "a stranger wants it"), s.By)
	if _, ok := errors.AsType[*agent.DeniedError](err); !ok {
		t.Errorf("a directive of a stranger: %v, want a DeniedError", err)
	}
	if status, err := s.Node.Status(t.Context()); err != nil || status.Draining {
		t.Errorf("it was followed: %+v (%v)", status, err)
	}
}

func testUnknown(t *testing.T, s Subject) {
	id := digest.Of([]byte("no such job"))
	_, why := s.Node.Why(t.Context(), id)
	_, envelope := s.Node.Envelope(t.Context(), id)
	_, log := s.Node.Log(t.Context(), id, agent.LogQuery{Stream: "stdout"})
	_, output := s.Node.OutputNAR(t.Context(), id, "out")
	for name, err := range map[string]error{"why": why, "envelope": envelope, "log": log, "output": output} {
		if !isUnknown(err) {
			t.Errorf("%s: %v, want an UnknownError", name, err)
		}
	}
}
