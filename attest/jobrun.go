package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// JobRun is the predicate of one execution: one node's account of what it did for a job. It names the JobResult that it
// stands behind, and holds everything that is not the same at every node. It is there for runs that failed, too.
type JobRun struct {
	JobID          digest.SHA256        `json:"jobId"`           // document id of the Job
	Result         digest.SHA256        `json:"result,omitzero"` // id of the JobResult statement; zero: the job did not end by itself
	ResolvedInputs []ResourceDescriptor `json:"resolvedInputs"`  // everything that went in, sorted by URI, then name
	Runner         Builder              `json:"runner"`          // what ran it: an id, and versions by component
	Engine         string               `json:"engine"`          // what executed the program, such as "native" or "wazero/1.12.0 compiler"
	End            JobEnd               `json:"end"`
	Usage          JobUsage             `json:"usage"`
	Confinement    JobConfinement       `json:"confinement"`
	Anomalies      []JobAnomaly         `json:"anomalies,omitempty"`  // in the order in which they were seen, at most MaxAnomalies
	Byproducts     []ResourceDescriptor `json:"byproducts,omitempty"` // what was printed: stdout and stderr by their digests
	Published      []ResourceDescriptor `json:"published,omitempty"`  // outputs that were pushed to registries, sorted by name: see Published
	StartedOn      string               `json:"startedOn"`            // RFC 3339, UTC
	FinishedOn     string               `json:"finishedOn"`
}

// Published describes an output that was pushed to a registry: place is what the document calls it, such as
// "oci:registry.example/words:v1", and manifest the digest under which the registry has it.
func Published(output, place string, manifest digest.SHA256) ResourceDescriptor {
	return ResourceDescriptor{Name: output, URI: place, Digest: map[string]string{"sha256": manifest.Hex()}}
}

// JobEnd is how an execution ended.
type JobEnd struct {
	Reason string `json:"reason"`           // one of JobReasons
	Exit   int64  `json:"exit"`             // exit status, if Reason is "exit"; else 0
	Signal string `json:"signal,omitempty"` // such as "SIGSEGV", if Reason is "signal"
	Detail string `json:"detail,omitempty"` // a sentence on the limit, signal or missing thing
}

// JobReasons lists the reasons why an execution ends, sorted: see runner.Reason.
func JobReasons() []string {
	return []string{"cancelled", "exit", "limit", "not-found", "out-of-memory", "refused", "signal", "timeout"}
}

// JobUsage is what an execution used, with all its processes together. A member that is zero was not measured, or there
// was none.
type JobUsage struct {
	WallMicros  int64      `json:"wallMicros"`
	CPUMicros   int64      `json:"cpuMicros"`
	MemoryPeak  int64      `json:"memoryPeak,omitempty"` // bytes
	IORead      int64      `json:"ioRead,omitempty"`     // bytes
	IOWrite     int64      `json:"ioWrite,omitempty"`    // bytes
	Gas         int64      `json:"gas,omitempty"`        // units of metered work
	EnergyMicro int64      `json:"energyMicrojoules,omitempty"`
	EnergyFrom  string     `json:"energySource,omitempty"` // "rapl", or "model: …" with the model's parameters
	Network     JobNetwork `json:"network,omitzero"`       // zero: nothing was allowed, or nothing happened
	Accounting  string     `json:"accounting"`             // where the numbers come from, such as "cgroup-v2"
}

// JobNetwork is what went through an execution's network.
type JobNetwork struct {
	Sent        int64    `json:"sent"`                // bytes of payload
	Received    int64    `json:"received"`            // bytes of payload
	Connections int64    `json:"connections"`         // let through
	Refused     int64    `json:"refused"`             // attempts that were not
	RefusedTo   []string `json:"refusedTo,omitempty"` // the first 16 different ones, "PROTOCOL:HOST:PORT"
}

// JobConfinement is what was really enforced, and what was asked for but could not be.
type JobConfinement struct {
	Driver   string   `json:"driver"`            // such as "systemd" or "namespace"
	Enforced []string `json:"enforced"`          // sorted
	Missing  []string `json:"missing,omitempty"` // sorted, each "name: reason"
}

