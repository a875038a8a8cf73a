package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/agent"
	"arch.network/agent/scheduler"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/durable"
	"arch.network/builder/store"
)

type signer = identity.Signer

// Options are what an Engine works with.
type Options struct {
	Dir      string       // state; made if it is not there; nobody else may write to it. Required
	Store    *store.Store // content and outputs. Required
	Recorder agent.Recorder
	Judge    Judge
	Source   Source
	Driver   Driver
	Signer   Signer // the node's

	Now     func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: nowhere
	Version string           // of the program

	// Slots is how many executions there are at one time, as far as their resources fit. Zero: four for each processor, since most
	// of the time of a short job is spent waiting for the disk.
	Slots    int
	Capacity agent.Resources // what jobs may use together, if the policy says no less; zeros: what the machine has

	Events int           // how many events are kept for readers; zero: 4096
	MaxLog int64         // bytes of each stream of an execution that are kept; zero: 64 MiB
	Drain  time.Duration // how long Run waits for executions when it is told to end; zero: 90 s
	// Ledger tells of the ledger, for Status. Nil: nothing is told.
	Ledger func() agent.LedgerStatus
	// Facts are told of in Status. Nil: there are none.
	Facts func() map[string]json.RawMessage
	// Directive does what a signed Directive says. Nil: directives are refused.
	Directive func(ctx context.Context, envelope []byte, by string) error
	// Wait pauses before something that failed is tried again. Nil: really.
	Wait func(ctx context.Context, d time.Duration) error
}

func (o Options) complete() (Options, error) {
	switch {
	case o.Dir == "" || o.Store == nil || o.Recorder == nil || o.Judge == nil || o.Source == nil || o.Driver == nil || o.Signer == nil:
		return o, errors.New("open node: Dir, Store, Recorder, Judge, Source, Driver and Signer are required")
	case o.Now == nil:
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	o.Slots = cmp.Or(o.Slots, 4*runtime.NumCPU())
	o.Events = cmp.Or(o.Events, 4096)
	o.MaxLog = cmp.Or(o.MaxLog, 64<<20)
	o.Drain = cmp.Or(o.Drain, 90*time.Second)
	o.Capacity.CPU = cmp.Or(o.Capacity.CPU, int64(runtime.NumCPU())*1000)
	if o.Capacity.Memory == 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return o, fmt.Errorf("open node: read size of memory: %w", err)
		}
		o.Capacity.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return o, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Engine is one node. It implements agent.Node.
type Engine struct {
	o       Options
	db      *database
	jobs    *handles
	ring    *ring
	logs    *logs
	roots   *roots
	fresh   *fresh
	started time.Time

	life     context.Context // ends with Close: what is durable is still written until then
	end      context.CancelCauseFunc
	wake     chan struct{}  // something may be started: capacity 1
	running  sync.WaitGroup // jobs that are worked at
	recovery []*record      // jobs that were active when the last process ended; Run takes them up

	entering sync.Mutex                      // guards entered
	entered  map[digest.SHA256]chan struct{} // documents that are being submitted

	mu       sync.Mutex // guards the rest
	queue    *scheduler.Queue
	policy   Policy       // of which queue has the limits
	number   uint64       // of the last job
	serving  bool         // Run starts jobs
	drained  *agent.Drain // nil: jobs are started
	stopping bool
	active   map[digest.SHA256]*active
	counts   map[agent.State]int
	problem  *agent.Problem // of the last write; nil: it went well
	settling *agent.Problem // of the state file, behind its journal; nil: that goes well
}

var _ agent.Node = (*Engine)(nil)

// Open opens a node's state, or makes it, and puts the jobs that wait back into the queue. It starts nothing: Run does. The caller
// calls Close, after Run has returned.
func Open(o Options) (*Engine, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{o.Dir, filepath.Join(o.Dir, logsDir)} {
		if err := durable.MakeDir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	db, err := openDatabase(o.Dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		o: o, db: db, jobs: newHandles(db), ring: newRing(o.Events, db.event), logs: newLogs(o, db), roots: newRoots(o.Store, db, o.Dir),
		fresh: newFresh(), started: o.Now(), wake: make(chan struct{}, 1), queue: scheduler.New(scheduler.Limits{}),
		active: map[digest.SHA256]*active{}, counts: cloneCounts(db.counts), entered: map[digest.SHA256]chan struct{}{},
	}
	e.life, e.end = context.WithCancelCause(context.Background())
	db.published, db.unused, db.countNow, db.unsettled = e.ring.add, e.roots.release, e.count, e.unsettled
	go db.run()
	if err := e.recover(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close ends what Run has left, without waiting for jobs, and closes the state. Executions that can go on by themselves do.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	e.end(ErrLeave)
	e.ring.close()
	e.running.Wait()
	return errors.Join(e.db.close(), e.roots.wait())
}

// ErrLeave is the cause with which executions are cancelled when the node ends: those that can go on without it may.
var ErrLeave = errors.New("the node is being stopped")

// ErrNoSurvivor says that there is no execution of that name any more.
var ErrNoSurvivor = errors.New("there is no such execution")

// Run starts jobs until ctx ends. Then it starts no more, accepts no more, waits for those that run as long as Options.Drain
// says, leaves or ends the rest, and returns when nothing is worked at any more.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.resume(ctx); err != nil {
		return err
	}
	e.decide(agent.Decision{Kind: agent.KindNode, Verdict: "started", Summary: "the node started"})
	e.mu.Lock()
	e.serving = true
	e.mu.Unlock()
	look := time.NewTimer(idleLook)
	defer look.Stop()
	for swept := e.o.Now(); ; {
		e.schedule()
		look.Reset(e.nextLook())
		select {
		case <-ctx.Done():
			return e.drain()
		case <-e.db.ended:
			return fmt.Errorf("run node: %w", e.db.loss())
		case <-e.wake:
		case <-look.C:
		}
		if now := e.o.Now(); now.Sub(swept) >= idleLook { // also of a node that is woken all the time
			swept = now
			e.expire(now)
		}
	}
}

// idleLook is how often Run looks for what has had its time while no job waits, which needs no wake-up of the machine any sooner.
const idleLook = time.Minute

// nextLook is when Run looks again without having been woken: soon while jobs wait, since whose turn it is depends on the time, too.
func (e *Engine) nextLook() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queue.Waiting() > 0 {
		return time.Second
	}
	return idleLook
}

