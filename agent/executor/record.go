package executor

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"arch.network/agent"
	"arch.network/attest"
	"arch.network/attest/digest"
)

// record is everything that the node remembers of a job, but its envelope, its statements and what it printed. A record is never
// changed once it was written: a step makes a copy.
type record struct {
	Number   uint64          `json:"number"`
	Job      agent.Job       `json:"job"`
	Findings []agent.Finding `json:"findings,omitempty"`

	Weight int             `json:"weight,omitempty"` // of the owner
	Need   agent.Resources `json:"need,omitzero"`
	Until  time.Time       `json:"until,omitzero"` // when the admission must be made again

	Resolved []attest.ResourceDescriptor `json:"resolved,omitempty"` // what was fetched
	Sources  map[string][]digest.SHA256  `json:"sources,omitempty"`  // objects of the store that each reference became
	Content  []digest.SHA256             `json:"content,omitempty"`  // objects of the store that are kept for it

	// Executions are those of the result that is being made, which ended with status 0.
	Executions []executed `json:"executions,omitempty"`
	// Cancel is the wish to end it, once that is in the ledger; it is obeyed as soon as nothing of the job runs.
	Cancel *cancellation `json:"cancel,omitempty"`
	// Kept is until when its archive entry is kept. Zero: for ever, or there is none.
	Kept time.Time `json:"kept,omitzero"`
	// Gone says what was removed when its time was over.
	Gone []string `json:"gone,omitempty"`
}

// executed is an execution whose result may count.
type executed struct {
	Attempt   int                `json:"attempt"`
	Outputs   []attest.JobOutput `json:"outputs,omitempty"`
	Sizes     map[string]int64   `json:"sizes,omitempty"` // bytes of the outputs' NARs
	Stdout    digest.SHA256      `json:"stdout,omitzero"`
	Printed   int64              `json:"printed,omitempty"` // bytes of stdout
	Stderr    digest.SHA256      `json:"stderr,omitzero"`
	Gas       uint64             `json:"gas,omitempty"`
	Schedule  string             `json:"schedule,omitempty"`
	Anomalies []string           `json:"anomalies,omitempty"`
	Missing   []string           `json:"missing,omitempty"`
	Differs   []differs          `json:"differs,omitempty"`
	Run       digest.SHA256      `json:"run"`             // id of its job-run statement
	Result    digest.SHA256      `json:"result,omitzero"` // id of its job-result statement, which is signed when it counts

	statement *attest.Statement // that statement, if this process executed it
}

type differs struct {
	Output string        `json:"output"`
	Want   digest.SHA256 `json:"want"`
	Got    digest.SHA256 `json:"got"`
}

type cancellation struct {
	By     string      `json:"by"`
	Reason string      `json:"reason"`
	Entry  agent.Entry `json:"entry"`
}

// copy is one that can be changed without changing r: its lists have no room to grow into r's.
func (r *record) copy() *record {
	c := *r
	c.Job.Steps, c.Job.Attempts, c.Job.Outputs = slices.Clone(r.Job.Steps), slices.Clone(r.Job.Attempts), slices.Clone(r.Job.Outputs)
	c.Findings, c.Executions, c.Content = slices.Clone(r.Findings), slices.Clone(r.Executions), slices.Clone(r.Content)
	c.Gone = slices.Clone(r.Gone)
	return &c
}

// attempt is the last one; nil: there is none.
func (r *record) attempt() *agent.Attempt {
	if len(r.Job.Attempts) == 0 {
		return nil
	}
	return &r.Job.Attempts[len(r.Job.Attempts)-1]
}

// unfinished counts the executions that nobody knows the end of, or that could not be made.
func (r *record) unfinished() int {
	n := 0
	for _, a := range r.Job.Attempts {
		if a.Reason == "" && !a.Finished.IsZero() {
			n++
		}
	}
	return n
}

// findings bounds what is kept of them; the ledger has all.
const findings = 256

// find notes a finding.
func (r *record) find(f agent.Finding) {
	r.Findings = append(r.Findings, f)
	if n := len(r.Findings) - findings; n > 0 {
		r.Findings = slices.Delete(r.Findings, 1, 1+n) // the proposal stays
	}
}

func (r *record) encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record of job %s: %w", r.Job.ID, err)
	}
	return data, nil
}

func decodeRecord(data []byte) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// load reads the record of a job; nil: there is none.
func (d *database) load(number uint64) (*record, error) {
	data, err := d.get(bucketJobs, numberKey(number))
	if err != nil || data == nil {
		return nil, err
	}
	return decodeRecord(data)
}
