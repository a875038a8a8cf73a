package control

import (
	"context"
	"sync"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
)

// How often the node's use is looked at, and how much of it is remembered: one hour.
const (
	sampleEvery = 5 * time.Second
	sampleMost  = 720
)

// sampler remembers how the node was used.
type sampler struct {
	node agent.Node
	now  func() time.Time

	mu       sync.Mutex // guards both below
	capacity agent.Resources
	samples  []wire.Sample
}

func newSampler(node agent.Node, now func() time.Time) *sampler {
	return &sampler{node: node, now: now}
}

// run looks until ctx ends.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *sampler) look(ctx context.Context) {
	status, err := s.node.Status(ctx)
	if err != nil {
		return // a gap says so, too
	}
	at := wire.Sample{At: s.now().UTC().Truncate(time.Second), CPU: status.Committed.CPU, Memory: status.Committed.Memory}
	for state, n := range status.Jobs {
		if state.Waits() {
			at.Waiting += n
		}
		if state.Active() {
			at.Active += n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = status.Capacity
	if len(s.samples) == sampleMost {
		s.samples = append(s.samples[:0], s.samples[1:]...)
	}
	s.samples = append(s.samples, at)
}

func (s *sampler) all() wire.Samples {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Samples{Seconds: int(sampleEvery.Seconds()), Capacity: s.capacity, Samples: append([]wire.Sample{}, s.samples...)}
}
