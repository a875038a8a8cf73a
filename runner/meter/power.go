package meter

import (
	"math"
	"runtime"
	"time"
)

// The governor's constants.
const (
	powerPeriod = time.Second // between two settings; a quota needs some scheduler periods (100 ms) to show
	minQuota    = 10          // thousandths of a processor: the kernel's least (1 ms of a period of 100 ms)
	idleUse     = 5           // thousandths of a processor below which use tells nothing about watts
	headroom    = 0.97        // part of the budget that is aimed at: what is above is noise of the measurement
	deadband    = 0.03        // relative change of the quota that is not worth making
)

// Governor turns watts into a CPU quota: it aims at the use of CPU at which the power would be the budget, if power were
// proportional to use. With a part that does not depend on use the steps still lead to the budget, each closer than the last,
// because power is then less than proportional; so it neither overshoots nor swings. It goes down at once and up by the geometric mean.
//
// A Governor is a pure function of what it was told: it reads no clock.
type Governor struct {
	budget float64 // watts
	most   int64   // thousandths of a processor
	quota  int64
}

// NewGovernor returns one that keeps budget watts. It starts with the quota that is right for coreWatts a processor, and never
// allows more than most thousandths of a processor.
func NewGovernor(budget, coreWatts float64, most int64) *Governor {
	g := &Governor{budget: budget * headroom, most: max(most, minQuota)}
	g.quota = g.clamp(g.budget / coreWatts * 1000)
	return g
}

// Quota returns the present quota in thousandths of a processor.
func (g *Governor) Quota() int64 { return g.quota }

// Next takes what was used since the last call, in watts and in thousandths of a processor, and returns the next quota.
func (g *Governor) Next(watts, used float64) int64 {
	if used < idleUse || watts <= 0 {
		if watts > g.budget {
			g.quota = minQuota
		}
		return g.quota
	}
	target := used * g.budget / watts
	if target > float64(g.quota) {
		target = math.Sqrt(target * float64(g.quota))
	}
	next := g.clamp(target)
	if math.Abs(float64(next-g.quota)) > deadband*float64(g.quota) || watts*headroom > g.budget {
		g.quota = next
	}
	return g.quota
}

// clamp keeps a quota within bounds; what is no number is the least.
func (g *Governor) clamp(milli float64) int64 {
	switch {
	case milli >= float64(g.most):
		return g.most
	case milli > minQuota:
		return int64(milli)
	}
	return minQuota
}

// powerWindow is where the energy and CPU time of the present period began.
type powerWindow struct {
	at     time.Duration
	cpu    time.Duration
	joules float64
	set    int64 // the quota that was set with success
}

// startPower sets the first quota if there is a budget to keep.
func (m *Meter) startPower() {
	budget := m.o.Limits.Power
	if budget <= 0 || m.o.Power == nil {
		return
	}
	cpus := m.o.CPUs
	if cpus == 0 {
		cpus = runtime.NumCPU()
	}
	most := int64(cpus) * 1000
	if q := m.o.Limits.CPU; q > 0 {
		most = min(most, q)
	}
	coreWatts := NewModel().CoreWatts
	if model, ok := m.energy.(*Model); ok {
		coreWatts = model.CoreWatts
	}
	m.governor = NewGovernor(budget, coreWatts, most)
	m.setQuota(m.governor.Quota())
}

// regulate asks the governor once in each period.
func (m *Meter) regulate() {
	elapsed := m.last.At - m.window.at
	if m.governor == nil || elapsed < powerPeriod {
		return
	}
	var joules float64
	if e := m.energy.Energy(); e != nil {
		joules = e.Joules
	}
	seconds := elapsed.Seconds()
	watts := (joules - m.window.joules) / seconds
	used := (m.last.CPU - m.window.cpu).Seconds() / seconds * 1000
	m.window.at, m.window.cpu, m.window.joules = m.last.At, m.last.CPU, joules
	m.setQuota(m.governor.Next(watts, used))
}

// setQuota hands a quota to the driver, unless it is the one that holds.
func (m *Meter) setQuota(milli int64) {
	if m.window.set == milli {
		return
	}
	m.out.PowerErr = m.o.Power(milli)
	if m.out.PowerErr == nil {
		m.window.set, m.out.Quota = milli, milli
	}
}
