package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/meter"
)

// Worker is one unit of a Pool that was taken. It implements runner.Worker.
type Worker struct {
	pool    *Pool
	link    *link
	unit    string
	conn    *os.File
	groups  groups
	started time.Time
	ended   <-chan struct{} // closed when the unit has ended
	limits  runner.Limits

	taken    time.Time
	source   meter.Source // nil: not found yet
	clock    *meter.Clock // nil: there is none
	meter    *meter.Meter // nil: not taken yet
	rest     meter.Rest
	wall     *time.Timer // nil: no limit
	kills    *kills
	enforced []string
	missing  []string
	once     sync.Once // the unit is stopped, and forgotten, once

	mu   sync.Mutex // guards stop and link
	stop *ending
}

// find learns where the unit's control groups are, and prepares to measure, so that Take need not.
func (w *Worker) find(ctx context.Context) error {
	p, err := w.link.GetUnitTypePropertyContext(ctx, w.unit, "Service", "ControlGroup")
	if err != nil {
		return err
	}
	path, _ := p.Value.Value().(string)
	if path == "" {
		return errors.New("it has no process")
	}
	if w.groups, err = groupsAt(path); err != nil {
		return err
	}
	if w.source, err = meter.Cgroup(w.groups.meterPaths()); err != nil {
		return err
	}
	w.clock, _ = meter.OpenClock(w.groups.meterPaths()) // without one, it is for one job
	w.kills = watchKills(w.groups["memory"], func() { w.kill(ending{reason: runner.ReasonOutOfMemory}) })
	return nil
}

// begin sets the limits and starts to measure.
func (w *Worker) begin(ctx context.Context, l runner.Limits) error {
	props := changes(w.limits, l)
	w.limits = merge(w.limits, l)
	if l.IORead > 0 || l.IOWrite > 0 {
		props = append(props, bandwidth(l, disks())...)
	}
	if len(props) > 0 {
		if err := w.link.SetUnitPropertiesContext(ctx, w.unit, true, toBus(props)...); err != nil {
			return &runner.SetupError{Act: "limit worker " + w.unit, Err: err, Cure: cureGroups}
		}
	}
	var missing map[string]string
	w.enforced, missing = w.groups.applied(w.limits)
	for name, why := range missing {
		if mustHold(name) && !w.pool.class.Degraded {
			return &runner.SetupError{Act: "limit " + name, Err: errors.New(why), Cure: cureGroups}
		}
		w.missing = append(w.missing, name+": "+why)
	}
	w.meter = meter.Start(w.source, meter.Options{Limits: w.limits, Relative: true, Power: w.setQuota, Rest: &w.rest})
	w.taken = time.Now()
	if w.limits.Wall > 0 {
		w.wall = time.AfterFunc(w.limits.Wall, func() {
			w.kill(ending{runner.ReasonTimeout, fmt.Sprintf("wall time: more than %s", w.limits.Wall)})
		})
	}
	return nil
}

func (w *Worker) setQuota(milli int64) error {
	return setQuota(w.pool.runner.bus, w.current(), w.unit, milli, w.limits.CPU)
}

// changes returns the properties for those limits of l that are others than the class's: each costs systemd a file.
func changes(class, l runner.Limits) []Property {
	same := func(v *int64, c int64) {
		if *v == c {
			*v = 0
		}
	}
	same(&l.CPU, class.CPU)
	same(&l.Memory, class.Memory)
	if l.Processes == class.Processes {
		l.Processes = 0
	}
	return slices.DeleteFunc(limits(l, true), func(p Property) bool { return p.Name == "MemorySwapMax" }) // which every worker has
}

// merge returns l, with base's values for its zeros.
func merge(base, l runner.Limits) runner.Limits {
	or := func(v *int64, b int64) {
		if *v == 0 {
			*v = b
		}
	}
	or(&l.CPU, base.CPU)
	or(&l.Memory, base.Memory)
	or(&l.Scratch, base.Scratch)
	or(&l.IORead, base.IORead)
	or(&l.IOWrite, base.IOWrite)
	if l.Processes == 0 {
		l.Processes = base.Processes
	}
	if l.Wall == 0 {
		l.Wall = base.Wall
	}
	if l.Power == 0 {
		l.Power = base.Power
	}
	return l
}

