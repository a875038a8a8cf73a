package executor

import (
	"context"
	"io"
	"time"

	"arch.network/agent"
	"arch.network/agent/content"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// Judge decides which jobs may run. It may be asked by several goroutines at once, and must not wait for anybody: it is asked
// while a submitter waits.
type Judge interface {
	// Judge says whether a job may run here. The error means that it could not be decided; nothing is kept of the job then.
	Judge(ctx context.Context, p Proposal) (Verdict, error)
	// Policy returns the one in force.
	Policy() Policy
}

// Forgiving is a Judge that remembers what it accepted.
type Forgiving interface {
	// TakeBack says that a proposal that was accepted could not be written: it may be handed in again.
	TakeBack(p Proposal)
}

// ContentJudge is a Judge that also looks at what was fetched, such as for proofs about an image.
type ContentJudge interface {
	// JudgeContent is asked once everything is there, before anything of it runs. No reasons: it may run.
	JudgeContent(ctx context.Context, p Proposal, c *content.Content) ([]agent.Reason, error)
}

// Proposal is a job that was handed in, and the bytes that it was read from.
type Proposal struct {
	Envelope *dsse.Envelope
	Doc      *manifest.Job // the envelope's payload, valid
	ID       digest.SHA256 // document id
	At       time.Time
	// Admitted says that the job was admitted before, and is judged again because the policy has changed, or its time has come.
	Admitted bool
}

// Verdict is what a Judge says of a job.
type Verdict struct {
	Accepted bool
	Reasons  []agent.Reason // against it, if it is not
	Summary  string         // one sentence
	Signers  []string       // principals whose signatures count
	Policy   digest.SHA256  // document id of the policy that was applied
	Weight   int            // of the owner; less than 1: 1
	// Until is when it must be asked again at the latest, such as the end of the document or of a signer's time. It is asked again
	// in any case before the job starts if the policy has changed. Zero: never.
	Until    time.Time
	Evidence []agent.Evidence
}

// Policy is what is in force.
type Policy struct {
	Doc    *manifest.Policy // nil: none is, and nothing new runs
	ID     digest.SHA256
	Status agent.PolicyStatus
}

// Source gets what documents pin, once their jobs are admitted.
type Source interface {
	// Gather returns when everything is there and is what its pin says. The caller holds a lease of the store. See
	// content.Gatherer.
	Gather(ctx context.Context, doc *manifest.Job, o content.Options) (*content.Content, error)
}

// LocalSource is a Source that knows what is there already.
type LocalSource interface {
	// AtHand reports whether Gather would fetch nothing. The caller holds a lease of the store.
	AtHand(doc *manifest.Job) bool
}

// Work is one execution.
type Work struct {
	ID       digest.SHA256
	Doc      *manifest.Job
	Envelope []byte // DSSE
	Name     string // of the execution on this host; what Name returned
	Content  *content.Content
	Policy   *manifest.Policy
	Timeout  time.Duration // shortens what the document and the policy allow; zero: it does not

	// Started is told the execution's name on this host if that is not Name, as soon as it is known. It returns when the name is
	// durable.
	Started        func(name string) error
	Stdout, Stderr io.Writer
	Collect        func(name string, nar io.Reader) error // receives each output
	// Resume is for an Attach that can have the rest of what is printed, and not all of it again: before anything is written, it has Stdout
	// and Stderr go on after what an earlier process kept, instead of beginning anew, and returns how much that is.
	Resume func() (runner.Kept, error)
}

// Outcome is what became of an execution that was started.
type Outcome struct {
	Result            runner.Result
	Started, Finished time.Time
}

// FinalError says that an execution was not made, and never will be: trying again is of no use.
type FinalError struct{ Err error }

func (e *FinalError) Error() string { return e.Err.Error() }
func (e *FinalError) Unwrap() error { return e.Err }

// Driver runs jobs. It may be used by several goroutines at once.
type Driver interface {
	// Name is what the execution will be called on this host, where that is known beforehand; it is durable before Run is called.
	// instance tells executions of the same document apart.
	Name(id digest.SHA256, instance string) string
	// Run returns when nothing of the execution is there any more. The error means that it could not be made or finished, or nobody
	// knows how it ended; it is tried again if the document says so, unless it is a *FinalError. Cancelling ctx ends it, unless the cause is ErrLeave and it can go on by itself.
	Run(ctx context.Context, w Work) (Outcome, error)
	// Survivors lists the executions that have outlived the process which started them, by name. A driver that cannot list them
	// returns none, and has Attach find out.
	Survivors(ctx context.Context) ([]string, error)
	// Attach does what Run would have done from now on for an execution that was started by an earlier process under w.Name. The error
	// is ErrNoSurvivor if there is none.
	Attach(ctx context.Context, w Work) (Outcome, error)
	// End ends an execution that nobody waits for, and returns when it is gone. That there is none is no error.
	End(ctx context.Context, name string) error
}

// Signer is what the node signs with: identity.Signer.
type Signer = signer
