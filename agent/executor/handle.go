package executor

import (
	"fmt"
	"sync"

	"arch.network/agent"
)

// handles serialise what happens to one job, and keep its record at hand while somebody works at it.
type handles struct {
	db *database

	mu   sync.Mutex // guards list
	list map[uint64]*handle
}

// handle is a job that somebody works at. Its record is that on disk, or newer by a step that is being written.
type handle struct {
	number uint64
	refs   int // guarded by handles.mu

	mu  sync.Mutex // held during a step
	rec *record    // nil: not read yet
}

func newHandles(db *database) *handles { return &handles{db: db, list: map[uint64]*handle{}} }

// hold returns the handle of a job; drop gives it back.
func (h *handles) hold(number uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.list[number]
	if x == nil {
		x = &handle{number: number}
		h.list[number] = x
	}
	x.refs++
	return x
}

func (h *handles) drop(x *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.refs--; x.refs == 0 {
		delete(h.list, x.number)
	}
}

// lock begins a step: the record is read if need be.
func (h *handles) lock(x *handle) error {
	x.mu.Lock()
	if x.rec != nil {
		return nil
	}
	rec, err := h.db.load(x.number)
	if err == nil && rec == nil {
		err = &agent.UnknownError{Ref: fmt.Sprint(x.number)}
	}
	if err != nil {
		x.mu.Unlock()
		return err
	}
	x.rec = rec
	return nil
}
