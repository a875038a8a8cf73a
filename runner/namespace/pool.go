package namespace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// PoolOptions configure a Pool.
type PoolOptions struct {
	// Class is what every worker is: one Command, which waits at descriptor 0, without Exchange and Outputs.
	Class runner.Spec
	Size  int // workers that wait; 1 to 1024
}

// maxPool bounds a Pool.
const maxPool = 1024

// Pool is a number of confinements that are made beforehand, with the program started, and wait for a job. It implements runner.Pool;
// its workers are runner.Lasting. Each one that is taken is replaced in the background.
//
// A Take with limits other than the class's gets a worker that is started for it, since the control groups of a confinement are made
// before it is.
type Pool struct {
	runner *Runner
	class  runner.Spec
	ready  chan started // not buffered: each keeper holds one worker
	over   context.Context
	stop   context.CancelFunc
	done   sync.WaitGroup // keepers, and the workers themselves
}

// started is a worker, or why there is none.
type started struct {
	worker *Worker
	err    error
}

// NewPool starts the workers in the background. Close ends them. The error is a *runner.SetupError.
func (r *Runner) NewPool(o PoolOptions) (*Pool, error) {
	fail := func(err error) (*Pool, error) { return nil, &runner.SetupError{Act: "check class", Err: err} }
	if o.Size < 1 || o.Size > maxPool {
		return fail(fmt.Errorf("size %d is not between 1 and %d", o.Size, maxPool))
	}
	if len(o.Class.Commands) != 1 || o.Class.Exchange != nil || len(o.Class.Outputs) > 0 || o.Class.Limits.Wall != 0 || o.Class.Name != "" {
		return fail(errors.New("a class has one command, and neither exchange, outputs, name nor wall-clock limit"))
	}
	if _, err := complete(o.Class); err != nil {
		return nil, err
	}
	p := &Pool{runner: r, class: o.Class, ready: make(chan started)}
	p.over, p.stop = context.WithCancel(context.Background())
	for range o.Size {
		p.done.Go(p.keep)
	}
	return p, nil
}

// keep has one worker ready at all times, until the Pool is closed.
func (p *Pool) keep() {
	for p.over.Err() == nil {
		w, err := p.start(p.class.Limits)
		var ended <-chan struct{} // never, if there is none: whoever waits learns why, and then it is tried again
		if err == nil {
			ended = w.ended
		}
		select {
		case p.ready <- started{w, err}:
			continue
		case <-ended:
		case <-p.over.Done():
		}
		if err == nil {
			<-ended
			w.conn.Close()
		}
	}
}

