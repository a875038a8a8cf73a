package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
)

// How long an entry waits in the journal for others before all of them are put into the tiles, of which each round writes several files: eight times as
// long as the last round took, so that the tiles take a small part of the disk's and the processors' time however slow those are.
const (
	integrateAfter  = 50 * time.Millisecond // at least: less than a checkpoint takes
	integrateAtMost = 200 * time.Millisecond
	lingerPerRound  = 8
)

// pause is how long to wait after a round that took so long.
func pause(round time.Duration) time.Duration {
	return min(max(lingerPerRound*round, integrateAfter), integrateAtMost)
}

// tiles is what of the journal is on its way into the tiles.
type tiles struct {
	working sync.Mutex // held during a round; taken before Log.journaling

	mu    sync.Mutex // guards the rest
	moved *sync.Cond // after each round
	fresh [][]byte   // what the file that is written has
	asked bool       // somebody waits for it
	size  int64      // entries of the tree
	want  int64      // with what is on its way
	wake  chan struct{}
}

func newTiles() *tiles {
	t := &tiles{wake: make(chan struct{}, 1)}
	t.moved = sync.NewCond(&t.mu)
	return t
}

// add tells of entries that the journal has.
func (t *tiles) add(entries [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want += int64(len(entries)); len(t.fresh) == 0 {
		t.poke()
	}
	t.fresh = append(t.fresh, entries...)
}

// poke has the integrating goroutine look. mu is held.
func (t *tiles) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// hurry has a round begin now. mu is held.
func (t *tiles) hurry() {
	t.asked = true
	t.poke()
}

// take returns what is fresh.
func (t *tiles) take() [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.fresh
	t.fresh, t.asked = nil, false
	return list
}

// grown says that there are so many entries more in the tree.
func (t *tiles) grown(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size += int64(n)
	t.moved.Broadcast()
}

// reset begins with a tree of that size, and entries that are on their way.
func (t *tiles) reset(size int64, coming int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh, t.size, t.want = nil, size, size+int64(coming)
	t.moved.Broadcast()
}

// acknowledged is how many entries the log has, with those of the journal.
func (t *tiles) acknowledged() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.want
}

// due reports whether there is anything to do, and whether now.
func (t *tiles) due() (any, now bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.fresh) > 0, t.asked
}

// makeRoom waits until the journal may get more.
func (l *Log) makeRoom() {
	pending := int64(cap(l.queue))
	for {
		l.journaling.Lock()
		full := l.journal.Full()
		l.journaling.Unlock()
		l.tiles.mu.Lock()
		if l.failure() != nil || !full && l.tiles.want-l.tiles.size < pending {
			l.tiles.mu.Unlock()
			return
		}
		l.tiles.hurry()
		l.tiles.moved.Wait()
		l.tiles.mu.Unlock()
	}
}

// integrated waits until everything that was acknowledged is in the tiles, or that has failed.
func (l *Log) integrated() {
	l.tiles.mu.Lock()
	defer l.tiles.mu.Unlock()
	for want := l.tiles.want; l.tiles.size < want && l.failure() == nil; l.tiles.moved.Wait() {
		l.tiles.hurry()
	}
}

// tile puts what the journal has into the tiles, round by round. It ends when stop is closed and everything is in them.
func (l *Log) tile(stop <-chan struct{}) {
	defer close(l.tiled)
	restAfter := orElse(l.opts.RestAfter, DefaultRestAfter)
	idle := time.NewTimer(restAfter)
	defer idle.Stop()
	var took time.Duration // of the last round
	for {
		select {
		case <-l.tiles.wake:
			l.linger(stop, pause(took))
			began := time.Now()
			l.round()
			took = time.Since(began)
			idle.Reset(restAfter)
		case <-idle.C:
			if l.rest() {
				continue
			}
			idle.Reset(restAfter)
		case <-stop:
			l.round()
			return
		}
	}
}

// linger waits for more, unless somebody waits for what there is.
func (l *Log) linger(stop <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		if any, now := l.tiles.due(); !any || now {
			return
		}
		select {
		case <-timer.C:
			return
		case <-stop:
			return
		case <-l.tiles.wake:
		}
	}
}

// round puts what is fresh into the tiles, and empties the file that has it.
func (l *Log) round() {
	l.tiles.working.Lock()
	defer l.tiles.working.Unlock()
	l.journaling.Lock()
	list := l.tiles.take()
	if len(list) == 0 || l.failure() != nil {
		l.journaling.Unlock()
		return
	}
	file := l.journal.Turn()
	l.journaling.Unlock()
	err := l.integrate(list)
	if err == nil {
		err = l.journal.Empty(file)
	}
	if err != nil {
		l.fail(err)
	}
}

// integrate puts entries into the tiles, part by part if the storage would not take them as one. tiles.working is held.
func (l *Log) integrate(list [][]byte) error {
	if len(list) == 0 {
		return nil
	}
	if l.storage == nil {
		if err := l.start(l.opts); err != nil {
			return err
		}
	}
	for len(list) > 0 {
		n, err := l.part(list)
		if err != nil {
			return err
		}
		l.tiles.grown(n)
		list = list[n:]
	}
	return nil
}

// part puts the first of list into the tiles, and returns how many. The storage takes what is added within batchAge as one, all of it or
// nothing; what comes later waits for the next part, so that it cannot become durable when what was before it did not.
func (l *Log) part(list [][]byte) (int, error) {
	most := min(len(list), l.batch)
	futures := make([]tessera.IndexFuture, 0, most)
	for start := time.Now(); len(futures) < most && time.Since(start) < batchAge*3/4; {
		futures = append(futures, l.storage.add(context.Background(), tessera.NewEntry(list[len(futures)])))
	}
	first := l.tiles.size // only integrate changes it, and only reset beside
	var errs []error
	for i, future := range futures {
		index, err := future()
		if err == nil && int64(index.Index) != first+int64(i) {
			err = fmt.Errorf("the storage gave entry %d the index %d: its files were changed by somebody else", first+int64(i), index.Index)
		}
		if err != nil {
			errs = append(errs, withCause(err))
		}
	}
	return len(futures), errors.Join(errs...)
}
