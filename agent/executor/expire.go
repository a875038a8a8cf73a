package executor

import (
	"slices"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// Expire removes what has been kept long enough by now, and returns when that is done. Run does so every minute.
func (e *Engine) Expire() {
	e.expire(e.o.Now())
	_ = e.roots.wait() // what could not be removed does no harm, and is said when the engine is closed
}

// expire removes what has been kept long enough. What cannot be removed now is tried again.
func (e *Engine) expire(now time.Time) {
	const most = 1000
	var keys [][]byte
	err := e.db.ascend(bucketExpiry, nil, func(k, _ []byte) (bool, error) {
		if at, _, _ := parseExpiry(k); at > now.Unix() {
			return false, nil
		}
		keys = append(keys, slices.Clone(k))
		return len(keys) < most, nil
	})
	for _, key := range keys {
		if err == nil {
			err = e.expireOne(key)
		}
	}
	if err != nil {
		e.o.Log.WarnContext(e.life, "not removed", "error", err)
	}
}

// expireOne removes one thing of one job.
func (e *Engine) expireOne(key []byte) error {
	_, number, kind := parseExpiry(key)
	h := e.jobs.hold(number)
	defer e.jobs.drop(h)
	if err := e.jobs.lock(h); err != nil {
		return err
	}
	defer h.mu.Unlock()
	rec := h.rec
	if kind == expireRecord {
		return e.forget(h, key)
	}
	c := &change{puts: []put{{bucketExpiry, key, nil}}}
	content := rec.Content
	switch kind {
	case expireLogs:
		for _, a := range rec.Job.Attempts {
			for _, s := range []string{"stdout", "stderr"} {
				k := logKey{number, a.Number, s}
				c.puts = append(c.puts, put{bucketLogs, k.key(), nil})
				if err := e.logs.remove(k); err != nil {
					return err
				}
			}
		}
	case expireResults:
		inputs := []digest.SHA256{}
		for _, list := range rec.Sources {
			inputs = append(inputs, list...)
		}
		outputs := difference(rec.outputDigests(), inputs)
		content = difference(content, outputs)
	case expireArchive:
		content = nil
		c.puts = append(c.puts, put{bucketStatements, entryKey(rec.Job.ID), nil})
	default:
		content = rec.Content
	}
	if kind == expireArchive {
		d := rec.decision(agent.KindArchive, move{verdict: "removed", summary: "its archive entry was removed: its time is over"}, e.o.Now().UTC())
		d.Policy = rec.Job.Policy
		if _, err := e.record([]agent.Decision{d}); err != nil {
			return err
		}
	}
	return e.pass(h, c, func(r *record) {
		r.Content = content
		r.Gone = append(r.Gone, kind)
	})
}