// Conn implements runner.Worker.
func (w *Worker) Conn() *os.File { return w.conn }

// Observe implements runner.Worker.
func (w *Worker) Observe(f func(runner.Usage)) { w.meter.Observe(f) }

// Wait implements runner.Worker. Worker.Conn is closed when it returns.
func (w *Worker) Wait(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, func() { w.kill(ending{runner.ReasonCancelled, context.Cause(ctx).Error()}) })()
	w.waitEnd(context.WithoutCancel(ctx))
	finished := time.Now()
	report := w.meter.Stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
	defer cancel()
	service, _ := w.current().GetUnitTypePropertiesContext(end, w.unit, "Service") // of a unit that is gone there is nothing to know
	defer w.discard()
	if lost, _ := service["ExecMainCode"].(int32); lost == 0 && !w.current().private && w.killed() == nil {
		return runner.Result{}, fmt.Errorf("wait for worker %s: the connection to systemd broke, and how it ended is not known", w.unit)
	}
	return w.result(service, report, finished), nil
}

// lastingWorker is a Worker whose control group counts CPU time. It implements runner.Lasting.
type lastingWorker struct {
	*Worker
	clock *meter.Clock // closed when the unit is stopped
}

// CPU implements runner.Lasting.
func (w *lastingWorker) CPU() (time.Duration, error) { return w.clock.Read() }

// Rest implements runner.Lasting.
func (w *lastingWorker) Rest(resting bool) { w.rest.Set(resting) }

// Confinement implements runner.Lasting.
func (w *lastingWorker) Confinement() runner.Confinement { return w.confinement() }

// told returns w as what its control group makes it.
func (w *Worker) told() runner.Worker {
	if w.clock == nil {
		return w
	}
	return &lastingWorker{w, w.clock}
}

// waitEnd returns when the unit has ended, also if the connection to systemd breaks in between.
func (w *Worker) waitEnd(ctx context.Context) {
	<-w.ended
	for !w.current().Connected() {
		l, err := w.pool.runner.bus.get(ctx)
		if err != nil {
			return // systemd itself is gone, or the driver closed
		}
		l.keep(ctx, w.unit)
		w.mu.Lock()
		w.link = l
		w.mu.Unlock()
		<-l.ended(ctx, w.unit)
	}
}

// current returns the connection that is in use.
func (w *Worker) current() *link {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.link
}

// killed says why the driver has ended the unit, if it has.
func (w *Worker) killed() *ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stop
}

// result says how the unit ended and what it used.
func (w *Worker) result(service map[string]any, report meter.Report, finished time.Time) runner.Result {
	r := runner.Result{Usage: report.Usage, Anomalies: report.Anomalies, Engine: "native"}
	r.Wall = finished.Sub(w.taken)
	if n, ok := service["CPUUsageNSec"].(uint64); ok && n != infinity {
		r.CPU = max(r.CPU, time.Duration(n))
	}
	name, _ := service["Result"].(string)
	code, _ := service["ExecMainCode"].(int32)
	status, _ := service["ExecMainStatus"].(int32)
	stop := w.killed()
	switch {
	case name == "oom-kill" || report.Last.Killed > 0 || stop != nil && stop.reason == runner.ReasonOutOfMemory || stop == nil && code == cldKilled && status == int32(unix.SIGKILL) && w.kills.after():
		r.Reason, r.Detail = runner.ReasonOutOfMemory, memoryDetail(w.limits)
		r.MemoryPeak = max(r.MemoryPeak, w.limits.Memory)
	case stop != nil:
		r.Reason, r.Detail = stop.reason, stop.detail
	case code == 0: // a unit that is gone has not failed: see withoutReference
		r.Reason = runner.ReasonExit
	case code == cldExited:
		r.Reason, r.Exit = runner.ReasonExit, int(status)
	default:
		r.Reason, r.Signal = runner.ReasonSignal, unix.SignalName(unix.Signal(status))
		r.Detail = "the worker was killed by " + r.Signal
	}
	r.Confinement = w.confinement()
	return r
}

