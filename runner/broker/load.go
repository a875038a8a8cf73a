package broker

import (
	"fmt"
	"sync"

	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/job"
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
	amount []float64 // by measure, as job.Measures lists them
}

// take adds a job, if it fits, and returns how to give back what it has.
func (l *load) take(a *admitted, limits runner.Limits) (release func(), err error) {
	if reasons := job.Fits(a.doc, a.trust.policy, limits); len(reasons) > 0 {
		return nil, refusalOf(&job.DeniedError{Job: a.doc.Metadata.Name, Policy: a.trust.policy.Metadata.Name, Reasons: reasons})
	}
	c := &claim{owner: a.doc.Metadata.Owner}
	for _, m := range job.Measures() {
		c.amount = append(c.amount, m.Use(limits, a.doc))
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
	for i, m := range job.Measures() {
		bound, err := m.Bound(bounds)
		if err != nil {
			return fmt.Errorf("policy: %s of %s: %w", m.Name, what, err)
		}
		if bound == 0 {
			continue
		}
		sum := c.amount[i]
		for other := range l.jobs {
			if all || other.owner == c.owner {
				sum += other.amount[i]
			}
		}
		if sum > bound {
			return refuse(CodeBusy, "try again when others have ended", "with it, the %s of %s would be over what the policy allows", m.Name, what)
		}
	}
	return nil
}
