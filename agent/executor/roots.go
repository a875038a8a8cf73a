package executor

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"arch.network/attest/digest"
	"arch.network/builder/store"
)

// roots keep objects of the store from its garbage collection: each object that a job needs has one root, whatever number of
// jobs need it, since most jobs run what others ran before. How many do is in the state file.
//
// A root is there before the record that needs it is written, and goes after the last one is. What a crash leaves between is
// removed when the state is opened.
type roots struct {
	store  *store.Store
	db     *database
	prefix string

	mu      sync.Mutex // guards what follows, and that a root is not removed while it becomes needed
	pending map[digest.SHA256]int
	late    map[digest.SHA256]bool // no record needed them while they were pending
	err     error                  // of the last removal

	idle *sync.Cond // has a mutex of its own, since the committer must not wait for a removal; guards work
	work int        // removals under way
}

func newRoots(s *store.Store, db *database, dir string) *roots {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return &roots{
		store: s, db: db, prefix: "node " + abs + " ",
		pending: map[digest.SHA256]int{}, late: map[digest.SHA256]bool{}, idle: sync.NewCond(&sync.Mutex{}),
	}
}

// keep makes the roots of objects that are about to become needed.
func (r *roots) keep(list []digest.SHA256) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, d := range list {
		n, err := r.db.needed(d)
		if err == nil && n == 0 && r.pending[d] == 0 {
			err = r.store.AddRoot(r.prefix+d.Hex(), d)
		}
		if err != nil {
			r.forget(list[:i])
			return fmt.Errorf("keep %s: %w", d, err)
		}
		r.pending[d]++
	}
	return nil
}

// kept says that the record that needs the objects is written, or will not be.
func (r *roots) kept(list []digest.SHA256) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(list)
}

func (r *roots) forget(list []digest.SHA256) {
	for _, d := range list {
		if r.pending[d]--; r.pending[d] > 0 {
			continue
		}
		delete(r.pending, d)
		if r.late[d] {
			delete(r.late, d)
			r.remove(d)
		}
	}
}

// release removes the roots of objects that no record needs any more. The committer calls it, so it does not wait for the removal.
func (r *roots) release(list []digest.SHA256) {
	r.working(1)
	go func() {
		defer r.working(-1)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, d := range list {
			if r.pending[d] > 0 {
				r.late[d] = true
				continue
			}
			r.remove(d)
		}
	}()
}

func (r *roots) working(n int) {
	r.idle.L.Lock()
	defer r.idle.L.Unlock()
	if r.work += n; r.work == 0 {
		r.idle.Broadcast()
	}
}

// wait returns when what was released is removed, and what the last removal that failed had to say.
func (r *roots) wait() error {
	r.idle.L.Lock()
	for r.work > 0 {
		r.idle.Wait()
	}
	r.idle.L.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// remove removes the root of d if no record needs it.
func (r *roots) remove(d digest.SHA256) {
	if n, err := r.db.needed(d); err != nil || n > 0 {
		return
	}
	if err := r.store.RemoveRoot(r.prefix + d.Hex()); err != nil {
		r.err = err // a root too many does no harm; the next Open removes it
	}
}

// sweep removes roots that no record needs, and makes those that are missing.
func (r *roots) sweep(all []store.Root) error {
	var errs []error
	for _, root := range all {
		text, ok := strings.CutPrefix(root.Name, r.prefix)
		if !ok {
			continue
		}
		d, err := digest.ParseHex(text)
		if err != nil {
			continue
		}
		if n, err := r.db.needed(d); err != nil {
			errs = append(errs, err)
		} else if n == 0 {
			errs = append(errs, r.store.RemoveRoot(root.Name))
		}
	}
	return errors.Join(errs...)
}
