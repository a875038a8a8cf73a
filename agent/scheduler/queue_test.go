package scheduler_test

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/scheduler"
	"arch.network/attest/digest"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func id(n int) digest.SHA256 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return digest.Of(b[:])
}

// running is a job of the simulation that will end.
type running struct {
	job   scheduler.Job
	start time.Time
	end   time.Time
	gas   uint64
}

type ends []running

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].end.Before(e[j].end) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(running)) }
func (e *ends) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// simulation runs a queue in virtual time.
type simulation struct {
	q       *scheduler.Queue
	now     time.Time
	running ends
	// took says how long a job runs, and how much gas it uses.
	took func(scheduler.Job) (time.Duration, uint64)
	// ended is called for each job that ends.
	ended func(running)
	began func(scheduler.Job, time.Time)
}

// step starts what can start, and goes on to the next end. False: nothing happens any more.
func (s *simulation) step() bool {
	for {
		j, ok := s.q.Next(s.now)
		if !ok {
			break
		}
		if s.began != nil {
			s.began(j, s.now)
		}
		d, gas := s.took(j)
		heap.Push(&s.running, running{job: j, start: s.now, end: s.now.Add(d), gas: gas})
	}
	if len(s.running) == 0 {
		due := s.q.Due()
		if due.IsZero() || !due.After(s.now) {
			return false
		}
		s.now = due
		return true
	}
	r := heap.Pop(&s.running).(running)
	s.now = r.end
	s.q.Done(r.job.ID, scheduler.Usage{Gas: r.gas}, s.now)
	if s.ended != nil {
		s.ended(r)
	}
	return true
}

// TestWeights keeps three owners of weights 1, 2 and 4 busy, with jobs of different sizes and lengths, and wants their shares of
// what was used to be as their weights within 2 percent: of the dominant resource, or of gas.
func TestWeights(t *testing.T) {
	tests := []struct {
		name string
		need func(owner int, r *rand.Rand) agent.Resources
		took func(owner int, r *rand.Rand) (time.Duration, uint64)
		gas  uint64 // rate
		idle bool   // owner 1 uses what the others have no use for, beyond its share
	}{
		{
			"jobs that are all alike",
			func(int, *rand.Rand) agent.Resources { return agent.Resources{CPU: 1000, Memory: 1 << 30} },
			func(int, *rand.Rand) (time.Duration, uint64) { return time.Second, 0 }, 0, false,
		},
		{
			"one owner needs processors, one memory, and lengths vary a hundredfold",
			func(o int, r *rand.Rand) agent.Resources {
				if o == 1 {
					return agent.Resources{CPU: 100, Memory: int64(1+r.IntN(4)) << 30}
				}
				return agent.Resources{CPU: int64(500 + r.IntN(1500)), Memory: 64 << 20}
			},
			func(_ int, r *rand.Rand) (time.Duration, uint64) {
				return time.Duration(1+r.IntN(100)) * 100 * time.Millisecond, 0
			}, 0, true,
		},
		{
			"the heaviest owner has the shortest jobs",
			func(int, *rand.Rand) agent.Resources { return agent.Resources{CPU: 1000} },
			func(o int, r *rand.Rand) (time.Duration, uint64) {
				return time.Duration(1+r.IntN(20)) * time.Second / time.Duration(1+o*o*o*10), 0
			}, 0, false,
		},
		{
			"gas is what counts",
			func(int, *rand.Rand) agent.Resources { return agent.Resources{CPU: 10} },
			func(o int, r *rand.Rand) (time.Duration, uint64) {
				return time.Duration(10+r.IntN(50)) * time.Millisecond, uint64(1+r.IntN(9)) * 1_000_000
			}, 100_000_000, false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			node := agent.Resources{CPU: 8000, Memory: 16 << 30}
			q := scheduler.New(scheduler.Limits{Node: node, Slots: 64, GasRate: tt.gas, Backfill: time.Second})
			weights := []int{1, 2, 4}
			used := make([]float64, 3)
			n := 0
			push := func(o int, now time.Time) {
				n++
				q.Push(scheduler.Job{ID: id(n), Owner: fmt.Sprintf("user:%d", o), Weight: weights[o], Need: tt.need(o, r), Priority: r.IntN(3)}, now)
			}
			for o := range weights {
				for range 200 {
					push(o, start)
				}
			}
			s := &simulation{q: q, now: start}
			owner := func(j scheduler.Job) int { return int(j.Owner[len(j.Owner)-1] - '0') }
			s.took = func(j scheduler.Job) (time.Duration, uint64) { return tt.took(owner(j), r) }
			s.ended = func(r running) {
				share := max(float64(r.job.Need.CPU)/8000, float64(r.job.Need.Memory)/float64(16<<30), 1.0/64)
				cost := share * r.end.Sub(r.start).Seconds()
				if tt.gas > 0 {
					cost = max(cost, float64(r.gas)/float64(tt.gas))
				}
				used[owner(r.job)] += cost
				push(owner(r.job), s.now)
			}
			for range 40_000 {
				if !s.step() {
					t.Fatal("it stopped")
				}
			}
			sum, all := used[0]+used[1]+used[2], 7.0
			if tt.idle {
				if used[1] < sum*2/7 {
					t.Errorf("owner of weight 2 got %.4f of all, less than its share", used[1]/sum)
				}
				sum, all, used[1], weights[1] = used[0]+used[2], 5, 0, 0
			}
			for o, w := range weights {
				if got, want := used[o]/sum, float64(w)/all; got < want*0.98 || got > want*1.02 {
					t.Errorf("owner of weight %d got %.4f of all, want %.4f within 2 percent", w, got, want)
				}
			}
		})
	}
}

