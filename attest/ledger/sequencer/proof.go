package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"arch.network/attest/ledger"
)

// pollEvery is how often a proof that waits for a checkpoint looks for one.
const pollEvery = 10 * time.Millisecond

// Checkpoint returns the newest checkpoint that was signed; the error is fs.ErrNotExist if there is none yet.
func (l *Log) Checkpoint(ctx context.Context) (*ledger.Signed, error) {
	signed, _, err := l.newest(ctx)
	return signed, err
}

// newest returns the newest checkpoint and a prover for it.
func (l *Log) newest(ctx context.Context) (*ledger.Signed, *ledger.Prover, error) {
	data, err := l.dir.ReadCheckpoint(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	l.proofs.Lock()
	defer l.proofs.Unlock()
	if l.signed != nil && bytes.Equal(l.signed.Note, data) {
		return l.signed, l.prover, nil
	}
	signed, err := l.policy.Open(data)
	if err != nil {
		return nil, nil, err
	}
	l.signed, l.prover = signed, ledger.NewProver(signed.Checkpoint, l.dir, 0)
	return l.signed, l.prover, nil
}

// Prover returns the newest checkpoint and what proves things under it.
func (l *Log) Prover(ctx context.Context) (*ledger.Signed, *ledger.Prover, error) {
	return l.newest(ctx)
}

// Proof returns the proof that an entry is in the log. An entry that was just added is covered by the next checkpoint: Proof waits
// for that until ctx ends.
func (l *Log) Proof(ctx context.Context, index int64) (*ledger.Proof, error) {
	var tick *time.Ticker
	for {
		signed, prover, err := l.newest(ctx)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("prove entry %d: %w", index, err)
		case err == nil && index < signed.Size:
			hashes, err := prover.Inclusion(ctx, index)
			if err != nil {
				return nil, err
			}
			return &ledger.Proof{Index: index, Hashes: hashes, Note: signed.Note}, nil
		}
		if n := l.tiles.acknowledged(); index >= n {
			return nil, fmt.Errorf("prove entry %d: the log has %d entries", index, n)
		}
		if tick == nil {
			tick = time.NewTicker(pollEvery)
			defer tick.Stop()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("prove entry %d: no checkpoint covers it yet: %w", index, ctx.Err())
		}
	}
}
