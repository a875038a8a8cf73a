package executor_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"arch.network/agent/executor"
	"arch.network/attest/digest"
)

// BenchmarkJobs takes jobs that do nothing through their whole life: what is left is the engine itself, with signatures verified and
// made, five commits and six ledger entries a job. It reports jobs a second, and the time from handing in to the archive.
func BenchmarkJobs(b *testing.B) {
	n := newNode(b, setup{driver: direct(exits), change: func(o *executor.Options) { o.Slots, o.Events = 64, 1<<20 }})
	var envelopes [][]byte
	for i := range b.N {
		envelopes = append(envelopes, n.example("c-hello-wasm", nonce(i)))
	}
	b.ResetTimer()
	runAll(b, n, envelopes, 32)
}

// runAll hands in envelopes from several submitters, and waits until every job has ended.
func runAll(b *testing.B, n *node, envelopes [][]byte, submitters int) {
	var mu sync.Mutex
	began := map[digest.SHA256]time.Time{}
	var took []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ev, err := range n.Events(b.Context(), 0) {
			if err != nil {
				b.Error(err)
				return
			}
			if ev.Job == nil || !ev.Job.State.Ended() {
				continue
			}
			if ev.Job.State != "archived" {
				b.Errorf("job is %s: %s", ev.Job.State, ev.Job.Summary)
			}
			mu.Lock()
			took = append(took, time.Since(began[ev.Job.ID]))
			all := len(took) == len(envelopes)
			mu.Unlock()
			if all {
				return
			}
		}
	}()
	var wg sync.WaitGroup
	next := make(chan []byte)
	for range submitters {
		wg.Go(func() {
			for e := range next {
				at := time.Now()
				id := envelopeID(b, e)
				mu.Lock()
				began[id] = at
				mu.Unlock()
				n.submit(e)
			}
		})
	}
	for _, e := range envelopes {
		next <- e
	}
	close(next)
	wg.Wait()
	<-done
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "jobs/s")
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}
