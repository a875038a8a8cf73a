package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"arch.network/runner"
)

const (
	poolPrefix = "arch-pool-"
	// starting is how many units of a Pool are started at a time.
	starting = 2
	// shortLife is when a worker that ends unasked is a sign that all will.
	shortLife = time.Second
	// maxPool bounds a Pool.
	maxPool = 1024
)

// PoolOptions configure a Pool.
type PoolOptions struct {
	// Class is what every worker is: one Command, whose program is static and waits at descriptor 0, read-only Bind and Tmpfs
	// mounts (of 64 MiB unless they or the Limits say otherwise), and Limits that hold until Take sets others.
	// Its standard output is thrown away; its standard error goes to the journal.
	Class runner.Spec
	Size  int // workers that wait; 1 to 1024
	// Compile is for a program that makes machine code, as wazero's compiler does. False: what it writes it can never execute.
	Compile bool
}

// Pool is a number of units that are started and confined, and wait for one job each. It implements runner.Pool. Each one that
// is taken is replaced in the background.
type Pool struct {
	runner *Runner
	class  runner.Spec
	props  []Property
	root   string
	lock   *os.File         // says that root is in use
	ready  chan readyWorker // not buffered: each keeper holds one worker
	slots  chan struct{}    // who starts a unit holds one
	stop   context.CancelFunc
	over   <-chan struct{} // closed by stop
	done   sync.WaitGroup

	mu     sync.Mutex // guards taken and closed
	taken  map[*Worker]struct{}
	closed bool
}

// readyWorker is a worker, or why there is none.
type readyWorker struct {
	worker *Worker
	err    error
}

// NewPool starts the workers in the background. Close ends them. The error is a *runner.SetupError.
func (r *Runner) NewPool(ctx context.Context, o PoolOptions) (*Pool, error) {
	if err := checkClass(o.Class); err != nil {
		return nil, &runner.SetupError{Act: "check class", Err: err}
	}
	if o.Size < 1 || o.Size > maxPool {
		return nil, &runner.SetupError{Act: "check class", Err: fmt.Errorf("size %d is not between 1 and %d", o.Size, maxPool)}
	}
	if err := r.report.requireWorker(o.Class); err != nil {
		return nil, err
	}
	if o.Class.Name == "" {
		o.Class.Name = randomName()
	}
	root := filepath.Join(r.options.State, poolPrefix+o.Class.Name)
	lock, err := makeRoot(root, r.options.Executable, o.Class)
	if err != nil {
		return nil, &runner.SetupError{Act: "make root directory of pool", Err: err}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &Pool{
		runner: r, class: o.Class, root: root, lock: lock, props: r.options.poolUnit(o.Class, root, o.Compile), stop: cancel, over: ctx.Done(),
		ready: make(chan readyWorker), slots: make(chan struct{}, starting), taken: map[*Worker]struct{}{},
	}
	for range o.Size {
		p.done.Go(func() { p.keep(ctx) })
	}
	return p, nil
}

// keep has one worker ready at all times, until ctx ends.
func (p *Pool) keep(ctx context.Context) {
	for ctx.Err() == nil {
		w, err := p.start(ctx)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			p.offer(ctx, readyWorker{err: err}, nil) // whoever waits learns why, and then it is tried again
			continue
		}
		if p.offer(ctx, readyWorker{worker: w}, w.ended) {
			continue
		}
		died := ctx.Err() == nil
		how := w.how(ctx)
		w.discard()
		if died && time.Since(w.started) < shortLife {
			err := &runner.SetupError{Act: "keep worker " + w.unit, Err: errors.New("it ended without having been given a job" + how)}
			p.offer(ctx, readyWorker{err: err}, nil)
		}
	}
}

// offer hands r to whoever takes it, and reports whether somebody did before ctx ended or the worker did.
func (p *Pool) offer(ctx context.Context, r readyWorker, ended <-chan struct{}) bool {
	select {
	case p.ready <- r:
		return true
	case <-ended:
		return false
	case <-ctx.Done():
		return false
	}
}

// Take implements runner.Pool. Limits that are zero are the class's. Limits.Wall is counted from now on.
func (p *Pool) Take(ctx context.Context, l runner.Limits) (runner.Worker, error) {
	if err := checkSpec(runner.Spec{Limits: l}); err != nil {
		return nil, &runner.SetupError{Act: "check limits", Err: err}
	}
	var r readyWorker
	select {
	case r = <-p.ready:
	case <-p.over:
		return nil, errPoolClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.err != nil {
		return nil, r.err
	}
	w := r.worker
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.taken[w] = struct{}{}
	}
	p.mu.Unlock()
	err := errPoolClosed
	if !closed {
		err = w.begin(ctx, l)
	}
	if err != nil {
		w.discard()
		return nil, err
	}
	return w.told(), nil
}

// errPoolClosed says that Take came too late.
var errPoolClosed error = &runner.SetupError{Act: "take worker", Err: errors.New("the pool is closed")}

// Close ends all workers, also those that are taken, and returns when they are gone.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var left []*Worker
	for w := range p.taken {
		left = append(left, w)
	}
	p.mu.Unlock()
	p.stop()
	p.done.Wait()
	for _, w := range left {
		w.discard()
	}
	p.lock.Close()
	return os.RemoveAll(p.root)
}
