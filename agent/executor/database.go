package executor

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/journal"
)

// bucket is a part of the state. Its number is in the journal, so it stays: new ones come at the end.
type bucket byte

// The buckets of the state. A job's key is its number in eight bytes, big endian, counted from 1 in the order of submission.
const (
	bucketMeta       bucket = iota // format, counts, event, drain
	bucketJobs                     // number → record
	bucketEnvelopes                // number → DSSE envelope, as it was handed in
	bucketIDs                      // document id → number
	bucketNames                    // name, 0, number → nothing
	bucketOpen                     // number → nothing: jobs that have not ended
	bucketStatements               // statement id → DSSE envelope
	bucketLogs                     // number, attempt, stream → what was printed, if it is short
	bucketContent                  // digest of an object of the store → how many jobs need it
	bucketExpiry                   // Unix second, number, kind → nothing: what is removed when
	bucketForgotten                // document id → what is left of a job whose record was removed
	numBuckets
)

// name is the bucket's in the state file.
func (b bucket) name() []byte {
	return []byte([numBuckets]string{
		"meta", "jobs", "envelopes", "ids", "names", "open", "statements", "logs", "content", "expiry", "forgotten",
	}[b])
}

var (
	keyFormat  = []byte("format")
	keyCounts  = []byte("counts")
	keyEvent   = []byte("event")
	keyDrain   = []byte("drain")
	keyLast    = []byte("last")    // highest number of a job that was removed
	keySalt    = []byte("salt")    // of the journal; only in the state file
	keyApplied = []byte("applied") // how many entries of the journal are in the state file; only there
)

// format is what this program writes, and formatBefore what it opens, too: a state without a journal.
const (
	format       = "arch node state 2\n"
	formatBefore = "arch node state 1\n"
)

// maxGroup is how many changes share one write at most.
const maxGroup = 1024

// maxChange bounds what one change writes: a record, and as many statements and evidence as belong to one step. Bytes.
const maxChange = 64 << 20

// database is the state. Every change goes through commit: it is durable when it is in the journal, many changes to one wait for the disk. From then
// on it is found in memory, and some moments later, with all that has changed meanwhile, in the state file (settle).
type database struct {
	bolt  *bolt.DB
	queue chan *change
	ended chan struct{} // closed when the committer has gone
	stop  chan struct{} // closed to end it
	sick  chan struct{} // closed when failed is set

	settling sync.Mutex // held while the state file is written; taken before writing
	full     int        // file of the journal that has older, or is to be emptied; -1: none. Guarded by settling
	upTo     int64      // of the journal, has older. Guarded by settling
	writing  sync.Mutex // held from a write to the journal until it is in fresh, and while the journal turns; taken before mu
	journal  *journal.Journal
	next     int64         // index of the next entry of the journal; guarded by writing
	due      chan struct{} // something is fresh: capacity 1
	hurry    chan struct{} // and it is much: capacity 1
	settled  chan struct{} // closed when the settling goroutine has gone

	mu     sync.RWMutex // guards what follows; the committer alone changes fresh, and reads it without
	fresh  *recent      // what is in the journal and not in the state file
	older  *recent      // the part of it that is being written there; nil: none
	failed error        // why the committer goes before its time: nobody knows what is on the disk, and nothing is read any more

	published func([]agent.Event)       // called by the committer, in order, after the events are durable
	unused    func([]digest.SHA256)     // called after a commit with objects that no job needs any more
	counts    map[agent.State]int       // the committer's own
	event     int64                     // the committer's own: number of the last one
	countNow  func(map[agent.State]int) // called with a copy of counts after each commit
	unsettled func(error)               // called when the state file could not be written, and with nil when it can again
}

// change is everything that one step of one job writes.
type change struct {
	number uint64
	before agent.State // empty: the job is new
	after  agent.State // the same as before: only the record changes; empty: it is removed
	record []byte
	puts   []put
	adds   []digest.SHA256 // objects of the store that the job needs from now on
	drops  []digest.SHA256 // and that it does not need any more
	event  *agent.Event    // nil: none
	done   chan error
}

// size is about how many bytes it writes.
func (c *change) size() int {
	n := len(c.record)
	for _, p := range c.puts {
		n += len(p.key) + len(p.value)
	}
	return n
}

