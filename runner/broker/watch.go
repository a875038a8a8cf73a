package broker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// Phase is how far a detached job is.
type Phase string

// The phases.
const (
	PhaseRunning Phase = "running" // its result is not there yet
	PhaseOver    Phase = "over"    // its result waits to be taken
	PhaseGone    Phase = "gone"    // it was taken, or forgotten: the broker knows nothing of it any more
)

// bell wakes all who wait for it. Its zero value is ready.
type bell struct {
	mu sync.Mutex
	c  chan struct{}
}

// wait returns a channel that is closed when the bell rings next.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}

// states returns what there is to tell of the detached jobs of a user.
func (t *tasks) states(user uint32) map[string]jobState {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]jobState{}
	for name, n := range t.list {
		if n.order.User == user && n.order.Request.Detach {
			all[name] = n.describe()
		}
	}
	return all
}

// describe returns what there is to tell of a task.
func (t *task) describe() jobState {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := jobState{Name: t.name, Ticket: t.order.Request.Ticket, ID: t.id, Started: t.order.Started, Phase: PhaseRunning, Usage: t.usage}
	if t.done {
		s.Phase = PhaseOver
	}
	return s
}

// news returns what of now is not as it was told before, oldest job first, and what is gone.
func news(told, now map[string]jobState) []jobState {
	var list []jobState
	for name, s := range now {
		if told[name] != s {
			list = append(list, s)
		}
	}
	for name, s := range told {
		if _, there := now[name]; !there {
			s.Phase = PhaseGone
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b jobState) int { return cmp.Or(cmp.Compare(a.Started, b.Started), cmp.Compare(a.Name, b.Name)) })
	return list
}

// watch tells of the user's jobs until the client goes or the broker stops.
func (c *session) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.server.stopping, func() { cancel(errStopping) })()
	c.conn.SetReadDeadline(time.Time{})
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		if err := c.listen(nil); !errors.Is(err, errDone) {
			cancel(errors.Join(errFollowerGone, err))
		}
	}()
	defer func() {
		c.endRead()
		<-listening
	}()
	told := map[string]jobState{}
	for first := true; ; first = false {
		changed := c.server.tasks.bell.wait()
		now := c.server.tasks.states(c.user)
		if list := news(told, now); first || len(list) > 0 {
			if err := c.sendStates(list); err != nil {
				return errors.Join(errFollowerGone, err)
			}
		}
		told = maps.Clone(now)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (c *session) sendStates(list []jobState) error {
	for _, s := range list {
		if err := c.send(kindJob, s); err != nil {
			return err
		}
	}
	return c.frame(kindEnd, nil)
}

// documentOf names the document of a request.
func documentOf(q request) digest.SHA256 {
	env, err := dsse.Parse(q.Envelope)
	if err != nil {
		return digest.SHA256{} // of no envelope that was ever admitted
	}
	return env.ID()
}

// ticket returns the job that a user has called so, if the broker has it: what was asked for before is not started again.
func (t *tasks) ticket(user uint32, q request) (*task, error) {
	if q.Ticket == "" {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holder(user, q)
}

// holder does what ticket does; the caller holds mu.
func (t *tasks) holder(user uint32, q request) (*task, error) {
	for _, n := range t.list {
		if q.Ticket == "" || n.order.User != user || n.order.Request.Ticket != q.Ticket {
			continue
		}
		if n.id != documentOf(q) {
			return nil, refuse(CodeTicket, "use another ticket, or take the other job's result first", "ticket %q is that of job %s, which is of another document", q.Ticket, n.name)
		}
		return n, nil
	}
	return nil, nil
}
