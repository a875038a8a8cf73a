package job

import (
	"fmt"

	"arch.network/attest/manifest"
	"arch.network/runner"
)

// Measure is one resource of which all running jobs together use a share.
type Measure struct {
	Name string
	// Bound is what a policy allows all jobs of an owner, or of a node, together; zero: any amount.
	Bound func(r *manifest.JobResources) (float64, error)
	// Use is the most that one job uses; zero: it has no limit of it, or needs none.
	Use func(l runner.Limits, doc *manifest.Job) float64
	// Optional says that a job that uses none needs no limit: it cannot take any unasked.
	Optional bool
}

// Measures lists the resources that resources.owner and resources.node of a policy bound.
func Measures() []Measure {
	return []Measure{
		{
			"cpu", func(r *manifest.JobResources) (float64, error) { return quantity(r.CPU.Milli()) },
			func(l runner.Limits, _ *manifest.Job) float64 { return float64(l.CPU) }, false,
		},
		{
			"memory", func(r *manifest.JobResources) (float64, error) { return quantity(r.Memory.Bytes()) },
			func(l runner.Limits, _ *manifest.Job) float64 { return float64(l.Memory) }, false,
		},
		{
			"gpu", func(r *manifest.JobResources) (float64, error) { return quantity(r.GPU.Milli()) },
			func(_ runner.Limits, doc *manifest.Job) float64 {
				return float64(len(doc.Spec.Capabilities.Devices)) * 1000
			}, true,
		},
		{
			"processes", func(r *manifest.JobResources) (float64, error) { return float64(r.Processes), nil },
			func(l runner.Limits, _ *manifest.Job) float64 { return float64(l.Processes) }, false,
		},
		{
			"powerBudgetW", func(r *manifest.JobResources) (float64, error) { return r.PowerBudgetW, nil },
			func(l runner.Limits, _ *manifest.Job) float64 { return l.Power }, false,
		},
	}
}

func quantity(n int64, err error) (float64, error) { return float64(n), err }

// Fits returns what keeps a job with these limits from ever running, however idle the node is: alone it is over what the
// policy allows an owner or the node, or it has no limit of something that they have.
func Fits(doc *manifest.Job, policy *manifest.Policy, limits runner.Limits) []Reason {
	var out []Reason
	for _, level := range []struct {
		what, field string
		bound       *manifest.JobResources
	}{
		{"all jobs of an owner", "owner", &policy.Spec.Resources.Owner},
		{"all jobs of the node", "node", &policy.Spec.Resources.Node},
	} {
		for _, m := range Measures() {
			if r := m.fits(level.bound, limits, doc, level.what); r != nil {
				r.Cure += fmt.Sprintf(", or change resources.%s.%s in the policy", level.field, m.Name)
				out = append(out, *r)
			}
		}
	}
	return out
}

func (m Measure) fits(bounds *manifest.JobResources, limits runner.Limits, doc *manifest.Job, what string) *Reason {
	field := "spec.resources." + m.Name
	bound, err := m.Bound(bounds)
	use := m.Use(limits, doc)
	switch {
	case err != nil:
		return &Reason{field, fmt.Sprintf("the policy's %s of %s cannot be read: %v", m.Name, what, err), "mend the policy"}
	case bound > 0 && use == 0 && !m.Optional:
		return &Reason{field, fmt.Sprintf("the policy bounds the %s of %s, but this job has no limit of it", m.Name, what), "set " + field}
	case bound > 0 && use > bound:
		return &Reason{field, fmt.Sprintf("its %s alone is over what the policy allows %s", m.Name, what), "ask for less"}
	}
	return nil
}
