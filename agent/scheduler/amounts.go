package scheduler

import (
	"math/bits"
	"time"

	"arch.network/agent"
)

// Limits bound what waits and what runs.
type Limits struct {
	Node  agent.Resources // what all running jobs may be promised together; a zero is no bound
	Owner agent.Resources // what the running jobs of one owner may be promised; a zero is no bound
	Slots int             // running jobs; zero: no bound
	// GasRate is how much gas the whole node makes in a second, for weighing a module's work against time. Zero: gas is not
	// weighed.
	GasRate uint64

	Max      int // waiting jobs; zero: DefaultMax
	PerOwner int // waiting jobs of one owner; zero: Max

	Patience time.Duration // zero: DefaultPatience
	Backfill time.Duration // zero: DefaultBackfill
}

// The defaults of Limits.
const (
	DefaultMax      = 50_000
	DefaultPatience = 24 * time.Hour
	DefaultBackfill = 30 * time.Second
)

func (l Limits) complete() Limits {
	if l.Max <= 0 {
		l.Max = DefaultMax
	}
	if l.PerOwner <= 0 || l.PerOwner > l.Max {
		l.PerOwner = l.Max
	}
	if l.Patience <= 0 {
		l.Patience = DefaultPatience
	}
	if l.Backfill <= 0 {
		l.Backfill = DefaultBackfill
	}
	return l
}

// resource is one of agent.Resources.
type resource struct {
	name              string
	need, used, limit int64
}

// resources lines up what is needed, used and allowed.
func resources(need, used, limit agent.Resources) [3]resource {
	return [3]resource{
		{"cpu", need.CPU, used.CPU, limit.CPU},
		{"memory", need.Memory, used.Memory, limit.Memory},
		{"gpu", need.GPU, used.GPU, limit.GPU},
	}
}

// lacks returns the first resource of which too little is left.
func lacks(need, used, limit agent.Resources) (resource, bool) {
	for _, r := range resources(need, used, limit) {
		if r.limit > 0 && r.need > r.limit-r.used {
			return r, true
		}
	}
	return resource{}, false
}

func add(a, b agent.Resources, sign int64) agent.Resources {
	return agent.Resources{CPU: a.CPU + sign*b.CPU, Memory: a.Memory + sign*b.Memory, GPU: a.GPU + sign*b.GPU}
}

// whole is the share that stands for the whole node.
const whole = 1_000_000

// share is the largest part of the node that need is of any one resource, in millionths, at least 1. Without any limit and with
// slots, it is one of those.
func (l Limits) share(need agent.Resources) int64 {
	most := int64(1)
	for _, r := range resources(need, agent.Resources{}, l.Node) {
		if r.limit > 0 && r.need > 0 {
			most = max(most, scale(uint64(r.need), whole, uint64(r.limit)))
		}
	}
	if l.Slots > 0 {
		most = max(most, whole/int64(l.Slots))
	}
	return min(most, whole)
}

// cost is what a job is charged: share of the node times milliseconds, at least 1.
func (l Limits) cost(share int64, took time.Duration, gas uint64) int64 {
	n := scale(uint64(share), uint64(max(took.Microseconds(), 0)), 1000)
	if l.GasRate > 0 {
		n = max(n, scale(gas, whole*1000, l.GasRate))
	}
	return max(n, 1)
}

// maxCost bounds one charge, so that no sum overflows: the whole node for a year is 3·10^16.
const maxCost = 1 << 55

// scale is a·b/c without overflow, at most maxCost.
func scale(a, b, c uint64) int64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return maxCost
	}
	q, _ := bits.Div64(hi, lo, c)
	return int64(min(q, maxCost))
}
