package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"arch.network/attest/digest"
	"arch.network/builder/store"
	"arch.network/runner/broker"
)

// Broker is the Driver that hands a job over to arch-runnerd, which verifies and derives it by itself. Executions are detached: they
// go on when the node ends, and are followed again when it starts.
type Broker struct {
	Client broker.Client
	Store  *store.Store // what the broker asks for is in it. Required
}

var _ Driver = (*Broker)(nil)

// Name implements Driver: the broker makes names up.
func (b *Broker) Name(digest.SHA256, string) string { return "" }

// Run implements Driver.
func (b *Broker) Run(ctx context.Context, w Work) (Outcome, error) {
	return b.follow(ctx, w, func(ctx context.Context, q broker.Request) (broker.Response, error) {
		q.Envelope, q.Timeout, q.Detach = w.Envelope, w.Timeout, true
		return b.Client.Run(ctx, q)
	})
}

// Attach implements Driver.
func (b *Broker) Attach(ctx context.Context, w Work) (Outcome, error) {
	if w.Name == "" {
		return Outcome{}, ErrNoSurvivor
	}
	o, err := b.follow(ctx, w, func(ctx context.Context, q broker.Request) (broker.Response, error) {
		return b.Client.Attach(ctx, w.Name, q)
	})
	if r, ok := errors.AsType[*broker.Refusal](err); ok && r.Code == broker.CodeUnknown {
		return o, ErrNoSurvivor
	}
	return o, err
}

// follow does one exchange. A detached job does not end with it: it is ended by name.
func (b *Broker) follow(ctx context.Context, w Work, ask func(context.Context, broker.Request) (broker.Response, error)) (Outcome, error) {
	name := w.Name
	var nameErr error
	resp, err := ask(ctx, broker.Request{
		Content: b.content, Stdout: w.Stdout, Stderr: w.Stderr, Collect: w.Collect,
		Started: func(started string) {
			if name = started; w.Started != nil {
				nameErr = w.Started(started)
			}
		},
	})
	if ctx.Err() != nil && name != "" {
		if errors.Is(context.Cause(ctx), ErrLeave) {
			return Outcome{}, ErrLeave
		}
		if resp, err = b.Client.Cancel(context.WithoutCancel(ctx), name, broker.Request{}); err != nil {
			return Outcome{}, fmt.Errorf("end execution: %w", err)
		}
	}
	if err = errors.Join(err, nameErr); err != nil {
		return Outcome{}, final(err)
	}
	return Outcome{Result: resp.Result, Started: resp.Started, Finished: resp.Finished}, nil
}

// final marks the refusals that would come again.
func final(err error) error {
	r, ok := errors.AsType[*broker.Refusal](err)
	if !ok {
		return err
	}
	switch r.Code {
	case broker.CodeBusy, broker.CodeTimeout, broker.CodeSetup, broker.CodeInternal, broker.CodeTrust:
		return err
	}
	return &FinalError{err}
}

// content opens what the broker asks for; it was fetched before.
func (b *Broker) content(ctx context.Context, item broker.Item) (io.ReadCloser, error) {
	if item.Kind == broker.Tree {
		path, ok := b.Store.TreePath(item.Digest)
		if !ok {
			return nil, fmt.Errorf("tree %s: %w", item.Digest, fs.ErrNotExist)
		}
		return broker.DumpTree(ctx, path), nil
	}
	return b.Store.OpenBlob(item.Digest)
}

// Survivors implements Driver. The broker tells nobody what it keeps: Attach finds out.
func (b *Broker) Survivors(context.Context) ([]string, error) { return nil, nil }

// End implements Driver.
func (b *Broker) End(ctx context.Context, name string) error {
	_, err := b.Client.Cancel(ctx, name, broker.Request{})
	if r, ok := errors.AsType[*broker.Refusal](err); ok && r.Code == broker.CodeUnknown {
		return nil
	}
	return err
}
