package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// unitPrefix and unitSuffix make the name of a unit of that of an execution.
const (
	unitPrefix = "arch-job-"
	unitSuffix = ".service"
)

func unitName(name string) string { return unitPrefix + name + unitSuffix }

// execution is one run, seen from the driver's side.
type execution struct {
	options Options
	bus     *bus
	link    *link // on which the unit was started
	spec    runner.Spec
	layout  layout
	report  Report   // of the host
	missing []string // of what the Spec asks for
	unit    string

	logs    *logs
	talk    talk
	control *net.UnixConn
	watch   *watch
	hello   hello

	collected []runner.Collected
	outcome   *outcome
	started   time.Time
	finished  time.Time

	mu     sync.Mutex // guards the rest
	stop   *ending    // why the driver killed the unit
	failed error      // Run's error, if the driver killed it for one
}

// ending is why a driver ended an execution.
type ending struct {
	reason runner.Reason
	detail string
}

// Run implements runner.Runner.
func (r *Runner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	spec, err := complete(spec)
	if err != nil {
		return runner.Result{}, err
	}
	missing, err := r.report.require(spec)
	if err != nil {
		return runner.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return runner.Result{Reason: runner.ReasonCancelled, Detail: err.Error()}, nil
	}
	l, err := arrange(spec, lstat, disks())
	if err != nil {
		return runner.Result{}, arrangeError(err)
	}
	link, err := r.bus.get(ctx)
	if err != nil {
		return runner.Result{}, err
	}
	e := &execution{options: r.options, bus: r.bus, link: link, spec: spec, layout: l, report: r.report, missing: missing, unit: unitName(spec.Name), logs: newLogs(spec, runner.Kept{})}
	return e.run(ctx)
}

// Properties returns the properties of the unit that Run makes for spec, but for descriptors, which differ each time.
// It looks at the host only to see what the sources of mounts are, and needs no systemd: a Runner that New has not made will do.
func (r *Runner) Properties(spec runner.Spec) ([]Property, error) {
	spec, err := complete(spec)
	if err != nil {
		return nil, err
	}
	l, err := arrange(spec, lstat, disks())
	if err != nil {
		return nil, arrangeError(err)
	}
	o, err := r.options.defaults()
	if err != nil {
		return nil, err
	}
	return o.unit(spec, l), nil
}

func arrangeError(err error) error {
	e := &runner.SetupError{Act: "arrange mounts", Err: err}
	if _, ok := errors.AsType[*ownerError](err); ok {
		e.Cure = cureOwner
	}
	return e
}

// run is the whole life of the execution.
func (e *execution) run(ctx context.Context) (runner.Result, error) {
	if err := e.start(ctx); err != nil {
		return runner.Result{}, err
	}
	defer e.clean()
	return e.conclude(ctx)
}

// conclude sees the execution to its end, and everything of it gone.
func (e *execution) conclude(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, func() {
		e.kill(&ending{runner.ReasonCancelled, context.Cause(ctx).Error()}, nil)
	})()
	err := e.follow()
	if err != nil {
		e.kill(nil, err)
	}
	e.watch.end()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
	defer cancel()
	if e.outcome == nil || e.spec.Settle == nil || e.spec.Exchange != nil {
		if err := e.stopUnit(end); err != nil {
			return runner.Result{}, err
		}
		r, err := e.result(end)
		e.bus.live(end, e.link).forget(end, e.unit)
		return r, err
	}
	// The unit's first process lives, and has what came of it, until somebody else has it.
	r, err := e.result(end)
	if err == nil {
		err = e.spec.Settle(r)
	}
	if serr := e.stopUnit(end); serr != nil {
		return runner.Result{}, serr
	}
	e.bus.live(end, e.link).forget(end, e.unit)
	return r, err
}

// stopUnit ends the unit and returns when its last process is gone.
func (e *execution) stopUnit(ctx context.Context) error {
	if e.outcome != nil {
		writeFrame(e.control, frameTaken, nil)
	}
	err := e.bus.live(ctx, e.link).stop(ctx, e.unit)
	e.control.Close()
	e.talk.end()
	return err
}

// kill ends the execution for the reason, or for the error, that comes first.
func (e *execution) kill(why *ending, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop != nil || e.failed != nil {
		return
	}
	e.stop, e.failed = why, err
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	e.bus.live(ctx, e.link).kill(ctx, e.unit)
}

// follow reads what the unit says until its outcome, or its end.
func (e *execution) follow() error {
	e.started = time.Now()
	defer func() { e.finished = time.Now() }()
	for {
		kind, body, err := e.frame()
		if err != nil {
			return err
		}
		switch kind {
		case 0: // the unit has ended; what systemd says of it tells why
			return nil
		case frameBegin:
			e.talk.begin(func(err error) { e.kill(nil, err) })
		case frameOutput:
			if err := e.output(body); err != nil {
				return err
			}
		case frameOutcome:
			var o outcome
			if err := json.Unmarshal(body, &o); err != nil {
				return fmt.Errorf("read outcome: %w", err)
			}
			e.outcome = &o
			return nil
		default:
			return fmt.Errorf("read control socket: unexpected frame %q", kind)
		}
	}
}

// frame returns the next frame that is not one of the log; kind 0 when the unit has ended.
func (e *execution) frame() (kind byte, body []byte, err error) {
	kind, body, err = e.next(maxOrder)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil, nil
	}
	return kind, body, err
}

// next is readFrame, but that it hands on what the log brings.
func (e *execution) next(limit int) (kind byte, body []byte, err error) {
	for {
		kind, body, err = readFrame(e.control, limit)
		if err != nil || kind != frameLog {
			return kind, body, err
		}
		kept, err := e.logs.take(body)
		if err != nil {
			e.kill(nil, err)
		}
		if kept != nil {
			writeFrame(e.control, frameKept, kept) // if it does not arrive, the unit has ended
		}
	}
}

// clean removes what the execution has made outside of systemd.
func (e *execution) clean() { os.Remove(e.options.socket(e.spec.Name)) }
