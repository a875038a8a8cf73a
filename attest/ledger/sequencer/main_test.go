package sequencer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/sequencer"
)

// childEnv makes the test binary a writer of the log in a directory, which others kill.
const childEnv = "ARCH_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(childMain(dir))
	}
	os.Exit(m.Run())
}

// Exit statuses of a child.
const (
	childFailed = 3
	childInUse  = 7
	childWrong  = 9 // a proof did not hold
)

// fakeT is a testing.TB for the helpers in a child.
type fakeT struct{ testing.TB }

func (fakeT) Helper()           {}
func (fakeT) Fatal(args ...any) { fmt.Fprintln(os.Stderr, args...); os.Exit(childFailed) }

// childMain records decisions, and writes a line for each that was acknowledged. With ARCH_TEST_COUNT it ends after as many, one after the other, and
// tries each again that fails; else it goes on with many writers and readers until it is killed.
func childMain(dir string) int {
	t, ctx := fakeT{}, context.Background()
	l, err := sequencer.Open(ctx, options(t, dir))
	if errors.As(err, new(*durable.InUseError)) {
		return childInUse
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := sequencer.NewRecorder(ctx, l, sequencer.RecorderOptions{Signer: nodeKey(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan struct{})
	acks := &acknowledged{out: bufio.NewWriter(os.Stdout), first: first}
	if count, err := strconv.Atoi(os.Getenv("ARCH_TEST_COUNT")); err == nil {
		return recordSome(ctx, l, r, acks, count)
	}
	for i := range 32 {
		go func() {
			for n := 0; ; n++ {
				d, subject := decision(i<<20 | n)
				e, err := r.Record(ctx, d, subject)
				if err != nil {
					t.Fatal(err)
				}
				acks.add(e)
			}
		}()
	}
	<-first
	return readProofs(ctx, l, acks)
}

// recordSome records count decisions, as one who lives with failures.
func recordSome(ctx context.Context, l *sequencer.Log, r *sequencer.Recorder, acks *acknowledged, count int) int {
	failures := 0
	for n := 0; n < count; {
		d, subject := decision(n)
		e, err := r.Record(ctx, d, subject)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			if failures++; failures > 50 {
				return childFailed
			}
			continue
		}
		acks.add(e)
		n++
	}
	if err := l.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 0
}

// acknowledged tells the parent what was acknowledged, before anything else happens with it.
type acknowledged struct {
	mu    sync.Mutex
	out   *bufio.Writer
	last  sequencer.Entry
	first chan struct{} // closed at the first
}

func (a *acknowledged) add(e sequencer.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(a.out, "%d %d %s\n", e.Index, e.Sequence, e.ID)
	a.out.Flush()
	if a.last = e; e.Sequence > 0 && a.first != nil {
		close(a.first)
		a.first = nil
	}
}

func (a *acknowledged) newest() sequencer.Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// readProofs proves what was just acknowledged, and that each checkpoint continues the one before, for ever.
func readProofs(ctx context.Context, l *sequencer.Log, acks *acknowledged) int {
	wrong := func(args ...any) int { fmt.Fprintln(os.Stderr, args...); return childWrong }
	var before ledger.Checkpoint
	for {
		e := acks.newest()
		p, err := l.Proof(ctx, e.Index)
		if err != nil {
			return wrong(err)
		}
		signed, prover, err := l.Prover(ctx)
		if err != nil {
			return wrong(err)
		}
		entry, err := ledger.ReadEntry(ctx, l.Dir(), e.Index, signed.Size)
		if err != nil {
			return wrong(err)
		}
		if _, err := p.Verify(l.Policy(), entry); err != nil {
			return wrong(err)
		}
		if before.Origin != "" {
			hashes, err := prover.Consistency(ctx, before.Size)
			if err != nil {
				return wrong(err)
			}
			if err := signed.Continues(before, hashes); err != nil {
				return wrong(err)
			}
		}
		before = signed.Checkpoint
	}
}

// parseAck reads a line of a child.
func parseAck(line string) (e sequencer.Entry, err error) {
	var id string
	if _, err := fmt.Sscanf(line, "%d %d %s", &e.Index, &e.Sequence, &id); err != nil {
		return e, err
	}
	e.ID, err = digest.Parse(id)
	return e, err
}

// verifyAcks checks that each acknowledged decision stands where it was said to.
func verifyAcks(t *testing.T, opts sequencer.Options, acks []sequencer.Entry) (lost int) {
	t.Helper()
	errs := lostAcks(t, opts, acks)
	for _, err := range errs[:min(len(errs), 10)] {
		t.Error(err)
	}
	return len(errs)
}

// lostAcks says which acknowledged decisions do not stand where they were said to.
func lostAcks(t *testing.T, opts sequencer.Options, acks []sequencer.Entry) (errs []error) {
	t.Helper()
	dir := ledger.Dir(opts.Dir)
	tree, err := dir.ReadTree(origin)
	if err != nil {
		return []error{err}
	}
	prover := ledger.NewProver(tree, dir, 0)
	for _, e := range acks {
		entry, err := ledger.ReadEntry(t.Context(), dir, e.Index, tree.Size)
		if err == nil {
			var record *attest.Record
			if record, err = attest.ReadRecord(entry, nodeKey(t, 1).Public()); err == nil && (record.ID != e.ID || record.Sequence != e.Sequence) {
				err = fmt.Errorf("it is decision %d, %s", record.Sequence, record.ID)
			}
		}
		if err == nil {
			hashes, proofErr := prover.Inclusion(t.Context(), e.Index)
			if err = proofErr; err == nil {
				err = tree.Includes(e.Index, hashes, entry)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("acknowledged decision %d at %d, %s: %w", e.Sequence, e.Index, e.ID, err))
		}
	}
	return errs
}