// TestWaitIsBounded pushes a large job into a stream of small ones, and a stream of owners nobody has heard of: the documented
// bound holds.
func TestWaitIsBounded(t *testing.T) {
	const longest = 10 * time.Second
	for _, tt := range []struct {
		name     string
		patience time.Duration
		newOwner bool
		need     agent.Resources
		want     time.Duration
	}{
		{"a job that needs everything", time.Hour, false, agent.Resources{CPU: 4000}, 30*time.Second + 2*longest},
		{"owners without end", time.Minute, true, agent.Resources{CPU: 1000}, time.Minute + 101*longest},
		{"both", time.Minute, true, agent.Resources{CPU: 4000}, time.Minute + 101*longest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			q := scheduler.New(scheduler.Limits{Node: agent.Resources{CPU: 4000}, Patience: tt.patience, Backfill: 30 * time.Second})
			n := 0
			push := func(now time.Time) {
				n++
				o := "user:many"
				if tt.newOwner {
					o = fmt.Sprintf("user:%d", n)
				}
				q.Push(scheduler.Job{ID: id(n), Owner: o, Weight: 10, Need: agent.Resources{CPU: 1000}}, now)
			}
			for range 100 {
				push(start)
			}
			s := &simulation{q: q, now: start}
			s.took = func(scheduler.Job) (time.Duration, uint64) {
				return time.Duration(1+r.Int64N(int64(longest/time.Millisecond))) * time.Millisecond, 0
			}
			s.ended = func(running) { push(s.now) }
			for range 200 {
				s.step()
			}
			big, at := id(1<<30), s.now
			q.Push(scheduler.Job{ID: big, Owner: "user:late", Weight: 1, Need: tt.need}, s.now)
			var began time.Time
			s.began = func(j scheduler.Job, now time.Time) {
				if j.ID == big {
					began = now
				}
			}
			for began.IsZero() && s.now.Sub(at) < 24*time.Hour {
				s.step()
			}
			if wait := began.Sub(at); began.IsZero() || wait > tt.want {
				t.Errorf("it waited %s, more than %s", wait, tt.want)
			}
		})
	}
}

