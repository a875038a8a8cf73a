package scheduler

import (
	"fmt"
	"slices"
	"time"

	"arch.network/attest/digest"
)

// Why says why a job waits.
type Why struct {
	Position int    // in the order in which the jobs will start if they cost what their owners' jobs cost on average; from 1
	Code     string // stable: "turn", "priority", "slots", "owner-cpu", "node-memory", "held", "never", …
	Text     string // one sentence
}

// Explain tells why a job waits; false: it does not.
func (q *Queue) Explain(id digest.SHA256, now time.Time) (Why, bool) {
	e := q.jobs[id]
	if e == nil || e.place < 0 {
		return Why{}, false
	}
	o := e.owner
	ahead := 0
	for _, other := range o.waiting.list {
		if before(other, e) {
			ahead++
		}
	}
	w := Why{Position: q.position(e, ahead)}
	switch stop := q.stops(o); {
	case q.limits.Fits(e.job.Need) != nil:
		w.Code, w.Text = "never", "it cannot run under the limits that hold now: "+q.limits.Fits(e.job.Need).Error()
	case ahead > 0:
		w.Code, w.Text = "priority", fmt.Sprintf("%d jobs of its owner come before it, by priority or because they came earlier", ahead)
	case q.limits.Slots > 0 && q.running >= q.limits.Slots:
		w.Code, w.Text = "slots", fmt.Sprintf("%d jobs run, as many as may at one time", q.running)
	case stop == byOwner:
		r, _ := lacks(e.job.Need, o.used, q.limits.Owner)
		w.Code, w.Text = "owner-"+r.name, fmt.Sprintf("it needs %d of %s, and running jobs of its owner use %d of the %d that they may", r.need, r.name, r.used, r.limit)
	case stop == byNode:
		r, _ := lacks(e.job.Need, q.used, q.limits.Node)
		w.Code, w.Text = "node-"+r.name, fmt.Sprintf("it needs %d of %s, and running jobs use %d of the node's %d", r.need, r.name, r.used, r.limit)
	case q.held(o, now):
		w.Code, w.Text = "held", "what is free is kept for a job that has waited too long"
	default:
		w.Code, w.Text = "turn", "it is the turn of other owners, by weight and by what was used"
	}
	return w, true
}

// held reports whether another owner's next job stops all others.
func (q *Queue) held(o *owner, now time.Time) bool {
	if first := q.aged.first(); first != o && now.Sub(first.since) >= q.limits.Patience && q.stops(first) == byNode {
		return true
	}
	first := q.ranked.first()
	return first != o && !first.blocked.IsZero() && now.Sub(first.blocked) >= q.limits.Backfill
}

// position estimates the place of a job that ahead others of its owner come before.
func (q *Queue) position(e *entry, ahead int) int {
	o := e.owner
	tag := o.time + int64(ahead)*max(o.mean, 1)/o.weight
	n := ahead + 1
	for _, other := range q.ranked.list {
		if other == o || other.time > tag || other.time == tag && other.head.seq > e.seq {
			continue
		}
		starts := (tag-other.time)*min(other.weight, 1<<20)/max(other.mean, 1) + 1
		n += int(min(starts, int64(other.waiting.Len())))
	}
	return n
}

// Positions returns the estimated place of every job that waits, from 1.
func (q *Queue) Positions() map[digest.SHA256]int {
	type tagged struct {
		e   *entry
		tag int64
	}
	all := make([]tagged, 0, q.waiting)
	for _, o := range q.ranked.list {
		list := slices.Clone(o.waiting.list)
		slices.SortFunc(list, func(a, b *entry) int {
			if before(a, b) {
				return -1
			}
			return 1
		})
		for i, e := range list {
			all = append(all, tagged{e, o.time + int64(i)*max(o.mean, 1)/o.weight})
		}
	}
	slices.SortFunc(all, func(a, b tagged) int {
		switch {
		case a.tag != b.tag && a.tag < b.tag, a.tag == b.tag && a.e.seq < b.e.seq:
			return -1
		}
		return 1
	})
	out := make(map[digest.SHA256]int, len(all))
	for i, t := range all {
		out[t.e.job.ID] = i + 1
	}
	return out
}