// Weaknesses returns those of the missing guarantees that a job could abuse. What is left out is what a driver could not
// count: nobody is safer for a number.
func Weaknesses(missing []string) []string {
	return slices.DeleteFunc(slices.Clone(missing), func(m string) bool {
		name, _, _ := strings.Cut(m, ":")
		return name == "refused-syscalls" || name == "network-accounting"
	})
}

// JobAnomaly is one thing that an honest job rarely does, with what shows it.
type JobAnomaly struct {
	Kind     string `json:"kind"`
	AtMicros int64  `json:"atMicros"` // since the start
	Evidence string `json:"evidence"`
}

// Limits of a JobRun.
const (
	MaxAnomalies   = 256
	MaxConfinement = 256 // entries of enforced, and of missing
)

// NewJobRun makes the statement of one execution. With a result, which NewJobResult has made of the same job, the subjects are its own;
// with none the document is the only subject. Texts over the limits are cut.
func NewJobRun(result *Statement, run JobRun) (*Statement, error) {
	subjects := []ResourceDescriptor{{Name: SubjectJob, Digest: map[string]string{"sha256": run.JobID.Hex()}}}
	if result != nil {
		r := struct {
			JobID digest.SHA256 `json:"jobId"`
		}{}
		err := result.expect(&JobResult{})
		if err == nil {
			err = json.Unmarshal(result.Predicate, &r)
		}
		if err == nil {
			run.Result, err = result.ID()
		}
		if err != nil {
			return nil, fmt.Errorf("make job run: %w", err)
		}
		run.JobID, subjects = r.JobID, result.Subject
	}
	inputs, err := sortDependencies(run.ResolvedInputs)
	if err != nil {
		return nil, fmt.Errorf("make job run: %w", err)
	}
	run.ResolvedInputs = inputs
	run.cut()
	return NewStatement(subjects, &run)
}

// cut shortens texts that come from inside a job.
func (r *JobRun) cut() {
	r.End.Detail = shorten(r.End.Detail, MaxText)
	r.Anomalies = slices.Clone(r.Anomalies[:min(len(r.Anomalies), MaxAnomalies)])
	for i := range r.Anomalies {
		r.Anomalies[i].Evidence = shorten(r.Anomalies[i].Evidence, MaxText)
	}
	r.Confinement.Missing = slices.Clone(r.Confinement.Missing)
	for i := range r.Confinement.Missing {
		r.Confinement.Missing[i] = shorten(r.Confinement.Missing[i], MaxText)
	}
	r.Usage.Network.RefusedTo = slices.Clone(r.Usage.Network.RefusedTo)
	for i := range r.Usage.Network.RefusedTo {
		r.Usage.Network.RefusedTo[i] = shorten(r.Usage.Network.RefusedTo[i], MaxText)
	}
}

// PredicateType returns JobRunType.
func (*JobRun) PredicateType() string { return JobRunType }

// Validate checks the fields and their limits.
func (r *JobRun) Validate() error {
	switch {
	case r.JobID.IsZero():
		return errors.New("job run names no job")
	case r.ResolvedInputs == nil:
		return errors.New("job run has no resolvedInputs")
	case r.Runner.ID == "":
		return errors.New("job run has no runner.id")
	case r.Engine == "" || len(r.Engine) > MaxText:
		return errors.New("job run has no engine")
	}
	if err := r.End.validate(); err != nil {
		return err
	}
	if (!r.Result.IsZero()) != (r.End.Reason == "exit") {
		return fmt.Errorf("job run that ended with %q: only one that ended by itself has a result", r.End.Reason)
	}
	for _, check := range []func() error{r.Usage.validate, r.Confinement.validate, r.validateAnomalies, r.validateTimes} {
		if err := check(); err != nil {
			return err
		}
	}
	if err := validateDescriptors("byproducts", r.Byproducts); err != nil {
		return err
	}
	if err := r.validatePublished(); err != nil {
		return err
	}
	return validateInputs(r.ResolvedInputs)
}

