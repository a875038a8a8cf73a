package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"arch.network/runner"
)

// Running is an execution whose driver has gone: a process that ended, or was restarted, while its unit went on.
type Running struct {
	Name string // the Spec's
	Unit string

	runner *Runner
}

// staleDraft is how old a control socket that has no unit's name yet must be before it is removed: its unit may be about to start.
const staleDraft = time.Minute

// Adopt lists the executions that run, sorted by name: also those of drivers that are still there, which are not to be waited for.
// What ended more than an hour ago without anybody to take its outcome is not among them. It ends what is left of pools of such drivers.
func (r *Runner) Adopt(ctx context.Context) ([]*Running, error) {
	l, err := r.bus.get(ctx)
	if err != nil {
		return nil, err
	}
	sockets := r.sockets() // before the units: what is here then and has no unit had one
	units, err := l.ListUnitsByPatternsContext(ctx, []string{"active", "activating"}, []string{unitPrefix + "*" + unitSuffix})
	if err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	var list []*Running
	for _, u := range units {
		name := strings.TrimSuffix(strings.TrimPrefix(u.Name, unitPrefix), unitSuffix)
		list = append(list, &Running{Name: name, Unit: u.Name, runner: r})
	}
	slices.SortFunc(list, func(a, b *Running) int { return strings.Compare(a.Name, b.Name) })
	sweep(sockets, list)
	return list, r.sweepPools(ctx, l)
}

// sockets returns what lies where control sockets do, by path.
func (r *Runner) sockets() map[string]os.FileInfo {
	paths, _ := filepath.Glob(r.options.socket("*") + "*")
	found := map[string]os.FileInfo{}
	for _, path := range paths {
		if info, err := os.Lstat(path); err == nil {
			found[path] = info
		}
	}
	return found
}

// sweep removes the control sockets of units that are gone. A socket gets its unit's name when the unit has started.
func sweep(sockets map[string]os.FileInfo, running []*Running) {
	for path, info := range sockets {
		name, draft, _ := strings.Cut(filepath.Base(path), ".sock")
		if draft != "" && time.Since(info.ModTime()) <= staleDraft || draft == "" && slices.ContainsFunc(running, func(j *Running) bool { return j.Name == name }) {
			continue
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(info, now) { // and no other execution has taken the name
			os.Remove(path)
		}
	}
}

// sweepPools ends the units of pools whose process has gone, and removes their root directories. A worker that waits ends by itself, but one
// that computes would go on for ever.
func (r *Runner) sweepPools(ctx context.Context, l *link) error {
	roots, _ := filepath.Glob(filepath.Join(r.options.State, poolPrefix+"*"))
	for _, root := range roots {
		lock, err := lockRoot(root)
		if err != nil {
			continue // it is in use
		}
		err = l.stopAll(ctx, filepath.Base(root)+"-*"+unitSuffix)
		if err == nil {
			os.RemoveAll(root)
		}
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// stopAll ends the units that match a pattern.
func (l *link) stopAll(ctx context.Context, pattern string) error {
	units, err := l.ListUnitsByPatternsContext(ctx, nil, []string{pattern})
	if err != nil {
		return fmt.Errorf("list units: %w", err)
	}
	for _, u := range units {
		if err := l.stop(ctx, u.Name); err != nil {
			return err
		}
		l.ResetFailedUnitContext(ctx, u.Name)
	}
	return nil
}

// Wait does what Run would have done from now on, for the same Spec: it collects the outputs and returns the Result. Had says what of the
// log and of the outputs the earlier driver has handed on: the Spec's writers get what follows, to the byte, also what was printed while
// there was no driver (commands wait when that is more than 256 KiB), and Collect the outputs that are not in it. An execution with an Exchange is not found again: it ends with its driver.
//
// Cancelling ctx kills the execution. It is an error if the driver that started the unit is still connected to it.
func (j *Running) Wait(ctx context.Context, spec runner.Spec, had runner.Kept) (runner.Result, error) {
	spec.Name = j.Name
	spec, err := complete(spec)
	if err != nil {
		return runner.Result{}, err
	}
	missing, err := j.runner.report.require(spec)
	if err != nil {
		return runner.Result{}, err
	}
	l, err := j.runner.bus.get(ctx)
	if err != nil {
		return runner.Result{}, err
	}
	e := &execution{options: j.runner.options, bus: j.runner.bus, link: l, spec: spec, report: j.runner.report, missing: missing, unit: j.Unit, logs: newLogs(spec, had), collected: had.Outputs}
	attaching, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
	defer cancel()
	if err := e.attach(attaching, had); err != nil {
		return runner.Result{}, fmt.Errorf("adopt unit %s: %w", j.Unit, err)
	}
	defer e.clean()
	return e.conclude(ctx)
}

// Kill ends the execution and returns when every process of it is gone.
func (j *Running) Kill(ctx context.Context) error {
	l, err := j.runner.bus.get(ctx)
	if err != nil {
		return err
	}
	if err := l.stop(ctx, j.Unit); err != nil {
		return err
	}
	l.forget(ctx, j.Unit)
	os.Remove(j.runner.options.socket(j.Name))
	return nil
}

// attach takes the place of the driver that has gone.
func (e *execution) attach(ctx context.Context, had runner.Kept) error {
	if err := e.link.keep(ctx, e.unit); err != nil {
		return err
	}
	err := e.connect()
	if err == nil {
		e.watch, err = startWatch(e)
	}
	if err == nil {
		if err = writeJSON(e.control, frameAttach, had); err != nil {
			e.watch.end()
		}
	}
	if err != nil {
		if e.control != nil {
			e.control.Close()
		}
		e.link.forget(ctx, e.unit)
	}
	return err
}

// StopAll ends everything in the slice, of whichever driver, and returns when it is gone.
func (r *Runner) StopAll(ctx context.Context) error {
	l, err := r.bus.get(ctx)
	if err != nil {
		return err
	}
	if err := l.stop(ctx, r.options.Slice); err != nil {
		return err
	}
	for path := range r.sockets() {
		os.Remove(path)
	}
	return nil
}
