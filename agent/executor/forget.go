package executor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// forgettable reports whether a job that ended in this state is forgotten when its time is over: nothing of it is to be replayed or
// reviewed.
func forgettable(s agent.State) bool {
	return s == agent.Refused || s == agent.Failed || s == agent.Cancelled
}

// ending notes when what is kept of a job that ended without a result is removed, by the policy in force.
func (e *Engine) ending(rec *record, c *change, now time.Time) (*change, error) {
	policy := e.o.Judge.Policy().Doc
	if policy == nil {
		return c, nil // nobody says for how long
	}
	keep := policy.Spec.Retention
	whole := keep.Ended
	if whole == "" {
		whole = keep.Archive
	}
	var puts []put
	var last time.Time // zero: never
	for _, x := range []struct {
		kind string
		time manifest.Duration
	}{{expireRecord, whole}, {expireLogs, keep.Logs}} {
		if x.time == "" {
			continue
		}
		d, err := x.time.Duration()
		if err != nil {
			return nil, fmt.Errorf("policy: retention: %w", err)
		}
		at := now.Add(d).Truncate(time.Second)
		switch {
		case x.kind == expireRecord:
			last = at
		case !last.IsZero() && !at.Before(last):
			continue // they go with the record
		}
		puts = append(puts, put{bucketExpiry, expiryKey(at, rec.Number, x.kind), []byte{}})
	}
	return with(c, puts...), nil
}

// remains is what is left of a forgotten job.
type remains struct {
	Name  string      `json:"name"`
	State agent.State `json:"state"`
	Since time.Time   `json:"since"`
	Entry agent.Entry `json:"entry"` // its last decision
}

// forget removes everything that is kept of a job but where its last decision is in the ledger. h is locked. The ledger has that it was
// removed before it is.
func (e *Engine) forget(h *handle, key []byte) error {
	rec := h.rec
	if !forgettable(rec.Job.State) {
		return e.db.commit(&change{number: rec.Number, before: rec.Job.State, after: rec.Job.State, puts: []put{{bucketExpiry, key, nil}}})
	}
	left := remains{Name: rec.Job.Name, State: rec.Job.State, Since: rec.Job.Since}
	for _, s := range rec.Job.Steps {
		if s.Entry != nil {
			left.Entry = *s.Entry
		}
	}
	data, err := json.Marshal(left)
	if err != nil {
		return err
	}
	c := &change{number: rec.Number, before: rec.Job.State, drops: slices.Clone(rec.Content), puts: []put{
		{bucketExpiry, key, nil},
		{bucketEnvelopes, numberKey(rec.Number), nil},
		{bucketIDs, rec.Job.ID[:], nil},
		{bucketNames, nameKey(rec.Job.Name, rec.Number), nil},
		{bucketForgotten, rec.Job.ID[:], data},
	}}
	for _, a := range rec.Job.Attempts {
		if !a.Run.IsZero() {
			c.puts = append(c.puts, put{bucketStatements, a.Run[:], nil})
		}
		for _, s := range []string{"stdout", "stderr"} {
			k := logKey{rec.Number, a.Number, s}
			c.puts = append(c.puts, put{bucketLogs, k.key(), nil})
			if err := e.logs.remove(k); err != nil {
				return err
			}
		}
	}
	d := rec.decision(agent.KindArchive, move{verdict: "removed", summary: fmt.Sprintf("it was %s, and its record was removed: its time is over", rec.Job.State)}, e.o.Now().UTC())
	d.Policy = rec.Job.Policy
	if _, err := e.record([]agent.Decision{d}); err != nil {
		return err
	}
	if err := e.db.commit(c); err != nil {
		return err
	}
	h.rec = nil // who waits for the handle finds that there is none any more
	return nil
}

// unknown says that there is no job of an id: never was one, or not any more.
func (e *Engine) unknown(ref string, id digest.SHA256) error {
	data, err := e.db.get(bucketForgotten, id[:])
	if err != nil {
		return err
	}
	if data == nil {
		return &agent.UnknownError{Ref: ref}
	}
	return remembered(id, data)
}

// forgotten is unknown for what may be the beginning of an id.
func (e *Engine) forgotten(ref string) error {
	prefix := strings.TrimPrefix(ref, "sha256:")
	if len(prefix) < minPrefix || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return &agent.UnknownError{Ref: ref}
	}
	start, err := digest.ParseHex(prefix + strings.Repeat("0", 64-len(prefix)))
	if err != nil {
		return &agent.UnknownError{Ref: ref}
	}
	var found [][2][]byte
	err = e.db.ascend(bucketForgotten, start[:], func(k, v []byte) (bool, error) {
		if !strings.HasPrefix(digest.SHA256(k).Hex(), prefix) {
			return false, nil
		}
		found = append(found, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
		return len(found) < maxJobs, nil
	})
	switch {
	case err != nil:
		return err
	case len(found) != 1:
		return &agent.UnknownError{Ref: ref, Many: len(found)}
	}
	return remembered(digest.SHA256(found[0][0]), found[0][1])
}

func remembered(id digest.SHA256, data []byte) error {
	var r remains
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read what is left of job %s: %w", id, err)
	}
	return &agent.ForgottenError{ID: id, Name: r.Name, State: r.State, Since: r.Since, Entry: r.Entry}
}
