package meter

import "sync"

// Rest tells whoever watches an execution that it has nothing to do, such as a worker that waits for a job: a watcher then sleeps, too, at its
// next look, and an idle machine stays idle. The zero value does not rest; neither does nil, which is never set. Several goroutines may use it.
type Rest struct {
	mu   sync.Mutex
	over chan struct{} // closed when the rest ends; nil: there is none
}

// Set says whether there is nothing to do from now on.
func (r *Rest) Set(resting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case resting && r.over == nil:
		r.over = make(chan struct{})
	case !resting && r.over != nil:
		close(r.over)
		r.over = nil
	}
}

// Wait returns when there is something to do, or quit is closed.
func (r *Rest) Wait(quit <-chan struct{}) {
	if r == nil {
		return
	}
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if over == nil {
		return
	}
	select {
	case <-over:
	case <-quit:
	}
}
