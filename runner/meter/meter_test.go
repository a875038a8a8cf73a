package meter

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/runner"
)

// fakeSource says what a function of the number of readings says.
type fakeSource struct {
	at     func(n int) (Sample, error)
	n      int
	closed bool
}

func (f *fakeSource) Sample() (Sample, error) {
	f.n++
	return f.at(f.n - 1)
}
func (f *fakeSource) Accounting() string { return "fake" }
func (f *fakeSource) Close() error       { f.closed = true; return nil }

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		src := &fakeSource{at: func(n int) (Sample, error) {
			if n > 0 && time.Since(start) >= 1500*time.Millisecond {
				return Sample{}, errors.New("the group is gone")
			}
			at := time.Since(start)
			return Sample{CPU: at / 2, Memory: int64(at), IORead: 5, IOWrite: 7, Known: CPU | Memory | IO}, nil
		}}
		var refused atomic.Int64
		var found []runner.AnomalyKind
		m := Start(src, Options{
			Energy:         &Model{CoreWatts: 10},
			RefusedNetwork: refused.Load,
			Found:          func(a runner.Anomaly) { found = append(found, a.Kind) },
		})
		time.Sleep(time.Second)
		synctest.Wait()
		refused.Store(3)
		time.Sleep(time.Second)
		synctest.Wait()
		got := m.Stop()
		want := Report{
			Usage: runner.Usage{
				Wall: 2 * time.Second, CPU: 713 * time.Millisecond, MemoryPeak: int64(1426 * time.Millisecond), IORead: 5, IOWrite: 7,
				Energy: &runner.Energy{Joules: 7.13, Source: "model: 10 W per busy processor, 0 W per GiB of memory"}, Accounting: "fake",
			},
			Anomalies: []runner.Anomaly{{Kind: runner.AnomalyRefusedNetwork, At: 1226 * time.Millisecond, Evidence: "3 connections were refused; the threshold is 1"}},
			Last: Sample{
				At: 2 * time.Second, Known: CPU | MemoryPeak | IO | RefusedNetwork, CPU: 713 * time.Millisecond, MemoryPeak: int64(1426 * time.Millisecond),
				IORead: 5, IOWrite: 7, RefusedNetwork: 3,
			},
			// 0, 2, 6, 14, 30, 62, 126 ms, then 18 at intervals of 100 ms, and the last.
			Samples: 26,
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]runner.AnomalyKind{runner.AnomalyRefusedNetwork}, found); diff != "" {
			t.Errorf("told while running (-want +got):\n%s", diff)
		}
		if !src.closed {
			t.Error("the source was not closed")
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff(got, m.Stop()); diff != "" {
			t.Errorf("stopped twice (-want +got):\n%s", diff)
		}
	})
}

func TestMeterOfAWorkerThatRanBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{at: func(n int) (Sample, error) {
			return Sample{CPU: time.Second + time.Duration(n)*time.Millisecond, IORead: 100, Known: CPU | IO}, nil
		}}
		m := Start(src, Options{Relative: true, Energy: &Model{CoreWatts: 1000}})
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		got := m.Stop().Usage
		if got.CPU != 2*time.Millisecond || got.IORead != 0 || got.Energy.Joules < 1.99 || got.Energy.Joules > 2.01 {
			t.Errorf("got CPU %v, read %d, %v J; want 2ms, 0, 2 J", got.CPU, got.IORead, got.Energy.Joules)
		}
	})
}

// TestPowerIsKept lets an execution use all that it is allowed.
func TestPowerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		last := start
		var quota int64
		var cpu time.Duration
		use := func() {
			cpu += time.Duration(float64(time.Since(last)) * float64(quota) / 1000)
			last = time.Now()
		}
		refusals := 2
		m := Start(&fakeSource{at: func(int) (Sample, error) {
			use()
			return Sample{CPU: cpu, Known: CPU}, nil
		}}, Options{
			CPUs: 8, Limits: runner.Limits{Power: 20}, Energy: &Model{CoreWatts: 8},
			Power: func(milli int64) error {
				if refusals--; refusals == 0 {
					return errors.New("no such unit")
				}
				use()
				quota = milli
				return nil
			},
		})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		got := m.Stop()
		if want := int64(2425); got.Quota != quota || quota != want || got.PowerErr != nil {
			t.Errorf("the quota is %d (reported: %d), error %v, want %d", quota, got.Quota, got.PowerErr, want)
		}
		if watts := got.Usage.Energy.Joules / 20; watts > 20 {
			t.Errorf("%.1f W were used of 20", watts)
		}
	})
	t.Run("not without a budget", func(t *testing.T) {
		m := Start(&fakeSource{at: func(int) (Sample, error) { return Sample{}, nil }}, Options{Power: func(int64) error {
			t.Error("a quota was set")
			return nil
		}})
		if r := m.Stop(); r.Quota != 0 || r.Usage.Energy != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// A meter takes no sample during a rest, and a rest is no reason to raise the quota.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var samples atomic.Int64
		var quota int64
		start := time.Now()
		rest := new(Rest)
		rest.Set(true)
		m := Start(&fakeSource{at: func(int) (Sample, error) {
			samples.Add(1)
			at := time.Since(start)
			return Sample{CPU: max(0, at-time.Hour), Known: CPU}, nil // computes after an hour
		}}, Options{
			CPUs: 4, Limits: runner.Limits{Power: 10}, Energy: &Model{CoreWatts: 10}, Rest: rest,
			Power: func(milli int64) error { quota = milli; return nil },
		})
		first := quota
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := samples.Load(); n != 1 {
			t.Errorf("%d samples before there was anything to do, want that of the start", n)
		}
		rest.Set(false)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if quota > first {
			t.Errorf("a rest raised the quota from %d to %d", first, quota)
		}
		rest.Set(true)
		time.Sleep(time.Second) // the next look finds the rest
		before := samples.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := samples.Load(); n != before {
			t.Errorf("%d samples in another rest", n-before)
		}
		m.Stop()
	})
}
