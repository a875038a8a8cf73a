package executor

import (
	"bytes"
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
)

// The buckets of the state file. A job's key is its number in eight bytes, big endian, counted from 1 in the order of submission.
var (
	bucketMeta       = []byte("meta")       // format, counts, event, drain
	bucketJobs       = []byte("jobs")       // number → record
	bucketEnvelopes  = []byte("envelopes")  // number → DSSE envelope, as it was handed in
	bucketIDs        = []byte("ids")        // document id → number
	bucketNames      = []byte("names")      // name, 0, number → nothing
	bucketOpen       = []byte("open")       // number → nothing: jobs that have not ended
	bucketStatements = []byte("statements") // statement id → DSSE envelope
	bucketLogs       = []byte("logs")       // number, attempt, stream → what was printed, if it is short
	bucketContent    = []byte("content")    // digest of an object of the store → how many jobs need it
	bucketExpiry     = []byte("expiry")     // Unix second, number, kind → nothing: what is removed when
	bucketForgotten  = []byte("forgotten")  // document id → what is left of a job whose record was removed
)

var buckets = [][]byte{
	bucketMeta, bucketJobs, bucketEnvelopes, bucketIDs, bucketNames, bucketOpen, bucketStatements, bucketLogs, bucketContent, bucketExpiry, bucketForgotten,
}

var (
	keyFormat = []byte("format")
	keyCounts = []byte("counts")
	keyEvent  = []byte("event")
	keyDrain  = []byte("drain")
	keyCommit = []byte("commit") // counts the committer's transactions
)

// format is what this program writes; it opens nothing else.
const format = "arch node state 1\n"

// maxGroup is how many changes share one commit at most.
const maxGroup = 1024

// database is the state file. Every change goes through commit, which many callers share.
type database struct {
	bolt  *bolt.DB
	queue chan *change
	ended chan struct{} // closed when the committer has gone
	stop  chan struct{} // closed to end it
	lost  error         // why the committer has gone before its time; read it when ended is closed, or with durable
	// durable is held while a transaction is committed, and read while one that reads begins.
	durable sync.RWMutex

	published func([]agent.Event)       // called by the committer, in order, after the events are durable
	unused    func([]digest.SHA256)     // called after a commit with objects that no job needs any more
	counts    map[agent.State]int       // the committer's own
	event     int64                     // the committer's own: number of the last one
	commits   uint64                    // the committer's own: transactions
	countNow  func(map[agent.State]int) // called with a copy of counts after each commit
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

// put is one more key; a nil value removes it.
type put struct{ bucket, key, value []byte }

// FormatError says that a state directory is not one that this program can use.
type FormatError struct{ Path, Found string }

func (e *FormatError) Error() string {
	return fmt.Sprintf("open state %s: it has the format %q, not %q", e.Path, e.Found, format)
}

// Hint tells the way out.
func (e *FormatError) Hint() string {
	return "use the program that wrote it, or begin with another state directory"
}

// openDatabase opens or makes the state file in dir. Only one process can have it open.
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
		bolt: b, queue: make(chan *change, maxGroup), ended: make(chan struct{}), stop: make(chan struct{}), counts: map[agent.State]int{},
		published: func([]agent.Event) {}, unused: func([]digest.SHA256) {}, countNow: func(map[agent.State]int) {},
	}
	err = d.prepare(path)
	if err == nil {
		err = durable.Sync(dir) // the file's name, which bolt leaves to others
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return d, nil
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

// prepare makes the buckets of a new file, and reads what the committer keeps in memory.
func (d *database) prepare(path string) error {
	return d.bolt.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta != nil && string(meta.Get(keyFormat)) != format {
			return &FormatError{path, string(meta.Get(keyFormat))}
		}
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta = tx.Bucket(bucketMeta)
		if data := meta.Get(keyCounts); data != nil {
			if err := json.Unmarshal(data, &d.counts); err != nil {
				return fmt.Errorf("read state %s: counts: %w", path, err)
			}
		}
		if data := meta.Get(keyEvent); len(data) == 8 {
			d.event = int64(binary.BigEndian.Uint64(data))
		}
		d.commits = committed(meta)
		return meta.Put(keyFormat, []byte(format))
	})
}

// run is the committer: it takes what is queued and writes it in one transaction, whose end is one wait for the disk.
func (d *database) run() {
	defer close(d.ended)
	for d.lost == nil {
		select {
		case c := <-d.queue:
			d.group(c)
		case <-d.stop:
			for d.lost == nil {
				select {
				case c := <-d.queue:
					d.group(c)
				default:
					return
				}
			}
		}
	}
}

// group commits c and what has come in the meantime.
func (d *database) group(c *change) {
	list := []*change{c}
	for len(list) < maxGroup {
		select {
		case c := <-d.queue:
			list = append(list, c)
			continue
		default:
		}
		break
	}
	counts, event := cloneCounts(d.counts), d.event
	var events []agent.Event
	var unused []digest.SHA256
	d.commits++
	err := d.update(func(tx *bolt.Tx) error {
		counts, event, events, unused = cloneCounts(d.counts), d.event, nil, nil
		for _, c := range list {
			free, err := c.write(tx)
			if err != nil {
				return err
			}
			unused = append(unused, free...)
			if c.before != c.after {
				if c.before != "" {
					counts[c.before]--
				}
				if c.after != "" {
					counts[c.after]++
				}
			}
			if c.event != nil {
				event++
				c.event.Number = event
				events = append(events, *c.event)
			}
		}
		return writeMeta(tx, counts, event)
	})
	if err == nil {
		d.counts, d.event = counts, event
		d.countNow(cloneCounts(counts))
		if len(unused) > 0 {
			d.unused(unused) // before anybody hears of it, so that who waits for removals then waits for this one, too
		}
		d.published(events)
	}
	for _, c := range list {
		c.done <- err
	}
}

