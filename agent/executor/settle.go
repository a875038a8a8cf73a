package executor

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"arch.network/attest/ledger/journal"
)

const (
	// settleAfter is how long a change waits in the journal for others before all of them are put into the state file: its pages are many, and are
	// mostly the same ones.
	settleAfter = 250 * time.Millisecond
	// settleAgain is the pause after the state file could not be written.
	settleAgain = time.Second
	// settleAt is how much, in bytes, does not wait any longer.
	settleAt = 4 << 20
	// mostRecent is how much may be in the journal and in memory; then there is no commit until the state file has it. Less than journal.Full.
	mostRecent = 24 << 20
)

// replay puts what the last process has left in the journal into the state file, and empties it.
func (d *database) replay(dir string) error {
	var salt []byte
	err := d.bolt.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta.name())
		salt = append(salt, meta.Get(keySalt)...)
		d.next = int64(number(meta.Get(keyApplied)))
		return nil
	})
	if err != nil {
		return err
	}
	if d.journal, err = journal.Open(dir, journal.Options{MaxEntry: maxChange, Salt: salt}); err != nil {
		return err
	}
	entries, err := d.journal.Read(d.next)
	if err != nil {
		return err
	}
	left := &recent{}
	for _, e := range entries {
		for rest := e.Data; len(rest) > 0; {
			var p put
			if p, rest, err = parsePut(rest); err != nil {
				return fmt.Errorf("read entry %d of the journal: %w", e.Index, err)
			}
			left.put(p)
		}
	}
	d.next += int64(len(entries))
	if err := d.carry(left, d.next); err != nil {
		return fmt.Errorf("put the journal into the state: %w", err)
	}
	return errors.Join(d.journal.Empty(0), d.journal.Empty(1))
}

// carry puts changes, up to an index of the journal, into the state file.
func (d *database) carry(r *recent, applied int64) error {
	if r.size == 0 {
		return nil
	}
	return d.bolt.Update(func(tx *bolt.Tx) error {
		if err := r.write(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta.name()).Put(keyApplied, numberKey(uint64(applied)))
	})
}

// settleNowAndThen keeps the journal short. It ends when the committer has.
func (d *database) settleNowAndThen() {
	defer close(d.settled)
	timer := time.NewTimer(settleAfter)
	defer timer.Stop()
	pause := settleAfter
	for {
		select {
		case <-d.ended:
			return
		case <-d.due:
		}
		timer.Reset(pause)
		select {
		case <-d.ended:
			return
		case <-d.hurry:
		case <-timer.C:
		}
		err := d.settle()
		if err != nil || pause != settleAfter {
			d.unsettled(err)
		}
		if pause = settleAfter; err != nil {
			pause = settleAgain
			poke(d.due) // until then it is safe where it is
		}
	}
}

// room makes sure that what is in the journal only does not become too much.
func (d *database) room() error {
	d.mu.RLock()
	much := d.fresh.size >= mostRecent
	d.mu.RUnlock()
	if !much {
		return nil
	}
	return d.settle()
}

// settle puts into the state file what is in the journal, and empties that.
func (d *database) settle() error {
	d.settling.Lock()
	defer d.settling.Unlock()
	if err := d.loss(); err != nil {
		return err
	}
	if d.older == nil {
		if err := d.empty(); err != nil {
			return err
		}
		if !d.turn() {
			return nil
		}
	}
	if err := d.carry(d.older, d.upTo); err != nil {
		return d.carried(err)
	}
	d.mu.Lock()
	d.older = nil
	d.mu.Unlock()
	return d.empty()
}

// turn takes what is fresh for what is written next. False: there is nothing.
func (d *database) turn() bool {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fresh.size == 0 {
		return false
	}
	d.older, d.fresh, d.full, d.upTo = d.fresh, &recent{}, d.journal.Turn(), d.next
	return true
}

// empty empties the file of the journal that the state file has.
func (d *database) empty() error {
	if d.full < 0 {
		return nil
	}
	if err := d.journal.Empty(d.full); err != nil {
		return err
	}
	d.full = -1
	return nil
}

// carried tells what it means that the state file was not written. If the sync of its last page failed, nobody can know whether that is on the disk, and
// bolt takes its pages for free, so that one transaction more would destroy them. So there is none: the next process starts from what is there, which
// the journal still has.
func (d *database) carried(err error) error {
	seen := false
	_ = d.bolt.View(func(tx *bolt.Tx) error { // it reads memory
		seen = int64(number(tx.Bucket(bucketMeta.name()).Get(keyApplied))) == d.upTo
		return nil
	})
	if seen {
		return d.fail(err)
	}
	return err
}
