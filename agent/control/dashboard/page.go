package dashboard

import (
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

type nodePage struct{ Active, Waiting, Recent []agent.Job }

func (d *Dashboard) node(r *http.Request) (any, error) {
	var p nodePage
	for _, part := range []struct {
		into   *[]agent.Job
		states []agent.State
		limit  int
	}{
		{&p.Active, []agent.State{agent.Placed, agent.Running, agent.Validating}, 50},
		{&p.Waiting, []agent.State{agent.Proposed, agent.Verified}, 50},
		{&p.Recent, []agent.State{agent.Archived, agent.Anchored, agent.Refused, agent.Failed, agent.Cancelled, agent.Quarantined, agent.Discarded}, 10},
	} {
		jobs, err := d.o.Node.Jobs(r.Context(), agent.Query{States: part.states, Limit: part.limit})
		if err != nil {
			return nil, err
		}
		*part.into = jobs
	}
	slices.SortStableFunc(p.Waiting, func(a, b agent.Job) int { return a.Position - b.Position })
	return p, nil
}

type jobsPage struct {
	Jobs              []agent.Job
	State, Owner, Job string
	Next              digest.SHA256
}

// pageOfJobs is how many jobs a page lists.
const pageOfJobs = 50

func (d *Dashboard) jobs(r *http.Request) (any, error) {
	v := r.URL.Query()
	p := jobsPage{State: v.Get("state"), Owner: v.Get("owner"), Job: v.Get("name")}
	q := agent.Query{Owner: p.Owner, Name: p.Job, Limit: pageOfJobs}
	if p.State != "" {
		if !slices.Contains(agent.States(), agent.State(p.State)) {
			return nil, &wrongError{"There is no such state."}
		}
		q.States = []agent.State{agent.State(p.State)}
	}
	if before := v.Get("before"); before != "" {
		var err error
		if q.Before, err = digest.Parse(before); err != nil {
			return nil, &wrongError{"That is no job id."}
		}
	}
	var err error
	if p.Jobs, err = d.o.Node.Jobs(r.Context(), q); err != nil {
		return nil, err
	}
	if len(p.Jobs) == pageOfJobs {
		p.Next = p.Jobs[pageOfJobs-1].ID
	}
	return p, nil
}

type jobPage struct {
	agent.Job
	Findings []agent.Finding
	Passed   []passed
	Diagram  template.HTML
	Document string
	Most     agent.Attempt // the largest figures of all executions
}

// passed is a step, and how long the job stayed there.
type passed struct {
	agent.Passed
	Took time.Duration
	Last bool
}

func (d *Dashboard) job(r *http.Request) (any, error) {
	job, err := d.o.Node.Job(r.Context(), r.PathValue("job"))
	if err != nil {
		return nil, err
	}
	p := jobPage{Job: job, Diagram: Diagram(job.Steps, job.State)}
	if p.Findings, err = d.o.Node.Why(r.Context(), job.ID); err != nil {
		return nil, err
	}
	for i, s := range job.Steps {
		step := passed{Passed: s, Last: i == len(job.Steps)-1}
		if !step.Last {
			step.Took = job.Steps[i+1].At.Sub(s.At)
		}
		p.Passed = append(p.Passed, step)
	}
	for _, a := range job.Attempts {
		p.Most.CPUMicros, p.Most.WallMicros = max(p.Most.CPUMicros, a.CPUMicros), max(p.Most.WallMicros, a.WallMicros)
		p.Most.MemoryPeak = max(p.Most.MemoryPeak, a.MemoryPeak)
	}
	envelope, err := d.o.Node.Envelope(r.Context(), job.ID)
	if err != nil {
		return nil, err
	}
	p.Document = documentText(envelope)
	return p, nil
}

// documentText writes the document of an envelope as YAML; of what is none, nothing.
func documentText(envelope []byte) string {
	env, err := dsse.Parse(envelope)
	if err != nil {
		return ""
	}
	doc, err := manifest.Payload(env)
	if err != nil {
		return ""
	}
	text, err := manifest.WriteYAML(doc)
	if err != nil {
		return ""
	}
	return string(text)
}

func (d *Dashboard) quarantine(r *http.Request) (any, error) {
	return d.o.Node.Jobs(r.Context(), agent.Query{States: []agent.State{agent.Quarantined}, Limit: 200})
}

type policyPage struct {
	Shown    bool
	Document string
}

func (d *Dashboard) policy(r *http.Request) (any, error) {
	if d.o.Policy == nil {
		return policyPage{}, nil
	}
	envelope, err := d.o.Policy(r.Context())
	if errors.Is(err, fs.ErrNotExist) {
		return policyPage{Shown: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return policyPage{true, documentText(envelope)}, nil
}

type lifePage struct {
	Diagram     template.HTML
	Transitions []agent.Transition
}

func (d *Dashboard) life(*http.Request) (any, error) {
	return lifePage{Diagram(nil, ""), agent.Life()}, nil
}

// number reads a number as it is written.
func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}