// drain ends Run.
func (e *Engine) drain() error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	done := make(chan struct{})
	go func() { e.running.Wait(); close(done) }()
	t := time.NewTimer(e.o.Drain)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		e.mu.Lock()
		for _, a := range e.active {
			a.cancel(ErrLeave)
		}
		e.mu.Unlock()
		<-done
	}
	e.decide(agent.Decision{Kind: agent.KindNode, Verdict: "stopped", Summary: "the node stopped"})
	return nil
}

// decide records what is about the node itself. That it could not be is a problem, not an end.
func (e *Engine) decide(d agent.Decision) {
	d.At, d.Policy = e.o.Now().UTC(), e.o.Judge.Policy().ID
	if _, err := e.o.Recorder.Record(e.life, d); err != nil {
		e.trouble("ledger-not-written", err)
	}
}

// trouble notes that something could not be written; nil: it can again.
func (e *Engine) trouble(code string, err error) { e.note(&e.problem, code, err) }

// unsettled notes that the state file could not be written, whose journal has everything; nil: it can again.
func (e *Engine) unsettled(err error) { e.note(&e.settling, "state-not-written", err) }

func (e *Engine) note(where **agent.Problem, code string, err error) {
	var p *agent.Problem
	if err != nil {
		p = &agent.Problem{Code: code, Text: err.Error(), Cure: "make room on the disk, or repair it; what waits is written then"}
		e.o.Log.ErrorContext(e.life, "not written", "code", code, "error", err)
	}
	e.mu.Lock()
	*where = p
	e.mu.Unlock()
}

func (e *Engine) count(m map[agent.State]int) {
	e.mu.Lock()
	e.counts = m
	e.mu.Unlock()
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