// put is one more key; a nil value removes it.
type put struct {
	bucket     bucket
	key, value []byte
}

// FormatError says that a state directory is not one that this program can use.
type FormatError struct{ Path, Found string }

func (e *FormatError) Error() string {
	return fmt.Sprintf("open state %s: it has the format %q, not %q", e.Path, e.Found, format)
}

// Hint tells the way out.
func (e *FormatError) Hint() string {
	return "use the program that wrote it, or begin with another state directory"
}

// openDatabase opens or makes the state in dir. Only one process can have it open.
func openDatabase(dir string) (*database, error) {
	path := filepath.Join(dir, "state.db")
	if err := createDatabase(path); err != nil {
		return nil, fmt.Errorf("make state %s: %w", path, err)
	}
	b, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	d := &database{
		bolt: b, queue: make(chan *change, maxGroup), ended: make(chan struct{}), stop: make(chan struct{}), sick: make(chan struct{}),
		full: -1, due: make(chan struct{}, 1), hurry: make(chan struct{}, 1), settled: make(chan struct{}), fresh: &recent{},
		counts:    map[agent.State]int{},
		published: func([]agent.Event) {}, unused: func([]digest.SHA256) {}, countNow: func(map[agent.State]int) {},
		unsettled: func(error) {},
	}
	if err = d.prepare(path); err == nil {
		err = durable.Sync(dir) // the file's name, which bolt leaves to others
	}
	if err == nil {
		err = d.replay(dir)
	}
	if err == nil {
		err = d.begin(path)
	}
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

// release closes the files.
func (d *database) release() error {
	var err error
	if d.journal != nil {
		err = d.journal.Close()
	}
	return errors.Join(err, d.bolt.Close())
}

// createDatabase makes an empty state file if there is none. It gets its name when it is whole on the disk: bolt opens none of which the power
// has left a part.
func createDatabase(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := openBolt(temp)
	if err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil && !errors.Is(err, os.ErrExist) { // another process may have been faster
		return err
	}
	return os.Remove(temp)
}

func openBolt(path string) (*bolt.DB, error) {
	const patience = 2 * time.Second
	return bolt.Open(path, 0o600, &bolt.Options{Timeout: patience, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoStatistics: true})
}

// prepare makes the buckets of a new state file, and the salt of its journal.
func (d *database) prepare(path string) error {
	return d.bolt.Update(func(tx *bolt.Tx) error {
		if meta := tx.Bucket(bucketMeta.name()); meta != nil {
			if found := string(meta.Get(keyFormat)); found != format && found != formatBefore {
				return &FormatError{path, found}
			}
		}
		for b := range numBuckets {
			if _, err := tx.CreateBucketIfNotExists(b.name()); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta.name())
		if len(meta.Get(keySalt)) == 0 {
			if err := meta.Put(keySalt, []byte(rand.Text())); err != nil {
				return err
			}
		}
		return meta.Put(keyFormat, []byte(format))
	})
}

// load reads what the committer keeps in memory.
func (d *database) begin(path string) error {
	counts, err := d.get(bucketMeta, keyCounts)
	if err == nil && counts != nil {
		err = json.Unmarshal(counts, &d.counts)
	}
	if err != nil {
		return fmt.Errorf("read state %s: counts: %w", path, err)
	}
	event, err := d.get(bucketMeta, keyEvent)
	d.event = int64(number(event))
	return err
}

// run is the committer: it takes what is queued and writes it as one, which is one wait for the disk.
func (d *database) run() {
	defer close(d.ended)
	go d.settleNowAndThen()
	for {
		select {
		case <-d.sick:
			return
		case c := <-d.queue:
			d.group(c)
		case <-d.stop:
			for {
				select {
				case <-d.sick:
					return
				case c := <-d.queue:
					d.group(c)
				default:
					return
				}
			}
		}
	}
}

// group writes c and whatever else waits.
func (d *database) group(c *change) {
	list, size := []*change{c}, c.size()
	for len(list) < maxGroup && size < journal.MaxGroup {
		select {
		case c := <-d.queue:
			list, size = append(list, c), size+c.size()
			continue
		default:
		}
		break
	}
	err := d.room()
	if err == nil {
		err = d.write(list)
	}
	for _, c := range list {
		c.done <- err
	}
}

// write makes changes durable, and then visible.
func (d *database) write(list []*change) error {
	g := &group{d: d, counts: cloneCounts(d.counts), event: d.event}
	entries := make([][]byte, len(list))
	for i, c := range list {
		g.entry = nil
		if err := g.take(c); err != nil {
			return err
		}
		if i == len(list)-1 {
			if err := g.meta(); err != nil {
				return err
			}
		}
		entries[i] = g.entry
	}
	if err := d.journalise(g, entries); err != nil {
		if _, unknown := errors.AsType[*journal.SyncError](err); unknown {
			err = d.fail(err)
		}
		return err
	}
	d.counts, d.event = g.counts, g.event
	d.countNow(cloneCounts(g.counts))
	if len(g.unused) > 0 {
		d.unused(g.unused) // before anybody hears of it, so that who waits for removals then waits for this one, too
	}
	d.published(g.events)
	return nil
}

// journalise writes entries, and has them found from then on.
func (d *database) journalise(g *group, entries [][]byte) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.journal.Write(d.next, entries); err != nil {
		return err
	}
	d.next += int64(len(entries))
	d.mu.Lock()
	was := d.fresh.size
	d.fresh.add(&g.recent)
	size := d.fresh.size
	d.mu.Unlock()
	if was == 0 {
		poke(d.due)
	}
	if size >= settleAt {
		poke(d.hurry)
	}
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail says that nobody knows what is on the disk. The committer goes, nothing is read any more, and the next process starts from what is there.
func (d *database) fail(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = &unknownError{err}
		close(d.sick)
	}
	return d.failed
}

