// Package meter measures what a confined execution uses while it runs, holds it to its power budget, and finds what an
// honest job rarely does.
//
// A driver makes a Source (the execution's control groups, or its process tree), starts a Meter on it, and stops the Meter
// when the last process is gone but before the groups are removed. The Report has the Usage and the Anomalies for the Result.
// A counter only goes up, and a reading that fails leaves the last one standing: a number is never made up, and Sample.Known
// tells what was measured at all.
//
// The package decides nothing about the execution: limits are the driver's to enforce, except for the power budget, which
// it keeps through Options.Power. It starts no process, writes no file, and after Stop nothing of it is left.
package meter

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"arch.network/runner"
)

// DefaultInterval is the time between two samples.
const DefaultInterval = 100 * time.Millisecond

// minInterval keeps the cost of sampling below one hundredth of a processor; a sample takes less than 100 µs.
const minInterval = 10 * time.Millisecond

// firstInterval is the time to the second sample. The times double from there to the interval, so that there is something to
// tell of short executions.
const firstInterval = 2 * time.Millisecond

// Options say how an execution is metered. The zero value measures and watches with the defaults.
type Options struct {
	Interval time.Duration // between samples; zero: DefaultInterval; at least 10 ms
	Limits   runner.Limits // what the execution is held to: detectors compare with them, and Power is kept
	CPUs     int           // how many processors it may use at most, for Power; zero: all of this machine

	// Power sets the CPU quota, in thousandths of a processor. It is called from the Meter's goroutine, first by Start itself, if
	// Limits.Power is set, and never more often than once in a second. If it fails, it is called again a second later.
	// Nil: Limits.Power is not kept.
	Power func(milli int64) error
	// Energy measures energy; nil: the one that OpenEnergy("/") finds.
	Energy EnergyMeter

	Log             func() int64 // bytes of stdout and stderr so far; nil: not known
	RefusedSyscalls func() int64 // system calls refused so far; nil: not known
	RefusedNetwork  func() int64 // connections refused so far; nil: not known

	Thresholds Thresholds // fields that are zero have their defaults
	// Relative counts CPU time and I/O from Start on, for a process that ran before the execution did. False: as the Source does.
	Relative bool
	// Rest stops sampling while there is nothing to do; what is used meanwhile is in the next sample. Nil: there always is.
	Rest *Rest
	// Found is called for each anomaly when it is found, from the Meter's goroutine or that of Stop. Nil: no call.
	Found func(runner.Anomaly)
}

// Report is what a Meter measured.
type Report struct {
	Usage     runner.Usage
	Anomalies []runner.Anomaly // at most one of each kind, in the order they were found
	Last      Sample           // the counters at the end
	Samples   int              // how many readings there were
	Quota     int64            // thousandths of a processor, as last set for the power budget; zero: never
	PowerErr  error            // why the quota could not be set the last time it was tried; nil: it could
}

// Meter samples one execution.
type Meter struct {
	src   Source
	o     Options
	start time.Time
	quit  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
	watch atomic.Pointer[func(runner.Usage)] // nil: nobody is told
	out   Report                             // complete when once is done

	// What follows belongs to the goroutine while it runs, and to Stop after it.
	first    Sample // what Relative subtracts
	last     Sample
	series   history
	energy   EnergyMeter
	governor *Governor
	window   powerWindow
	looked   time.Duration // when the detectors ran last
	told     time.Duration // when the observer was told last
}

// Start takes the first sample and starts the goroutine that takes the others. Stop must be called.
func Start(src Source, o Options) *Meter {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	o.Interval = max(o.Interval, minInterval)
	o.Thresholds = o.Thresholds.withDefaults()
	m := &Meter{src: src, o: o, start: time.Now(), quit: make(chan struct{}), energy: o.Energy}
	if m.energy == nil {
		m.energy = OpenEnergy("/")
	}
	m.sample()
	m.startPower()
	m.done.Go(m.run)
	return m
}

// Observe has f told what was used so far, about once a second from then on, from the Meter's goroutine. After Stop it is not called
// any more. Nil: nobody is told.
func (m *Meter) Observe(f func(runner.Usage)) {
	if f == nil {
		m.watch.Store(nil)
		return
	}
	m.watch.Store(&f)
}

// observePeriod is how often an observer is told: often enough to look live, and too rarely to cost anything.
const observePeriod = time.Second

// tell tells the observer.
func (m *Meter) tell() {
	if f := m.watch.Load(); f != nil && m.last.At-m.told >= observePeriod {
		m.told = m.last.At
		(*f)(m.usage())
	}
}

func (m *Meter) run() {
	wait := min(firstInterval, m.o.Interval)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-timer.C:
		}
		m.o.Rest.Wait(m.quit)
		m.sample()
		m.regulate()
		m.detect(false)
		m.tell()
		wait = min(2*wait, m.o.Interval)
		timer.Reset(wait)
	}
}

// Stop takes the last sample, closes the Source, and reports. It returns when the goroutine is gone; further calls return
// the same.
func (m *Meter) Stop() Report {
	m.once.Do(func() {
		close(m.quit)
		m.done.Wait()
		m.sample()
		m.detect(true)
		m.src.Close()
		m.out.Last = m.last
		m.out.Usage = m.usage()
	})
	r := m.out
	r.Anomalies = slices.Clone(r.Anomalies)
	return r
}

// sample takes one reading of everything. What cannot be read keeps its last value.
func (m *Meter) sample() {
	now, err := m.src.Sample()
	if err != nil {
		now = Sample{}
	}
	now.At = time.Since(m.start)
	now.count(Log, m.o.Log)
	now.count(RefusedSyscalls, m.o.RefusedSyscalls)
	now.count(RefusedNetwork, m.o.RefusedNetwork)
	now.after(m.last)
	if m.out.Samples == 0 && m.o.Relative {
		m.first, m.last = now, now
		m.window.cpu = now.CPU
	}
	m.energy.Add(m.last, now)
	m.last = now
	m.series.add(now)
	m.out.Samples++
}

// detect runs the detectors, at most four times a second unless it is the end.
func (m *Meter) detect(end bool) {
	if now := m.last.At; !end && now-m.looked < detectPeriod {
		return
	}
	m.looked = m.last.At
	for _, a := range Detect(m.series.samples, m.o.Limits, m.o.Thresholds) {
		same := func(b runner.Anomaly) bool { return a.Kind == b.Kind }
		if slices.ContainsFunc(m.out.Anomalies, same) {
			continue
		}
		m.out.Anomalies = append(m.out.Anomalies, a)
		if m.o.Found != nil {
			m.o.Found(a)
		}
	}
}

func (m *Meter) usage() runner.Usage {
	s := m.last
	return runner.Usage{
		Wall:       s.At,
		CPU:        s.CPU - m.first.CPU,
		MemoryPeak: s.MemoryPeak,
		IORead:     s.IORead - m.first.IORead,
		IOWrite:    s.IOWrite - m.first.IOWrite,
		Energy:     m.energy.Energy(),
		Accounting: m.src.Accounting(),
	}
}
