package validation_test

import (
	"math"
	"testing"

	"arch.network/agent"
	"arch.network/agent/validation"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func sum(s string) digest.SHA256 { return digest.Of([]byte(s)) }

// execution is one that left "a" as output x.
func execution(n int, change func(*validation.Execution)) validation.Execution {
	e := validation.Execution{Number: n, Outputs: []attest.JobOutput{{Name: "x", NAR: sum("a")}}, Stdout: sum("hi"), Gas: 7}
	if change != nil {
		change(&e)
	}
	return e
}

func TestJudge(t *testing.T) {
	two := validation.Demand{Executions: 2, Repeatable: true}
	tests := []struct {
		name   string
		demand validation.Demand
		list   []validation.Execution
		want   validation.Outcome
		why    []string
	}{
		{"one is enough", validation.Demand{Executions: 1}, []validation.Execution{execution(1, nil)}, validation.Holds, nil},
		{"one of two", two, []validation.Execution{execution(1, nil)}, validation.Again, nil},
		{"two agree", two, []validation.Execution{execution(1, nil), execution(2, nil)}, validation.Holds, nil},
		{
			"another output", two,
			[]validation.Execution{execution(1, nil), execution(2, func(e *validation.Execution) { e.Outputs[0].NAR = sum("b") })},
			validation.Held,
			[]string{`executions 1 and 2 disagree about output "x": ` + sum("a").String() + " and " + sum("b").String()},
		},
		{
			"another gas", two,
			[]validation.Execution{execution(1, nil), execution(3, func(e *validation.Execution) { e.Gas = 8 })},
			validation.Held,
			[]string{"executions 1 and 3 used different gas: 7 and 8"},
		},
		{
			"other text of a program that reads the clock",
			validation.Demand{Executions: 2},
			[]validation.Execution{execution(1, nil), execution(2, func(e *validation.Execution) { e.Stdout, e.Gas = sum("later"), 9 })},
			validation.Holds, nil,
		},
		{
			"a majority does not win",
			validation.Demand{Executions: 3, Repeatable: true},
			[]validation.Execution{execution(1, nil), execution(2, nil), execution(3, func(e *validation.Execution) { e.Stdout = sum("x") })},
			validation.Held,
			[]string{"executions 1 and 3 printed different text: " + sum("hi").String() + " and " + sum("x").String()},
		},
		{
			"not the expected one, and nobody asks again", two,
			[]validation.Execution{execution(1, func(e *validation.Execution) {
				e.Differs = []validation.Difference{{Output: "x", Want: sum("w"), Got: sum("a")}}
			})},
			validation.Held,
			[]string{`output "x" of execution 1 is ` + sum("a").String() + ", but the document says " + sum("w").String()},
		},
		{
			"a guarantee was missing",
			validation.Demand{Executions: 1},
			[]validation.Execution{execution(1, func(e *validation.Execution) { e.Missing = []string{"seccomp: not compiled in"} })},
			validation.Held,
			[]string{"a guarantee was missing in execution 1: seccomp: not compiled in"},
		},
		{
			"which the policy allows",
			validation.Demand{Executions: 1, Degradations: []string{"seccomp"}},
			[]validation.Execution{execution(1, func(e *validation.Execution) { e.Missing = []string{"seccomp: not compiled in"} })},
			validation.Holds, nil,
		},
		{
			"an anomaly that nobody minds",
			validation.Demand{Executions: 1},
			[]validation.Execution{execution(1, func(e *validation.Execution) { e.Anomalies = []string{"fork-burst: many"} })},
			validation.Holds, nil,
		},
		{
			"an anomaly",
			validation.Demand{Executions: 1, OnAnomaly: true},
			[]validation.Execution{execution(1, func(e *validation.Execution) { e.Anomalies = []string{"fork-burst: many"} })},
			validation.Held,
			[]string{"an anomaly was seen in execution 1: fork-burst: many"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := validation.Judge(tt.demand, tt.list)
			var why []string
			for _, r := range got.Reasons {
				why = append(why, r.Msg)
			}
			if diff := cmp.Diff(tt.why, why); got.Outcome != tt.want || got.Summary == "" || diff != "" {
				t.Errorf("got %s (%s), want %s\n%s", got.Outcome, got.Summary, tt.want, diff)
			}
			if diff := cmp.Diff(got, validation.Judge(tt.demand, tt.list), cmpopts.EquateComparable(agent.Reason{})); diff != "" {
				t.Errorf("judged twice:\n%s", diff)
			}
		})
	}
}

func TestDemand(t *testing.T) {
	module := &manifest.Job{Spec: manifest.JobSpec{Runtime: manifest.RuntimeWasm}}
	native := &manifest.Job{Spec: manifest.JobSpec{Runtime: manifest.RuntimeOCI, Replicas: 3}}
	policy := &manifest.Policy{Spec: manifest.PolicySpec{Validation: manifest.PolicyValidation{SampleRate: 1, MinReplicas: 1, QuarantineOnAnomaly: true}}}
	for _, tt := range []struct {
		name string
		doc  *manifest.Job
		want validation.Demand
	}{
		{"a module is sampled", module, validation.Demand{Executions: 2, Sampled: true, Repeatable: true, OnAnomaly: true}},
		{"what reads the clock is not", native, validation.Demand{Executions: 3, OnAnomaly: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, validation.DemandOf(tt.doc, sum("id"), policy)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestSampled holds the share of jobs that are sampled to the rate, within four standard deviations.
func TestSampled(t *testing.T) {
	const n = 100_000
	for _, rate := range []float64{0, 0.001, 0.05, 0.5, 1} {
		hits := 0
		for i := range n {
			var id digest.SHA256
			id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16)
			if validation.Sampled(id, rate) {
				hits++
			}
		}
		if off := math.Abs(float64(hits) - n*rate); off > 4*math.Sqrt(n*rate*(1-rate)) {
			t.Errorf("at rate %g, %d of %d are sampled", rate, hits, n)
		}
	}
}