// How a main process ended, in ExecMainCode: sigaction(2), si_code of SIGCHLD.
const (
	cldExited = 1
	cldKilled = 2
)

func (w *Worker) confinement() runner.Confinement {
	c := runner.Confinement{Driver: "systemd-pool", Missing: w.missing, Enforced: []string{"own-user"}}
	for _, e := range w.pool.runner.report.Effects {
		d := effects[e.Name]
		if e.Holds && (d.worker && (e.Name != "worker-executable" || hasProperty(w.pool.props, "MemoryDenyWriteExecute")) || d.alone) {
			c.Enforced = append(c.Enforced, e.Name)
		}
	}
	c.Enforced = append(c.Enforced, w.enforced...)
	if w.limits.Wall > 0 {
		c.Enforced = append(c.Enforced, "wall-time")
	}
	return sorted(c)
}

// how tells how a worker ended that nobody wanted to end; "" if that is not known.
func (w *Worker) how(ctx context.Context) string {
	if stop := w.killed(); stop != nil {
		return fmt.Sprintf(": %s %s", stop.reason, stop.detail)
	}
	service, err := w.current().GetUnitTypePropertiesContext(ctx, w.unit, "Service")
	if err != nil {
		return ""
	}
	code, _ := service["ExecMainCode"].(int32)
	status, _ := service["ExecMainStatus"].(int32)
	switch {
	case code == cldExited:
		return fmt.Sprintf(": it exited with status %d", status)
	case code != 0:
		return ": it was killed by " + unix.SignalName(unix.Signal(status))
	}
	return ""
}

// kill ends the unit for the reason that comes first.
func (w *Worker) kill(why ending) {
	w.mu.Lock()
	if w.stop == nil {
		w.stop = &why
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	w.pool.runner.bus.live(ctx, w.current()).kill(ctx, w.unit)
}

// discard stops the unit, whatever it does, and lets systemd forget it.
func (w *Worker) discard() {
	w.once.Do(func() {
		if w.wall != nil {
			w.wall.Stop()
		}
		if w.meter != nil {
			w.meter.Stop() // which closes the source
		} else if w.source != nil {
			w.source.Close()
		}
		if w.clock != nil {
			w.clock.Close()
		}
		w.kills.end()
		ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
		defer cancel()
		l := w.pool.runner.bus.live(ctx, w.current())
		l.stop(ctx, w.unit)
		l.forget(ctx, w.unit)
		w.conn.Close()
		w.pool.mu.Lock()
		delete(w.pool.taken, w)
		w.pool.mu.Unlock()
	})
}

// start starts a unit.
func (p *Pool) start(ctx context.Context) (*Worker, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.slots }()
	link, err := p.runner.bus.get(ctx)
	if err != nil {
		return nil, err
	}
	near, far, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	w := &Worker{pool: p, link: link, unit: poolPrefix + p.class.Name + "-" + randomName() + unitSuffix, conn: near, limits: p.class.Limits}
	fd, err := blocking(far)
	if err == nil {
		err = link.start(ctx, w.unit, append(toBus(p.props), descriptor("StandardInputFileDescriptor", uintptr(fd))))
		unix.Close(fd)
	}
	if err == nil {
		w.started = time.Now()
		w.ended = link.ended(ctx, w.unit)
		err = w.find(ctx)
	} else {
		err = explain(ctx, link, w.unit, err)
	}
	if err != nil {
		w.discard()
		return nil, &runner.SetupError{Act: "start worker " + w.unit, Err: err, Cure: "see what systemd says of it: journalctl -u " + w.unit}
	}
	return w, nil
}

// blocking returns another descriptor of f in whose use calls wait, as programs expect.
func blocking(f *os.File) (int, error) {
	fd, err := duplicate(f)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
