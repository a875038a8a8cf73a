package meter

import (
	"cmp"
	"fmt"
	"time"

	"arch.network/runner"
)

// Thresholds say from where on something is an anomaly. A field that is zero has the default that is named with it.
type Thresholds struct {
	// Memory growth: unreclaimable memory (if it is not known: all) reached this part of the limit, and grew in at least
	// GrowthSteady of the steps in which it was read and changed, at least GrowthSteps of them. A kill for memory is one by itself.
	GrowthPart   float64 // 0.9
	GrowthSteady float64 // 0.8
	GrowthSteps  int     // 8

	// Fork burst: this many more processes and threads than at some time within ForkWindow before, or half of the limit of
	// processes if that is less (but never less than 16); or this many forks that the limit refused.
	ForkBurst   int64         // 256
	ForkWindow  time.Duration // one second
	ForkRefused int64         // 8

	// Pressure: stalled for this part of the last PressureWindow, with all of its processes, for want of memory or I/O.
	// For want of CPU, with some of them: PressureCPU of three such windows, which a quota alone does to a busy
	// program with more threads than it has processors; so it is 0.99.
	PressureMemory float64       // 0.5
	PressureIO     float64       // 0.8
	PressureCPU    float64       // 0.99
	PressureWindow time.Duration // 10 seconds

	// Refused system calls: this many. Programs try some at their start and go on without.
	Syscalls int64 // 32

	// Output flood: this many bytes of stdout and stderr within FloodWindow, or half of the limit of the log.
	FloodBytes  int64         // 8 MiB
	FloodWindow time.Duration // 2 seconds

	// Silence: less than SilenceCPU of CPU time, no I/O and no output, for this long.
	Silence    time.Duration // one minute
	SilenceCPU time.Duration // 20 milliseconds

	// Refused connections: this many.
	Connections int64 // 1
}

func (t Thresholds) withDefaults() Thresholds {
	return Thresholds{
		GrowthPart: cmp.Or(t.GrowthPart, 0.9), GrowthSteady: cmp.Or(t.GrowthSteady, 0.8), GrowthSteps: cmp.Or(t.GrowthSteps, 8),
		ForkBurst: cmp.Or(t.ForkBurst, 256), ForkWindow: cmp.Or(t.ForkWindow, time.Second), ForkRefused: cmp.Or(t.ForkRefused, 8),
		PressureMemory: cmp.Or(t.PressureMemory, 0.5), PressureIO: cmp.Or(t.PressureIO, 0.8), PressureCPU: cmp.Or(t.PressureCPU, 0.99),
		PressureWindow: cmp.Or(t.PressureWindow, 10*time.Second),
		Syscalls:       cmp.Or(t.Syscalls, 32),
		FloodBytes:     cmp.Or(t.FloodBytes, 8<<20), FloodWindow: cmp.Or(t.FloodWindow, 2*time.Second),
		Silence: cmp.Or(t.Silence, time.Minute), SilenceCPU: cmp.Or(t.SilenceCPU, 20*time.Millisecond),
		Connections: cmp.Or(t.Connections, 1),
	}
}

// maxSpan is the longest time that a detector looks back, whatever the thresholds: a series is not kept for longer.
const maxSpan = 80 * time.Second

// Detect looks for anomalies in the recent samples of an execution, oldest first. It is a pure function; the time of
// an anomaly is that of the last sample. Each kind is found at most once.
func Detect(series []Sample, limits runner.Limits, t Thresholds) []runner.Anomaly {
	if len(series) == 0 {
		return nil
	}
	t = t.withDefaults()
	var found []runner.Anomaly
	for _, d := range []struct {
		kind runner.AnomalyKind
		look func([]Sample, runner.Limits, Thresholds) string
	}{
		{runner.AnomalyMemoryGrowth, memoryGrowth},
		{runner.AnomalyForkBurst, forkBurst},
		{runner.AnomalyPressure, pressure},
		{runner.AnomalyRefusedSyscall, refusedSyscalls},
		{runner.AnomalyOutputFlood, outputFlood},
		{runner.AnomalySilence, silence},
		{runner.AnomalyRefusedNetwork, refusedNetwork},
	} {
		if evidence := d.look(series, limits, t); evidence != "" {
			found = append(found, runner.Anomaly{Kind: d.kind, At: series[len(series)-1].At, Evidence: evidence})
		}
	}
	return found
}

// memoryGrowth looks for memory that grows steadily up to the limit.
func memoryGrowth(series []Sample, limits runner.Limits, t Thresholds) string {
	last := series[len(series)-1]
	if last.Killed > 0 {
		return fmt.Sprintf("the kernel killed %d processes for memory; the peak was %d bytes, the limit is %d", last.Killed, last.MemoryPeak, limits.Memory)
	}
	if limits.Memory <= 0 || !last.Knows(Memory) {
		return ""
	}
	use := last.Memory
	if last.Knows(Unreclaimable) {
		use = last.Unreclaimable
	}
	if float64(use) < t.GrowthPart*float64(limits.Memory) {
		return ""
	}
	start := memoryStart(series)
	up, steps := 0, 0
	for i := start + 1; i < len(series); i++ {
		if d := series[i].Memory - series[i-1].Memory; d != 0 {
			steps++
			if d > 0 {
				up++
			}
		}
	}
	if steps < t.GrowthSteps || float64(up) < t.GrowthSteady*float64(steps) {
		return ""
	}
	return fmt.Sprintf("memory grew from %d to %d bytes, %.0f %% of the limit of %d, in %v, in %d of %d steps",
		series[start].Memory, use, 100*float64(use)/float64(limits.Memory), limits.Memory, round(last.At-series[start].At), up, steps)
}

