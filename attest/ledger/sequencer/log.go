package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/journal"
	"arch.network/attest/ledger/notekey"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"k8s.io/klog/v2"
)

// journalOptions are those of the journal of entries, all of which the node itself has made and signed.
var journalOptions = journal.Options{MaxEntry: ledger.MaxEntry}

// Options say where a log lies and how it is written.
type Options struct {
	Dir string // of the log; it is made if it is not there
	// Signed is the file that remembers what was signed last. It MUST NOT lie in Dir: whoever restores or copies the one must not
	// take the other along.
	Signed string
	Keys   *notekey.Keys // their name is the log's origin
	// Batch is the most entries that become durable together. Zero: DefaultBatch.
	Batch int
	// Pending is the most entries that wait; more are held back until there is room. Zero: DefaultPending.
	Pending int
	// CheckpointInterval is the least time between two checkpoints. Zero: DefaultCheckpointInterval, the shortest there is.
	CheckpointInterval time.Duration
	// RestAfter is how long nothing is appended before the storage is stopped, which otherwise looks at the disk ten times a second. The next
	// entry starts it again. Zero: DefaultRestAfter.
	RestAfter time.Duration
	// Adopt begins the record of what was signed with the log as it stands, if there is a log and no record. It is for a
	// person to decide, once.
	Adopt bool
}

// Defaults of Options.
const (
	DefaultBatch              = 1024
	DefaultPending            = 8192
	DefaultCheckpointInterval = 100 * time.Millisecond // tessera's minimum
	DefaultRestAfter          = 3 * time.Second

	// batchAge is how long the storage waits for more after the first entry of a group that is not full.
	batchAge = 2 * time.Millisecond
	// collectEvery is how often partial tiles that full ones have replaced are removed.
	collectEvery = time.Minute
)

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	switch {
	case o.Dir == "" || o.Signed == "":
		return errors.New("open log: it needs a directory and a record of what was signed")
	case o.Keys == nil:
		return errors.New("open log: it needs keys")
	case o.Batch < 0 || o.Pending < 0 || o.CheckpointInterval < 0 || o.RestAfter < 0:
		return errors.New("open log: batch, pending, checkpoint interval and rest are not negative")
	case o.CheckpointInterval != 0 && o.CheckpointInterval < DefaultCheckpointInterval:
		return fmt.Errorf("open log: a checkpoint interval of %v is under the minimum of %v", o.CheckpointInterval, DefaultCheckpointInterval)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	signed, err := filepath.Abs(o.Signed)
	if err != nil {
		return err
	}
	if strings.HasPrefix(signed, dir+string(filepath.Separator)) {
		return fmt.Errorf("open log: the record of what was signed, %s, lies in the log's own directory, with which it would be restored", o.Signed)
	}
	return nil
}

// Log is a log that this process writes.
type Log struct {
	dir    ledger.Dir
	origin string
	policy *ledger.Policy
	record *record
	locks  []func() error

	opts    Options
	storage *storage // of whoever holds tiles.working; nil: it rests
	tiles   *tiles
	queue   chan *pending
	batch   int
	flying  sync.WaitGroup // entries that are handed over and not answered
	grouped chan struct{}  // closed when the grouping goroutine has ended
	stop    chan struct{}  // closed to end the integrating goroutine
	tiled   chan struct{}  // closed when it has ended

	journaling sync.Mutex // guards journal, but for the file that is being put into the tiles, and next
	journal    *journal.Journal
	next       int64 // index of the next entry

	mu     sync.Mutex // guards failed and closed
	failed error      // why nothing is written until Recover
	closed bool

	proofs sync.Mutex // guards signed and prover
	signed *ledger.Signed
	prover *ledger.Prover
}

