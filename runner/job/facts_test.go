package job_test

import (
	"strings"
	"testing"
	"time"

	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/job"

	"github.com/google/go-cmp/cmp"
)

// TestConstraint compares one fact, called x, with a value.
func TestConstraint(t *testing.T) {
	const unmet, mistyped, unknown = "unmet", "mistyped", "unknown"
	tests := []struct {
		fact  string // "": there is none
		op    manifest.Operator
		value string
		want  string // empty: it holds
	}{
		{"1", "==", "1", ""},
		{"1", "==", "1.0", ""},
		{"1", "==", "2", unmet},
		{"1", "==", `"1"`, mistyped},
		{"1", "!=", `"1"`, mistyped},
		{"1", "!=", "2", ""},
		{"true", "==", "true", ""},
		{"true", "!=", "true", unmet},
		{"0.15", "<=", "0.15", ""},
		{"0.15", "<", "0.15", unmet},
		{"0.15", ">=", "0.15", ""},
		{"0.15", ">", "0.15", unmet},
		{"-1", "<", "0", ""},
		{`"1"`, "<", "2", mistyped},
		{`"a"`, "in", `["a","b"]`, ""},
		{`"c"`, "in", `["a","b"]`, unmet},
		{`"c"`, "not-in", `["a","b"]`, ""},
		{`"a"`, "not-in", `["a","b"]`, unmet},
		{`1`, "in", `["a","b"]`, mistyped},
		{`1`, "in", `["a",1]`, ""},
		{`["a","b"]`, "==", `"b"`, ""},
		{`["a","b"]`, "==", `"c"`, unmet},
		{`["a","b"]`, "!=", `"c"`, ""},
		{`["a","b"]`, "!=", `"b"`, unmet},
		{`["a","b"]`, "in", `["b","c"]`, ""},
		{`["a","b"]`, "not-in", `["b","c"]`, unmet},
		{`[]`, "==", `"a"`, unmet},
		{`[]`, "!=", `"a"`, ""},
		{`[1,2]`, "<", `3`, mistyped},
		{`{"a":1}`, "==", `1`, mistyped},
		{`null`, "==", `1`, mistyped},
		{`[[1]]`, "==", `1`, mistyped},
		{"", "==", "1", unknown},
		{"", "!=", "1", unknown},
	}
	for _, tt := range tests {
		t.Run(tt.fact+" "+string(tt.op)+" "+tt.value, func(t *testing.T) {
			doc := &manifest.Job{}
			doc.Spec.Placement.Constraints = []manifest.Constraint{{Key: "x", Op: tt.op, Value: manifest.Raw(tt.value)}}
			facts := job.Facts{Known: []map[string]manifest.Raw{{"y": manifest.Raw("1")}, {}}}
			if tt.fact != "" {
				facts.Known[1]["x"] = manifest.Raw(tt.fact)
			}
			list := job.Placed(doc, facts)
			got := ""
			if len(list) == 1 {
				got = mistyped
				for beginning, name := range map[string]string{"send it to a node where": unmet, "send it to a node that": unknown} {
					if strings.HasPrefix(list[0].Cure, beginning) {
						got = name
					}
				}
			}
			if got != tt.want {
				t.Errorf("%q, want %q: %v", got, tt.want, list)
			}
			facts.Partial = true
			if list := job.Placed(doc, facts); tt.want == unknown && len(list) > 0 {
				t.Errorf("somebody else knows it: %v", list)
			}
		})
	}
}

func TestOwn(t *testing.T) {
	doc := read(t, `image: ghcr.io/arch/example@`+pin+`
		runtime: oci
		resources: {cpu: 500m, memory: 1Gi}
		replicas: 2
		priority: 5
		timeout: 90s
		capabilities: {net: ["egress:443"], devices: ["nvidia.com/gpu=0"]}
		determinism: {clock: real, randomness: real}`)
	policy := job.LocalPolicy(nil)
	policy.Spec.Validation.MinReplicas = 3
	own, err := job.Own(doc, policy, time.Date(2026, 6, 7, 23, 0, 0, 0, time.FixedZone("", 3600)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for k, v := range own {
		got[k] = string(v)
	}
	want := map[string]string{
		"job.owner": `"user:alice"`, "job.runtime": `"oci"`, "job.image": `"ghcr.io/arch/example"`, "job.priority": "5", "job.replicas": "3",
		"job.capabilities": `["egress:443","device:nvidia.com/gpu=0","clock:real","randomness:real"]`,
		"job.cpu":          "0.5", "job.memory": "1073741824", "job.gpu": "1", "job.timeout_s": "90", "time.hour": "22", "time.weekday": "7",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFits(t *testing.T) {
	doc := read(t, "image: ghcr.io/arch/example@"+pin+"\nruntime: oci\ncapabilities: {devices: [\"nvidia.com/gpu=0\"]}")
	policy := job.LocalPolicy(nil)
	policy.Spec.Resources.Owner = manifest.JobResources{CPU: "2", Memory: "1Gi", GPU: "1"}
	policy.Spec.Resources.Node = manifest.JobResources{PowerBudgetW: 100, Processes: 10}
	var got []string
	for _, r := range job.Fits(doc, policy, runner.Limits{Memory: 2 << 30, Processes: 10}) {
		got = append(got, r.Field+": "+r.Msg)
	}
	want := []string{
		"spec.resources.cpu: the policy bounds the cpu of all jobs of an owner, but this job has no limit of it",
		"spec.resources.memory: its memory alone is over what the policy allows all jobs of an owner",
		"spec.resources.powerBudgetW: the policy bounds the powerBudgetW of all jobs of the node, but this job has no limit of it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
