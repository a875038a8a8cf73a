package broker

import (
	"fmt"
	"sync"

	"arch.network/attest/manifest"
	"arch.network/runner"
)

// load is what all running jobs may use together. A policy bounds it for each owner and for the node, over whatever the
// agent schedules.
type load struct {
	mu   sync.Mutex // guards jobs
	jobs map[*claim]bool
}

// claim is what one job may use.
type claim struct {
	owner  string
	amount [len(measures)]float64
}

// measure is one resource that adds up.
type measure struct {
	name  string
	bound func(r *manifest.JobResources) (float64, error) // zero: none
	use   func(l runner.Limits, doc *manifest.Job) (float64, error)
}

var measures = [...]measure{
	{
		"cpu", func(r *manifest.JobResources) (float64, error) { return quantity(r.CPU.Milli()) },
		func(l runner.Limits, _ *manifest.Job) (float64, error) { return float64(l.CPU), nil },
	},
	{
		"memory", func(r *manifest.JobResources) (float64, error) { return quantity(r.Memory.Bytes()) },
		func(l runner.Limits, _ *manifest.Job) (float64, error) { return float64(l.Memory), nil },
	},
	{
		"gpu", func(r *manifest.JobResources) (float64, error) { return quantity(r.GPU.Milli()) },
		func(_ runner.Limits, doc *manifest.Job) (float64, error) {
			return float64(len(doc.Spec.Capabilities.Devices)) * 1000, nil
		},
	},
	{
		"processes", func(r *manifest.JobResources) (float64, error) { return float64(r.Processes), nil },
		func(l runner.Limits, _ *manifest.Job) (float64, error) { return float64(l.Processes), nil },
	},
	{
		"powerBudgetW", func(r *manifest.JobResources) (float64, error) { return r.PowerBudgetW, nil },
		func(l runner.Limits, _ *manifest.Job) (float64, error) { return l.Power, nil },
	},
}

func quantity(n int64, err error) (float64, error) { return float64(n), err }

// take adds a job, if it fits, and returns how to give back what it has.
func (l *load) take(a *admitted, limits runner.Limits) (release func(), err error) {
	c := &claim{owner: a.doc.Metadata.Owner}
	for i, m := range measures {
		if c.amount[i], err = m.use(limits, a.doc); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	bounds := &a.trust.policy.Spec.Resources
	for _, level := range []struct {
		what  string
		bound *manifest.JobResources
		all   bool
	}{{"all jobs of " + c.owner, &bounds.Owner, false}, {"all jobs of the node", &bounds.Node, true}} {
		if err := l.fits(c, level.what, level.bound, level.all); err != nil {
			return nil, err
		}
	}
	if l.jobs == nil {
		l.jobs = map[*claim]bool{}
	}
	l.jobs[c] = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.jobs, c)
	}, nil
}

// fits compares what runs already, and c, with bounds. The caller holds mu.
func (l *load) fits(c *claim, what string, bounds *manifest.JobResources, all bool) error {
	for i, m := range measures {
		bound, err := m.bound(bounds)
		if err != nil {
			return fmt.Errorf("policy: %s of %s: %w", m.name, what, err)
		}
		if bound == 0 {
			continue
		}
		if c.amount[i] == 0 && m.name != "gpu" {
			return refuse(CodePolicy, "set spec.resources."+m.name+", or resources.job."+m.name+" in the policy", "the policy bounds the %s of %s, but this job has no limit of it", m.name, what)
		}
		sum := c.amount[i]
		for other := range l.jobs {
			if all || other.owner == c.owner {
				sum += other.amount[i]
			}
		}
		switch {
		case c.amount[i] > bound:
			return refuse(CodePolicy, "ask for less, or raise it in the policy", "its %s alone is over what the policy allows %s", m.name, what)
		case sum > bound:
			return refuse(CodeBusy, "try again when others have ended", "with it, the %s of %s would be over what the policy allows", m.name, what)
		}
	}
	return nil
}
