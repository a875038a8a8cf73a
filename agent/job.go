package agent

import (
	"time"

	"arch.network/attest/digest"
)

// Job is what a node tells of a job.
type Job struct {
	ID       digest.SHA256 `json:"id"` // document id
	Name     string        `json:"name"`
	Owner    string        `json:"owner,omitempty"`
	Runtime  string        `json:"runtime,omitempty"`
	Priority int           `json:"priority,omitempty"`

	State     State     `json:"state"`
	Since     time.Time `json:"since"`              // of the state
	Submitted time.Time `json:"submitted"`          // when it was first handed in
	By        string    `json:"by"`                 // who handed it in: an identity, or "uid:N"
	Position  int       `json:"position,omitempty"` // in the queue, from 1; zero: it does not wait
	Fetching  *Fetching `json:"fetching,omitempty"` // what is on its way here for it; nil: nothing

	Signers []string      `json:"signers,omitempty"` // principals whose signatures count
	Policy  digest.SHA256 `json:"policy,omitzero"`   // document id of the policy that judged it
	Reasons []Reason      `json:"reasons,omitempty"` // why it was refused, failed or quarantined
	Summary string        `json:"summary"`           // what became of it so far, in one sentence

	Attempts []Attempt     `json:"attempts,omitempty"` // executions, in the order of their starts
	Outputs  []Output      `json:"outputs,omitempty"`  // of the result that holds, or is held back
	Result   digest.SHA256 `json:"result,omitzero"`    // id of the job-result statement
	Steps    []Passed      `json:"steps,omitempty"`    // its life so far
}

// Fetching is how far the transfer of something that a job pins has come.
type Fetching struct {
	What  string `json:"what"`  // the reference, or the URL without its secrets
	Bytes int64  `json:"bytes"` // so far
	Total int64  `json:"total"` // bytes; zero: nobody has said
}

// Passed is one step that a job has passed.
type Passed struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Entry *Entry    `json:"entry,omitempty"` // in the ledger; nil: the step has none
}

// Attempt is one execution of a job.
type Attempt struct {
	Number   int           `json:"number"`         // from 1
	Name     string        `json:"name,omitempty"` // of the execution on this host, such as its unit's
	Started  time.Time     `json:"started"`
	Finished time.Time     `json:"finished,omitzero"`
	Reason   string        `json:"reason,omitempty"` // runner.Reason; empty: it goes on, or nobody knows how it ended
	Exit     int           `json:"exit"`
	Signal   string        `json:"signal,omitempty"`
	Detail   string        `json:"detail,omitempty"`
	Run      digest.SHA256 `json:"run,omitzero"` // id of the job-run statement

	Gas        uint64   `json:"gas,omitempty"`
	CPUMicros  int64    `json:"cpuMicros,omitempty"`
	WallMicros int64    `json:"wallMicros,omitempty"`
	MemoryPeak int64    `json:"memoryPeak,omitempty"` // bytes
	Joules     float64  `json:"joules,omitempty"`
	Driver     string   `json:"driver,omitempty"`
	Missing    []string `json:"missing,omitempty"`   // guarantees that were not enforced
	Anomalies  []string `json:"anomalies,omitempty"` // each "kind: evidence"
}

// Output is one output of a job.
type Output struct {
	Name string        `json:"name"`
	NAR  digest.SHA256 `json:"nar"`
	File digest.SHA256 `json:"file,omitzero"` // sha256 of the file; zero: it is no single file
	Size int64         `json:"size"`          // bytes of the NAR
}

// Event is something that happened on a node.
type Event struct {
	Number int64     `json:"number"` // counts up without gaps while the node's state lives
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`          // "job", "policy", "node"
	Job    *Job      `json:"job,omitempty"` // as it is after the event, without Steps
	Text   string    `json:"text"`          // one sentence
}
