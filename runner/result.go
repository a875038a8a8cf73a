package runner

import (
	"fmt"
	"time"

	"arch.network/attest/digest"
)

// Reason classifies how an execution ended.
type Reason string

// The reasons.
const (
	ReasonExit        Reason = "exit"          // the last started command ended by itself with Result.Exit
	ReasonSignal      Reason = "signal"        // killed by Result.Signal, not by us
	ReasonTimeout     Reason = "timeout"       // Limits.Wall
	ReasonOutOfMemory Reason = "out-of-memory" // Limits.Memory
	ReasonLimit       Reason = "limit"         // another limit: Result.Detail names it
	ReasonRefused     Reason = "refused"       // a Module was found unfit before any of it ran: Result.Detail says why
	ReasonCancelled   Reason = "cancelled"     // the context
	ReasonNotFound    Reason = "not-found"     // a command's program, or a declared output, does not exist: Result.Detail names it
)

// Result is what became of an execution.
type Result struct {
	Reason  Reason
	Exit    int    // exit status of the last command that ran, if Reason is ReasonExit
	Signal  string // such as "SIGSEGV", if Reason is ReasonSignal
	Command int    // index of the last command that was started
	Detail  string // a sentence on the limit, signal or missing thing; empty on success

	Usage     // what was used
	Anomalies []Anomaly
	Engine    string // what executed: "native", or for a Module "wazero/VERSION compiler" and the like
	Outputs   []Collected

	Confinement Confinement
}

// Sentence tells how an execution ended, for people, without its subject: "was stopped at a limit (gas)".
func (r Result) Sentence() string {
	text := map[Reason]string{
		ReasonExit:        fmt.Sprintf("ended with status %d", r.Exit),
		ReasonSignal:      "was killed by " + r.Signal,
		ReasonTimeout:     "was stopped: it took longer than it may",
		ReasonOutOfMemory: "was stopped: it used more memory than it may",
		ReasonLimit:       "was stopped at a limit",
		ReasonRefused:     "was not started: its module is unfit",
		ReasonNotFound:    "lacks something",
	}[r.Reason]
	if text == "" {
		text = "was stopped: " + string(r.Reason)
	}
	if r.Detail != "" {
		text += fmt.Sprintf(" (%s)", r.Detail)
	}
	return text
}

// Usage is what an execution used, with all its processes together.
type Usage struct {
	Wall       time.Duration
	CPU        time.Duration // user and system time
	MemoryPeak int64         // bytes; zero: not measured
	IORead     int64         // bytes from block devices; zero: none, or not measured
	IOWrite    int64         // bytes to block devices; zero: none, or not measured
	Gas        uint64        // units of metered work, for a Module
	Energy     *Energy       // nil: not measured
	Network    *Traffic      // nil: nothing was allowed
	Accounting string        // where the numbers come from: "cgroup-v2", "cgroup-v1", "rusage", or several joined by "+"; "cgroup by difference": see Module.Reuse
}

// Energy is how much was used.
type Energy struct {
	Joules float64
	Source string // "rapl", or "model: …" with the model's parameters
}

// Traffic is what went through an execution's network.
type Traffic struct {
	Sent        int64    `json:"sent"`                // bytes of payload
	Received    int64    `json:"received"`            // bytes of payload
	Connections int64    `json:"connections"`         // let through
	Refused     int64    `json:"refused"`             // attempts that were not let through
	RefusedTo   []string `json:"refusedTo,omitempty"` // "PROTOCOL:HOST:PORT" of the first 16 different ones, sorted
}

// AnomalyKind names something that an honest job rarely does.
type AnomalyKind string

// The kinds of anomalies. Package runner/meter documents the thresholds.
const (
	AnomalyMemoryGrowth   AnomalyKind = "memory-growth"   // steady growth to the limit
	AnomalyForkBurst      AnomalyKind = "fork-burst"      // many new processes in a short time
	AnomalyPressure       AnomalyKind = "pressure"        // stalled on CPU, memory or I/O for long
	AnomalyRefusedSyscall AnomalyKind = "refused-syscall" // system calls that the filter refused
	AnomalyOutputFlood    AnomalyKind = "output-flood"    // stdout and stderr far above what a program says
	AnomalySilence        AnomalyKind = "silence"         // neither CPU time nor I/O for long
	AnomalyRefusedNetwork AnomalyKind = "refused-network" // connections that Network does not allow
)

// Anomaly is one finding, with what shows it.
type Anomaly struct {
	Kind     AnomalyKind   `json:"kind"`
	At       time.Duration `json:"at"`       // since the start
	Evidence string        `json:"evidence"` // measured values and the threshold, in a sentence
}

// Collected is what became of one Output.
type Collected struct {
	Name string
	NAR  digest.SHA256 // of its NAR
	Size int64         // bytes of that NAR
}

// Confinement records what was really enforced, and what was asked for but could not be.
type Confinement struct {
	Driver   string   `json:"driver"`            // such as "namespace"
	Enforced []string `json:"enforced"`          // sorted: "user-namespace", "mount-namespace", "network-none", "seccomp", "memory:cgroup-v1", …
	Missing  []string `json:"missing,omitempty"` // sorted: what was asked for and is not enforced, each "name: reason"
}

// SetupError says that a confinement could not be made; nothing was run.
type SetupError struct {
	Act  string // what was tried, such as "create user namespace"
	Err  error
	Cure string // how the host's operator can allow it; may be empty
}

func (e *SetupError) Error() string { return e.Act + ": " + e.Err.Error() }
func (e *SetupError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *SetupError) Hint() string { return e.Cure }
