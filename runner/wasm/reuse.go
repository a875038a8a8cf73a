package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// keptKey tells whose a kept worker is, and what it has prepared under which limits of its process.
type keptKey struct {
	owner     string
	module    digest.SHA256
	memory    int64
	interpret bool
	limits    runner.Limits
}

// lastingLimits are the limits of a worker's process. The others are the job's: the Runner keeps them itself.
func lastingLimits(l runner.Limits) runner.Limits {
	l.Wall, l.Log, l.Output = 0, 0, 0
	return l
}

// keptWorker is a worker that is used for one job after the other, by one at a time.
type keptWorker struct {
	*readyWorker
	lasting runner.Lasting
	key     keptKey
	jobs    int           // that it has run
	used    time.Duration // CPU time of its process, as of the last job's end
}

// waiter is a run that waits for a worker of its kind.
type waiter struct {
	key  keptKey
	gets chan *keptWorker // capacity 1
}

// patience is how long a run waits for one of the workers that are at work for its owner, before another is made. Making one takes
// some 20 ms of processor time, and what is made is in the way of those that are at work: so no more are made at a time than there are
// processors.
const patience = time.Second

const (
	// mostKept is how many workers may be idle in a Runner: one that is idle longest goes first.
	mostKept = 16
	// mostJobs is after how many jobs a worker is replaced, so that nothing that may have been left in one lasts for ever.
	mostJobs = 10_000
)

// accountingReused is runner.Usage.Accounting of a run in a kept worker. The first of them is charged for making the worker ready.
const accountingReused = "cgroup by difference"

// runReused runs a module in a worker that is kept for the owner. Where the pool's workers cannot be told apart by job, it is one job each.
func (r *Runner) runReused(ctx context.Context, spec runner.Spec, h *handover) (runner.Result, error) {
	defer h.close()
	key := keptKey{spec.Module.Reuse, spec.Module.Digest, spec.Module.Memory, spec.Module.Interpret, lastingLimits(spec.Limits)}
	var module []byte
	var err error
	if spec.Module.Digest.IsZero() {
		if module, err = readModule(spec); err != nil {
			return runner.Result{}, err
		}
		key.module = digest.Of(module)
	}
	w := r.takeKept(ctx, key)
	ctx, cancel := withWall(ctx, spec.Limits.Wall) // waiting for others is not the job's time
	defer cancel()
	if w != nil {
		return r.runKept(ctx, spec, w, h)
	}
	made := sync.OnceFunc(func() { r.made(key) })
	defer made()
	if module == nil {
		if module, err = readModule(spec); err != nil {
			return runner.Result{}, err
		}
	}
	w, refused, err := r.prepareKept(ctx, spec, module, key)
	made()
	switch {
	case err != nil:
		return runner.Result{}, err
	case refused != nil:
		return *refused, nil
	case w == nil:
		return r.runPooled(ctx, spec, module, h)
	}
	return r.runKept(ctx, spec, w, h)
}

// prepareKept makes a worker that can be kept; nil if those of the pool cannot.
func (r *Runner) prepareKept(ctx context.Context, spec runner.Spec, module []byte, key keptKey) (w *keptWorker, refused *runner.Result, err error) {
	spec.Limits = key.limits
	began, refused, err := r.prepareWorker(ctx, spec, module, true)
	if err != nil || refused != nil {
		return nil, refused, err
	}
	counted, ok := began.worker.(runner.Lasting)
	if !ok {
		began.end()
		return nil, nil, nil
	}
	return &keptWorker{readyWorker: began, lasting: counted, key: key}, nil, nil
}

// settle waits until the worker has its next instance ready. It returns false if that will never be.
func (w *keptWorker) settle() bool {
	return w.session.phase == phaseReady || w.session.hear(w.worker.Conn()) == nil && w.session.phase == phaseReady && w.session.report == nil
}

// runKept runs one job in a kept worker, and keeps that for the next one if nothing is wrong with it.
func (r *Runner) runKept(ctx context.Context, spec runner.Spec, w *keptWorker, h *handover) (runner.Result, error) {
	began := time.Now()
	r.busy(w.key, 1)
	defer r.busy(w.key, -1)
	s, c := runSession(spec, w.readyWorker, h)
	s.serial = true
	stop := context.AfterFunc(ctx, w.cancel)
	err := s.exchange(w.worker.Conn())
	sound := stop() && err == nil && s.report != nil && (s.report.End == endExit || s.report.End == endTrap || s.report.End == endGas)
	if !sound {
		w.end()
		return r.conclude(ctx, s, c, w.result, w.err)
	}
	cpu, err := w.lasting.CPU()
	if err != nil {
		w.end()
		return runner.Result{}, fmt.Errorf("count CPU time of worker: %w", err)
	}
	w.jobs++
	res := runner.Result{Reason: runner.ReasonExit, Confinement: w.lasting.Confinement(), Usage: runner.Usage{
		Wall: time.Since(began), CPU: cpu - w.used, Accounting: accountingReused,
	}}
	res.Confinement.Missing = append(res.Confinement.Missing, fmt.Sprintf("own-process: reused worker, run %d of its owner in this process", w.jobs))
	w.used = cpu
	w.session = &session{task: task{Act: actPrepare}, in: s.in}
	if w.jobs >= mostJobs {
		w.end()
	} else {
		r.keep(w)
	}
	return r.conclude(ctx, s, c, res, nil)
}

