package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
)

// Snapshot names a job that was stopped where it stood: Request.Snapshot goes on from there.
type Snapshot struct {
	Digest digest.SHA256 `json:"digest"` // of the bytes, which stay with the broker
	Size   int64         `json:"size"`   // bytes
	Gas    int64         `json:"gas"`    // used so far
	// Repeats says that to go on is to do everything again up to there, and to print it again: the module was not prepared.
	Repeats bool `json:"repeats,omitempty"`
}

// snapshots are the checkpoints of stopped jobs, each in a file that is named by its SHA-256. They never leave the broker, which therefore needs
// not ask who made one: a forged one could make a signed job leave anything.
type snapshots struct {
	dir string
	max int64 // bytes of all

	mu   sync.Mutex // guards used
	used map[digest.SHA256]bool
}

func openSnapshots(dir string, max int64) (*snapshots, error) {
	if err := makeOwn(dir); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return &snapshots{dir: dir, max: max, used: map[digest.SHA256]bool{}}, err
}

// heldSnapshot is one that a job goes on from; nobody else can meanwhile.
type heldSnapshot struct {
	from  *checkpoint.Checkpoint
	close func(done bool) error // done: it is not needed any more; only the first call does something
}

// take opens a snapshot of the job with this document.
func (s *snapshots) take(d, id digest.SHA256) (*heldSnapshot, error) {
	s.mu.Lock()
	if s.used[d] {
		s.mu.Unlock()
		return nil, refuse(CodeBusy, "wait for it, or end it", "a job goes on from snapshot %s already", d)
	}
	s.used[d] = true // from here on it is neither taken nor swept
	s.mu.Unlock()
	name := filepath.Join(s.dir, d.Hex())
	c, unmap, err := openSnapshot(name, d, id)
	if err != nil {
		s.release(d)
		return nil, err
	}
	var once sync.Once
	return &heldSnapshot{c, func(done bool) (err error) {
		once.Do(func() {
			err = unmap()
			if done {
				err = errors.Join(err, os.Remove(name))
			}
			s.release(d)
		})
		return err
	}}, nil
}

func (s *snapshots) release(d digest.SHA256) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, d)
}

// openSnapshot opens a snapshot whose bytes and job are those.
func openSnapshot(name string, d, id digest.SHA256) (*checkpoint.Checkpoint, func() error, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, refuse(CodeUnknown, "start the job from its beginning", "this broker has no snapshot %s", d)
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	sum, err := hashFile(f)
	if err == nil && sum != d {
		err = refuse(CodeInternal, "start the job from its beginning", "snapshot %s is damaged", d)
	}
	if err != nil {
		return nil, nil, err
	}
	c, unmap, err := checkpoint.Map(f)
	if err != nil {
		return nil, nil, err
	}
	if c.Module != id {
		return nil, nil, errors.Join(refuse(CodeUnknown, "name the snapshot that this job was stopped in", "snapshot %s is of job %s", d, c.Module), unmap())
	}
	return c, unmap, nil
}

func hashFile(f *os.File) (digest.SHA256, error) {
	sum, _, err := digest.OfReader(io.NewSectionReader(f, 0, 1<<62))
	return sum, err
}

// file makes a file for a snapshot that may come.
func (s *snapshots) file() (*os.File, error) {
	return os.OpenFile(filepath.Join(s.dir, tempPrefix+rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o400)
}

// keep makes what f holds a snapshot, durably.
func (s *snapshots) keep(f *os.File, gas uint64) (*Snapshot, error) {
	sum, err := hashFile(f)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.dir, sum.Hex())); err != nil {
		return nil, err
	}
	return &Snapshot{Digest: sum, Size: info.Size(), Gas: integer(gas)}, syncDir(s.dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep forgets what nobody went on from in time, and what has no room: the oldest first.
func (s *snapshots) sweep(now time.Time, keep time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var total int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && !strings.HasPrefix(e.Name(), tempPrefix) {
			files, total = append(files, info), total+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		d, parseErr := digest.ParseHex(f.Name())
		if parseErr == nil && s.used[d] || total <= s.max && now.Sub(f.ModTime()) <= keep {
			continue
		}
		total -= f.Size()
		err = errors.Join(err, os.Remove(filepath.Join(s.dir, f.Name())))
	}
	return err
}

// stopper is how a job that may be stopped is told to.
type stopper struct {
	once sync.Once
	c    chan struct{}
}

func newStopper() *stopper { return &stopper{c: make(chan struct{})} }

func (s *stopper) stop() { s.once.Do(func() { close(s.c) }) }

// work is how a job is run.
type work struct {
	run  func(ctx context.Context, spec runner.Spec) (runner.Result, error)
	stop *stopper // nil: it cannot be stopped where it stands

	snapshot *Snapshot // set by run, if it was stopped
}

// work returns how to run an admitted job. Its content must stay until hold is released.
func (s *Server) work(a *admitted, q request, hold *holding) (*work, error) {
	if !a.doc.Spec.Checkpointable {
		if q.StopAt > 0 || !q.Snapshot.IsZero() {
			return nil, refuse(CodeSpec, "have a job signed that says so, with a module that `arch instrument` prepared", "the job is not checkpointable: it cannot be stopped and go on")
		}
		return &work{run: s.o.Runner.Run}, nil
	}
	if s.o.Checkpoint == nil {
		return nil, refuse(CodeSetup, "run it where modules can be stopped", "this broker cannot run checkpointable jobs")
	}
	w := &work{stop: newStopper()}
	o := checkpoint.Options{Module: a.id, StopAt: uint64(q.StopAt), Stop: w.stop.c}
	giveBack := func(bool) error { return nil }
	if !q.Snapshot.IsZero() {
		held, err := s.snapshots.take(q.Snapshot, a.id)
		if err != nil {
			return nil, err
		}
		o.From, giveBack = held.from, held.close
		hold.add(func() { held.close(false) }) // if it did not run
	}
	w.run = func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		into, err := s.snapshots.file()
		if err != nil {
			return runner.Result{}, err
		}
		defer func() {
			into.Close()
			os.Remove(into.Name()) // unless it was kept
		}()
		o.Into = into
		res, c, err := s.o.Checkpoint(ctx, spec, o)
		if refused, ok := errors.AsType[*checkpoint.RefusedError](err); ok {
			return res, refuse(CodeSpec, refused.Hint(), "%v", refused)
		}
		if err == nil && c != nil {
			kept, keepErr := s.snapshots.keep(into, c.Gas)
			if keepErr != nil {
				err = fmt.Errorf("keep snapshot: %w", keepErr)
			} else {
				kept.Repeats = c.Snapshot == nil
				w.snapshot = kept
			}
		}
		over := err == nil && (c != nil || res.Reason == runner.ReasonExit)
		return res, errors.Join(err, giveBack(over))
	}
	return w, nil
}
