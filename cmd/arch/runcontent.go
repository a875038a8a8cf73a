package main

import (
	"context"
	"errors"

	"arch.network/agent/content"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/closure"
)

// runshop is everything that running a job needs, opened.
type runshop struct {
	app      *app
	store    *store.Store
	lease    *store.Lease
	fetch    *source.Fetcher
	progress *progress
	driver   driver
	runner   runner.Runner
	closers  []func() error // called last to first
}

func (a *app) openRunshop(t *jobTarget, o runOptions) (*runshop, error) {
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	w := &runshop{app: a, store: s, progress: newProgress(a), driver: t.driver}
	w.closers = append(w.closers, s.Close)
	if w.lease, err = s.Lease(context.Background()); err != nil {
		w.close()
		return nil, err
	}
	w.closers = append(w.closers, w.lease.Release)
	w.fetch = a.newFetcher(s, o.fetchFlags, w.progress)
	return w, nil
}

// close releases everything. What fails then has no effect on the job.
func (w *runshop) close() {
	w.progress.end()
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// fetchJob gets everything that the document refers to. What is missing offline is reported for all of it at once.
func (w *runshop) fetchJob(ctx context.Context, t *jobTarget, o runOptions) (*content.Content, error) {
	images, err := w.app.cacheDir("images")
	if err != nil {
		return nil, err
	}
	beside := append(append([]string{t.dir}, o.content...), defaultResult)
	w.fetch.Archives = append(w.fetch.Archives, content.Layouts(t.doc, beside)...)
	g := &content.Gatherer{Store: w.store, Fetch: w.fetch, Images: images, CDI: o.cdi}
	w.closers = append(w.closers, g.Close)
	c, err := g.Gather(ctx, t.doc, content.Options{Base: t.dir, Beside: beside})
	return c, pinStatus(err)
}

// pinStatus gives content that is not what its pin says the exit status of a failed verification.
func pinStatus(err error) error {
	if _, ok := errors.AsType[*source.PinError](err); ok {
		return withStatus(exitVerification, err)
	}
	if _, ok := errors.AsType[*closure.HashError](err); ok {
		return withStatus(exitVerification, err)
	}
	return err
}
