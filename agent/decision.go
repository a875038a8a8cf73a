package agent

import (
	"context"
	"time"

	"arch.network/attest/digest"
)

// Kind says what a decision is about.
type Kind string

// The kinds of decisions.
const (
	KindNode         Kind = "node"         // the node started, stopped, found something of itself wrong
	KindPolicy       Kind = "policy"       // a policy or trust root came into force, or was refused
	KindProposal     Kind = "proposal"     // a job was handed in
	KindAdmission    Kind = "admission"    // a job was accepted or refused
	KindPlacement    Kind = "placement"    // a job was chosen to run here
	KindStart        Kind = "start"        // an execution starts
	KindFailure      Kind = "failure"      // an execution did not end well, or could not be made
	KindCancellation Kind = "cancellation" // somebody ended a job
	KindQuarantine   Kind = "quarantine"   // a result is held back
	KindReview       Kind = "review"       // a person released or dropped a held back result
	KindResult       Kind = "result"       // a result holds
	KindArchive      Kind = "archive"      // what replaying needs is kept, or was removed when its time was over
	KindReplay       Kind = "replay"       // an archived job was run again
	KindDirective    Kind = "directive"    // a signed order was obeyed, or refused
)

// Decision is what a node decided, and why. In the ledger it is a signed statement (attest.Decision).
type Decision struct {
	Kind     Kind
	Verdict  string            // one word of the kind: "accepted", "refused", "released", …
	Subject  digest.SHA256     // the document id that it is about; zero: the node itself
	Name     string            // metadata.name of that document, for people
	At       time.Time         // by the node's clock
	By       string            // who wanted it: an identity, or "uid:N" for a user of this machine; empty: the node itself
	Summary  string            // one sentence that a person can read
	Reasons  []Reason          // everything that spoke against it
	Policy   digest.SHA256     // document id of the policy in force
	Evidence []Evidence        // what can be looked up
	Private  map[string]string // committed to with a salt, not told
}

// Evidence names something by digest.
type Evidence struct {
	Name   string        `json:"name"` // such as "job-run", "output/index", "stdout"
	Digest digest.SHA256 `json:"digest"`
}

// Reason is one thing that speaks against a job.
type Reason struct {
	Field string `json:"field,omitempty"` // of the document, such as "spec.capabilities.net[0]"
	Msg   string `json:"msg"`             // a sentence without a capital
	Cure  string `json:"cure,omitempty"`  // what would have to change
}

// Entry is a decision's place in the ledger.
type Entry struct {
	Index    int64         `json:"index"`    // in the log
	Sequence int64         `json:"sequence"` // the node's own count
	ID       digest.SHA256 `json:"id"`       // of the signed statement
}

// Recorder writes decisions into a ledger. It may be used by several goroutines at once. One that also has
// RecordAll(ctx, []Decision) ([]Entry, error) takes several in order; decisions about the same document, without reasons, of which others
// follow at once may then share an entry (attest.Decision.Before).
type Recorder interface {
	// Record returns when the decision is durable and part of the log. Nothing may be acted upon before that. After an error it is
	// unknown whether the decision is in the log; recording it again is harmless.
	Record(ctx context.Context, d Decision) (Entry, error)
}
