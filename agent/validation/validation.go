package validation

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"arch.network/agent"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// Execution is one that ended by itself with status 0.
type Execution struct {
	Number    int                // of the attempt
	Outputs   []attest.JobOutput // in the order of their names
	Stdout    digest.SHA256      // of what was printed
	Gas       uint64             // of a module; zero otherwise
	Anomalies []string           // each "kind: evidence"
	Missing   []string           // guarantees that were asked for and not enforced, each "name: reason"
	Differs   []Difference       // outputs that are not what the document says
}

// Difference is an output that is not what the document pins.
type Difference struct {
	Output    string
	Want, Got digest.SHA256
}

// Demand is what is demanded of a result.
type Demand struct {
	Executions   int      // that must agree; at least 1
	Sampled      bool     // the node chose by itself to make another
	Repeatable   bool     // everything must agree: the job is a function of its document
	OnAnomaly    bool     // hold back what has an anomaly
	Degradations []string // names of guarantees that may be missing
}

// DemandOf says what policy demands of the results of doc, whose id is id.
func DemandOf(doc *manifest.Job, id digest.SHA256, policy *manifest.Policy) Demand {
	v := policy.Spec.Validation
	d := Demand{
		Executions: max(1, doc.Spec.Replicas, v.MinReplicas), Repeatable: attest.Deterministic(doc),
		OnAnomaly: v.QuarantineOnAnomaly, Degradations: policy.Spec.Degradations,
	}
	if d.Repeatable && d.Executions < 2 && Sampled(id, v.SampleRate) {
		d.Executions, d.Sampled = 2, true
	}
	return d
}

// Sampled reports whether a node makes the job a second time by itself, at a rate from 0 to 1.
func Sampled(id digest.SHA256, rate float64) bool {
	sum := sha256.Sum256(slices.Concat([]byte("arch.network/validation/sample/v1\x00"), id[:]))
	if rate >= 1 {
		return true
	}
	return rate > 0 && float64(binary.BigEndian.Uint64(sum[:])) < rate*math.MaxUint64
}

// Outcome is what becomes of a result.
type Outcome string

// The outcomes.
const (
	Holds Outcome = "holds" // it may be anchored
	Again Outcome = "again" // another execution is needed to compare with
	Held  Outcome = "held"  // it is suspicious: a person must look
)

// Verdict is an outcome with what it stands on.
type Verdict struct {
	Outcome Outcome
	Reasons []agent.Reason // for Held: everything that speaks against it
	Summary string         // one sentence
}

// Judge judges the executions made so far, at least one.
func Judge(d Demand, list []Execution) Verdict {
	var reasons []agent.Reason
	add := func(field, cure, format string, args ...any) {
		reasons = append(reasons, agent.Reason{Field: field, Msg: fmt.Sprintf(format, args...), Cure: cure})
	}
	for _, e := range list {
		for _, x := range e.Differs {
			add("spec.outputs."+x.Output, "if the new output is right, have a document signed that expects it", "output %q of execution %d is %s, but the document says %s", x.Output, e.Number, x.Got, x.Want)
		}
		for _, m := range attest.Weaknesses(e.Missing) {
			if name, _, _ := strings.Cut(m, ":"); !slices.Contains(d.Degradations, name) {
				add("", fmt.Sprintf("to accept it, add %q to degradations in the policy", name), "a guarantee was missing in execution %d: %s", e.Number, m)
			}
		}
		if d.OnAnomaly {
			for _, a := range e.Anomalies {
				add("", "", "an anomaly was seen in execution %d: %s", e.Number, a)
			}
		}
	}
	for _, e := range list[1:] {
		disagree(d, list[0], e, add)
	}
	switch {
	case len(reasons) > 0:
		return Verdict{Held, reasons, "the result is held back: " + reasons[0].Msg}
	case len(list) < d.Executions:
		return Verdict{Again, nil, fmt.Sprintf("%d of %d executions were made", len(list), d.Executions)}
	case len(list) > 1:
		return Verdict{Holds, nil, fmt.Sprintf("%d executions agree", len(list))}
	}
	return Verdict{Holds, nil, "the result holds"}
}

// disagree compares two executions.
func disagree(d Demand, a, b Execution, add func(field, cure, format string, args ...any)) {
	const cure = "look at the evidence; if the program is not deterministic, its document must say so: determinism: {clock: real, randomness: real}"
	if len(a.Outputs) != len(b.Outputs) {
		add("spec.outputs", cure, "execution %d left %d outputs, execution %d left %d", a.Number, len(a.Outputs), b.Number, len(b.Outputs))
		return
	}
	for i, o := range a.Outputs {
		if other := b.Outputs[i]; o != other {
			add("spec.outputs."+o.Name, cure, "executions %d and %d disagree about output %q: %s and %s", a.Number, b.Number, o.Name, o.NAR, other.NAR)
		}
	}
	if !d.Repeatable {
		return
	}
	if a.Stdout != b.Stdout {
		add("", cure, "executions %d and %d printed different text: %s and %s", a.Number, b.Number, a.Stdout, b.Stdout)
	}
	if a.Gas != b.Gas {
		add("", cure, "executions %d and %d used different gas: %d and %d", a.Number, b.Number, a.Gas, b.Gas)
	}
}
