package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
)

// RecorderOptions say how decisions are recorded.
type RecorderOptions struct {
	Signer identity.Signer // the node's key
	// Former are the node's earlier keys: the log may end with a decision that one of them signed.
	Former []identity.PublicKey
	Now    func() time.Time // nil: time.Now
}

// Entry is where a decision stands.
type Entry struct {
	Index    int64         // in the log, from 0
	Sequence int64         // the node's own count, from 1
	ID       digest.SHA256 // of the statement
}

// Recorder writes the decisions of one node into a log that holds nothing else. It may be used by several goroutines at once.
//
// What was handed to Record and not answered, because the process was killed, is either in the log with its sequence, or not there at
// all, and then its sequence is given to the next decision. After a failed write the same holds for all decisions that were on the
// way; the next call of Record tries to go on from what is really in the log.
type Recorder struct {
	log  *Log
	opts RecorderOptions
	node string

	mu     sync.Mutex // guards the rest; held while a decision gets its sequence, and while recovering
	next   int64
	last   digest.SHA256 // id of the decision before next
	turn   chan struct{} // closed when the decision before next is handed to the log, or never will be
	course *course
	flying sync.WaitGroup
}

// course is a stretch of the chain in which each decision that was given a sequence gets into the log. Once one does not, none after it may.
type course struct{ broken atomic.Pointer[error] }

func (c *course) fail(err error) { c.broken.CompareAndSwap(nil, &err) }

