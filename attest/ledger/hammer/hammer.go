// Package hammer puts a ledger under load and watches it: many writers record decisions, and readers prove what was acknowledged, under
// checkpoints of which each must continue the one before; or it kills the processes that write (Kill).
//
// It promises that nil means that all of it held. It writes made-up decisions, so it takes a new ledger and refuses one that exists.
package hammer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"

	"golang.org/x/sync/errgroup"
)

// origin is the name of every ledger that is hammered.
const origin = "hammer.invalid/ledger"

// Options say how hard.
type Options struct {
	Dir     string        // of the new ledger
	Signed  string        // its record of what was signed
	Goal    int64         // decisions to record
	Writers int           // at once
	Readers int           // at once
	Runtime time.Duration // to end after, goal or not; zero: no limit
}

// Result is what was done.
type Result struct {
	Recorded int64         `json:"recorded"`
	Proved   int64         `json:"proved"`
	Elapsed  time.Duration `json:"elapsedNanos"`
	P50      time.Duration `json:"p50Nanos"` // from handing a decision over to its acknowledgement
	P99      time.Duration `json:"p99Nanos"`
}

// Run hammers until the goal or the time is reached. The error says what did not hold.
func Run(ctx context.Context, opts Options) (*Result, error) {
	if _, err := os.Stat(opts.Dir); err == nil {
		return nil, &existsError{opts.Dir}
	}
	keys, err := notekey.Generate(origin, rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := identity.Generate(identity.Ed25519, rand.Reader)
	if err != nil {
		return nil, err
	}
	log, err := sequencer.Open(ctx, sequencer.Options{Dir: opts.Dir, Signed: opts.Signed, Keys: keys})
	if err != nil {
		return nil, err
	}
	recorder, err := sequencer.NewRecorder(ctx, log, sequencer.RecorderOptions{Signer: signer})
	if err != nil {
		return nil, errors.Join(err, log.Close(ctx))
	}
	h := &hammer{opts: opts, log: log, recorder: recorder}
	err = h.run(ctx)
	return h.result(), errors.Join(err, log.Close(context.WithoutCancel(ctx)))
}

// existsError says that there is something at the ledger's place.
type existsError struct{ dir string }

func (e *existsError) Error() string {
	return fmt.Sprintf("hammer ledger %s: there is something already", e.dir)
}

// Hint tells the way out.
func (e *existsError) Hint() string {
	return "hammer writes made-up decisions, which a real ledger would keep for ever: name a new directory"
}

type hammer struct {
	opts     Options
	log      *sequencer.Log
	recorder *sequencer.Recorder
	elapsed  time.Duration
	begun    atomic.Int64 // decisions
	proved   atomic.Int64

	mu    sync.Mutex // guards the rest
	took  []time.Duration
	fresh sequencer.Entry // the last that was acknowledged
}

func (h *hammer) run(ctx context.Context) error {
	whole := ctx
	if h.opts.Runtime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.opts.Runtime)
		defer cancel()
	}
	start := time.Now()
	writers, writing := errgroup.WithContext(ctx)
	for range max(h.opts.Writers, 1) {
		writers.Go(func() error { return h.write(writing) })
	}
	reading, stop := context.WithCancel(ctx)
	readers, _ := errgroup.WithContext(reading)
	for range h.opts.Readers {
		readers.Go(func() error { return h.read(reading) })
	}
	err := writers.Wait()
	h.elapsed = time.Since(start)
	stop()
	if err = errors.Join(err, readers.Wait()); err != nil || h.opts.Readers == 0 {
		return err
	}
	return h.proveLast(whole)
}

// proveLast waits for the checkpoint that covers the last decision, which may have come too late for the readers.
func (h *hammer) proveLast(ctx context.Context) error {
	if h.fresh.Sequence == 0 {
		return nil // nothing was recorded
	}
	proof, err := h.log.Proof(ctx, h.fresh.Index)
	if err != nil {
		return err
	}
	if _, err := h.prove(ctx, h.fresh, proof); err != nil {
		return err
	}
	h.proved.Add(1)
	return nil
}

// write records decisions until there are enough, or ctx ends.
func (h *hammer) write(ctx context.Context) error {
	for {
		n := h.begun.Add(1)
		if n > h.opts.Goal || ctx.Err() != nil {
			return nil
		}
		job := attest.Document("job", digest.Of(fmt.Appendf(nil, "job %d", n)))
		start := time.Now()
		e, err := h.recorder.Record(ctx, attest.Decision{
			Kind: "admission", Verdict: "accepted", Summary: fmt.Sprintf("Made-up job %d was accepted.", n),
		}, job)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		h.mu.Lock()
		h.took, h.fresh = append(h.took, time.Since(start)), e
		h.mu.Unlock()
	}
}

// read proves the last decision again and again, until ctx ends.
func (h *hammer) read(ctx context.Context) error {
	var before ledger.Checkpoint
	for ctx.Err() == nil {
		h.mu.Lock()
		e := h.fresh
		h.mu.Unlock()
		proof, err := h.log.Proof(ctx, e.Index)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && e.Sequence == 0: // nothing is acknowledged yet
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			continue
		case err != nil:
			return err
		}
		signed, err := h.prove(ctx, e, proof)
		if err == nil && before.Origin != "" && signed.Size >= before.Size {
			err = h.continues(ctx, before)
		}
		if err != nil {
			return err
		}
		before = signed.Checkpoint
		h.proved.Add(1)
	}
	return nil
}

// prove checks that a decision stands where it was said to.
func (h *hammer) prove(ctx context.Context, e sequencer.Entry, proof *ledger.Proof) (*ledger.Signed, error) {
	signed, err := h.log.Policy().Open(proof.Note)
	if err != nil {
		return nil, err
	}
	entry, err := ledger.ReadEntry(ctx, h.log.Dir(), e.Index, signed.Size)
	if err != nil {
		return nil, err
	}
	if err := signed.Includes(proof.Index, proof.Hashes, entry); err != nil {
		return nil, err
	}
	if record, err := attest.ReadRecord(entry); e.Sequence > 0 && (err != nil || record.ID != e.ID) {
		return nil, fmt.Errorf("read entry %d: it is not the decision that was acknowledged: %w", e.Index, err)
	}
	return signed, nil
}

// continues checks that the newest checkpoint continues an older one.
func (h *hammer) continues(ctx context.Context, old ledger.Checkpoint) error {
	signed, prover, err := h.log.Prover(ctx)
	if err != nil {
		return err
	}
	hashes, err := prover.Consistency(ctx, old.Size)
	if err != nil {
		return err
	}
	return signed.Continues(old, hashes)
}

func (h *hammer) result() *Result {
	r := &Result{Recorded: int64(len(h.took)), Proved: h.proved.Load(), Elapsed: h.elapsed}
	if n := len(h.took); n > 0 {
		slices.Sort(h.took)
		r.P50, r.P99 = h.took[n/2], h.took[n*99/100]
	}
	return r
}
