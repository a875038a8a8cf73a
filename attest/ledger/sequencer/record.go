package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"

	"golang.org/x/mod/sumdb/note"
)

// maxRecord is more than the text of any checkpoint, in bytes.
const maxRecord = 1 << 10

// RestoredError says that a log is not what its writer signed last: it is smaller or forked, as after restoring an old copy.
type RestoredError struct {
	Signed ledger.Checkpoint // on record
	Found  ledger.Checkpoint
	Record string // path
	Err    error  // why it does not continue; nil if it is smaller
}

func (e *RestoredError) Error() string {
	if e.Found.Size < e.Signed.Size {
		return fmt.Sprintf("open log %s: it has %d entries, but a checkpoint of %d was signed: it was restored from an old copy or has lost entries",
			e.Signed.Origin, e.Found.Size, e.Signed.Size)
	}
	return fmt.Sprintf("open log %s: its %d entries do not continue the %d that were signed: it was rewritten or forked",
		e.Signed.Origin, e.Found.Size, e.Signed.Size)
}

// Unwrap returns the cause.
func (e *RestoredError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *RestoredError) Hint() string {
	return "bring back the newest copy of the log, such as a mirror's; if it is lost, begin a new log under a new name: going on would show two histories, and " + e.Record + " must not be removed for that"
}

// NoRecordError says that there is a log, but no record of what was signed.
type NoRecordError struct{ Dir, Record string }

func (e *NoRecordError) Error() string {
	return fmt.Sprintf("open log in %s: the record of what was signed last, %s, is not there", e.Dir, e.Record)
}

// Hint tells the way out.
func (e *NoRecordError) Hint() string {
	return "bring the record back, or, after comparing the log with what witnesses or mirrors have seen of it, adopt it as it stands"
}

// record remembers what was signed last. It only moves forward.
type record struct {
	path  string
	tiles ledger.TileReader

	mu     sync.Mutex // guards the rest
	last   ledger.Checkpoint
	closed bool
}

// readRecord reads the record; the error is fs.ErrNotExist if there is none.
func readRecord(path string) (ledger.Checkpoint, error) {
	data, err := durable.ReadFile(path, maxRecord)
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("read record of what was signed: %w", err)
	}
	c, err := ledger.ParseCheckpoint(string(data))
	if err == nil && c.String() != string(data) {
		err = errors.New("it is not in its one form")
	}
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("read record of what was signed, %s: %w", path, err)
	}
	return c, nil
}

// check returns an error unless c continues what is on record.
func (r *record) check(ctx context.Context, c ledger.Checkpoint) error {
	if c.Origin != r.last.Origin {
		return fmt.Errorf("open log %s: %s is the record of another log, %s", c.Origin, r.path, r.last.Origin)
	}
	restored := &RestoredError{Signed: r.last, Found: c, Record: r.path}
	if c.Size < r.last.Size {
		return restored
	}
	proof, err := ledger.NewProver(c, r.tiles, 0).Consistency(ctx, r.last.Size)
	if err == nil {
		err = c.Continues(r.last, proof)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*ledger.ForkError)):
		restored.Err = err
		return restored
	}
	return fmt.Errorf("compare the log with what was signed last: %w", err)
}

// advance puts c on record, if it continues what is there.
func (r *record) advance(ctx context.Context, c ledger.Checkpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return errors.New("sign checkpoint: the log is closed")
	case c == r.last:
		return nil
	}
	if err := r.check(ctx, c); err != nil {
		return err
	}
	if err := durable.WriteFile(r.path, []byte(c.String()), 0o600); err != nil {
		return fmt.Errorf("put checkpoint on record before signing it: %w", err)
	}
	r.last = c
	return nil
}

// close lets nothing be signed any more.
func (r *record) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// begin writes the first record.
func (r *record) begin(c ledger.Checkpoint) error {
	if err := durable.WriteFile(r.path, []byte(c.String()), 0o600); err != nil {
		return err
	}
	r.last = c
	return nil
}

// recordedSigner signs only what is on record.
type recordedSigner struct {
	note.Signer
	record *record
}

// Sign implements note.Signer.
func (s recordedSigner) Sign(text []byte) ([]byte, error) {
	c, err := ledger.ParseCheckpoint(string(text))
	if err != nil {
		return nil, err
	}
	if err := s.record.advance(context.Background(), c); err != nil {
		return nil, err
	}
	return s.Signer.Sign(text)
}
