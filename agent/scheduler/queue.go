package scheduler

import (
	"fmt"
	"time"

	"arch.network/agent"
	"arch.network/attest/digest"
)

// Job is what the choice depends on.
type Job struct {
	ID       digest.SHA256
	Owner    string
	Priority int             // higher comes first, within the owner
	Weight   int             // of the owner, from the policy; the last one pushed counts; less than 1: 1
	Need     agent.Resources // what it is promised while it runs
}

// Queue holds the jobs that wait, and knows those that run. It is not safe for use by several goroutines at once.
type Queue struct {
	limits  Limits
	owners  map[string]*owner
	jobs    map[digest.SHA256]*entry // waiting and running
	waiting int                      // reserved places included
	running int
	used    agent.Resources
	seq     uint64
	floor   int64          // virtual time that was reached: that of the last start
	ranked  ordered[owner] // owners with waiting jobs, by virtual time
	aged    ordered[owner] // the same, by when their next job became that
}

// owner is what is known of one.
type owner struct {
	name     string
	weight   int64
	time     int64 // virtual
	rest     int64 // of a cost that the weight did not divide
	mean     int64 // cost of a job, lately; zero: none has ended yet
	used     agent.Resources
	running  int
	reserved int
	waiting  ordered[entry]

	head    *entry    // of waiting, as of since
	since   time.Time // when head became the next
	blocked time.Time // when it was head's turn first and it did not fit; zero: never

	rankedAt, agedAt int
}

// entry is a job that waits or runs.
type entry struct {
	job     Job
	owner   *owner
	seq     uint64
	place   int   // in owner.waiting; -1: it runs
	share   int64 // while it runs
	charged int64
	started time.Time
}

// New returns an empty queue.
func New(l Limits) *Queue {
	q := &Queue{limits: l.complete(), owners: map[string]*owner{}, jobs: map[digest.SHA256]*entry{}}
	q.ranked = ordered[owner]{
		less: func(a, b *owner) bool {
			if a.time != b.time {
				return a.time < b.time
			}
			return a.waiting.list[0].seq < b.waiting.list[0].seq
		},
		index: func(o *owner) *int { return &o.rankedAt },
	}
	q.aged = ordered[owner]{
		less: func(a, b *owner) bool {
			if !a.since.Equal(b.since) {
				return a.since.Before(b.since)
			}
			return a.waiting.list[0].seq < b.waiting.list[0].seq
		},
		index: func(o *owner) *int { return &o.agedAt },
	}
	return q
}

// SetLimits has other limits hold from now on. What waits and runs stays, even if it is more than they allow.
func (q *Queue) SetLimits(l Limits) { q.limits = l.complete() }

// Limits returns those that hold.
func (q *Queue) Limits() Limits { return q.limits }

// Waiting returns how many jobs wait, reserved places included.
func (q *Queue) Waiting() int { return q.waiting }

// Running returns how many jobs run, and what they were promised together.
func (q *Queue) Running() (int, agent.Resources) { return q.running, q.used }

// Reserve takes a place for a job that will be pushed, or given back by Unreserve. The error is a *agent.FullError.
func (q *Queue) Reserve(name string) error {
	if q.waiting >= q.limits.Max {
		return &agent.FullError{Max: q.limits.Max}
	}
	o := q.owner(name)
	if o.waiting.Len()+o.reserved >= q.limits.PerOwner {
		q.forget(o)
		return &agent.FullError{Owner: name, Max: q.limits.PerOwner}
	}
	o.reserved++
	q.waiting++
	return nil
}

// Unreserve gives a reserved place back.
func (q *Queue) Unreserve(name string) {
	o := q.owner(name)
	if o.reserved > 0 {
		o.reserved--
		q.waiting--
	}
	q.forget(o)
}

// TooLargeError says that a job needs more than the node may ever give.
type TooLargeError struct {
	Resource    string // "cpu", "memory" or "gpu"
	Need, Limit int64  // in the units of agent.Resources
	Whose       string // "the node" or "its owner"
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("it needs %d of %s, and %s may use %d", e.Need, e.Resource, e.Whose, e.Limit)
}

// Fits returns a *TooLargeError if a job with this need could never run under these limits.
func (l Limits) Fits(need agent.Resources) error {
	if r, short := lacks(need, agent.Resources{}, l.Node); short {
		return &TooLargeError{r.name, r.need, r.limit, "the node"}
	}
	if r, short := lacks(need, agent.Resources{}, l.Owner); short {
		return &TooLargeError{r.name, r.need, r.limit, "its owner"}
	}
	return nil
}

// Push lets a job wait, in its reserved place if there is one, over the limits if there is none: what has been accepted is
// not lost, as after a restart. A job that is there already stays as it is.
func (q *Queue) Push(j Job, now time.Time) {
	if q.jobs[j.ID] != nil {
		return
	}
	o := q.owner(j.Owner)
	o.weight = int64(max(j.Weight, 1))
	if o.reserved > 0 {
		o.reserved--
	} else {
		q.waiting++
	}
	if o.waiting.Len() == 0 {
		o.time = max(o.time, q.floor)
	}
	q.seq++
	j.Owner = o.name // one string for all
	e := &entry{job: j, owner: o, seq: q.seq, place: -1}
	q.jobs[j.ID] = e
	o.waiting.place(e)
	q.reorder(o, now)
}

// Remove takes out a job that waits, and reports whether it did.
func (q *Queue) Remove(id digest.SHA256, now time.Time) bool {
	e := q.jobs[id]
	if e == nil || e.place < 0 {
		return false
	}
	q.take(e, now)
	delete(q.jobs, id)
	q.forget(e.owner)
	return true
}

// take removes an entry from those that wait.
func (q *Queue) take(e *entry, now time.Time) {
	e.owner.waiting.remove(e)
	q.waiting--
	q.reorder(e.owner, now)
}

// reorder brings an owner to its place after its jobs or its time have changed.
func (q *Queue) reorder(o *owner, now time.Time) {
	first := o.waiting.first()
	if first == nil {
		o.head, o.blocked = nil, time.Time{}
		q.ranked.remove(o)
		q.aged.remove(o)
		return
	}
	if o.head != first {
		o.head, o.since, o.blocked = first, now, time.Time{}
	}
	q.ranked.place(o)
	q.aged.place(o)
}

// owner returns the one of that name, new if need be.
func (q *Queue) owner(name string) *owner {
	if o := q.owners[name]; o != nil {
		return o
	}
	o := &owner{name: name, weight: 1, time: q.floor, rankedAt: -1, agedAt: -1}
	o.waiting = ordered[entry]{less: before, index: func(e *entry) *int { return &e.place }}
	q.owners[name] = o
	return o
}

// before is the order within an owner.
func before(a, b *entry) bool {
	if a.job.Priority != b.job.Priority {
		return a.job.Priority > b.job.Priority
	}
	return a.seq < b.seq
}

// forget drops an owner of whom nothing needs to be known: its time is no later than where a new one would start.
func (q *Queue) forget(o *owner) {
	if o.waiting.Len() == 0 && o.reserved == 0 && o.running == 0 && o.time <= q.floor {
		delete(q.owners, o.name)
	}
}
