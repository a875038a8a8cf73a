package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// JobResult is the predicate that says: this job, on these inputs, ended by itself with this exit status and left the
// statement's subjects. Like a Claim it holds nothing that is not the same at every honest node, so that for a
// deterministic job all of them sign the same bytes. What is not the same everywhere is in a JobRun.
type JobResult struct {
	Job            json.RawMessage      `json:"job"`            // the Job document without its signatures, in canonical form
	JobID          digest.SHA256        `json:"jobId"`          // document id of Job
	ResolvedInputs []ResourceDescriptor `json:"resolvedInputs"` // everything that went in, sorted by URI, then name
	Exit           int64                `json:"exit"`           // exit status of the program, 0 to MaxExit
	Gas            Gas                  `json:"gas,omitzero"`   // of a WebAssembly module; zero: the runtime does not count
}

// Gas is how much metered work was done.
type Gas struct {
	Used     int64  `json:"used"`     // units of the schedule, at most 2^53-1
	Schedule string `json:"schedule"` // what a unit is: version of package runner/gas
}

// MaxExit is the largest exit status. Processes have 8 bits of it, WASI's proc_exit has 32.
const MaxExit = 1<<32 - 1

// SubjectStdout names what a job printed, among the subjects of its statements. No output can have that name.
const SubjectStdout = "#stdout"

// SubjectJob names the document itself, the one subject of the run of a job that left nothing.
const SubjectJob = "#job"

// JobOutput is one output of a job, or its printed text, with the digests it is known by.
type JobOutput struct {
	Name string
	File digest.SHA256 // sha256 of the file; zero: it is no single file
	NAR  digest.SHA256 // of the tree or file
}

