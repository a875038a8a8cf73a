package executor

import (
	"context"
	"iter"
	"sync"

	"arch.network/agent"
)

// ring keeps the last events, and lets readers wait for the next one.
type ring struct {
	mu      sync.Mutex // guards what follows
	list    []agent.Event
	max     int
	next    int64         // number of the next event
	changed chan struct{} // closed when there is more, or no more will come
	closed  bool
}

func newRing(most int, last int64) *ring {
	return &ring{max: most, next: last + 1, changed: make(chan struct{})}
}

// add appends events, whose numbers follow each other.
func (r *ring) add(events []agent.Event) {
	if len(events) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, events...)
	if n := len(r.list) - r.max; n > 0 {
		clear(r.list[:n])
		r.list = r.list[n:]
	}
	r.next = events[len(events)-1].Number + 1
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.changed)
	}
}

// after returns what comes after an event, at most 256; and when there is nothing, what to wait for.
func (r *ring) after(n int64) (events []agent.Event, changed <-chan struct{}, closed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.next - int64(len(r.list))
	if n+1 < oldest || n >= r.next {
		return nil, nil, false, &agent.LaggedError{Next: oldest}
	}
	from := int(n + 1 - oldest)
	events = append(events, r.list[from:min(len(r.list), from+256)]...)
	return events, r.changed, r.closed, nil
}

// wait returns what is closed when there is another event, and whether there will be none.
func (r *ring) wait() (changed <-chan struct{}, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, r.closed
}

// last returns the number of the event that happened last.
func (r *ring) last() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - 1
}

// Events implements agent.Node. Numbers go on after a restart, but what came before it is no longer kept.
func (e *Engine) Events(ctx context.Context, after int64) iter.Seq2[agent.Event, error] {
	if after < 0 {
		after = e.ring.last()
	}
	return func(yield func(agent.Event, error) bool) {
		for {
			events, changed, closed, err := e.ring.after(after)
			if err != nil {
				yield(agent.Event{}, err)
				return
			}
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
				after = ev.Number
			}
			if len(events) > 0 {
				continue
			}
			if closed {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
}
