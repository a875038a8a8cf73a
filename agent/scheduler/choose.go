package scheduler

import (
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// maxLook is how many owners one choice looks at.
const maxLook = 64

// Next chooses the job that starts now, and takes what it needs from what is free. False: none can. Its owner is charged
// what its jobs cost on average, until Done says more.
func (q *Queue) Next(now time.Time) (Job, bool) {
	if q.limits.Slots > 0 && q.running >= q.limits.Slots {
		return Job{}, false
	}
	if j, ok, held := q.byAge(now); ok || held {
		return j, ok
	}
	return q.byTime(now)
}

// Claim starts a job in its reserved place without its waiting, where Next would choose it now in any case: no other waits, and there is room
// for it. False: nothing has changed.
func (q *Queue) Claim(j Job, now time.Time) bool {
	if !q.Room(j) {
		return false
	}
	q.Push(j, now)
	_, ok := q.Next(now)
	return ok
}

// Room reports whether nothing waits, and a job could start now.
func (q *Queue) Room(j Job) bool {
	if q.ranked.first() != nil || q.jobs[j.ID] != nil || q.limits.Slots > 0 && q.running >= q.limits.Slots {
		return false
	}
	var used agent.Resources
	if o := q.owners[j.Owner]; o != nil {
		used = o.used
	}
	_, owner := lacks(j.Need, used, q.limits.Owner)
	_, node := lacks(j.Need, q.used, q.limits.Node)
	return !owner && !node
}

// byAge goes through the owners whose next job is due, oldest first. Held: one of them stops all others.
func (q *Queue) byAge(now time.Time) (_ Job, ok, held bool) {
	var passed []*owner
	defer func() {
		for _, o := range passed {
			q.aged.place(o)
		}
	}()
	for range maxLook {
		o := q.aged.first()
		if o == nil || now.Sub(o.since) < q.limits.Patience {
			break
		}
		switch stop := q.stops(o); {
		case stop == nothing:
			return q.start(o, now), true, false
		case stop == byNode && q.limits.Fits(o.head.job.Need) == nil:
			return Job{}, false, true
		}
		q.aged.remove(o)
		passed = append(passed, o)
	}
	return Job{}, false, false
}

// byTime goes through the owners by virtual time.
func (q *Queue) byTime(now time.Time) (_ Job, ok bool) {
	var passed []*owner
	defer func() {
		for _, o := range passed {
			q.ranked.place(o)
		}
	}()
	for range maxLook {
		o := q.ranked.first()
		if o == nil {
			return Job{}, false
		}
		switch q.stops(o) {
		case nothing:
			return q.start(o, now), true
		case byOwner:
			o.blocked = time.Time{}
			q.ranked.remove(o)
			o.time = max(o.time, q.floor) // its own limit stops it: what it does not use is not saved up
		case byNode:
			if o.blocked.IsZero() {
				o.blocked = now
			}
			if now.Sub(o.blocked) >= q.limits.Backfill && q.limits.Fits(o.head.job.Need) == nil {
				return Job{}, false // what becomes free is for this one
			}
			q.ranked.remove(o)
		}
		passed = append(passed, o)
	}
	return Job{}, false
}

// obstacle is what stops an owner's next job.
type obstacle int

const (
	nothing obstacle = iota
	byOwner          // the owner's limit
	byNode           // too little is free
)

func (q *Queue) stops(o *owner) obstacle {
	need := o.head.job.Need
	if _, short := lacks(need, o.used, q.limits.Owner); short {
		return byOwner
	}
	if _, short := lacks(need, q.used, q.limits.Node); short {
		return byNode
	}
	return nothing
}

// start takes the owner's next job.
func (q *Queue) start(o *owner, now time.Time) Job {
	e := o.head
	e.share, e.started = q.limits.share(e.job.Need), now
	e.charged = o.mean
	if e.charged == 0 {
		e.charged = q.limits.cost(e.share, firstGuess, 0)
	}
	q.floor = max(q.floor, o.time)
	o.charge(e.charged)
	o.used, q.used = add(o.used, e.job.Need, 1), add(q.used, e.job.Need, 1)
	o.running++
	q.running++
	q.take(e, now)
	return e.job
}

// firstGuess is how long the first job of an owner is taken to run.
const firstGuess = time.Second

// charge advances the virtual time; a negative cost takes it back.
func (o *owner) charge(cost int64) {
	sum := o.rest + cost
	o.time += sum / o.weight
	o.rest = sum % o.weight
}

// Usage is what a job has used, where it is known.
type Usage struct{ Gas uint64 }

// Resume notes a job that runs already, as after a restart.
func (q *Queue) Resume(j Job, now time.Time) {
	if q.jobs[j.ID] != nil {
		return
	}
	o := q.owner(j.Owner)
	o.weight = int64(max(j.Weight, 1))
	e := &entry{job: j, owner: o, place: -1, share: q.limits.share(j.Need), started: now}
	q.jobs[j.ID] = e
	o.used, q.used = add(o.used, j.Need, 1), add(q.used, j.Need, 1)
	o.running++
	q.running++
}

// Done says that a job no longer runs, and what it has used. It may be pushed again afterwards.
func (q *Queue) Done(id digest.SHA256, u Usage, now time.Time) {
	e := q.jobs[id]
	if e == nil || e.place >= 0 {
		return
	}
	delete(q.jobs, id)
	o := e.owner
	o.used, q.used = add(o.used, e.job.Need, -1), add(q.used, e.job.Need, -1)
	o.running--
	q.running--
	cost := q.limits.cost(e.share, now.Sub(e.started), u.Gas)
	o.charge(cost - e.charged)
	if o.mean == 0 {
		o.mean = cost
	}
	o.mean = max(1, o.mean+(cost-o.mean)/8)
	q.reorder(o, now)
	q.forget(o)
}

// Due returns when a choice may come out otherwise although nothing else has happened: when the next job becomes due, or is
// no longer passed by others. Zero: never.
func (q *Queue) Due() time.Time {
	var at time.Time
	if o := q.aged.first(); o != nil {
		at = o.since.Add(q.limits.Patience)
	}
	return at
}

// Committed is what the running jobs were promised.
func (q *Queue) Committed() agent.Resources { return q.used }
