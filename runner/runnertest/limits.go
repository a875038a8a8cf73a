package runnertest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"arch.network/runner"
)

// limits are the cases of runner.Limits.
func limits() []testCase {
	return []testCase{
		{"wall time ends grandchildren in other sessions too", func(h *harness) {
			const mark = "mark-of-wall"
			spec := h.spec("daemon", "stay", mark)
			spec.Limits.Wall = 300 * time.Millisecond
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonTimeout, 0)
			h.allDead(mark)
		}},
		{"memory", func(h *harness) {
			spec := h.spec("alloc", "1000000000")
			spec.Limits.Memory = 100 << 20
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonOutOfMemory, 0)
			if !strings.Contains(strings.Join(result.Confinement.Enforced, " "), "memory:") {
				h.Errorf("the limit is not among what is enforced: %v", result.Confinement.Enforced)
			}
			if result.MemoryPeak < 64<<20 {
				h.Errorf("memory peak of %d bytes", result.MemoryPeak)
			}
		}},
		{"processes", func(h *harness) {
			spec := h.spec("forks", "2000")
			spec.Limits.Processes = 100
			result, out := h.run(spec)
			refused := result.Reason == runner.ReasonExit && result.Exit == 3
			if result.Reason != runner.ReasonLimit && !refused {
				h.Errorf("got %+v\n%s", result, out)
			}
		}},
		{"CPU time", func(h *harness) {
			spec := h.spec("spin", "200")
			spec.Limits.CPU = 250 // 200 ms of it take 800 ms of real time, whatever else the machine does
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			took, err := strconv.Atoi(strings.TrimSpace(out))
			if h.keeps(result, "cpu") && (err != nil || took < 500) { // the first period's quota, 25 ms, comes at once on each CPU
				h.Errorf("200 ms of CPU time took %q ms", out)
			}
		}},
		{"limits of I/O and power are kept, or said to be missing", func(h *harness) {
			spec := h.spec("exit", "0")
			spec.Limits.IORead, spec.Limits.IOWrite, spec.Limits.Power = 1<<20, 1<<20, 0.5
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			for _, what := range []string{"io-read", "io-write", "power"} {
				h.keeps(result, what)
			}
		}},
		{"power", func(h *harness) {
			spec := h.spec("spin", "200")
			spec.Limits.Power = 0.5 // of the 3.5 W that the model gives a processor: far less than half of one
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			took, err := strconv.Atoi(strings.TrimSpace(out))
			if h.keeps(result, "power") && (err != nil || took < 400) {
				h.Errorf("200 ms of CPU time took %q ms", out)
			}
			if result.Energy == nil || result.Energy.Joules <= 0 || result.Energy.Source == "" {
				h.Errorf("got energy %+v", result.Energy)
			}
		}},
		{"what was used is told, and where from", func(h *harness) {
			spec := h.spec("spin", "50")
			spec.Limits.Memory, spec.Limits.Processes = 1<<30, 100
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			if result.CPU < 40*time.Millisecond || result.MemoryPeak == 0 || result.Accounting == "" {
				h.Errorf("got %+v", result.Usage)
			}
		}},
		{"a flood of output is an anomaly", func(h *harness) {
			spec := h.spec("flood", "30000000")
			spec.Limits.Wall = time.Minute
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			if !slices.ContainsFunc(result.Anomalies, func(a runner.Anomaly) bool { return a.Kind == runner.AnomalyOutputFlood }) {
				h.Errorf("got anomalies %+v", result.Anomalies)
			}
		}},
		{"log", func(h *harness) {
			spec := h.spec("flood", "1000000000")
			spec.Limits.Log = 100000
			result, out := h.run(spec)
			h.ended(result, runner.ReasonLimit, 0)
			h.equal(result.Detail, "log: more than 100000 bytes")
			h.equal(len(out), 100000)
		}},
		{"log at the limit is complete", func(h *harness) {
			spec := h.spec("flood", "100000")
			spec.Limits.Log = 100000
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			h.equal(len(out), 100000)
		}},
		{"scratch space", func(h *harness) {
			spec := h.spec("make", "big="+strings.Repeat("x", 100000))
			spec.Limits.Scratch = 65536
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 65)
			h.equal(strings.Contains(out, "no space left on device"), true)
		}},
		{"output", func(h *harness) {
			spec := h.spec("make", "big="+strings.Repeat("x", 100000))
			spec.Limits.Output = 65536
			spec.Outputs = []runner.Output{{Name: "big", Path: "/build/big"}}
			spec.Collect = discard
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonLimit, 0)
			h.equal(result.Detail, "output big: more than 65536 bytes")
		}},
	}
}
