package executor

import (
	"context"
	"fmt"
	"slices"

	"arch.network/agent"
)

// recover reads what the last process left: what waited waits again, what was worked at is taken up by Run. It writes nothing but
// roots of the store.
func (e *Engine) recover() error {
	number, err := e.db.last()
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	e.number = number
	if e.drained, err = e.db.drained(); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	numbers, err := e.db.opened()
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limits()
	now := e.o.Now()
	for _, n := range numbers {
		rec, err := e.db.load(n)
		if err != nil || rec == nil {
			return fmt.Errorf("read state of job %d: %w", n, err)
		}
		if rec.Job.State == agent.Verified {
			e.queue.Push(rec.waiting(), now)
			continue
		}
		e.queue.Resume(rec.waiting(), now)
		e.recovery = append(e.recovery, rec)
	}
	all, err := e.o.Store.Roots(e.life)
	if err != nil {
		return fmt.Errorf("read roots of the store: %w", err)
	}
	return e.roots.sweep(all)
}

// resume takes up what was worked at, and ends executions that belong to no job which wants them.
func (e *Engine) resume(ctx context.Context) error {
	names, err := e.o.Driver.Survivors(ctx)
	if err != nil {
		return fmt.Errorf("find executions of an earlier process: %w", err)
	}
	for _, name := range names {
		wanted := slices.ContainsFunc(e.recovery, func(r *record) bool {
			return r.Job.State == agent.Running && r.attempt() != nil && r.attempt().Name == name
		})
		if wanted {
			continue
		}
		if err := e.o.Driver.End(ctx, name); err != nil {
			return fmt.Errorf("end execution %s, which no job wants: %w", name, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, rec := range e.recovery {
		e.begin(rec.waiting())
	}
	e.recovery = nil
	return nil
}