// JobSubjects returns the descriptors of what a job left: NAME for a file, NAME#nar for each output, and #stdout for
// what was printed, which counts if something was or if there is nothing else.
func JobSubjects(outputs []JobOutput, stdout digest.SHA256, printed int64) []ResourceDescriptor {
	var list []ResourceDescriptor
	for _, o := range outputs {
		list = append(list, Output{Name: o.Name, File: o.File, NAR: o.NAR}.Subjects()...)
	}
	if printed > 0 || len(list) == 0 {
		list = append(list, ResourceDescriptor{Name: SubjectStdout, MediaType: MediaFile, Digest: map[string]string{"sha256": stdout.Hex()}})
	}
	slices.SortFunc(list, func(a, b ResourceDescriptor) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// NewJobResult makes the statement that doc, with inputs as the complete list of what went in, ended with exit and left
// subjects. The same arguments give the same bytes, in whatever order inputs come. doc is not changed; its signatures do
// not enter the statement.
func NewJobResult(doc *manifest.Job, inputs, subjects []ResourceDescriptor, exit int, gas Gas) (*Statement, error) {
	form, err := manifest.Canonical(doc)
	if err != nil {
		return nil, fmt.Errorf("make job result: %w", err)
	}
	inputs, err = sortDependencies(inputs)
	if err != nil {
		return nil, fmt.Errorf("make job result: %w", err)
	}
	r := &JobResult{Job: form, JobID: jobID(form), ResolvedInputs: inputs, Exit: int64(exit), Gas: gas}
	s, err := NewStatement(subjects, r)
	if err != nil {
		return nil, err
	}
	if err := s.checkJobSubjects(r, doc); err != nil {
		return nil, fmt.Errorf("make job result: %w", err)
	}
	return s, nil
}

// jobID returns the document id of a Job in canonical form.
func jobID(form []byte) digest.SHA256 {
	return digest.Of(dsse.PAE(manifest.PayloadType("Job"), form))
}

// Deterministic reports whether an execution of doc is a function of the document alone: a module with neither the node's
// clock, nor its randomness, nor its files.
func Deterministic(doc *manifest.Job) bool {
	s := &doc.Spec
	return s.Runtime == manifest.RuntimeWasm && s.Determinism.Clock != manifest.ClockReal &&
		s.Determinism.Randomness != manifest.RandomReal && len(s.Capabilities.FS) == 0
}

// PredicateType returns JobResultType.
func (*JobResult) PredicateType() string { return JobResultType }

// Validate checks the result itself: that the document has the id it is said to have, and that every input is pinned and
// in order. What the subjects must look like is checked by Statement.JobResult.
func (r *JobResult) Validate() error {
	switch {
	case r.JobID != jobID(r.Job):
		return fmt.Errorf("job result's document has the id %s, not %s", jobID(r.Job), r.JobID)
	case r.ResolvedInputs == nil:
		return errors.New("job result has no resolvedInputs")
	case r.Exit < 0 || r.Exit > MaxExit:
		return fmt.Errorf("job result's exit status %d is not between 0 and %d", r.Exit, MaxExit)
	}
	if err := r.Gas.validate(); err != nil {
		return err
	}
	return validateInputs(r.ResolvedInputs)
}

func (g Gas) validate() error {
	if g.Used < 0 || g.Used > manifest.MaxInteger || (g != Gas{} && g.Schedule == "") || len(g.Schedule) > MaxText {
		return fmt.Errorf("gas of %d units of schedule %q is no amount", g.Used, shorten(g.Schedule, 100))
	}
	return nil
}

// validateInputs wants pinned descriptors, sorted, each once.
func validateInputs(list []ResourceDescriptor) error {
	for i, d := range list {
		if !d.Pinned() {
			return fmt.Errorf("resolvedInputs[%d]: %q has no digest that pins it", i, d)
		}
		if i > 0 && compareDescriptors(list[i-1], d) >= 0 {
			return fmt.Errorf("resolvedInputs[%d]: %q is out of order or listed twice", i, d)
		}
	}
	return validateDescriptors("resolvedInputs", list)
}

// Document returns the result's Job. Reading is strict: see manifest.ReadJSON.
func (r *JobResult) Document() (*manifest.Job, error) {
	doc, err := manifest.ReadJSON(r.Job)
	if err != nil {
		return nil, fmt.Errorf("read document of job result: %w", err)
	}
	job, ok := doc.(*manifest.Job)
	if !ok {
		return nil, fmt.Errorf("read document of job result: it is a %s, not a Job", doc.DocumentKind())
	}
	return job, nil
}

// checkJobSubjects holds the subjects and inputs to what the document asks for: every output as a NAR and, if it is a file,
// as that; nothing else but #stdout; and no output at all after a failure. Every reference of the document is an input.
func (s *Statement) checkJobSubjects(r *JobResult, doc *manifest.Job) error {
	left := map[string]bool{}
	for i, d := range s.Subject {
		if _, ok := d.SHA256(); !ok || len(d.Digest) != 1 {
			return fmt.Errorf("subject %q: a job result's subject has one digest, sha256", d)
		}
		if i > 0 && s.Subject[i-1].Name >= d.Name {
			return fmt.Errorf("subject %q: out of order or named twice", d)
		}
		base, form, _ := strings.Cut(d.Name, "#")
		_, declared := doc.Spec.Outputs[base]
		switch {
		case d.Name == SubjectStdout:
		case !declared || r.Exit != 0 || (form != "" && "#"+form != suffixNAR):
			return fmt.Errorf("subject %q is no output of job %s that ended with %d", d, r.JobID, r.Exit)
		case form != "":
			left[base] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Outputs)) {
		if r.Exit == 0 && !left[name] {
			return fmt.Errorf("output %q of job %s is no subject", name, r.JobID)
		}
	}
	for _, ref := range jobRefs(doc) {
		if !slices.ContainsFunc(r.ResolvedInputs, func(d ResourceDescriptor) bool { return d.URI == ref }) {
			return fmt.Errorf("reference %q of job %s is not among the resolvedInputs", ref, r.JobID)
		}
	}
	return nil
}

// jobRefs lists what a document refers to.
func jobRefs(doc *manifest.Job) []string {
	refs := []string{doc.Spec.Image.String()}
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Inputs)) {
		refs = append(refs, doc.Spec.Inputs[name].String())
	}
	return refs
}

// JobResult returns the predicate of a job's result. Reading is strict: the predicate must be byte for byte the canonical
// form of what is read, its document a valid Job, and the subjects that document's outputs.
func (s *Statement) JobResult() (*JobResult, error) {
	r := &JobResult{}
	if err := s.own(r); err != nil {
		return nil, err
	}
	doc, err := r.Document()
	if err != nil {
		return nil, err
	}
	form, err := manifest.Canonical(doc)
	if err != nil || string(form) != string(r.Job) {
		return nil, errors.New("read document of job result: it carries signatures, or is not in canonical form")
	}
	return r, s.checkJobSubjects(r, doc)
}
