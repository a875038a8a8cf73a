package sequencer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/journal"
)

// pending is an entry on its way.
type pending struct {
	entry []byte
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
	p := &pending{entry: entry, done: make(chan struct{})}
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

// group makes entries durable in the journal, as many together as there are. It ends when the queue is closed.
func (l *Log) group() {
	defer close(l.grouped)
	for first := range l.queue {
		l.write(l.together(first))
	}
}

// together returns first and what else is waiting.
func (l *Log) together(first *pending) []*pending {
	group, size := []*pending{first}, len(first.entry)
	for len(group) < l.batch && size < journal.MaxGroup {
		select {
		case p, ok := <-l.queue:
			if !ok {
				return group
			}
			group, size = append(group, p), size+len(p.entry)
		default:
			return group
		}
	}
	return group
}

// write makes a group durable and answers it.
func (l *Log) write(group []*pending) {
	if err := l.journalise(group); err != nil {
		for _, p := range group {
			p.err = &FailedError{err}
		}
	}
	for _, p := range group {
		close(p.done)
		l.flying.Done()
	}
}

// journalise gives a group its indexes, once it is durable.
func (l *Log) journalise(group []*pending) error {
	entries := make([][]byte, len(group))
	for i, p := range group {
		entries[i] = p.entry
	}
	l.makeRoom()
	l.journaling.Lock()
	defer l.journaling.Unlock()
	if err := l.failure(); err != nil {
		return err
	}
	if err := l.journal.Write(l.next, entries); err != nil {
		l.fail(err)
		return err
	}
	for i, p := range group {
		p.index = l.next + int64(i)
	}
	l.next += int64(len(group))
	l.tiles.add(entries)
	return nil
}

func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *Log) fail(err error) {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	l.mu.Unlock()
	l.tiles.grown(0) // whoever waits for the tiles looks again
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
// durable, holds it against the record of what was signed, and puts what the journal has into the tiles. The caller reads from the log what
// got into it.
func (l *Log) Recover(ctx context.Context) error {
	l.flying.Wait()
	l.tiles.working.Lock()
	defer l.tiles.working.Unlock()
	l.journaling.Lock()
	defer l.journaling.Unlock()
	tree, err := l.dir.ReadTree(l.origin)
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
	if err := l.replay(tree); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = nil
	return nil
}

// replay puts what the journal has, and the tree has not, into the tiles. Nobody else works at either.
func (l *Log) replay(tree ledger.Checkpoint) error {
	rest, err := l.journal.Read(tree.Size)
	if err != nil {
		return err
	}
	entries := make([][]byte, len(rest))
	for i, e := range rest {
		entries[i] = e.Data
	}
	l.tiles.reset(tree.Size, len(entries))
	if err := l.integrate(entries); err != nil {
		return err
	}
	l.next = tree.Size + int64(len(entries))
	return errors.Join(l.journal.Empty(0), l.journal.Empty(1))
}
