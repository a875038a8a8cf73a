package job

import (
	"slices"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// RunnerID names this program's way of running jobs in a job run.
const RunnerID = "https://arch.network/runners/arch/v1"

// Outcome is everything that the statements of one execution hold beside the document.
type Outcome struct {
	ID      digest.SHA256 // of the document, where it is known; zero: it is computed
	Result  runner.Result
	Inputs  []attest.ResourceDescriptor // everything that went in
	Outputs []attest.JobOutput          // what was collected, if the job ended with 0
	Stdout  Printed
	Stderr  Printed
	// Published are the outputs that were pushed to registries, sorted by name: attest.Published.
	Published []attest.ResourceDescriptor
	Schedule  string // version of package runner/gas, for a module; empty: gas was not counted
	Started   time.Time
	Finished  time.Time
	Versions  map[string]string // of what ran it, such as "arch" to "v1.2.3"
}

// Printed is what was written to one stream.
type Printed struct {
	Digest digest.SHA256
	Size   int64 // bytes
}

// Statements makes what is to be signed of one execution: the result, which is the same at every honest node if the job is
// deterministic and nil if it did not end by itself, and this node's own account of the run.
func Statements(doc *manifest.Job, o Outcome) (result, run *attest.Statement, err error) {
	if o.Result.Reason == runner.ReasonExit {
		var gas attest.Gas
		if o.Schedule != "" {
			gas = attest.Gas{Used: clamp(o.Result.Gas), Schedule: o.Schedule}
		}
		subjects := attest.JobSubjects(o.Outputs, o.Stdout.Digest, o.Stdout.Size)
		if result, err = attest.NewJobResult(doc, o.Inputs, subjects, o.Result.Exit, gas); err != nil {
			return nil, nil, err
		}
	}
	account, err := o.account(doc)
	if err != nil {
		return nil, nil, err
	}
	if run, err = attest.NewJobRun(result, account); err != nil {
		return nil, nil, err
	}
	return result, run, nil
}

// account is the run's predicate.
func (o Outcome) account(doc *manifest.Job) (attest.JobRun, error) {
	id := o.ID
	if id.IsZero() {
		var err error
		if id, err = manifest.ID(doc); err != nil {
			return attest.JobRun{}, err
		}
	}
	r := o.Result
	run := attest.JobRun{
		JobID: id, ResolvedInputs: o.Inputs, Engine: r.Engine, Published: o.Published,
		Runner:    attest.Builder{ID: RunnerID, Version: o.Versions},
		End:       attest.JobEnd{Reason: string(r.Reason), Signal: r.Signal, Detail: r.Detail},
		Usage:     usage(r.Usage),
		StartedOn: attest.FormatTime(o.Started), FinishedOn: attest.FormatTime(o.Finished),
		Confinement: attest.JobConfinement{
			Driver: r.Confinement.Driver, Enforced: sorted(r.Confinement.Enforced), Missing: sorted(r.Confinement.Missing),
		},
	}
	if run.Engine == "" {
		run.Engine = "native"
	}
	if r.Reason == runner.ReasonExit {
		run.End.Exit = int64(r.Exit)
	}
	if len(run.Confinement.Missing) == 0 {
		run.Confinement.Missing = nil
	}
	for _, a := range r.Anomalies {
		run.Anomalies = append(run.Anomalies, attest.JobAnomaly{Kind: string(a.Kind), AtMicros: clamp(a.At.Microseconds()), Evidence: a.Evidence})
	}
	for _, p := range []struct {
		name string
		Printed
	}{{"stderr", o.Stderr}, {"stdout", o.Stdout}} {
		if p.Size > 0 {
			run.Byproducts = append(run.Byproducts, attest.ResourceDescriptor{
				Name: p.name, MediaType: attest.MediaLog, Digest: map[string]string{"sha256": p.Digest.Hex()},
			})
		}
	}
	return run, nil
}

func usage(u runner.Usage) attest.JobUsage {
	out := attest.JobUsage{
		WallMicros: clamp(u.Wall.Microseconds()), CPUMicros: clamp(u.CPU.Microseconds()), MemoryPeak: clamp(u.MemoryPeak),
		IORead: clamp(u.IORead), IOWrite: clamp(u.IOWrite), Gas: clamp(u.Gas), Accounting: u.Accounting,
	}
	if out.Accounting == "" {
		out.Accounting = "none"
	}
	if u.Energy != nil {
		out.EnergyMicro, out.EnergyFrom = clamp(u.Energy.Joules*1e6), u.Energy.Source
	}
	if n := u.Network; n != nil {
		out.Network = attest.JobNetwork{
			Sent: clamp(n.Sent), Received: clamp(n.Received), Connections: clamp(n.Connections), Refused: clamp(n.Refused),
			RefusedTo: n.RefusedTo[:min(len(n.RefusedTo), 16)],
		}
	}
	return out
}

// clamp brings a measured number into the range that statements hold.
func clamp[N int64 | uint64 | float64](n N) int64 {
	switch {
	case !(n > 0): // also what is no number
		return 0
	case n > manifest.MaxInteger:
		return manifest.MaxInteger
	}
	return int64(n)
}

// sorted returns a sorted copy that is never nil.
func sorted(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return out
}
