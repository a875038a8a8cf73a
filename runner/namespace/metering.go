package namespace

import (
	"cmp"
	"slices"
	"strings"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// metered reports whether an execution with these limits is watched by package meter: one that is bounded in time or means.
// What has no bound at all, such as a step of a trusted build, is not charged for that.
func metered(l runner.Limits) bool {
	return l.Wall > 0 || l.CPU > 0 || l.Memory > 0 || l.Processes > 0 || l.IORead > 0 || l.IOWrite > 0 || l.Power > 0
}

// measure starts the meter, if there is to be one.
func (e *execution) measure() {
	if !metered(e.spec.Limits) && e.spec.Observe == nil {
		return
	}
	source, err := meter.Cgroup(e.group.meterPaths())
	if err != nil {
		source = meter.Process(e.cmd.Process.Pid)
	}
	options := meter.Options{Limits: e.spec.Limits, CPUs: e.spec.CPUs, Log: e.logs.written, RefusedSyscalls: e.denied.count, Rest: e.rest}
	if e.spec.Limits.Power > 0 && e.group.has(cpuController) {
		options.Power = func(thousandths int64) error {
			if limit := e.spec.Limits.CPU; limit > 0 {
				thousandths = min(thousandths, limit)
			}
			return e.group.setCPU(thousandths)
		}
	}
	e.meter = meter.Start(source, options)
	e.meter.Observe(e.spec.Observe)
}

// meterPaths names the group's directories for the meter.
func (g *group) meterPaths() meter.CgroupPaths {
	if g == nil {
		return meter.CgroupPaths{}
	}
	if g.version == 2 {
		dirs := g.dirs()
		return meter.CgroupPaths{Unified: dirs[0]}
	}
	return meter.CgroupPaths{
		CPU: g.paths[accountController], Memory: g.paths[memoryController], IO: g.paths[ioController], PIDs: g.paths[pidsController],
	}
}

// addMeasured adds what the meter knows, for which the group must still be there when it is stopped. CPU time is the kernel's own
// sum over all processes (wait4(2)), which no sampling can beat.
func (e *execution) addMeasured(r *runner.Result) {
	if e.meter == nil {
		return
	}
	u := e.measured.Usage
	r.MemoryPeak = max(r.MemoryPeak, u.MemoryPeak)
	r.IORead, r.IOWrite, r.Energy = u.IORead, u.IOWrite, u.Energy
	if !slices.Contains(strings.Split(r.Accounting, "+"), u.Accounting) {
		r.Accounting = u.Accounting + "+" + r.Accounting
	}
	r.Anomalies = append(r.Anomalies, e.measured.Anomalies...)
	slices.SortStableFunc(r.Anomalies, func(a, b runner.Anomaly) int { return cmp.Compare(a.At, b.At) })
}

// missingPower says why the power budget is not kept, or nothing.
func (e *execution) missingPower() string {
	switch {
	case e.spec.Limits.Power == 0:
		return ""
	case !e.group.has(cpuController):
		return missingController
	case e.meter != nil && e.measured.PowerErr != nil:
		return e.measured.PowerErr.Error()
	}
	return ""
}
