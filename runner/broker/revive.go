package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"arch.network/attest/manifest"
	"arch.network/runner"
)

// revive takes up what an earlier broker left: results that were not taken, detached jobs that still run, detached modules, which
// run again from their start, and jobs of connections that are no more, which are ended.
func (s *Server) revive(ctx context.Context) error {
	entries, err := os.ReadDir(s.tasks.dir)
	if err != nil {
		return fmt.Errorf("take up jobs: %w", err)
	}
	alive := map[string]Survivor{}
	if s.o.Survivors != nil {
		if alive, err = s.o.Survivors(ctx); err != nil {
			return fmt.Errorf("take up jobs: %w", err)
		}
	}
	for _, entry := range entries {
		name := entry.Name()
		if !taskName().MatchString(name) {
			continue
		}
		t, err := openTask(s.tasks.dir, name)
		if err != nil {
			s.o.Log.WarnContext(ctx, "job forgotten", "name", name, "error", err)
			err := os.RemoveAll(filepath.Join(s.tasks.dir, name))
			if j := alive[name]; j != nil {
				err = errors.Join(err, j.Kill(ctx))
			}
			if err != nil {
				return fmt.Errorf("forget job %s: %w", name, err)
			}
			continue
		}
		s.tasks.put(t)
		if err := s.reviveOne(ctx, t, alive[name]); err != nil {
			return fmt.Errorf("take up job %s: %w", name, err)
		}
	}
	s.tasks.sweep(s.o.Now(), s.o.Keep)
	return nil
}

func (s *Server) reviveOne(ctx context.Context, t *task, j Survivor) error {
	switch {
	case t.done && j != nil: // it waits to hear that its outcome has arrived
		return j.Kill(ctx)
	case t.done:
		return nil
	case !t.order.Request.Detach:
		if j != nil {
			if err := j.Kill(ctx); err != nil {
				return err
			}
		}
		return s.tasks.drop(t)
	}
	a, spec, release, err := s.again(ctx, t)
	var w *work
	if err == nil {
		hold := &holding{give: []func(){release}}
		if w, err = s.work(a, t.order.Request, hold); err != nil {
			hold.release()
		}
		release = hold.release
	}
	switch {
	case err != nil && j == nil:
		err = errLost
	case err != nil:
	case spec.Module == nil && j != nil:
		w.run = func(ctx context.Context, spec runner.Spec) (runner.Result, error) { return j.Wait(ctx, spec, t.kept) }
	case spec.Module == nil || !repeatable(a.doc, spec):
		release()
		err = errLost
	default:
		if err = t.restart(); err == nil {
			err = t.send(kindStarted, started{ID: a.id, Name: t.name, At: t.order.Started})
		}
		if err != nil {
			release()
		}
	}
	if j != nil && (err != nil || spec.Module != nil) {
		if killErr := j.Kill(ctx); killErr != nil {
			if err == nil {
				release()
			}
			return killErr
		}
	}
	if err != nil {
		s.conclude(ctx, t, func() error { return err })
		return nil
	}
	// It runs, so it counts, also where there would be no room for it now.
	unload, err := s.load.take(a, spec.Limits)
	if err != nil {
		unload = func() {}
	}
	leave := func() {}
	select {
	case s.jobs <- struct{}{}:
		leave = func() { <-s.jobs }
	default:
	}
	jobCtx, cancel := context.WithCancelCause(s.lasting)
	t.control(cancel, w.stop)
	s.running.Go(func() {
		defer leave()
		defer unload()
		defer release()
		defer cancel(nil)
		s.conclude(jobCtx, t, func() error { return perform(jobCtx, s, t, a, spec, w) })
	})
	return nil
}

// repeatable reports whether a module can be run again without anybody noticing: what it does is a function of pinned content, and
// it leaves nothing anywhere but its outputs.
func repeatable(doc *manifest.Job, spec runner.Spec) bool {
	c := doc.Spec.Capabilities
	return spec.Module != nil && spec.Module.Clock != nil && spec.Module.Seed != nil && spec.Network.IsZero() && len(c.FS)+len(c.Net)+len(c.Devices) == 0
}

// errLost is the end of a job whose outcome nobody has seen.
var errLost = refuse(CodeInternal, "run it again", "the broker was stopped while the job ran, and its outcome is lost")

// again derives the Spec of a task as it was when it started. All content must be in the cache still.
func (s *Server) again(ctx context.Context, t *task) (*admitted, runner.Spec, func(), error) {
	now := time.UnixMicro(t.order.Started)
	tr, err := s.o.Files.load(s.o.Now())
	if err != nil {
		return nil, runner.Spec{}, nil, refuse(CodeTrust, "", "%v", err)
	}
	a, err := admit(t.order.Request.Envelope, tr, s.o.Names, now)
	if err != nil {
		return nil, runner.Spec{}, nil, err
	}
	g := &gatherer{server: s, fetch: func(Item) (io.Reader, error) { return nil, errLost }}
	content, err := g.gather(ctx, a.doc)
	if err != nil {
		g.release()
		return nil, runner.Spec{}, nil, err
	}
	spec, err := derive(a, content, t.order.Request, t.name)
	if err != nil {
		g.release()
		return nil, runner.Spec{}, nil, err
	}
	return a, spec, g.release, nil
}
