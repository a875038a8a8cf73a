package executor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"arch.network/agent"
	"arch.network/attest/digest"
	"arch.network/attest/ledger/durable"
	"arch.network/runner/job"
)

// logs keeps what executions print: in memory while it is short, in a file of its own when it is not, and in the state file, with
// the record, when a short one has ended.
type logs struct {
	dir string
	max int64
	db  *database

	mu      sync.Mutex // guards the rest
	open    map[logKey]*stream
	created chan struct{} // closed when there is a new stream
}

type logKey struct {
	number  uint64
	attempt int
	stream  string
}

const (
	logsDir = "logs"
	// shortLog is what is kept in memory and in the state file.
	shortLog = 16 << 10
)

// cut ends a log of which more was printed than is kept.
const cut = "\n[what follows is not kept]\n"

func newLogs(o Options, db *database) *logs {
	return &logs{dir: filepath.Join(o.Dir, logsDir), max: o.MaxLog, db: db, open: map[logKey]*stream{}, created: make(chan struct{})}
}

func (k logKey) file() string { return fmt.Sprintf("%d-%d.%s", k.number, k.attempt, k.stream) }

func (k logKey) key() []byte {
	return append(binary.BigEndian.AppendUint32(numberKey(k.number), uint32(k.attempt)), k.stream...)
}

// create begins a stream. One that an earlier process began, which is what again says, is begun anew, unless resume is called before anything else.
func (l *logs) create(k logKey, again bool) *stream {
	s := &stream{logs: l, key: k, stale: again, changed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[k] = s
	close(l.created)
	l.created = make(chan struct{})
	return s
}

// find returns a stream that is open, or nil, and then what is closed when there is a new one.
func (l *logs) find(k logKey) (*stream, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[k], l.created
}

// remove forgets a log that has ended.
func (l *logs) remove(k logKey) error {
	err := os.Remove(filepath.Join(l.dir, k.file()))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// stream is what one stream of an execution has printed so far.
type stream struct {
	logs *logs
	key  logKey

	mu      sync.Mutex // guards the rest
	sum     digest.Writer
	printed int64 // bytes
	kept    int64 // bytes, of file or short
	short   []byte
	file    *os.File // nil: short has everything
	stale   bool     // a file of an earlier process may lie there
	done    bool
	failed  error         // why something that was printed is not kept; nil: all is
	changed chan struct{} // closed when there is more, or no more will come
}

// errCut says that a log cannot be gone on with.
var errCut = errors.New("more was printed than is kept, so nobody can say any more what that was")

// resume has the stream go on after what an earlier process kept of it in a file, and returns how many bytes that are. What it had in memory
// alone, its unit did not hear was kept, and has still.
func (s *stream) resume() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(s.logs.dir, s.key.file()), os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("go on with what job prints: %w", err)
	}
	n, err := io.Copy(&s.sum, f)
	if err == nil && n > s.logs.max {
		err = errCut
	}
	if err != nil {
		f.Close()
		return 0, fmt.Errorf("go on with what job prints: %w", err)
	}
	s.file, s.stale, s.kept, s.printed = f, false, n, n
	close(s.changed)
	s.changed = make(chan struct{})
	return n, nil
}

