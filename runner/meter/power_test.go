package meter

import (
	"math"
	"math/rand/v2"
	"testing"
)

// machine is what a quota does to power.
type machine struct {
	base      float64 // watts that do not depend on the quota
	coreWatts float64 // of a busy processor
	demand    float64 // thousandths of a processor that the execution would use
	noise     float64 // relative, of the measurement
}

func (m machine) run(quota int64, r *rand.Rand) (watts, used float64) {
	used = min(m.demand, float64(quota))
	return (m.base + m.coreWatts*used/1000) * (1 + m.noise*(2*r.Float64()-1)), used
}

// TestGovernor simulates a minute and looks at its second half: the power is near the budget, or all that the execution
// asks for, and the quota no longer moves.
func TestGovernor(t *testing.T) {
	const cpus = 16_000
	tests := []struct {
		name    string
		budget  float64
		machine machine
		want    float64 // thousandths of a processor
		swing   float64 // how far the quota may move in the second half, relative
	}{
		{"as the model says", 20, machine{0, 2.76, 16000, 0}, 7029, 0},
		{"processors that need four times as much", 20, machine{0, 11, 16000, 0}, 1764, 0},
		{"processors that need a third", 20, machine{0, 0.9, 16000, 0}, 16000, 0},
		{"a base of a third of the budget", 30, machine{10, 4, 16000, 0}, 4775, 0.03},
		{"a base of nine tenths of the budget: it comes near from above, and stops within the headroom", 10, machine{9, 4, 16000, 0}, 242, 0.03},
		{"a base above the budget", 10, machine{12, 4, 16000, 0}, minQuota, 0},
		{"less demand than the budget allows", 40, machine{1, 3, 2000, 0}, 2000, 0},
		{"a noisy measurement", 20, machine{2, 4, 16000, 0.05}, 4350, 0.15},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			g := NewGovernor(test.budget, NewModel().CoreWatts, cpus)
			low, high, over, sum := math.Inf(1), 0.0, 0, 0.0
			var used float64
			for second := range 60 {
				var watts float64
				watts, used = test.machine.run(g.Quota(), r)
				g.Next(watts, used)
				if second < 30 {
					continue
				}
				low, high = min(low, float64(g.Quota())), max(high, float64(g.Quota()))
				sum += used
				if watts > test.budget && g.Quota() > minQuota {
					over++
				}
			}
			if mean := sum / 30; math.Abs(mean-test.want) > 0.06*test.want {
				t.Errorf("%.0f thousandths of a processor are used, want %.0f", mean, test.want)
			}
			if (high-low)/high > test.swing {
				t.Errorf("the quota swings between %.0f and %.0f", low, high)
			}
			if test.machine.noise == 0 && over > 0 {
				t.Errorf("the power was above the budget in %d of 30 seconds", over)
			}
		})
	}
}

func TestGovernorFollowsALoadThatChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	g := NewGovernor(20, 2.76, 8000)
	m := machine{coreWatts: 10, demand: 8000}
	for second := range 40 {
		watts, used := m.run(g.Quota(), r)
		g.Next(watts, used)
		switch second {
		case 9:
			if q := g.Quota(); q > 2000 {
				t.Errorf("the quota is %d with costly work, want less than 2000", q)
			}
			m.coreWatts = 3
		case 39:
			if q := g.Quota(); q < 6000 || q > 6700 {
				t.Errorf("the quota is %d with cheap work, want about 6466", q)
			}
		}
	}
}

func TestGovernorTakesNonsense(t *testing.T) {
	for _, budget := range []float64{0, -1, math.NaN(), math.Inf(1), 1e-9, 1e300} {
		g := NewGovernor(budget, 2.76, 4000)
		for _, watts := range []float64{0, -1, math.NaN(), math.Inf(1), 1e300} {
			for _, used := range []float64{0, -5, math.NaN(), math.Inf(1), 1e300} {
				if q := g.Next(watts, used); q < minQuota || q > 4000 {
					t.Fatalf("budget %v, %v W, use %v: quota %d", budget, watts, used, q)
				}
			}
		}
	}
}