func (c *course) err() error {
	if p := c.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// NewRecorder finds the end of the chain in the log. The error is an *attest.ChainError if the log does not end with it.
func NewRecorder(ctx context.Context, log *Log, opts RecorderOptions) (*Recorder, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &Recorder{log: log, opts: opts, node: dsse.KeyID(opts.Signer.Public())}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// load reads the end of the chain. The log holds one chain and nothing else, so its last sequence is the number of its entries; it is found
// among the last that were written together.
func (r *Recorder) load(ctx context.Context) error {
	tree, err := r.log.Tree()
	if err != nil {
		return err
	}
	r.next, r.last, r.course, r.turn = 1, digest.SHA256{}, &course{}, make(chan struct{})
	close(r.turn)
	if tree.Size == 0 {
		return nil
	}
	keys := append([]identity.PublicKey{r.opts.Signer.Public()}, r.opts.Former...)
	prover := ledger.NewProver(tree, r.log.dir, 0)
	for index := tree.Size - 1; index >= max(0, tree.Size-int64(r.log.batch)); index-- {
		entry, err := ledger.ReadEntry(ctx, r.log.dir, index, tree.Size)
		if err != nil {
			return fmt.Errorf("find the last decision: %w", err)
		}
		hashes, err := prover.Inclusion(ctx, index)
		if err == nil {
			err = tree.Includes(index, hashes, entry)
		}
		if err != nil {
			return fmt.Errorf("find the last decision: %w", err)
		}
		last, err := attest.ReadRecord(entry, keys...)
		if err != nil {
			return fmt.Errorf("find the last decision: entry %d: %w", index, err)
		}
		if last.Sequence == tree.Size {
			r.next, r.last = last.Sequence+1, last.ID
			return nil
		}
	}
	return &attest.ChainError{Sequence: tree.Size, Why: "it is not among the last entries of a log of as many"}
}

// Next returns the sequence that the next decision gets.
func (r *Recorder) Next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// Node returns the name of the node's key, as its decisions have it.
func (r *Recorder) Node() string { return r.node }

// Log returns the log.
func (r *Recorder) Log() *Log { return r.log }

// Proof returns the proof that an entry is in the log; see Log.Proof.
func (r *Recorder) Proof(ctx context.Context, index int64) (*ledger.Proof, error) {
	return r.log.Proof(ctx, index)
}

// Record signs a decision about subjects and returns when it is durable. Node, Sequence and Previous are set here, and At if it is empty; By
// is the node itself if it is empty. If ctx ends before the answer, the decision may or may not get into the log, and those after it are not
// harmed.
func (r *Recorder) Record(ctx context.Context, d attest.Decision, subjects ...attest.ResourceDescriptor) (Entry, error) {
	w, err := r.begin(ctx, d, subjects)
	if err != nil {
		return Entry{}, err
	}
	return w.finish(ctx)
}

// Item is one decision of RecordAll.
type Item struct {
	Decision attest.Decision
	Subjects []attest.ResourceDescriptor
}

// RecordAll records decisions one after the other in the chain, and returns when all are durable. If one cannot be recorded, those after it are not, and
// the entries of those before it come with the error.
func (r *Recorder) RecordAll(ctx context.Context, items []Item) ([]Entry, error) {
	var waits []*waiting
	var failed error
	for _, item := range items {
		w, err := r.begin(ctx, item.Decision, item.Subjects)
		if err != nil {
			failed = err
			break
		}
		waits = append(waits, w)
	}
	var entries []Entry
	for _, w := range waits {
		e, err := w.finish(ctx)
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, failed
}

// waiting is a decision on its way.
type waiting struct {
	entry  Entry
	future Future
	course *course
}

// begin gives a decision its place in the chain, signs it, and hands it to the log in its turn.
func (r *Recorder) begin(ctx context.Context, d attest.Decision, subjects []attest.ResourceDescriptor) (*waiting, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("record decision: %w", err)
	}
	r.mu.Lock()
	if r.course.err() != nil {
		if err := r.recover(ctx); err != nil {
			r.mu.Unlock()
			return nil, fmt.Errorf("record decision: go on after a failure: %w", err)
		}
	}
	env, id, err := r.state(d, subjects)
	if err != nil {
		r.mu.Unlock()
		return nil, fmt.Errorf("record decision: %w", err)
	}
	w := &waiting{entry: Entry{Sequence: r.next, ID: id}, course: r.course}
	before, turn := r.turn, make(chan struct{})
	r.next, r.last, r.turn = r.next+1, id, turn
	r.flying.Add(1)
	r.mu.Unlock()

	defer r.flying.Done()
	defer close(turn)
	ctx = context.WithoutCancel(ctx) // from here on, others depend on it
	signErr := env.Add(ctx, r.opts.Signer)
	<-before
	if err := w.course.err(); err != nil {
		return nil, fmt.Errorf("record decision: one before it was not recorded: %w", err)
	}
	if signErr == nil {
		w.future, signErr = r.log.Add(ctx, env.Marshal())
	}
	if signErr != nil {
		w.course.fail(signErr)
		return nil, fmt.Errorf("record decision: %w", signErr)
	}
	return w, nil
}

// state makes the statement of a decision that is next in the chain.
func (r *Recorder) state(d attest.Decision, subjects []attest.ResourceDescriptor) (*dsse.Envelope, digest.SHA256, error) {
	d.Node, d.Sequence, d.Previous = r.node, r.next, r.last
	if d.At == "" {
		d.At = attest.FormatDecisionTime(r.opts.Now())
	}
	if d.By == "" {
		d.By = r.node
	}
	data, err := attest.EncodeDecision(d, subjects...)
	if err != nil {
		return nil, digest.SHA256{}, err
	}
	env := &dsse.Envelope{PayloadType: attest.PayloadType, Payload: data}
	return env, env.ID(), nil
}

// finish waits for the answer.
func (w *waiting) finish(ctx context.Context) (Entry, error) {
	index, err := w.future.Wait(ctx)
	if err != nil {
		if failed, ok := errors.AsType[*FailedError](err); ok {
			w.course.fail(failed)
		}
		return Entry{}, fmt.Errorf("record decision: %w", err)
	}
	w.entry.Index = index
	return w.entry, nil
}

// recover goes on from what is in the log after a failure. Nothing is handed over meanwhile, for mu is held.
func (r *Recorder) recover(ctx context.Context) error {
	r.flying.Wait()
	if err := r.log.Recover(ctx); err != nil {
		return err
	}
	return r.load(ctx)
}
