package scheduler_test

import (
	"testing"

	"arch.network/agent"
	"arch.network/agent/scheduler"
)

// TestClaim starts a job without its waiting only where it would be the next one, and keeps the reserved place where it would not.
func TestClaim(t *testing.T) {
	limits := scheduler.Limits{
		Node: agent.Resources{CPU: 2000, Memory: 8 << 30}, Owner: agent.Resources{CPU: 1000}, Slots: 3, Max: 10, PerOwner: 10,
	}
	job := func(n int, owner string, cpu int64) scheduler.Job {
		return scheduler.Job{ID: id(n), Owner: owner, Weight: 1, Need: agent.Resources{CPU: cpu, Memory: 1 << 20}}
	}
	for name, c := range map[string]struct {
		before func(q *scheduler.Queue)
		want   bool
	}{
		"nothing runs":     {func(*scheduler.Queue) {}, true},
		"there is room":    {func(q *scheduler.Queue) { q.Resume(job(2, "b", 1000), start) }, true},
		"another waits":    {func(q *scheduler.Queue) { q.Push(job(2, "b", 1), start) }, false},
		"node is full":     {func(q *scheduler.Queue) { q.Resume(job(2, "b", 1500), start) }, false},
		"owner's is full":  {func(q *scheduler.Queue) { q.Resume(job(2, "a", 500), start) }, false},
		"no slot is free":  {func(q *scheduler.Queue) { resume(q, job(2, "b", 1), job(3, "b", 1), job(4, "c", 1)) }, false},
		"it is there":      {func(q *scheduler.Queue) { q.Resume(job(1, "a", 1), start) }, false},
		"others have room": {func(q *scheduler.Queue) { resume(q, job(2, "b", 100), job(3, "c", 100)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			q := scheduler.New(limits)
			c.before(q)
			if err := q.Reserve("a"); err != nil {
				t.Fatal(err)
			}
			running, _ := q.Running()
			waiting := q.Waiting()
			if got := q.Claim(job(1, "a", 1000), start); got != c.want {
				t.Fatalf("got %v", got)
			}
			if c.want {
				running, waiting = running+1, waiting-1
			}
			if n, _ := q.Running(); n != running || q.Waiting() != waiting {
				t.Errorf("%d run and %d wait, want %d and %d", n, q.Waiting(), running, waiting)
			}
			q.Unreserve("a")
			if _, ok := q.Next(start); c.want && ok {
				t.Error("it starts twice")
			}
		})
	}
}

func resume(q *scheduler.Queue, jobs ...scheduler.Job) {
	for _, j := range jobs {
		q.Resume(j, start)
	}
}