// Open opens the log, or begins it if there is none, and starts to sign checkpoints. The caller MUST call Close. If another process has it
// open, the error is a *durable.InUseError; if it is not what was signed last, a *RestoredError.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	silence()
	policy, err := ledger.ParsePolicy(opts.Keys.LogPolicy())
	if err != nil {
		return nil, err
	}
	l := &Log{
		opts: opts, dir: ledger.Dir(opts.Dir), origin: opts.Keys.Name(), policy: policy, batch: orElse(opts.Batch, DefaultBatch),
		queue: make(chan *pending, orElse(opts.Pending, DefaultPending)), grouped: make(chan struct{}), tiles: newTiles(),
		stop: make(chan struct{}), tiled: make(chan struct{}), record: &record{path: opts.Signed, tiles: ledger.Dir(opts.Dir)},
	}
	err = l.lock(opts)
	if err == nil {
		err = l.compare(ctx, opts)
	}
	if err == nil {
		err = l.start(opts)
	}
	if err == nil {
		err = l.resume()
	}
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	go l.group()
	go l.tile(l.stop)
	return l, nil
}

func orElse[T int | time.Duration](n, fallback T) T {
	if n == 0 {
		return fallback
	}
	return n
}

// silence turns off the storage's own logging, which is one for the whole process.
var silence = sync.OnceFunc(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })

// lock keeps other processes out, of the log and of the record.
func (l *Log) lock(opts Options) error {
	for _, file := range []string{opts.Signed + ".lock", filepath.Join(opts.Dir, ".state", "writer.lock")} {
		if err := durable.MakeDir(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		unlock, err := durable.Lock(file)
		if err != nil {
			return err
		}
		l.locks = append(l.locks, unlock)
	}
	return errors.Join(durable.Sweep(opts.Signed), durable.Sweep(filepath.Join(opts.Dir, ledger.PolicyPath)))
}

// resume puts what an earlier process left in the journal into the tiles.
func (l *Log) resume() (err error) {
	if l.journal, err = journal.Open(filepath.Join(l.opts.Dir, ".state"), journalOptions); err != nil {
		return err
	}
	tree, err := l.dir.ReadTree(l.origin)
	if err != nil {
		return err
	}
	return l.replay(tree)
}

// release gives back what the log holds.
func (l *Log) release() error {
	var errs []error
	if l.storage != nil {
		l.storage.cancel()
	}
	if l.journal != nil {
		errs = append(errs, l.journal.Close())
	}
	for _, unlock := range l.locks {
		errs = append(errs, unlock())
	}
	return errors.Join(errs...)
}

// compare holds the log against the record of what was signed, before anything is written.
func (l *Log) compare(ctx context.Context, opts Options) error {
	origin := opts.Keys.Name()
	tree, err := l.dir.ReadTree(origin)
	exists := err == nil
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tree = ledger.EmptyTree(origin)
	case err != nil:
		return err
	}
	last, err := readRecord(opts.Signed)
	switch {
	case errors.Is(err, fs.ErrNotExist) && exists && !opts.Adopt:
		return &NoRecordError{Dir: opts.Dir, Record: opts.Signed}
	case errors.Is(err, fs.ErrNotExist):
		if err := l.record.begin(tree); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		l.record.last = last
	}
	if err := l.record.check(ctx, tree); err != nil {
		return err
	}
	if err := l.comparePublished(ctx, tree); err != nil {
		return err
	}
	if err := l.publishPolicy(opts.Keys); err != nil {
		return err
	}
	return l.settle(tree)
}

// comparePublished holds the published checkpoint against the tree: it must be of our keys, and no further than the tree is.
func (l *Log) comparePublished(ctx context.Context, tree ledger.Checkpoint) error {
	data, err := l.dir.ReadCheckpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is signed anew
	}
	if err != nil {
		return err
	}
	signed, err := l.policy.Open(data)
	if err != nil {
		return &damagedError{Path: filepath.Join(string(l.dir), ledger.CheckpointPath), Err: err}
	}
	if signed.Size > tree.Size {
		return &RestoredError{Signed: signed.Checkpoint, Found: tree, Record: l.record.path}
	}
	return nil
}

// publishPolicy writes the log's own keys beside it, for those who read it where it lies.
func (l *Log) publishPolicy(keys *notekey.Keys) error {
	path := filepath.Join(string(l.dir), ledger.PolicyPath)
	if have, err := durable.ReadFile(path, ledger.MaxPolicy); err == nil && string(have) == string(keys.LogPolicy()) {
		return nil
	}
	return durable.WriteFile(path, keys.LogPolicy(), 0o644)
}

