package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"arch.network/attest/digest"
)

// Node is what can be asked of a node. All methods may be called by several goroutines at once.
type Node interface {
	// Submit hands in the DSSE envelope of a Job. by says who did. It returns when the proposal is durable; submitting the same
	// document again returns the same job, whatever became of it. The error is a *FullError if the queue has no room, an *EnvelopeError
	// if it is no envelope of a valid Job: then nothing was kept.
	Submit(ctx context.Context, envelope []byte, by string) (Job, error)

	// Jobs returns jobs, newest first.
	Jobs(ctx context.Context, q Query) ([]Job, error)
	// Job finds a job by its id, a prefix of it of at least 6 digits that only it has, or its name if it is the newest of that name.
	// The error is a *UnknownError if there is none, and a *ForgottenError if it was forgotten, here and wherever a job is named.
	Job(ctx context.Context, ref string) (Job, error)
	// Why tells every check and decision about a job, in order.
	Why(ctx context.Context, id digest.SHA256) ([]Finding, error)
	// Envelope returns the envelope that was handed in.
	Envelope(ctx context.Context, id digest.SHA256) ([]byte, error)
	// Log returns what an execution printed: of attempt (zero: the last), stream "stdout" or "stderr", from a byte offset on. With
	// follow it waits for the execution to start, and goes on until it has ended.
	Log(ctx context.Context, id digest.SHA256, q LogQuery) (io.ReadCloser, error)
	// OutputNAR returns an output of a result that holds, as a NAR.
	OutputNAR(ctx context.Context, id digest.SHA256, name string) (io.ReadCloser, error)

	// Act does what an operator of this machine wants: somebody who came through the local socket and may. The act is in the ledger
	// before it has an effect.
	Act(ctx context.Context, act Act) error
	// Direct does what a signed Directive says, if those who signed it may.
	Direct(ctx context.Context, envelope []byte, by string) error

	// Events returns what happened after the event of that number, and then what happens, until ctx ends; below zero: only what
	// happens from now on. Steps that a job takes at once are one event, which tells of the last of them. A reader that is too slow gets a *LaggedError: it may ask again, and misses what is no longer kept.
	Events(ctx context.Context, after int64) iter.Seq2[Event, error]

	Status(ctx context.Context) (Status, error)
}

// Query chooses jobs. The zero value: all.
type Query struct {
	States []State
	Owner  string
	Name   string
	Limit  int           // zero: 100; at most 1000
	Before digest.SHA256 // only those submitted before this one, to page
}

// LogQuery chooses what is read of a job's log.
type LogQuery struct {
	Attempt int    // zero: the last
	Stream  string // "stdout" or "stderr"
	Offset  int64  // bytes
	Follow  bool
}

// Finding is one check or decision about a job.
type Finding struct {
	At      time.Time `json:"at"`
	Kind    Kind      `json:"kind"`
	Verdict string    `json:"verdict"`
	Summary string    `json:"summary"`
	Reasons []Reason  `json:"reasons,omitempty"`
	Entry   *Entry    `json:"entry,omitempty"`
}

// Verb is what an act does.
type Verb string

// The acts.
const (
	VerbCancel  Verb = "cancel"  // end a job
	VerbRelease Verb = "release" // let a quarantined result count
	VerbDiscard Verb = "discard" // drop a quarantined result
	VerbDrain   Verb = "drain"   // start nothing new
	VerbResume  Verb = "resume"  // start again
)

// Act is something an operator wants done.
type Act struct {
	Verb   Verb          `json:"verb"`
	Job    digest.SHA256 `json:"job,omitzero"` // zero for drain and resume
	By     string        `json:"by"`           // "uid:N", or the identities that signed a directive
	Reason string        `json:"reason"`       // one sentence; required
}

// Status is what a node tells of itself.
type Status struct {
	Node     string        `json:"node"`    // its identity
	Version  string        `json:"version"` // of the program
	Started  time.Time     `json:"started"`
	Draining bool          `json:"draining"`        // nothing new is started
	Drain    *Drain        `json:"drain,omitempty"` // who wanted that; nil: nobody, it does not drain or is about to end
	Policy   PolicyStatus  `json:"policy"`
	Ledger   LedgerStatus  `json:"ledger"`
	Jobs     map[State]int `json:"jobs"`  // how many are in each state
	Slots    int           `json:"slots"` // executions at one time, as far as their resources fit

	Capacity  Resources `json:"capacity"`  // what jobs may use together
	Committed Resources `json:"committed"` // what active jobs were promised
	// Facts are the measured ones that placement constraints are compared with: see package agent/inventory.
	Facts    map[string]json.RawMessage `json:"facts,omitempty"`
	Problems []Problem                  `json:"problems,omitempty"`
}

