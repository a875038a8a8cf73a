package meter

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// series makes n samples, step apart.
func series(n int, step time.Duration, at func(i int, s *Sample)) []Sample {
	list := make([]Sample, n)
	for i := range list {
		list[i].At = time.Duration(i) * step
		at(i, &list[i])
	}
	return list
}

const mib = 1 << 20

func TestDetect(t *testing.T) {
	const tick = 100 * time.Millisecond
	memory := func(use func(i int) int64) []Sample {
		return series(50, tick, func(i int, s *Sample) { s.Memory, s.Known = use(i), Memory })
	}
	tests := []struct {
		name     string
		series   []Sample
		limits   runner.Limits
		want     []runner.AnomalyKind
		evidence string
	}{
		{"nothing", nil, runner.Limits{}, nil, ""},
		{"nothing known", series(900, tick, func(int, *Sample) {}), runner.Limits{Memory: 1, Processes: 1}, nil, ""},
		{
			"a leak up to the limit",
			memory(func(i int) int64 { return int64(i+1) * mib }),
			runner.Limits{Memory: 52 * mib},
			[]runner.AnomalyKind{runner.AnomalyMemoryGrowth},
			"memory grew from 25165824 to 52428800 bytes, 96 % of the limit of 54525952, in 2.6s, in 26 of 26 steps",
		},
		{"a leak, still far from the limit", memory(func(i int) int64 { return int64(i+1) * mib }), runner.Limits{Memory: 100 * mib}, nil, ""},
		{"a leak without a limit", memory(func(i int) int64 { return int64(i+1) * mib }), runner.Limits{}, nil, ""},
		{"one allocation of all that is allowed", memory(func(i int) int64 { return int64(min(i, 1)) * 50 * mib }), runner.Limits{Memory: 52 * mib}, nil, ""},
		{"a collector that comes and goes", memory(func(i int) int64 { return int64(48+i%4) * mib }), runner.Limits{Memory: 52 * mib}, nil, ""},
		{
			"files that were read fill the memory",
			series(50, tick, func(i int, s *Sample) {
				s.Memory, s.Unreclaimable, s.Known = int64(i+1)*mib, 4*mib, Memory|Unreclaimable
			}),
			runner.Limits{Memory: 51 * mib},
			nil, "",
		},
		{
			"killed for memory", series(2, tick, func(i int, s *Sample) { s.Killed, s.MemoryPeak = int64(i), 64*mib }),
			runner.Limits{Memory: 64 * mib},
			[]runner.AnomalyKind{runner.AnomalyMemoryGrowth},
			"the kernel killed 1 processes for memory; the peak was 67108864 bytes, the limit is 67108864",
		},
		{
			"a fork bomb",
			series(12, tick, func(i int, s *Sample) { s.Processes, s.Known = 1<<min(i, 10), Processes }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyForkBurst},
			"511 more processes and threads within 900ms, from 1 to 512; the threshold is 256",
		},
		{
			"a fork bomb below a small limit", series(3, tick, func(i int, s *Sample) { s.Processes, s.Known = int64(10*i), Processes }),
			runner.Limits{Processes: 40},
			[]runner.AnomalyKind{runner.AnomalyForkBurst},
			"20 more processes and threads within 200ms, from 0 to 20; the threshold is 20",
		},
		{
			"forks that were refused", series(1, tick, func(_ int, s *Sample) { s.ForksRefused = 31 }),
			runner.Limits{Processes: 8},
			[]runner.AnomalyKind{runner.AnomalyForkBurst},
			"31 forks were refused at the limit of 8 processes; the threshold is 8",
		},
		{"many processes that come slowly", series(400, tick, func(i int, s *Sample) { s.Processes, s.Known = int64(i), Processes }), runner.Limits{}, nil, ""},
		{
			"thrashing",
			series(120, tick, func(i int, s *Sample) {
				s.PressureMemory, s.Known = time.Duration(i)*80*time.Millisecond, PressureMemory
			}),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyPressure},
			"all processes were stalled for memory for 8s of 10s, 80 %; the threshold is 50 %",
		},
		{
			"waiting for disks, but not for long enough", series(90, tick, func(i int, s *Sample) { s.PressureIO, s.Known = time.Duration(i)*tick, PressureIO }),
			runner.Limits{},
			nil, "",
		},
		{
			"a quota far too small", series(320, tick, func(i int, s *Sample) { s.PressureCPU, s.Known = time.Duration(i)*tick, PressureCPU }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyPressure},
			"processes waited for a CPU for 30s of 30s, 100 %; the threshold is 99 %",
		},
		{
			"system calls", series(2, tick, func(i int, s *Sample) { s.RefusedSyscalls = int64(40 * i) }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyRefusedSyscall},
			"40 system calls were refused; the threshold is 32",
		},
		{"a few system calls", series(2, tick, func(_ int, s *Sample) { s.RefusedSyscalls = 3 }), runner.Limits{}, nil, ""},
		{
			"connections", series(2, tick, func(_ int, s *Sample) { s.RefusedNetwork = 2 }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyRefusedNetwork},
			"2 connections were refused; the threshold is 1",
		},
		{
			"a flood", series(30, tick, func(i int, s *Sample) { s.Log, s.Known = int64(i)*mib, Log }),
			runner.Limits{Log: 1 << 40},
			[]runner.AnomalyKind{runner.AnomalyOutputFlood},
			"8388608 bytes of output within 800ms; the threshold is 8388608 in 2s",
		},
		{
			"output near its limit", series(1, tick, func(_ int, s *Sample) { s.Log, s.Known = 40*mib, Log }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalyOutputFlood},
			"41943040 bytes of output, 62 % of the limit of 67108864",
		},
		{"a talkative program", series(900, tick, func(i int, s *Sample) { s.Log, s.Known = int64(i)*30000, Log }), runner.Limits{}, nil, ""},
		{
			"silence", series(700, tick, func(_ int, s *Sample) { s.CPU, s.Known = time.Second, CPU }),
			runner.Limits{},
			[]runner.AnomalyKind{runner.AnomalySilence},
			"0s of CPU time, no I/O and no output in 1m0s; the threshold is 1m0s",
		},
		{"quiet work", series(700, tick, func(i int, s *Sample) { s.CPU, s.Known = time.Duration(i)*time.Millisecond, CPU }), runner.Limits{}, nil, ""},
		{
			"waiting for a disk is not silence",
			series(700, tick, func(i int, s *Sample) { s.IORead, s.Known = int64(i), CPU|IO }),
			runner.Limits{},
			nil, "",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Detect(test.series, test.limits, Thresholds{})
			var kinds []runner.AnomalyKind
			var evidence []string
			for _, a := range got {
				kinds, evidence = append(kinds, a.Kind), append(evidence, a.Evidence)
				if end := test.series[len(test.series)-1].At; a.At != end {
					t.Errorf("%s was found at %v, want %v", a.Kind, a.At, end)
				}
			}
			if diff := cmp.Diff(test.want, kinds); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.evidence, strings.Join(evidence, "\n")); diff != "" {
				t.Errorf("evidence (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 200_000 {
		h.add(Sample{At: time.Duration(i) * minInterval})
	}
	last := h.samples[len(h.samples)-1].At
	if n := len(h.samples); n > 2400 {
		t.Errorf("%d samples are kept", n)
	}
	if want := 199_999 * minInterval; last != want {
		t.Errorf("the last sample is of %v, want %v", last, want)
	}
	if reach := last - h.samples[0].At; reach < maxSpan {
		t.Errorf("the samples reach back %v, want %v", reach, maxSpan)
	}
}

func BenchmarkDetect(b *testing.B) {
	list := series(1800, 50*time.Millisecond, func(i int, s *Sample) {
		s.CPU, s.Memory, s.Processes = time.Duration(i)*time.Millisecond, int64(i)*mib, int64(i)
		s.Known = CPU | Memory | Processes | Log | PressureCPU | PressureIO | PressureMemory
	})
	for b.Loop() {
		Detect(list, runner.Limits{Memory: 1 << 40, Processes: 1 << 20}, Thresholds{})
	}
}