// loss is why the committer has gone before its time; nil: it has not.
func (d *database) loss() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.failed
}

// group is changes that are written together.
type group struct {
	d      *database
	recent recent // what they write
	entry  []byte // of the journal: what the last one writes
	counts map[agent.State]int
	event  int64
	events []agent.Event
	unused []digest.SHA256
}

// take adds a change.
func (g *group) take(c *change) error {
	key := numberKey(c.number)
	switch {
	case c.after == "" && c.before != "": // its number is never given again
		last, err := g.get(bucketMeta, keyLast)
		if err != nil {
			return err
		}
		g.put(put{bucketJobs, key, nil})
		g.put(put{bucketMeta, keyLast, numberKey(max(number(last), c.number))})
	case c.record != nil:
		g.put(put{bucketJobs, key, c.record})
	}
	if c.after.Ended() || c.after == "" {
		if c.before != "" {
			g.put(put{bucketOpen, key, nil})
		}
	} else if c.before == "" || c.before.Ended() {
		g.put(put{bucketOpen, key, []byte{}})
	}
	for _, p := range c.puts {
		g.put(p)
	}
	if c.before != c.after {
		if c.before != "" {
			g.counts[c.before]--
		}
		if c.after != "" {
			g.counts[c.after]++
		}
	}
	if c.event != nil {
		g.event++
		c.event.Number = g.event
		g.events = append(g.events, *c.event)
	}
	return g.content(c)
}

// content counts who needs objects of the store.
func (g *group) content(c *change) error {
	for _, sum := range c.adds {
		n, err := g.get(bucketContent, sum[:])
		if err != nil {
			return err
		}
		g.put(put{bucketContent, sum[:], numberKey(number(n) + 1)})
	}
	for _, sum := range c.drops {
		data, err := g.get(bucketContent, sum[:])
		if err != nil {
			return err
		}
		switch n := number(data); {
		case n > 1:
			g.put(put{bucketContent, sum[:], numberKey(n - 1)})
		case n == 1:
			g.put(put{bucketContent, sum[:], nil})
			g.unused = append(g.unused, sum)
		}
	}
	return nil
}

// meta adds what has changed about all jobs together.
func (g *group) meta() error {
	data, err := json.Marshal(g.counts)
	if err != nil {
		return err
	}
	g.put(put{bucketMeta, keyCounts, data})
	g.put(put{bucketMeta, keyEvent, numberKey(uint64(g.event))})
	return nil
}

func (g *group) put(p put) {
	g.recent.put(p)
	g.entry = appendPut(g.entry, p)
}

