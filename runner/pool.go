package runner

import (
	"context"
	"os"
	"time"
)

// Pool hands out processes that were started beforehand, each already confined, for one execution each.
type Pool interface {
	// Take returns a process that is confined as far as the Pool's class says, with limits set before it is returned.
	// It blocks while none is ready. The error is a *SetupError if the Pool cannot keep limits.
	Take(ctx context.Context, limits Limits) (Worker, error)
}

// Worker is one process of a Pool. It runs one job and is never used again, unless it is a Lasting one and the job's Spec has a Reuse.
type Worker interface {
	// Conn is the stream socket (AF_UNIX) whose other end is the process's descriptor 0. Descriptors may be passed.
	Conn() *os.File
	// Observe has f told of what is used, as Spec.Observe is; f must not be nil. It is called once at most, before Wait returns.
	Observe(f func(Usage))
	// Wait returns when the process and all that it started are gone, with what the Pool knows of the end: Reason, Usage and
	// Confinement. Cancelling ctx kills them.
	Wait(ctx context.Context) (Result, error)
}

// Lasting is a Worker of whose process several jobs, one after the other, can be told apart by difference.
type Lasting interface {
	Worker
	// CPU returns the time that the process and all it started have computed since they exist, as the kernel counts it.
	CPU() (time.Duration, error)
	// Rest says whether the process has nothing to do until it is called again: it is not sampled meanwhile.
	Rest(resting bool)
	// Confinement returns what is in force. The limit of time, if Take has got one, is that of the process, not of a job.
	Confinement() Confinement
}

// OK reports whether every command exited with 0.
func (r Result) OK() bool { return r.Reason == ReasonExit && r.Exit == 0 }
