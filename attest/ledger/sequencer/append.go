package sequencer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"arch.network/attest/ledger"

	"github.com/transparency-dev/tessera"
)

// pending is an entry on its way.
type pending struct {
	entry *tessera.Entry
	done  chan struct{} // closed when index and err are set
	index int64
	err   error
}

// Future is the answer to an entry that was handed over.
type Future struct{ p *pending }

// Wait returns the entry's index once it is durable. If ctx ends before, the entry may or may not get into the log.
func (f Future) Wait(ctx context.Context) (int64, error) {
	select {
	case <-f.p.done:
		return f.p.index, f.p.err
	case <-ctx.Done():
		return 0, fmt.Errorf("append entry: it is not known yet whether it is in the log: %w", ctx.Err())
	}
}

// FailedError says that nothing is written, because something went wrong before.
type FailedError struct{ Err error }

func (e *FailedError) Error() string { return fmt.Sprintf("append entry: %v", e.Err) }

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *FailedError) Hint() string {
	return "look after the disk: is it full, or broken? Nothing that was acknowledged is lost"
}

// Append puts an entry of 1 to ledger.MaxEntry bytes into the log, and returns its index when it is durable.
func (l *Log) Append(ctx context.Context, entry []byte) (int64, error) {
	f, err := l.Add(ctx, entry)
	if err != nil {
		return 0, err
	}
	return f.Wait(ctx)
}

// Add hands an entry over, and returns at once unless there are as many on the way as may be. Entries handed over one after the other become
// durable in that order.
func (l *Log) Add(ctx context.Context, entry []byte) (Future, error) {
	if len(entry) == 0 || len(entry) > ledger.MaxEntry {
		return Future{}, fmt.Errorf("append entry: it has %d bytes, not 1 to %d; log its digest instead", len(entry), ledger.MaxEntry)
	}
	p := &pending{entry: tessera.NewEntry(entry), done: make(chan struct{})}
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return Future{}, errors.New("append entry: the log is closed")
	case l.failed != nil:
		l.mu.Unlock()
		return Future{}, &FailedError{l.failed}
	}
	l.flying.Add(1)
	l.mu.Unlock()
	select {
	case l.queue <- p:
		return Future{p}, nil
	case <-ctx.Done():
		l.flying.Done()
		return Future{}, fmt.Errorf("append entry: too many are waiting: %w", ctx.Err())
	}
}

// group makes entries durable, as many together as there are. It ends when the queue is closed.
func (l *Log) group() {
	defer close(l.grouped)
	restAfter := orElse(l.opts.RestAfter, DefaultRestAfter)
	idle := time.NewTimer(restAfter)
	defer idle.Stop()
	for {
		select {
		case first, ok := <-l.queue:
			if !ok {
				return
			}
			l.write(l.together(first))
			idle.Reset(restAfter)
		case <-idle.C:
			if l.rest(); l.storage != nil {
				idle.Reset(restAfter)
			}
		}
	}
}

// together returns first and what else is waiting.
func (l *Log) together(first *pending) []*pending {
	group := []*pending{first}
	for len(group) < l.batch {
		select {
		case p, ok := <-l.queue:
			if !ok {
				return group
			}
			group = append(group, p)
		default:
			return group
		}
	}
	return group
}

// write makes a group durable and answers it, part by part if the storage would not take it as one.
func (l *Log) write(group []*pending) {
	if l.storage == nil && l.failure() == nil {
		if err := l.start(l.opts); err != nil {
			l.fail(err)
		}
	}
	for len(group) > 0 && l.failure() == nil {
		n := l.writePart(group)
		l.answer(group[:n])
		group = group[n:]
	}
	for _, p := range group {
		p.err = &FailedError{l.failure()}
	}
	l.answer(group)
}

// writePart makes the first of group durable, and returns how many. The storage takes what is added within batchAge as one, all of it or nothing;
// what comes later waits for the next part, so that it cannot become durable when what was before it did not.
func (l *Log) writePart(group []*pending) int {
	var futures []tessera.IndexFuture
	for start := time.Now(); len(futures) < len(group) && time.Since(start) < batchAge*3/4; {
		futures = append(futures, l.storage.add(context.Background(), group[len(futures)].entry))
	}
	for i, future := range futures {
		index, err := future()
		if err != nil {
			err = withCause(err)
			l.fail(err)
			group[i].err = &FailedError{err}
		}
		group[i].index = int64(index.Index)
	}
	return len(futures)
}

func (l *Log) answer(group []*pending) {
	for _, p := range group {
		close(p.done)
		l.flying.Done()
	}
}

func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

// withCause gives an error of the storage, which tells causes as text only, the cause that callers branch on.
func withCause(err error) error {
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		if strings.Contains(err.Error(), cause.Error()) && !errors.Is(err, cause) {
			return &causedError{err, cause}
		}
	}
	return err
}

type causedError struct {
	error
	cause error
}

func (e *causedError) Unwrap() []error { return []error{e.error, e.cause} }

// Recover lets entries be added again after a failure. It waits until everything that was handed over is answered, makes what is in the log
// durable, and holds it against the record of what was signed. The caller reads from the log what got into it.
func (l *Log) Recover(ctx context.Context) error {
	l.flying.Wait()
	tree, err := l.Tree()
	if err != nil {
		return err
	}
	if err := l.settle(tree); err != nil {
		return err
	}
	l.record.mu.Lock()
	err = l.record.check(ctx, tree)
	l.record.mu.Unlock()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = nil
	return nil
}