// get is database.get with what the group writes.
func (g *group) get(b bucket, key []byte) ([]byte, error) {
	if v, ok := g.recent.get(b, key); ok {
		return v, nil
	}
	return g.d.get(b, key)
}

// unknownError says that nobody knows what of the state is on the disk.
type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return fmt.Sprintf("the disk did not take the state: %v", e.err)
}

func (e *unknownError) Unwrap() error { return e.err }

// Is says that the state is closed, too.
func (e *unknownError) Is(target error) bool { return target == errClosed }

// Hint tells the way out.
func (e *unknownError) Hint() string {
	return "check the disk under the state directory, and start the node again: it goes on from what is there"
}

func cloneCounts(m map[agent.State]int) map[agent.State]int {
	out := make(map[agent.State]int, len(m))
	for k, v := range m {
		if v != 0 {
			out[k] = v
		}
	}
	return out
}

// errClosed is what comes of asking a node that was closed.
var errClosed = errors.New("the node is being stopped")

// commit returns when c is durable.
func (d *database) commit(c *change) error {
	c.done = make(chan error, 1)
	select {
	case d.queue <- c:
	case <-d.ended:
		return errClosed
	}
	select {
	case err := <-c.done:
		if err != nil {
			return fmt.Errorf("write state: %w", err)
		}
		return nil
	case <-d.ended:
		select { // it may have been among the last
		case err := <-c.done:
			return err
		default:
			return errClosed
		}
	}
}

// setDrained writes why nothing new is started; nil: something is.
func (d *database) setDrained(why *agent.Drain) error {
	var data []byte
	if why != nil {
		var err error
		if data, err = json.Marshal(why); err != nil {
			return err
		}
	}
	return d.commit(&change{puts: []put{{bucketMeta, keyDrain, data}}})
}

// drained returns what setDrained wrote last.
func (d *database) drained() (*agent.Drain, error) {
	data, err := d.get(bucketMeta, keyDrain)
	if err != nil || data == nil {
		return nil, err
	}
	why := new(agent.Drain)
	if err := json.Unmarshal(data, why); err != nil {
		return nil, fmt.Errorf("why it drains: %w", err)
	}
	return why, nil
}

// close ends the committer when everything queued is written, puts everything into the state file, and closes it.
func (d *database) close() error {
	close(d.stop)
	<-d.ended
	<-d.settled
	return errors.Join(d.settle(), d.release())
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// number is the inverse of numberKey; zero, if it is none.
func number(data []byte) uint64 {
	if len(data) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(data)
}

// nameKey is where the number of a job is found by its name.
func nameKey(name string, n uint64) []byte {
	return append(append([]byte(name), 0), numberKey(n)...)
}

// get returns a value, which must not be changed; nil: there is none.
func (d *database) get(b bucket, key []byte) (out []byte, err error) {
	d.mu.RLock()
	v, ok := d.fresh.get(b, key)
	if !ok && d.older != nil {
		v, ok = d.older.get(b, key)
	}
	err = d.failed
	d.mu.RUnlock()
	if ok || err != nil {
		return v, err
	}
	err = d.bolt.View(func(tx *bolt.Tx) error {
		out = bytes.Clone(tx.Bucket(b.name()).Get(key))
		return nil
	})
	return out, err
}

// needed returns how many jobs need an object of the store.
func (d *database) needed(sum digest.SHA256) (uint64, error) {
	data, err := d.get(bucketContent, sum[:])
	return number(data), err
}

// last returns the highest number that a job has or had; zero: there was none.
func (d *database) last() (n uint64, err error) {
	removed, err := d.get(bucketMeta, keyLast)
	if err != nil {
		return 0, err
	}
	n = number(removed)
	err = d.descend(bucketJobs, nil, func(k, _ []byte) (bool, error) {
		n = max(n, number(k))
		return false, nil
	})
	if err != nil {
		return 0, err
	}
	return n, d.bolt.View(func(tx *bolt.Tx) error { // where formatBefore had it
		n = max(n, tx.Bucket(bucketJobs.name()).Sequence())
		return nil
	})
}

// opened returns the numbers of the jobs that have not ended, in the order of their submission.
func (d *database) opened() (out []uint64, err error) {
	err = d.ascend(bucketOpen, nil, func(k, _ []byte) (bool, error) {
		out = append(out, number(k))
		return true, nil
	})
	return out, err
}
