package systemd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/runner"
)

// result makes the Result after the commands' last process is gone.
func (e *execution) result(ctx context.Context) (runner.Result, error) {
	service, _ := e.bus.live(ctx, e.link).GetUnitTypePropertiesContext(ctx, e.unit, "Service") // of a unit that is gone there is nothing to know
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return runner.Result{}, e.failed
	}
	if e.talk.err != nil {
		return runner.Result{}, e.talk.err
	}
	r, err := e.verdict(service)
	if err != nil {
		return runner.Result{}, err
	}
	e.account(&r, service)
	r.Outputs = e.collected
	r.Confinement = e.confinement(r.Confinement)
	return r, nil
}

// verdict decides how the execution ended: what the kernel and the driver did beats what the commands did.
func (e *execution) verdict(service map[string]any) (runner.Result, error) {
	var r runner.Result
	var err error
	if e.outcome != nil {
		r, err = e.outcome.Result, e.outcome.error()
	}
	result, _ := service["Result"].(string)
	last := e.watch.report.Last
	overrule := func(reason runner.Reason, detail string) (runner.Result, error) {
		r.Reason, r.Detail, r.Exit, r.Signal = reason, detail, 0, ""
		return r, nil
	}
	switch {
	case result == "oom-kill" || last.Killed > 0:
		return overrule(runner.ReasonOutOfMemory, memoryDetail(e.spec.Limits))
	case e.stop != nil:
		return overrule(e.stop.reason, e.stop.detail)
	case err != nil:
		return runner.Result{}, err
	case e.outcome == nil && result == "timeout":
		return overrule(runner.ReasonTimeout, fmt.Sprintf("wall time: more than %s", e.spec.Limits.Wall))
	case e.outcome == nil && (result == "signal" || result == "success" || result == ""):
		return overrule(runner.ReasonCancelled, "the unit was stopped from outside")
	case e.outcome == nil:
		status, _ := service["ExecMainStatus"].(int32)
		return runner.Result{}, fmt.Errorf("run unit %s: %w", e.unit, &unitError{result, int(status)})
	case r.Reason == runner.ReasonExit && r.Exit != 0 && e.spec.Limits.Processes > 0 && last.ForksRefused > 0:
		return overrule(runner.ReasonLimit, fmt.Sprintf("processes: more than %d", e.spec.Limits.Processes))
	}
	return r, nil
}

// account fills in what was used. The unit's control groups count everything that the unit did; where they have no
// processor time, systemd's own count, or wait4(2)'s, is there.
func (e *execution) account(r *runner.Result, service map[string]any) {
	wall, peak, traffic := r.Wall, r.MemoryPeak, r.Network
	r.Usage = e.watch.report.Usage
	r.Network = traffic // the gateway is the inner layer's
	r.Anomalies = join(e.watch.report.Anomalies, r.Anomalies)
	if wall > 0 {
		r.Wall = wall
	} else {
		r.Wall = e.finished.Sub(e.started)
	}
	if n, ok := service["CPUUsageNSec"].(uint64); ok && n != infinity {
		r.CPU = max(r.CPU, time.Duration(n))
	}
	if r.CPU == 0 && e.outcome != nil {
		r.CPU = e.outcome.CPU
		r.Accounting = strings.Trim(r.Accounting+"+rusage", "+")
	}
	r.MemoryPeak = max(r.MemoryPeak, peak)
	if r.Reason == runner.ReasonOutOfMemory { // of a group that is removed the peak is not read, but is known
		r.MemoryPeak = max(r.MemoryPeak, e.spec.Limits.Memory)
	}
	if r.Engine == "" {
		r.Engine = "native"
	}
}

// join adds those anomalies of the inner layer that are of other kinds.
func join(own, inner []runner.Anomaly) []runner.Anomaly {
	for _, a := range inner {
		if !slices.ContainsFunc(own, func(b runner.Anomaly) bool { return a.Kind == b.Kind }) {
			own = append(own, a)
		}
	}
	return own
}

// confinement joins what the inner layer says with what the unit has.
func (e *execution) confinement(inner runner.Confinement) runner.Confinement {
	c := runner.Confinement{Driver: "systemd"}
	c.Enforced = slices.Concat(inner.Enforced, e.watch.enforced, e.report.enforced(e.spec))
	if e.spec.Limits.Wall > 0 {
		c.Enforced = append(c.Enforced, "wall-time")
	}
	if e.layout.uid == 0 {
		c.Enforced = append(c.Enforced, "own-user")
	}
	c.Missing = slices.Concat(inner.Missing, e.watch.missing, e.missing)
	if bounded(e.spec.Limits) {
		c.Missing = append(c.Missing, "refused-syscalls: those that the unit's own filter refuses are not counted, only those of the inner layer's")
	}
	return sorted(c)
}

// bounded reports whether an execution is held to something, and so watched.
func bounded(l runner.Limits) bool {
	return l.Wall > 0 || l.CPU > 0 || l.Memory > 0 || l.Processes > 0 || l.IORead > 0 || l.IOWrite > 0 || l.Power > 0
}

// sorted puts c into its canonical order.
func sorted(c runner.Confinement) runner.Confinement {
	slices.Sort(c.Enforced)
	slices.Sort(c.Missing)
	c.Enforced, c.Missing = slices.Compact(c.Enforced), slices.Compact(c.Missing)
	return c
}

func hasProperty(list []Property, name string) bool {
	return slices.ContainsFunc(list, func(p Property) bool { return p.Name == name })
}