// anew removes what an earlier process has kept.
func (s *stream) anew() error {
	if !s.stale {
		return nil
	}
	err := os.Remove(filepath.Join(s.logs.dir, s.key.file()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.stale = false
	return nil
}

// Write implements io.Writer. It takes everything, and keeps what there is room for.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = s.anew()
	}
	s.sum.Write(p)
	s.printed += int64(len(p))
	if s.failed == nil { // what came after a gap would be half of a log
		s.failed = s.keep(p)
	}
	if s.failed != nil {
		return 0, fmt.Errorf("keep what job prints: %w", s.failed)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

// keep appends to what is kept.
func (s *stream) keep(p []byte) error {
	room := s.logs.max - s.kept
	if room < 0 {
		return nil // it was cut
	}
	if int64(len(p)) > room {
		p = append(p[:room:room], cut...)
	}
	if s.file == nil && len(s.short)+len(p) <= shortLog {
		s.short = append(s.short, p...)
		s.kept += int64(len(p))
		return nil
	}
	if s.file == nil {
		f, err := os.OpenFile(filepath.Join(s.logs.dir, s.key.file()), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.Write(s.short); err != nil {
			f.Close()
			return err
		}
		s.file, s.short = f, nil
	}
	n, err := s.file.Write(p)
	s.kept += int64(n)
	return err
}

// end returns what has to be written with the record: nothing, if the log is in a file, which is durable then.
func (s *stream) end() (job.Printed, []put, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := job.Printed{Digest: s.sum.Sum(), Size: s.printed}
	if s.failed == nil {
		s.failed = s.anew()
	}
	if s.failed != nil {
		return out, nil, fmt.Errorf("keep what job prints: %w", s.failed)
	}
	if s.file != nil {
		if err := errors.Join(s.file.Sync(), durable.Sync(s.logs.dir)); err != nil {
			return out, nil, fmt.Errorf("keep what job prints: %w", err)
		}
		return out, nil, nil
	}
	if len(s.short) == 0 {
		return out, nil, nil
	}
	return out, []put{{bucketLogs, s.key.key(), bytes.Clone(s.short)}}, nil
}

// close says that no more will come, once what end returned is durable.
func (s *stream) close() {
	s.logs.mu.Lock()
	if s.logs.open[s.key] == s {
		delete(s.logs.open, s.key)
	}
	s.logs.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.done = true
		close(s.changed)
	}
	if s.file != nil {
		s.file.Close()
	}
}

// at reads what is there at an offset. No bytes and no channel: there is no more.
func (s *stream) at(p []byte, offset int64) (int, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset < s.kept {
		if s.file == nil {
			return copy(p, s.short[offset:]), nil, nil
		}
		if !s.done {
			n, err := s.file.ReadAt(p[:min(int64(len(p)), s.kept-offset)], offset)
			return n, nil, err
		}
		f, err := os.Open(filepath.Join(s.logs.dir, s.key.file()))
		if err != nil {
			return 0, nil, err
		}
		defer f.Close()
		n, err := f.ReadAt(p[:min(int64(len(p)), s.kept-offset)], offset)
		return n, nil, err
	}
	if s.done {
		return 0, nil, nil
	}
	return 0, s.changed, nil
}

// follower reads a log that may go on.
type follower struct {
	ctx    context.Context
	stop   context.CancelFunc
	engine *Engine
	id     digest.SHA256
	q      agent.LogQuery
	stream *stream
	kept   io.ReadCloser // instead of stream, if it has ended
}

// Log implements agent.Node.
func (e *Engine) Log(ctx context.Context, id digest.SHA256, q agent.LogQuery) (io.ReadCloser, error) {
	if q.Stream != "stdout" && q.Stream != "stderr" || q.Offset < 0 || q.Attempt < 0 {
		return nil, fmt.Errorf("read log of job %s: stream %q from byte %d of execution %d makes no sense", id, q.Stream, q.Offset, q.Attempt)
	}
	rec, err := e.must(id)
	if err != nil {
		return nil, err
	}
	if n := len(rec.Job.Attempts); q.Attempt > n {
		return nil, fmt.Errorf("read log of job %s: it has no execution %d, but %d", id, q.Attempt, n)
	}
	ctx, stop := context.WithCancel(ctx)
	f := &follower{ctx: ctx, stop: stop, engine: e, id: id, q: q}
	if _, err := f.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// news are closed when a follower has to look again.
type news [2]<-chan struct{}

// open finds the log, if there is one by now; if not, it returns what to wait for.
func (f *follower) open() (news, error) {
	changed, ended := f.engine.ring.wait()
	rec, err := f.engine.must(f.id)
	if err != nil {
		return news{}, err
	}
	k := logKey{rec.Number, f.q.Attempt, f.q.Stream}
	if k.attempt == 0 {
		k.attempt = len(rec.Job.Attempts)
	}
	s, created := f.engine.logs.find(k)
	ended = ended || rec.Job.State.Ended() || k.attempt > 0 && !rec.Job.Attempts[k.attempt-1].Finished.IsZero()
	switch {
	case s != nil:
		f.stream = s
	case f.q.Follow && !ended: // it was not started, or that is on record and it prints soon
		return news{changed, created}, nil
	default:
		f.kept, err = f.engine.logs.read(k, f.q.Offset)
	}
	return news{}, err
}

// Read implements io.Reader.
func (f *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := f.ctx.Err(); err != nil {
			return 0, err
		}
		n, news, err := f.next(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-f.ctx.Done():
			return 0, f.ctx.Err()
		case <-news[0]:
		case <-news[1]:
		}
	}
}

// next reads what there is; if there is nothing yet, it returns what to wait for.
func (f *follower) next(p []byte) (int, news, error) {
	if f.stream == nil && f.kept == nil {
		if wait, err := f.open(); err != nil || wait != (news{}) {
			return 0, wait, err
		}
	}
	if f.kept != nil {
		n, err := f.kept.Read(p)
		return n, news{}, err
	}
	n, changed, err := f.stream.at(p, f.q.Offset)
	f.q.Offset += int64(n)
	if n == 0 && err == nil && (changed == nil || !f.q.Follow) {
		err = io.EOF
	}
	return n, news{changed}, err
}

// Close ends a Read that waits.
func (f *follower) Close() error {
	f.stop()
	if f.kept != nil {
		return f.kept.Close()
	}
	return nil
}

// read opens a log that has ended.
func (l *logs) read(k logKey, offset int64) (io.ReadCloser, error) {
	data, err := l.db.get(bucketLogs, k.key())
	if err != nil {
		return nil, err
	}
	if data != nil {
		return io.NopCloser(bytes.NewReader(data[min(offset, int64(len(data))):])), nil
	}
	f, err := os.Open(filepath.Join(l.dir, k.file()))
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(bytes.NewReader(nil)), nil // nothing was printed, or it is not kept any more
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