// TestPriorityIsStrict has one owner's jobs start in the order of their priorities, and of their arrival where those are equal.
func TestPriorityIsStrict(t *testing.T) {
	q := scheduler.New(scheduler.Limits{Slots: 1})
	r := rand.New(rand.NewPCG(5, 6))
	type key struct{ priority, n int }
	var want []key
	keys := map[digest.SHA256]key{}
	for n := range 500 {
		k := key{r.IntN(201) - 100, n}
		keys[id(n)] = k
		want = append(want, k)
		q.Push(scheduler.Job{ID: id(n), Owner: "user:alice", Priority: k.priority}, start)
	}
	slices.SortFunc(want, func(a, b key) int {
		if a.priority != b.priority {
			return b.priority - a.priority
		}
		return a.n - b.n
	})
	var got []key
	s := &simulation{q: q, now: start, took: func(scheduler.Job) (time.Duration, uint64) { return time.Second, 0 }}
	s.began = func(j scheduler.Job, _ time.Time) { got = append(got, keys[j.ID]) }
	for s.step() {
		continue
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(key{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestLimitsHold never lets more run than may, whatever is pushed, removed and ended.
func TestLimitsHold(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	limits := scheduler.Limits{Node: agent.Resources{CPU: 8000, Memory: 1000, GPU: 2}, Owner: agent.Resources{CPU: 3000}, Slots: 10}
	q := scheduler.New(limits)
	byOwner := map[string]int64{}
	active := map[digest.SHA256]scheduler.Job{}
	now := start
	for n := range 20_000 {
		now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		switch r.IntN(4) {
		case 0, 1:
			need := agent.Resources{CPU: int64(r.IntN(3000)), Memory: int64(r.IntN(500)), GPU: int64(r.IntN(8) / 7)}
			q.Push(scheduler.Job{ID: id(n), Owner: fmt.Sprintf("user:%d", r.IntN(5)), Need: need, Weight: r.IntN(3)}, now)
		case 2:
			q.Remove(id(r.IntN(n+1)), now)
		case 3:
			for k, j := range active {
				q.Done(k, scheduler.Usage{}, now)
				byOwner[j.Owner] -= j.Need.CPU
				delete(active, k)
				break
			}
		}
		for {
			j, ok := q.Next(now)
			if !ok {
				break
			}
			active[j.ID] = j
			byOwner[j.Owner] += j.Need.CPU
		}
		var sum agent.Resources
		for _, j := range active {
			sum.CPU, sum.Memory, sum.GPU = sum.CPU+j.Need.CPU, sum.Memory+j.Need.Memory, sum.GPU+j.Need.GPU
		}
		if count, used := q.Running(); count != len(active) || used != sum || count > 10 || sum.CPU > 8000 || sum.Memory > 1000 || sum.GPU > 2 {
			t.Fatalf("%d run with %+v; the queue says %d with %+v", len(active), sum, count, used)
		}
		for o, cpu := range byOwner {
			if cpu > 3000 {
				t.Fatalf("jobs of %s have %d", o, cpu)
			}
		}
	}
}

func TestSameCallsSameChoices(t *testing.T) {
	run := func() (out []digest.SHA256) {
		r := rand.New(rand.NewPCG(9, 10))
		q := scheduler.New(scheduler.Limits{Node: agent.Resources{CPU: 4000}, Slots: 8})
		for n := range 1000 {
			q.Push(scheduler.Job{ID: id(n), Owner: fmt.Sprintf("user:%d", r.IntN(30)), Weight: 1 + r.IntN(5), Priority: r.IntN(3), Need: agent.Resources{CPU: int64(1 + r.IntN(2000))}}, start)
		}
		s := &simulation{q: q, now: start, took: func(j scheduler.Job) (time.Duration, uint64) {
			return time.Duration(j.ID[0]) * time.Millisecond, uint64(j.ID[1])
		}}
		s.began = func(j scheduler.Job, _ time.Time) { out = append(out, j.ID) }
		for s.step() {
			continue
		}
		return out
	}
	one, two := run(), run()
	if len(one) != 1000 || !slices.Equal(one, two) {
		t.Errorf("%d and %d jobs started, in the same order: %v", len(one), len(two), slices.Equal(one, two))
	}
}

func TestFull(t *testing.T) {
	q := scheduler.New(scheduler.Limits{Max: 3, PerOwner: 2})
	reserve := func(owner string, n int) error {
		if err := q.Reserve(owner); err != nil {
			return err
		}
		q.Push(scheduler.Job{ID: id(n), Owner: owner}, start)
		return nil
	}
	if err := errors.Join(reserve("user:a", 1), reserve("user:a", 2)); err != nil {
		t.Fatal(err)
	}
	if full, ok := errors.AsType[*agent.FullError](reserve("user:a", 3)); !ok || full.Owner != "user:a" || full.Max != 2 {
		t.Errorf("got %+v", full)
	}
	if err := q.Reserve("user:b"); err != nil {
		t.Fatal(err)
	}
	if full, ok := errors.AsType[*agent.FullError](q.Reserve("user:c")); !ok || full.Owner != "" || full.Max != 3 {
		t.Errorf("got %+v", full)
	}
	q.Unreserve("user:b")
	if err := q.Reserve("user:c"); err != nil {
		t.Errorf("after one place was given back: %v", err)
	}
	if !q.Remove(id(1), start) || q.Remove(id(1), start) || q.Waiting() != 2 {
		t.Errorf("%d wait after one was removed", q.Waiting())
	}
}

// TestExplain tells for each obstacle what it is.
func TestExplain(t *testing.T) {
	limits := scheduler.Limits{Node: agent.Resources{CPU: 4000, Memory: 100}, Owner: agent.Resources{CPU: 2000}, Slots: 3}
	q := scheduler.New(limits)
	push := func(n int, owner string, need agent.Resources) {
		q.Push(scheduler.Job{ID: id(n), Owner: owner, Need: need}, start)
	}
	push(1, "user:a", agent.Resources{CPU: 1500})
	push(2, "user:a", agent.Resources{CPU: 1000})
	push(3, "user:a", agent.Resources{CPU: 1})
	push(4, "user:b", agent.Resources{Memory: 60})
	push(5, "user:c", agent.Resources{Memory: 60})
	push(6, "user:d", agent.Resources{CPU: 9000})
	for range 2 {
		if _, ok := q.Next(start); !ok {
			t.Fatal("nothing started")
		}
	}
	check := func(n int, code string, position int) {
		t.Helper()
		w, ok := q.Explain(id(n), start)
		if !ok || w.Code != code || w.Text == "" || w.Position != position {
			t.Errorf("job %d: %+v, want %s at %d", n, w, code, position)
		}
	}
	check(2, "owner-cpu", 3)
	check(3, "priority", 4)
	check(5, "node-memory", 1)
	check(6, "never", 2)
	if _, ok := q.Explain(id(1), start); ok {
		t.Error("a job that runs waits")
	}
	push(7, "user:e", agent.Resources{CPU: 1})
	if _, ok := q.Next(start); !ok {
		t.Fatal("nothing started")
	}
	check(5, "slots", 1)
}

// TestNever lets nothing be stopped by what can never run.
func TestNever(t *testing.T) {
	q := scheduler.New(scheduler.Limits{Node: agent.Resources{CPU: 4000}, Patience: time.Minute, Backfill: time.Second})
	q.Push(scheduler.Job{ID: id(1), Owner: "user:a", Need: agent.Resources{CPU: 5000}}, start)
	q.Push(scheduler.Job{ID: id(2), Owner: "user:b", Need: agent.Resources{CPU: 4000}}, start)
	if j, ok := q.Next(start.Add(time.Hour)); !ok || j.ID != id(2) {
		t.Errorf("got %v, %v", j.ID, ok)
	}
	err := q.Limits().Fits(agent.Resources{CPU: 5000})
	if large, ok := errors.AsType[*scheduler.TooLargeError](err); !ok || large.Resource != "cpu" || large.Limit != 4000 {
		t.Errorf("got %v", err)
	}
}

// TestMemory holds 50,000 waiting jobs of 1,000 owners to 1 KiB each, which leaves three quarters of the node's bound of 200 MB to
// what else is kept of them.
func TestMemory(t *testing.T) {
	heapSize := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heapSize()
	q := scheduler.New(scheduler.Limits{})
	for n := range 50_000 {
		q.Push(scheduler.Job{ID: id(n), Owner: fmt.Sprintf("user:%d", n%1000), Priority: n % 7, Need: agent.Resources{CPU: 1000}}, start)
	}
	used := heapSize() - before
	if runtime.KeepAlive(q); used > 50_000<<10 {
		t.Errorf("50,000 jobs take %d bytes", used)
	}
	t.Logf("%d bytes a job", used/50_000)
}

func BenchmarkNext(b *testing.B) {
	for _, owners := range []int{1, 1000, 50_000} {
		b.Run(fmt.Sprint(owners), func(b *testing.B) {
			q := scheduler.New(scheduler.Limits{Node: agent.Resources{CPU: 4000}})
			for n := range 50_000 {
				q.Push(scheduler.Job{ID: id(n), Owner: fmt.Sprintf("user:%d", n%owners), Need: agent.Resources{CPU: 4000}}, start)
			}
			now := start
			for b.Loop() {
				j, ok := q.Next(now)
				if !ok {
					b.Fatal("nothing is chosen")
				}
				now = now.Add(time.Millisecond)
				q.Done(j.ID, scheduler.Usage{}, now)
				q.Push(j, now)
			}
		})
	}
}