func (e JobEnd) validate() error {
	switch {
	case !slices.Contains(JobReasons(), e.Reason):
		return fmt.Errorf("job run has the unknown reason %q", shorten(e.Reason, 100))
	case e.Exit < 0 || e.Exit > MaxExit || (e.Exit != 0 && e.Reason != "exit"):
		return fmt.Errorf("job run that ended with %q has the exit status %d", e.Reason, e.Exit)
	case (e.Signal != "") != (e.Reason == "signal"):
		return fmt.Errorf("job run that ended with %q has the signal %q", e.Reason, shorten(e.Signal, 100))
	case len(e.Signal) > MaxText || len(e.Detail) > MaxText:
		return fmt.Errorf("job run's detail is over the limit of %d bytes", MaxText)
	}
	return nil
}

func (u JobUsage) validate() error {
	n := u.Network
	for _, v := range []int64{u.WallMicros, u.CPUMicros, u.MemoryPeak, u.IORead, u.IOWrite, u.Gas, u.EnergyMicro, n.Sent, n.Received, n.Connections, n.Refused} {
		if v < 0 || v > manifest.MaxInteger {
			return fmt.Errorf("job run's usage of %d is not between 0 and 2^53-1", v)
		}
	}
	switch {
	case u.Accounting == "" || len(u.Accounting) > MaxText:
		return errors.New("job run's usage says not where its numbers come from")
	case (u.EnergyMicro > 0) && u.EnergyFrom == "" || len(u.EnergyFrom) > MaxText:
		return errors.New("job run's energy says not where it comes from")
	case len(n.RefusedTo) > 16:
		return errors.New("job run lists over 16 refused connections")
	}
	return nil
}

func (c JobConfinement) validate() error {
	switch {
	case c.Driver == "" || len(c.Driver) > MaxText:
		return errors.New("job run names no driver")
	case c.Enforced == nil:
		return errors.New("job run has no confinement.enforced")
	case len(c.Enforced) > MaxConfinement || len(c.Missing) > MaxConfinement:
		return fmt.Errorf("job run lists over %d guarantees", MaxConfinement)
	}
	for _, list := range [][]string{c.Enforced, c.Missing} {
		if !slices.IsSorted(list) {
			return errors.New("job run's guarantees are not sorted")
		}
		if slices.ContainsFunc(list, func(s string) bool { return s == "" || len(s) > MaxText }) {
			return fmt.Errorf("job run has a guarantee without a name, or of over %d bytes", MaxText)
		}
	}
	return nil
}

func (r *JobRun) validateAnomalies() error {
	if len(r.Anomalies) > MaxAnomalies {
		return fmt.Errorf("job run lists over %d anomalies", MaxAnomalies)
	}
	for i, a := range r.Anomalies {
		if a.Kind == "" || len(a.Kind) > MaxText || len(a.Evidence) > MaxText || a.AtMicros < 0 || a.AtMicros > manifest.MaxInteger {
			return fmt.Errorf("anomalies[%d] of kind %q is malformed", i, shorten(a.Kind, 100))
		}
	}
	return nil
}

func (r *JobRun) validatePublished() error {
	if len(r.Published) > 0 && (r.End.Reason != "exit" || r.End.Exit != 0) {
		return fmt.Errorf("job run that ended with %q %d has published outputs", r.End.Reason, r.End.Exit)
	}
	if err := validateDescriptors("published", r.Published); err != nil {
		return err
	}
	for i, d := range r.Published {
		switch _, pinned := d.SHA256(); {
		case d.Name == "" || !strings.HasPrefix(d.URI, "oci:") || !pinned:
			return fmt.Errorf("published[%d] has not the name of an output, the place of a registry and a sha256", i)
		case i > 0 && r.Published[i-1].Name >= d.Name:
			return fmt.Errorf("published[%d] is out of order, or there twice", i)
		}
	}
	return nil
}

func (r *JobRun) validateTimes() error {
	if r.StartedOn == "" || r.FinishedOn == "" {
		return errors.New("job run has no startedOn or no finishedOn")
	}
	return RunMetadata{StartedOn: r.StartedOn, FinishedOn: r.FinishedOn}.validate()
}

// JobRun returns the predicate of one execution. Reading is strict: the predicate must be byte for byte the canonical
// form of what is read.
func (s *Statement) JobRun() (*JobRun, error) {
	r := &JobRun{}
	return r, s.own(r)
}

// FormatTime writes a time as statements hold it: RFC 3339, UTC, to the second.
func FormatTime(t time.Time) string { return formatTime(t) }