// update is one transaction, whose number is d.commits. Nobody reads before it is durable what it writes. If the sync of its last page fails, nobody can
// know whether it is on the disk, and bolt takes its pages for free, so that one transaction more would destroy them. So there is none: the committer goes,
// nothing is read any more, and the next process starts from what is there.
func (d *database) update(write func(*bolt.Tx) error) error {
	tx, err := d.bolt.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := write(tx); err != nil {
		return err
	}
	if err := tx.Bucket(bucketMeta).Put(keyCommit, binary.BigEndian.AppendUint64(nil, d.commits)); err != nil {
		return err
	}
	d.durable.Lock()
	defer d.durable.Unlock()
	if err = tx.Commit(); err == nil {
		return nil
	}
	seen := false
	_ = d.bolt.View(func(tx *bolt.Tx) error { // it reads memory
		seen = committed(tx.Bucket(bucketMeta)) == d.commits
		return nil
	})
	if seen {
		d.lost = &unknownError{err}
		return d.lost
	}
	return err
}

// view reads what is durable. Within read there must be no other view: the state file may have to grow in between, and waits for readers.
func (d *database) view(read func(*bolt.Tx) error) error {
	d.durable.RLock() // bolt shows what a commit writes before its sync has ended
	if d.lost != nil {
		d.durable.RUnlock()
		return d.lost
	}
	tx, err := d.bolt.Begin(false)
	d.durable.RUnlock()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return read(tx)
}

// committed is the number of the last transaction.
func committed(meta *bolt.Bucket) uint64 {
	if data := meta.Get(keyCommit); len(data) == 8 {
		return binary.BigEndian.Uint64(data)
	}
	return 0
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

func writeMeta(tx *bolt.Tx, counts map[agent.State]int, event int64) error {
	data, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	return errors.Join(meta.Put(keyCounts, data), meta.Put(keyEvent, binary.BigEndian.AppendUint64(nil, uint64(event))))
}

// write puts a change into a transaction, and returns objects that nobody needs afterwards.
func (c *change) write(tx *bolt.Tx) (free []digest.SHA256, err error) {
	key := numberKey(c.number)
	jobs := tx.Bucket(bucketJobs)
	switch {
	case c.after == "": // its number is never given again
		if err := errors.Join(jobs.Delete(key), jobs.SetSequence(max(jobs.Sequence(), c.number))); err != nil {
			return nil, err
		}
	case c.record != nil:
		if err := jobs.Put(key, c.record); err != nil {
			return nil, err
		}
	}
	open := tx.Bucket(bucketOpen)
	if c.after.Ended() || c.after == "" {
		err = open.Delete(key)
	} else if c.before == "" || c.before.Ended() {
		err = open.Put(key, nil)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range c.puts {
		b := tx.Bucket(p.bucket)
		if p.value == nil {
			err = b.Delete(p.key)
		} else {
			err = b.Put(p.key, p.value)
		}
		if err != nil {
			return nil, err
		}
	}
	content := tx.Bucket(bucketContent)
	for _, d := range c.adds {
		if err := content.Put(d[:], binary.BigEndian.AppendUint64(nil, count(content, d)+1)); err != nil {
			return nil, err
		}
	}
	for _, d := range c.drops {
		switch n := count(content, d); {
		case n > 1:
			err = content.Put(d[:], binary.BigEndian.AppendUint64(nil, n-1))
		case n == 1:
			err = content.Delete(d[:])
			free = append(free, d)
		}
		if err != nil {
			return nil, err
		}
	}
	return free, nil
}

func count(b *bolt.Bucket, d digest.SHA256) uint64 {
	if v := b.Get(d[:]); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
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

// close ends the committer when everything queued is written, and closes the file.
func (d *database) close() error {
	close(d.stop)
	<-d.ended
	return d.bolt.Close()
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// nameKey is where the number of a job is found by its name.
func nameKey(name string, n uint64) []byte {
	return append(append([]byte(name), 0), numberKey(n)...)
}

// get returns a copy of a value; nil: there is none.
func (d *database) get(bucket, key []byte) (out []byte, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		out = bytes.Clone(tx.Bucket(bucket).Get(key))
		return nil
	})
	return out, err
}

// needed returns how many jobs need an object of the store.
func (d *database) needed(sum digest.SHA256) (n uint64, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		n = count(tx.Bucket(bucketContent), sum)
		return nil
	})
	return n, err
}

// last returns the highest number that a job has or had; zero: there was none.
func (d *database) last() (n uint64, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		jobs := tx.Bucket(bucketJobs)
		n = jobs.Sequence()
		if k, _ := jobs.Cursor().Last(); len(k) == 8 {
			n = max(n, binary.BigEndian.Uint64(k))
		}
		return nil
	})
	return n, err
}

// opened returns the numbers of the jobs that have not ended, in the order of their submission.
func (d *database) opened() (out []uint64, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketOpen).ForEach(func(k, _ []byte) error {
			out = append(out, binary.BigEndian.Uint64(k))
			return nil
		})
	})
	return out, err
}