// Take implements runner.Pool. Limits that are zero are the class's. Limits.Wall is counted from now on.
func (p *Pool) Take(ctx context.Context, l runner.Limits) (runner.Worker, error) {
	wall := l.Wall
	l.Wall = 0
	var s started
	if l = mergeLimits(p.class.Limits, l); l != p.class.Limits {
		s.worker, s.err = p.start(l)
	} else {
		select {
		case s = <-p.ready:
		case <-p.over.Done():
			return nil, errPoolClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	s.worker.rest.Set(false)
	if wall > 0 {
		detail := fmt.Sprintf("wall time: more than %s", wall)
		s.worker.wall = time.AfterFunc(wall, func() {
			s.worker.execution.kill(ending{Reason: runner.ReasonTimeout, Detail: detail}, nil)
		})
	}
	return s.worker.told(), nil
}

// errPoolClosed says that Take came too late.
var errPoolClosed error = &runner.SetupError{Act: "take worker", Err: errors.New("the pool is closed")}

// mergeLimits returns l, with base's values for its zeros.
func mergeLimits(base, l runner.Limits) runner.Limits {
	for v, b := range map[*int64]int64{
		&l.CPU: base.CPU, &l.Memory: base.Memory, &l.Scratch: base.Scratch, &l.Log: base.Log, &l.Output: base.Output,
		&l.IORead: base.IORead, &l.IOWrite: base.IOWrite,
	} {
		setDefault(v, b)
	}
	setDefault(&l.Processes, base.Processes)
	setDefault(&l.Power, base.Power)
	return l
}

// Close ends all workers, also those that are taken, and returns when they are gone.
func (p *Pool) Close() error {
	p.stop()
	p.done.Wait()
	return nil
}

// Worker is one confinement of a Pool. It implements runner.Worker.
type Worker struct {
	execution *execution
	conn      *os.File
	standing  runner.Confinement // when the program was started
	wall      *time.Timer        // nil: no limit
	rest      meter.Rest         // until it is taken
	observer  atomic.Pointer[func(runner.Usage)]
	cancel    context.CancelFunc
	ended     chan struct{} // closed when result and err are set
	result    runner.Result
	err       error
}

// start makes a confinement and starts the program in it.
func (p *Pool) start(l runner.Limits) (*Worker, error) {
	ctx, cancel := context.WithCancel(p.over)
	w := &Worker{cancel: cancel, ended: make(chan struct{})}
	w.rest.Set(true)
	begun := make(chan error, 1)
	spec := p.class
	spec.Limits = l
	spec.Observe = w.tell
	spec.Exchange = func(conn *os.File) error {
		var err error
		w.conn, err = duplicate(conn) // what was said last can be read after the execution has closed its own
		w.standing = w.execution.confinement()
		begun <- err
		return err
	}
	p.done.Go(func() {
		w.result, w.err = p.runner.run(ctx, spec, func(e *execution) { w.execution, e.rest = e, &w.rest })
		cancel()
		close(w.ended)
	})
	select {
	case err := <-begun:
		if err == nil {
			return w, nil
		}
		<-w.ended
		return nil, &runner.SetupError{Act: "start worker", Err: err}
	case <-w.ended:
		if w.err == nil {
			w.err = &runner.SetupError{Act: "start worker", Err: errors.New(cmp.Or(w.result.Detail, string(w.result.Reason)))}
		}
		return nil, w.err
	}
}

// duplicate returns another descriptor of a socket that waits in Go's poller.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dup error
	if err := raw.Control(func(n uintptr) { fd, dup = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || dup != nil {
		return nil, cmp.Or(err, dup)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Conn implements runner.Worker. Whoever has taken the worker closes it.
func (w *Worker) Conn() *os.File { return w.conn }

// Observe implements runner.Worker.
func (w *Worker) Observe(f func(runner.Usage)) { w.observer.Store(&f) }

// tell tells the observer, if there is one yet.
func (w *Worker) tell(u runner.Usage) {
	if f := w.observer.Load(); f != nil {
		(*f)(u)
	}
}

// Wait implements runner.Worker.
func (w *Worker) Wait(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, func() {
		w.execution.kill(ending{Reason: runner.ReasonCancelled, Detail: context.Cause(ctx).Error()}, nil)
	})()
	<-w.ended
	if w.wall != nil {
		w.wall.Stop()
	}
	w.result.Anomalies = slices.DeleteFunc(w.result.Anomalies, func(a runner.Anomaly) bool {
		return a.Kind == runner.AnomalySilence // whoever waits is silent
	})
	return w.result, w.err
}

// lasting is a worker whose control group counts CPU time. It implements runner.Lasting.
type lasting struct {
	*Worker
	clock *meter.Clock // closed when the worker has ended
}

// CPU implements runner.Lasting.
func (w *lasting) CPU() (time.Duration, error) { return w.clock.Read() }

// Rest implements runner.Lasting.
func (w *lasting) Rest(resting bool) { w.rest.Set(resting) }

// Confinement implements runner.Lasting.
func (w *lasting) Confinement() runner.Confinement {
	c := w.standing
	c.Enforced, c.Missing = slices.Clone(c.Enforced), slices.Clone(c.Missing)
	return c
}

// told returns w as what its control group makes it.
func (w *Worker) told() runner.Worker {
	clock, err := meter.OpenClock(w.execution.group.meterPaths())
	if err != nil {
		return w
	}
	go func() {
		<-w.ended
		clock.Close()
	}()
	return &lasting{w, clock}
}
