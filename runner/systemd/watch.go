package systemd

import (
	"context"
	"fmt"
	"sync"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// cureGroups tells what lets systemd keep limits.
const cureGroups = "let systemd have the controller (Delegate=yes in a container; cgroup_enable=memory where the kernel has it off), or allow a degraded run"

// watch measures a unit, and notices when the kernel kills a process of it for memory.
type watch struct {
	meter    *meter.Meter
	groups   groups
	enforced []string
	missing  []string
	limits   runner.Limits
	kills    *kills
	report   meter.Report
	stop     sync.Once
}

// startWatch reads back the limits of e's unit and starts to measure it.
func startWatch(e *execution) (*watch, error) {
	g, err := groupsOf(e.hello.Groups)
	if err != nil {
		return nil, err
	}
	w := &watch{groups: g, limits: e.spec.Limits}
	var missing map[string]string
	w.enforced, missing = g.applied(e.spec.Limits)
	for name, why := range missing {
		if mustHold(name) && !e.spec.Degraded {
			return nil, &runner.SetupError{Act: "limit " + name, Err: fmt.Errorf("%s", why), Cure: cureGroups}
		}
		w.missing = append(w.missing, name+": "+why)
	}
	source, err := meter.Cgroup(g.meterPaths())
	if err != nil {
		return nil, &runner.SetupError{Act: "account for unit", Err: err, Cure: cureGroups}
	}
	w.meter = meter.Start(source, meter.Options{
		Limits: e.spec.Limits, CPUs: e.spec.CPUs, Log: e.logs.bytes.Load,
		Power: func(milli int64) error { return setQuota(e.bus, e.link, e.unit, milli, e.spec.Limits.CPU) },
	})
	w.meter.Observe(e.spec.Observe)
	w.kills = watchKills(g["memory"], func() {
		e.kill(&ending{runner.ReasonOutOfMemory, memoryDetail(e.spec.Limits)}, nil)
	})
	return w, nil
}

// meterPaths names the groups as package meter does.
func (g groups) meterPaths() meter.CgroupPaths {
	return meter.CgroupPaths{Unified: g[""], CPU: g["cpuacct"], Memory: g["memory"], IO: g["blkio"], PIDs: g["pids"]}
}

// setQuota changes how much processor time a unit gets, in thousandths of a processor, but never above its limit; zero: none.
func setQuota(b *bus, l *link, unit string, milli, most int64) error {
	if most > 0 {
		milli = min(milli, most)
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	return b.live(ctx, l).SetUnitPropertiesContext(ctx, unit, true, toBus([]Property{{"CPUQuotaPerSecUSec", uint64(milli) * 1000}})...)
}

func memoryDetail(l runner.Limits) string {
	if l.Memory == 0 {
		return "memory: the host has no more"
	}
	return fmt.Sprintf("memory: more than %d bytes", l.Memory)
}

// power says whether the power budget is kept.
func (w *watch) power() {
	if w.limits.Power == 0 {
		return
	}
	_, by := w.groups.read(settings["cpu"])
	switch {
	case by == "":
		w.missing = append(w.missing, "power: the unit has no control group for processor time")
	case w.report.PowerErr != nil:
		w.missing = append(w.missing, "power: "+w.report.PowerErr.Error())
	default:
		w.enforced = append(w.enforced, "power:"+by)
	}
}

// end takes the last readings, for which the unit's groups must still exist.
func (w *watch) end() {
	w.stop.Do(func() {
		w.report = w.meter.Stop()
		w.kills.end()
		w.power()
	})
}
