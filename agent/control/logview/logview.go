// Package logview reads a node's own ledger for those who look at it: its checkpoint, its entries, and proofs that an entry is in
// it. It promises that a proof it returns was checked against the signed checkpoint that it carries. It never writes.
package logview

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"arch.network/attest/ledger"
)

// Log is a ledger as its tiles show it. It may be used by several goroutines at once.
type Log struct {
	tiles  ledger.TileReader
	policy *ledger.Policy

	mu     sync.Mutex // guards both below
	signed *ledger.Signed
	prover *ledger.Prover // of signed
}

// New returns the log whose tiles, and whose checkpoint at the path "checkpoint", tiles reads. Its checkpoint must be as policy says.
func New(tiles ledger.TileReader, policy *ledger.Policy) *Log {
	return &Log{tiles: tiles, policy: policy}
}

// Checkpoint returns the newest state of the log.
func (l *Log) Checkpoint(ctx context.Context) (*ledger.Signed, error) {
	signed, _, err := l.newest(ctx)
	return signed, err
}

func (l *Log) newest(ctx context.Context) (*ledger.Signed, *ledger.Prover, error) {
	note, err := l.tiles.ReadTile(ctx, "checkpoint")
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signed != nil && string(l.signed.Note) == string(note) {
		return l.signed, l.prover, nil
	}
	signed, err := l.policy.Open(note)
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	l.signed, l.prover = signed, ledger.NewProver(signed.Checkpoint, l.tiles, 256)
	return l.signed, l.prover, nil
}

// Entry returns entry number index. The error is a *RangeError if the log has none.
func (l *Log) Entry(ctx context.Context, index int64) ([]byte, error) {
	entries, _, err := l.Entries(ctx, index, 1)
	if err != nil {
		return nil, err
	}
	return entries[0], nil
}

// MaxEntries is the most that Entries returns.
const MaxEntries = 256

// Entries returns up to n entries from number from on, and how many the log has. Whether they are in the log is what Prove tells.
func (l *Log) Entries(ctx context.Context, from int64, n int) (entries [][]byte, size int64, err error) {
	signed, _, err := l.newest(ctx)
	if err != nil {
		return nil, 0, err
	}
	if from < 0 || from >= signed.Size {
		return nil, signed.Size, &RangeError{Index: from, Size: signed.Size}
	}
	end := min(from+int64(min(max(n, 1), MaxEntries)), signed.Size)
	for at := from; at < end; {
		bundle, first := ledger.BundleOf(at, signed.Size)
		data, err := l.tiles.ReadTile(ctx, bundle.Path())
		if err != nil {
			return nil, 0, fmt.Errorf("read entry %d: %w", at, err)
		}
		all, err := ledger.ParseEntries(bundle, data)
		if err != nil {
			return nil, 0, fmt.Errorf("read entry %d: %w", at, err)
		}
		take := all[first:min(len(all), first+int(end-at))]
		entries = append(entries, take...)
		at += int64(len(take))
	}
	return entries, signed.Size, nil
}

// Prove returns entry number index with the proof that it is in the log. The error is a *RangeError if the log has no such entry.
func (l *Log) Prove(ctx context.Context, index int64) (*ledger.Proof, []byte, error) {
	entry, err := l.Entry(ctx, index)
	if err != nil {
		return nil, nil, err
	}
	signed, prover, err := l.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	var hashes []tlog.Hash
	if hashes, err = prover.Inclusion(ctx, index); err != nil {
		return nil, nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	proof := &ledger.Proof{Index: index, Hashes: hashes, Note: signed.Note}
	if _, err := proof.Verify(l.policy, entry); err != nil {
		return nil, nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	return proof, entry, nil
}

// RangeError says that a log has no entry of that number.
type RangeError struct{ Index, Size int64 }

func (e *RangeError) Error() string {
	if e.Size == 0 {
		return "the ledger is empty"
	}
	return fmt.Sprintf("the ledger has entries 0 to %d, and none of number %d", e.Size-1, e.Index)
}