// damagedError says that the published checkpoint is not one of ours.
type damagedError struct {
	Path string
	Err  error
}

func (e *damagedError) Error() string { return fmt.Sprintf("open log: read %s: %v", e.Path, e.Err) }

func (e *damagedError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *damagedError) Hint() string {
	return "if the keys are the right ones and arch ledger fsck finds no other fault, remove " + e.Path + ": it is then signed anew"
}

// settle makes durable once more what lies at the tree's right edge. A process that failed to sync, or was killed before it did, may have left
// there what is only in the kernel's memory.
func (l *Log) settle(tree ledger.Checkpoint) error {
	if tree.Size == 0 {
		return nil
	}
	b, _ := ledger.BundleOf(tree.Size-1, tree.Size)
	paths := []string{b.Path()}
	for level, size := 0, tree.Size; size > 0; level, size = level+1, size>>8 {
		n := (size - 1) >> 8
		paths = append(paths, ledger.Tile{Level: level, Number: n, Width: int(size - n<<8)}.Path())
	}
	paths = append(paths, ledger.TreePath)
	for _, p := range paths {
		file := filepath.Join(string(l.dir), filepath.FromSlash(p))
		for _, p := range []string{file, filepath.Dir(file), filepath.Dir(filepath.Dir(file))} {
			if err := durable.Sync(p); err != nil && !errors.Is(err, fs.ErrNotExist) { // the full one may have taken its place
				return err
			}
		}
	}
	return nil
}

// start starts the storage, which signs checkpoints by itself.
func (l *Log) start(opts Options) error {
	signers, err := opts.Keys.LogSigners()
	if err != nil {
		return err
	}
	for i, s := range signers {
		signers[i] = recordedSigner{s, l.record}
	}
	ctx, cancel := context.WithCancel(context.Background()) // until stop
	driver, err := posix.New(ctx, posix.Config{Path: opts.Dir})
	if err != nil {
		cancel()
		return fmt.Errorf("open log: %w", err)
	}
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signers[0], signers[1:]...).
		WithCheckpointInterval(orElse(opts.CheckpointInterval, DefaultCheckpointInterval)).
		WithCheckpointRepublishInterval(0).
		WithBatching(uint(l.batch), batchAge).
		WithGarbageCollectionInterval(collectEvery))
	if err != nil {
		cancel()
		return fmt.Errorf("open log: %w", err)
	}
	l.storage = &storage{add: appender.Add, shutdown: shutdown, cancel: cancel}
	return nil
}

// storage is tessera's, while it runs. It looks at the disk ten times a second, so it is stopped when there is nothing to do.
type storage struct {
	add      tessera.AddFn
	shutdown func(context.Context) error // waits for a checkpoint
	cancel   context.CancelFunc
}

// rest stops the storage if a checkpoint covers the whole tree. True: it rests.
func (l *Log) rest() bool {
	l.tiles.working.Lock()
	defer l.tiles.working.Unlock()
	if l.storage == nil {
		return true
	}
	tree, err := l.dir.ReadTree(l.origin)
	if err != nil {
		return false
	}
	signed, err := l.Checkpoint(context.Background())
	if err != nil || signed.Size != tree.Size {
		return false
	}
	l.storage.cancel()
	l.storage = nil
	return true
}

// Close waits until everything handed over is answered and a checkpoint covers it, or ctx ends, and lets go of the log.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.flying.Wait()
	close(l.queue)
	<-l.grouped
	close(l.stop)
	<-l.tiled
	var err error
	if l.storage != nil && l.failure() == nil {
		err = l.storage.shutdown(ctx)
	}
	l.record.close()
	return errors.Join(err, l.release())
}

// Policy knows the log's own keys, and asks for no witness.
func (l *Log) Policy() *ledger.Policy { return l.policy }

// Dir is where the log lies.
func (l *Log) Dir() ledger.Dir { return l.dir }

// Tree returns the state with everything that was acknowledged: it may be further than the newest checkpoint.
func (l *Log) Tree() (ledger.Checkpoint, error) {
	l.integrated()
	return l.dir.ReadTree(l.origin)
}
