package job

import (
	"fmt"
	"time"

	"arch.network/attest/manifest"
	"arch.network/runner"
)

// What a job gets that asks for nothing, where the policy says nothing either. A program in a terminal needs no more;
// whatever does says so.
const (
	DefaultMemory    = 2 << 30 // bytes; files in /tmp and /outputs count as memory, for that is where they are
	DefaultScratch   = 1 << 30 // bytes of /tmp
	DefaultOutput    = 1 << 30 // bytes of /outputs
	DefaultProcesses = 1024
	DefaultLog       = 64 << 20 // bytes of stdout and stderr together
	DefaultTimeout   = time.Hour
)

// Limits returns what an execution of doc may use: what the document asks for, else the policy's bound for a job, else
// the defaults; never more than the policy's bounds. CPU, gas and power have no default: zero is no limit. For a module,
// Derive adds WorkerMemory to the memory.
func Limits(doc *manifest.Job, policy *manifest.Policy) (runner.Limits, error) {
	asked := &doc.Spec.Resources
	p := &policy.Spec
	bounds := []*manifest.JobResources{&p.Resources.Job, &p.Local.Cap}
	var err error
	pick := func(name string, value func(r *manifest.JobResources) (int64, error), fallback int64) int64 {
		n, e := effective(value, asked, bounds, fallback)
		if e != nil && err == nil {
			err = fmt.Errorf("resources.%s: %w", name, e)
		}
		return n
	}
	l := runner.Limits{
		CPU:       pick("cpu", func(r *manifest.JobResources) (int64, error) { return r.CPU.Milli() }, 0),
		Memory:    pick("memory", func(r *manifest.JobResources) (int64, error) { return r.Memory.Bytes() }, DefaultMemory),
		Scratch:   pick("scratch", func(r *manifest.JobResources) (int64, error) { return r.Scratch.Bytes() }, DefaultScratch),
		Output:    pick("output", func(r *manifest.JobResources) (int64, error) { return r.Output.Bytes() }, DefaultOutput),
		Processes: int(pick("processes", func(r *manifest.JobResources) (int64, error) { return int64(r.Processes), nil }, DefaultProcesses)),
		Log:       DefaultLog,
		Power:     power(asked, bounds),
	}
	if err != nil {
		return runner.Limits{}, err
	}
	if l.Wall, err = timeout(doc, policy); err != nil {
		return runner.Limits{}, err
	}
	return l, nil
}

// effective returns what was asked for, or the first bound that is set, or the fallback; and never more than any bound.
func effective(value func(*manifest.JobResources) (int64, error), asked *manifest.JobResources, bounds []*manifest.JobResources, fallback int64) (int64, error) {
	n, err := value(asked)
	if err != nil {
		return 0, err
	}
	given := n > 0
	for _, b := range bounds {
		limit, err := value(b)
		if err != nil {
			return 0, fmt.Errorf("policy: %w", err)
		}
		if limit > 0 && (!given || n > limit) {
			n, given = limit, true
		}
	}
	if !given {
		return fallback, nil
	}
	return n, nil
}

// Gas returns the most metered work of an execution of doc: what it asks for, within the policy's bounds; zero: no limit.
func Gas(doc *manifest.Job, policy *manifest.Policy) (uint64, error) {
	n, err := effective(func(r *manifest.JobResources) (int64, error) { return r.Gas, nil }, &doc.Spec.Resources,
		[]*manifest.JobResources{&policy.Spec.Resources.Job, &policy.Spec.Local.Cap}, 0)
	return uint64(max(n, 0)), err
}

// power is the smallest budget of those that are set, in watts.
func power(asked *manifest.JobResources, bounds []*manifest.JobResources) float64 {
	least := asked.PowerBudgetW
	for _, b := range bounds {
		if b.PowerBudgetW > 0 && (least == 0 || b.PowerBudgetW < least) {
			least = b.PowerBudgetW
		}
	}
	return least
}

// timeout is the smaller of the document's and the policy's; DefaultTimeout if neither says one.
func timeout(doc *manifest.Job, policy *manifest.Policy) (time.Duration, error) {
	asked, err := doc.Spec.Timeout.Duration()
	if err != nil {
		return 0, fmt.Errorf("timeout: %w", err)
	}
	limit, err := policy.Spec.Resources.Timeout.Duration()
	if err != nil {
		return 0, fmt.Errorf("policy: timeout: %w", err)
	}
	switch {
	case asked == 0 && limit == 0:
		return DefaultTimeout, nil
	case asked == 0 || limit > 0 && limit < asked:
		return limit, nil
	}
	return asked, nil
}