// takeKept returns a worker that is ready for the next job; nil if there is none, and none became free in time: then one is to be made,
// and made is called when it is, or cannot be.
func (r *Runner) takeKept(ctx context.Context, key keptKey) *keptWorker {
	for {
		w, wait := r.takeIdle(key)
		if wait != nil {
			w = r.await(ctx, wait)
		}
		switch {
		case w == nil && (wait == nil || r.mayMake(ctx, key)):
			return nil
		case w == nil: // as many as may be are being made
		case w.settle():
			return w
		default:
			w.end() // it died while it waited
		}
	}
}

// mayMake counts one more that is being made, unless as many are as there are processors. Whoever was cancelled makes none, and learns why when
// it tries.
func (r *Runner) mayMake(ctx context.Context, key keptKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.making[key] >= runtime.NumCPU() && ctx.Err() == nil {
		return false
	}
	r.make(key, 1)
	return true
}

// made says that one that was counted is not being made any more.
func (r *Runner) made(key keptKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.make(key, -1)
}

// make counts those that are being made. r.mu is held.
func (r *Runner) make(key keptKey, n int) {
	add(r.making, key, n)
	add(r.working, key, n)
}

func add(counts map[keptKey]int, key keptKey, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}

// await waits for a worker that somebody else gives back.
func (r *Runner) await(ctx context.Context, wait *waiter) *keptWorker {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case w := <-wait.gets:
		return w
	case <-t.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.waiting = slices.DeleteFunc(r.waiting, func(o *waiter) bool { return o == wait })
	r.mu.Unlock()
	select {
	case w := <-wait.gets: // it came at the last moment
		return w
	default:
		return nil
	}
}

// busy counts the workers that are at work for a key.
func (r *Runner) busy(key keptKey, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add(r.working, key, n)
}

// takeIdle returns the idle worker that was used last. If there is none, but as many are at work as there are processors, it returns a place
// in the queue for them; else it counts one that is being made.
func (r *Runner) takeIdle(key keptKey) (*keptWorker, *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.kept) - 1; i >= 0; i-- {
		if w := r.kept[i]; w.key == key {
			r.kept = append(r.kept[:i], r.kept[i+1:]...)
			w.lasting.Rest(false)
			return w, nil
		}
	}
	if r.shut || r.working[key] < runtime.NumCPU() {
		r.make(key, 1)
		return nil, nil
	}
	wait := &waiter{key, make(chan *keptWorker, 1)}
	r.waiting = append(r.waiting, wait)
	return nil, wait
}

// keep gives w to whoever waits longest for one of its kind, or makes it idle.
func (r *Runner) keep(w *keptWorker) {
	r.mu.Lock()
	var over *keptWorker
	switch {
	case r.shut:
		over = w
	case r.hand(w):
	default:
		if len(r.kept) == mostKept {
			over, r.kept = r.kept[0], r.kept[1:]
		}
		w.lasting.Rest(true)
		r.kept = append(r.kept, w)
	}
	r.mu.Unlock()
	if over != nil {
		over.end()
	}
}

// hand gives w to a run that waits for it. r.mu is held.
func (r *Runner) hand(w *keptWorker) bool {
	i := slices.IndexFunc(r.waiting, func(o *waiter) bool { return o.key == w.key })
	if i < 0 {
		return false
	}
	r.waiting[i].gets <- w
	r.waiting = slices.Delete(r.waiting, i, i+1)
	return true
}

// Forget ends the workers that are kept for an owner and idle. Those at work are ended when their run is, if the Runner is closed.
func (r *Runner) Forget(owner string) {
	r.mu.Lock()
	var left, gone []*keptWorker
	for _, w := range r.kept {
		if w.key.owner == owner {
			gone = append(gone, w)
		} else {
			left = append(left, w)
		}
	}
	r.kept = left
	r.mu.Unlock()
	for _, w := range gone {
		w.end()
	}
}

var errDigest = errors.New("its digest is not the one that the caller expects")