// memoryStart returns the index of the last sample with less than half of the memory of the last one, or the first.
func memoryStart(series []Sample) int {
	last := series[len(series)-1].Memory
	for i := len(series) - 1; i > 0; i-- {
		if series[i].Memory < last/2 {
			return i
		}
	}
	return 0
}

// forkBurst looks for many new processes in a short time, and for forks that were refused.
func forkBurst(series []Sample, limits runner.Limits, t Thresholds) string {
	last := series[len(series)-1]
	if last.ForksRefused >= t.ForkRefused {
		return fmt.Sprintf("%d forks were refused at the limit of %d processes; the threshold is %d", last.ForksRefused, limits.Processes, t.ForkRefused)
	}
	burst := t.ForkBurst
	if limits.Processes > 0 {
		burst = max(min(burst, int64(limits.Processes)/2), 16)
	}
	series = recent(series, t.ForkWindow)
	from := 0
	for i := range series {
		s := &series[i]
		for s.At-series[from].At > t.ForkWindow {
			from++
		}
		for j := from; j < i; j++ {
			before := &series[j]
			if more := s.Processes - before.Processes; more >= burst && s.Knows(Processes) && before.Knows(Processes) {
				return fmt.Sprintf("%d more processes and threads within %v, from %d to %d; the threshold is %d", more, round(s.At-before.At), before.Processes, s.Processes, burst)
			}
		}
	}
	return ""
}

// detectPeriod is how often a Meter looks.
const detectPeriod = time.Second / 4

// recent returns the end of a series that a detector with a window has to go through, looking four times in each second,
// but for want of CPU perhaps late.
func recent(series []Sample, window time.Duration) []Sample {
	last := series[len(series)-1].At
	for i := len(series) - 1; i >= 0; i-- {
		if last-series[i].At > window+8*detectPeriod {
			return series[i:]
		}
	}
	return series
}

// pressure looks for stalls that go on.
func pressure(series []Sample, _ runner.Limits, t Thresholds) string {
	for _, p := range []struct {
		field  Field
		of     string
		window time.Duration
		part   float64
	}{
		{PressureMemory, "all processes were stalled for memory", t.PressureWindow, t.PressureMemory},
		{PressureIO, "all processes were stalled for I/O", t.PressureWindow, t.PressureIO},
		{PressureCPU, "processes waited for a CPU", 3 * t.PressureWindow, t.PressureCPU},
	} {
		before, last, ok := span(series, p.window)
		if !ok || !before.Knows(p.field) {
			continue
		}
		stalled := *last.duration(p.field) - *before.duration(p.field)
		over := last.At - before.At
		if part := stalled.Seconds() / over.Seconds(); part >= p.part {
			return fmt.Sprintf("%s for %v of %v, %.0f %%; the threshold is %.0f %%", p.of, round(stalled), round(over), 100*part, 100*p.part)
		}
	}
	return ""
}

// span returns the last sample, and the youngest that is at least window older.
func span(series []Sample, window time.Duration) (before, last Sample, ok bool) {
	last = series[len(series)-1]
	window = min(window, maxSpan)
	for i := len(series) - 1; i >= 0; i-- {
		if last.At-series[i].At >= window {
			return series[i], last, true
		}
	}
	return Sample{}, last, false
}

func refusedSyscalls(series []Sample, _ runner.Limits, t Thresholds) string {
	if n := series[len(series)-1].RefusedSyscalls; n >= t.Syscalls {
		return fmt.Sprintf("%d system calls were refused; the threshold is %d", n, t.Syscalls)
	}
	return ""
}

func refusedNetwork(series []Sample, _ runner.Limits, t Thresholds) string {
	if n := series[len(series)-1].RefusedNetwork; n >= t.Connections {
		return fmt.Sprintf("%d connections were refused; the threshold is %d", n, t.Connections)
	}
	return ""
}

// outputFlood looks for much output in a short time, or near the limit.
func outputFlood(series []Sample, limits runner.Limits, t Thresholds) string {
	last := series[len(series)-1]
	if !last.Knows(Log) {
		return ""
	}
	limit := cmp.Or(limits.Log, 64<<20)
	if last.Log >= limit/2 {
		return fmt.Sprintf("%d bytes of output, %.0f %% of the limit of %d", last.Log, 100*float64(last.Log)/float64(limit), limit)
	}
	series = recent(series, t.FloodWindow)
	from := 0
	for i := range series {
		s := &series[i]
		for s.At-series[from].At > t.FloodWindow {
			from++
		}
		if n := s.Log - series[from].Log; n >= t.FloodBytes {
			return fmt.Sprintf("%d bytes of output within %v; the threshold is %d in %v", n, round(s.At-series[from].At), t.FloodBytes, t.FloodWindow)
		}
	}
	return ""
}

// silence looks for an execution that does nothing.
func silence(series []Sample, _ runner.Limits, t Thresholds) string {
	before, last, ok := span(series, t.Silence)
	if !ok || !before.Knows(CPU) {
		return ""
	}
	used := last.CPU - before.CPU
	if used >= t.SilenceCPU || last.IORead > before.IORead || last.IOWrite > before.IOWrite || last.Log > before.Log {
		return ""
	}
	return fmt.Sprintf("%v of CPU time, no I/O and no output in %v; the threshold is %v", round(used), round(last.At-before.At), t.Silence)
}

// round makes a duration fit for a sentence.
func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