// Drain is why a node starts nothing new. It lasts until somebody has the node resume, also when the process ends in between.
type Drain struct {
	By     string    `json:"by"` // as Act.By
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// PolicyStatus tells of the policy in force.
type PolicyStatus struct {
	Name    string        `json:"name,omitempty"`
	Version int64         `json:"version,omitempty"`
	ID      digest.SHA256 `json:"id,omitzero"` // zero: none is in force, and nothing new runs
	Expires time.Time     `json:"expires,omitzero"`
	Refused string        `json:"refused,omitempty"` // why what lies in the file is not in force
}

// LedgerStatus tells of the ledger.
type LedgerStatus struct {
	Origin string        `json:"origin,omitempty"`
	Size   int64         `json:"size"`
	Root   digest.SHA256 `json:"root,omitzero"`

	Cosigned  *int64          `json:"cosigned,omitempty"` // entries that a quorum of witnesses has cosigned; nil: the node asks none
	Witnesses []WitnessStatus `json:"witnesses,omitempty"`
}

// WitnessStatus tells of a witness that is asked to cosign the ledger.
type WitnessStatus struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`               // entries of the newest checkpoint that it cosigned
	At       time.Time `json:"at,omitzero"`        // when that was; zero: never
	Failures int       `json:"failures,omitempty"` // requests in vain since then
	Error    string    `json:"error,omitempty"`    // why the last of them was
	Cure     string    `json:"cure,omitempty"`
}

// Resources are amounts.
type Resources struct {
	CPU    int64 `json:"cpu"`    // thousandths of a processor
	Memory int64 `json:"memory"` // bytes
	GPU    int64 `json:"gpu"`    // devices
}

// Problem is something that an operator should know.
type Problem struct {
	Code string `json:"code"` // stable, such as "policy-expired"
	Text string `json:"text"`
	Cure string `json:"cure,omitempty"`
}

// FullError says that the queue has no room.
type FullError struct {
	Owner string // whose share is used up; empty: the queue itself is full
	Max   int
}

func (e *FullError) Error() string {
	if e.Owner != "" {
		return fmt.Sprintf("%d jobs of %s wait already", e.Max, e.Owner)
	}
	return fmt.Sprintf("%d jobs wait already", e.Max)
}

// Hint tells the way out.
func (e *FullError) Hint() string {
	return "submit it again later, or raise queue.max or queue.perOwner in the policy"
}

// EnvelopeError says that what was handed in is no envelope of a valid document of the kind that is due.
type EnvelopeError struct{ Err error }

func (e *EnvelopeError) Error() string { return "read envelope: " + e.Err.Error() }
func (e *EnvelopeError) Unwrap() error { return e.Err }

// UnknownError says that there is no such job, or that a prefix is not unique.
type UnknownError struct {
	Ref  string
	Many int // how many jobs the prefix fits; zero: none
}

func (e *UnknownError) Error() string {
	if e.Many > 0 {
		return fmt.Sprintf("%q could be any of %d jobs", e.Ref, e.Many)
	}
	return fmt.Sprintf("this node knows no job %q", e.Ref)
}

// Hint tells the way out.
func (e *UnknownError) Hint() string { return "list the jobs it knows: arch jobs" }

// ForgottenError says that a job has ended so long ago that only the ledger tells of it.
type ForgottenError struct {
	ID    digest.SHA256
	Name  string
	State State     // that it ended in
	Since time.Time // when that was
	Entry Entry     // the decision in the ledger
}

func (e *ForgottenError) Error() string {
	return fmt.Sprintf("job %s was %s on %s: that is beyond what the policy retains, and only the ledger tells of it, in entry %d",
		e.Name, e.State, e.Since.UTC().Format(time.DateOnly), e.Entry.Index)
}

// Hint tells the way out.
func (e *ForgottenError) Hint() string {
	return fmt.Sprintf("where the ledger is: arch ledger prove %d --ledger DIR writes the decision with its reasons, and its proof", e.Entry.Index)
}

// LaggedError says that a reader of events was too slow.
type LaggedError struct{ Next int64 } // the oldest event that is still kept

func (e *LaggedError) Error() string {
	return fmt.Sprintf("the reader was too slow: the oldest event still kept is %d", e.Next)
}

// DeniedError says that somebody may not do what they want.
type DeniedError struct {
	By, Verb string
	Cure     string
}

func (e *DeniedError) Error() string { return fmt.Sprintf("%s may not %s", e.By, e.Verb) }

// Hint tells the way out.
func (e *DeniedError) Hint() string { return e.Cure }
