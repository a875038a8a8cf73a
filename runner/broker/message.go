package broker

import (
	"regexp"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// protocolVersion is the only one.
const protocolVersion = 1

// request opens a job, or attaches to one.
type request struct {
	Version   int    `json:"version"`
	Envelope  []byte `json:"envelope,omitempty"`  // a DSSE envelope of a Job, as JSON
	Timeout   int64  `json:"timeout,omitempty"`   // milliseconds; shortens what the document and the policy allow
	Interpret bool   `json:"interpret,omitempty"` // run a module without compiling it
	Detach    bool   `json:"detach,omitempty"`    // the job goes on when the connection ends
	Attach    string `json:"attach,omitempty"`    // instead of an envelope: the name of a detached job of the same user
	Cancel    bool   `json:"cancel,omitempty"`    // with Attach or Ticket: end it
	Ticket    string `json:"ticket,omitempty"`    // with Detach: what the client calls it; by itself: the job that it called so
	Watch     bool   `json:"watch,omitempty"`     // instead of an envelope: tell of all detached jobs of the same user

	StopAt   int64         `json:"stopAt,omitempty"`  // stop a checkpointable job at the first place after this much gas
	Snapshot digest.SHA256 `json:"snapshot,omitzero"` // go on from where it was stopped
}

// existing reports whether it is about a job that is there already.
func (q request) existing() bool {
	return q.Attach != "" || q.Ticket != "" && len(q.Envelope) == 0 && !q.Detach
}

// ticketName is what tickets look like.
var ticketName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`) })

// maxTimeout is the longest that a request may name: what is longer than a job may take says nothing.
const maxTimeout = int64(366 * 24 * time.Hour / time.Millisecond)

func (q request) validate() error {
	switch {
	case q.Version != protocolVersion:
		return protocolErrorf("protocol version %d is not %d", q.Version, protocolVersion)
	case (q.StopAt != 0 || !q.Snapshot.IsZero()) && len(q.Envelope) == 0:
		return protocolErrorf("only an envelope is stopped or goes on")
	case q.StopAt < 0 || q.StopAt > maxInteger:
		return protocolErrorf("to stop at %d gas is not from 0 to %d", q.StopAt, int64(maxInteger))
	case q.Watch && (len(q.Envelope) > 0 || q.Attach != "" || q.Timeout != 0 || q.Interpret || q.Detach || q.Cancel || q.Ticket != ""):
		return protocolErrorf("who watches asks for nothing else")
	case q.Watch:
		return nil
	case q.Ticket != "" && !q.Detach && (len(q.Envelope) > 0 || q.Attach != ""):
		return protocolErrorf("only a detached job has a ticket")
	case q.Ticket != "" && !ticketName().MatchString(q.Ticket):
		return protocolErrorf("%.100q is no ticket", q.Ticket)
	case len(q.Envelope) == 0 && !q.existing():
		return protocolErrorf("there is no envelope")
	case q.existing() && (len(q.Envelope) > 0 || q.Timeout != 0 || q.Interpret || q.Detach):
		return protocolErrorf("a job that is attached to cannot be changed")
	case q.Attach != "" && !taskName().MatchString(q.Attach):
		return protocolErrorf("%.100q is no name of a job", q.Attach)
	case q.Cancel && !q.existing():
		return protocolErrorf("there is no name of a job to cancel")
	case q.Timeout < 0 || q.Timeout > maxTimeout:
		return protocolErrorf("timeout %d is not from 0 to %d", q.Timeout, maxTimeout)
	}
	return nil
}

// ContentKind says how content is named and sent.
type ContentKind string

// The kinds of contents.
const (
	Blob ContentKind = "blob" // bytes, by their SHA-256
	Tree ContentKind = "tree" // a file, directory or link as a NAR, by the SHA-256 of that
	// Module is the files of a Go module as a NAR, by the hash in its go.sum line ("h1:").
	Module ContentKind = "module"
)

// Item is one piece of content.
type Item struct {
	Kind   ContentKind   `json:"kind"`
	Digest digest.SHA256 `json:"digest"`
	Ref    string        `json:"ref"` // the reference in the document that it belongs to
}

// lack says that the client does not have an Item.
type lack struct {
	Reason string `json:"reason"`
}

// started says that the job runs.
type started struct {
	ID   digest.SHA256 `json:"id"`   // of the document
	Name string        `json:"name"` // of the job, for attaching
	At   int64         `json:"at"`   // microseconds since 1970
}

// jobState is what is told of one job to those who watch. Frames of it come in batches, each of which ends with an end frame: first all
// jobs that there are, then those of which something changed.
type jobState struct {
	Name    string        `json:"name"`
	Ticket  string        `json:"ticket"`
	ID      digest.SHA256 `json:"id"`
	Started int64         `json:"started"` // microseconds since 1970
	Phase   Phase         `json:"phase"`
	Usage   wireUsage     `json:"usage"` // as far as it is known yet
}

// wireUsage is the part of a runner.Usage that is known while a job runs.
type wireUsage struct {
	Wall       int64 `json:"wall"` // microseconds, as CPU
	CPU        int64 `json:"cpu"`
	MemoryPeak int64 `json:"memoryPeak"`
	IORead     int64 `json:"ioRead"`
	IOWrite    int64 `json:"ioWrite"`
}

func usageToWire(u runner.Usage) wireUsage {
	return wireUsage{
		Wall: u.Wall.Microseconds(), CPU: u.CPU.Microseconds(), MemoryPeak: integer(u.MemoryPeak), IORead: integer(u.IORead), IOWrite: integer(u.IOWrite),
	}
}

func (w wireUsage) usage() runner.Usage {
	return runner.Usage{
		Wall: time.Duration(w.Wall) * time.Microsecond, CPU: time.Duration(w.CPU) * time.Microsecond,
		MemoryPeak: w.MemoryPeak, IORead: w.IORead, IOWrite: w.IOWrite,
	}
}

// output precedes the NAR of an output.
type output struct {
	Name string `json:"name"`
}

// result is the last frame of a job that ran.
type result struct {
	Finished int64       `json:"finished"` // microseconds since 1970
	Result   wireResult  `json:"result"`
	Policy   *policyUsed `json:"policy"`
	Snapshot *Snapshot   `json:"snapshot,omitempty"` // of a job that was stopped where it stood
}

// policyUsed names the policy that allowed a job.
type policyUsed struct {
	ID   digest.SHA256 `json:"id"`
	Name string        `json:"name"`
}

// wireResult is a runner.Result. Numbers are integers within what JSON holds.
type wireResult struct {
	Reason  runner.Reason `json:"reason"`
	Exit    int           `json:"exit"`
	Signal  string        `json:"signal"`
	Command int           `json:"command"`
	Detail  string        `json:"detail"`
	Engine  string        `json:"engine"`

	Wall       int64           `json:"wall"` // microseconds, as CPU
	CPU        int64           `json:"cpu"`
	MemoryPeak int64           `json:"memoryPeak"`
	IORead     int64           `json:"ioRead"`
	IOWrite    int64           `json:"ioWrite"`
	Gas        int64           `json:"gas"`
	Energy     *wireEnergy     `json:"energy"`
	Network    *runner.Traffic `json:"network"`
	Accounting string          `json:"accounting"`

	Anomalies   []wireAnomaly      `json:"anomalies"`
	Outputs     []runner.Collected `json:"outputs"`
	Confinement runner.Confinement `json:"confinement"`
}

type wireEnergy struct {
	Microjoules int64  `json:"microjoules"`
	Source      string `json:"source"`
}

type wireAnomaly struct {
	Kind     runner.AnomalyKind `json:"kind"`
	At       int64              `json:"at"` // microseconds
	Evidence string             `json:"evidence"`
}

// maxInteger is what a JSON number holds exactly.
const maxInteger = 1<<53 - 1

func integer[N int64 | uint64 | float64](n N) int64 {
	if n > maxInteger {
		return maxInteger
	}
	return max(int64(n), 0)
}

func toWire(r runner.Result) wireResult {
	w := wireResult{
		Reason: r.Reason, Exit: r.Exit, Signal: r.Signal, Command: r.Command, Detail: valid(r.Detail), Engine: r.Engine,
		Wall: r.Wall.Microseconds(), CPU: r.CPU.Microseconds(), MemoryPeak: integer(r.MemoryPeak), IORead: integer(r.IORead), IOWrite: integer(r.IOWrite),
		Gas: integer(r.Gas), Network: r.Network, Accounting: r.Accounting, Outputs: r.Outputs, Confinement: r.Confinement,
	}
	if e := r.Energy; e != nil {
		w.Energy = &wireEnergy{integer(e.Joules * 1e6), e.Source}
	}
	for _, a := range r.Anomalies {
		w.Anomalies = append(w.Anomalies, wireAnomaly{a.Kind, a.At.Microseconds(), valid(a.Evidence)})
	}
	return w
}

func (w wireResult) result() runner.Result {
	r := runner.Result{
		Reason: w.Reason, Exit: w.Exit, Signal: w.Signal, Command: w.Command, Detail: w.Detail, Engine: w.Engine,
		Usage: runner.Usage{
			Wall: time.Duration(w.Wall) * time.Microsecond, CPU: time.Duration(w.CPU) * time.Microsecond,
			MemoryPeak: w.MemoryPeak, IORead: w.IORead, IOWrite: w.IOWrite, Gas: uint64(max(w.Gas, 0)), Network: w.Network, Accounting: w.Accounting,
		},
		Outputs: w.Outputs, Confinement: w.Confinement,
	}
	if e := w.Energy; e != nil {
		r.Energy = &runner.Energy{Joules: float64(e.Microjoules) / 1e6, Source: e.Source}
	}
	for _, a := range w.Anomalies {
		r.Anomalies = append(r.Anomalies, runner.Anomaly{Kind: a.Kind, At: time.Duration(a.At) * time.Microsecond, Evidence: a.Evidence})
	}
	return r
}
