package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/broker"
)

// Broker is the Driver that hands a job over to arch-runnerd, which verifies and derives it by itself. Executions are detached: they go on
// when the node ends, and are followed again when it starts. When the broker ends they go on, too: it is asked again until it is back.
type Broker struct {
	Client broker.Client
	Store  *store.Store // what the broker asks for is in it. Required
}

var _ Driver = (*Broker)(nil)

// brokerPatience is how long the broker may be away before its executions count as lost: what its unit may take to start
// (TimeoutStartSec= in package unit).
const brokerPatience = 5 * time.Minute

// Name implements Driver. It is the ticket with which the broker is asked, and under which it knows the execution beside the name that it
// makes up: whenever this process ends, the next one finds what was asked for.
func (b *Broker) Name(id digest.SHA256, instance string) string {
	return ticketPrefix + id.Hex()[:24] + "-" + instance
}

// ticketPrefix tells tickets from the broker's names.
const ticketPrefix = "ask-"

// heard returns the broker's name of an execution; empty: nothing but its ticket is known.
func heard(name string) string {
	if strings.HasPrefix(name, ticketPrefix) {
		return ""
	}
	return name
}

// Run implements Driver.
func (b *Broker) Run(ctx context.Context, w Work) (Outcome, error) {
	return b.follow(ctx, w, false)
}

// Attach implements Driver.
func (b *Broker) Attach(ctx context.Context, w Work) (Outcome, error) {
	if w.Name == "" {
		return Outcome{}, ErrNoSurvivor
	}
	o, err := b.follow(ctx, w, true)
	if r, ok := errors.AsType[*broker.Refusal](err); ok && r.Code == broker.CodeUnknown {
		return o, ErrNoSurvivor
	}
	return o, err
}

// follow has a job run, or follows one that was started, to its end. It does not end with the conversation: it is ended by name.
func (b *Broker) follow(ctx context.Context, w Work, started bool) (Outcome, error) {
	name := w.Name
	var nameErr error
	stdout, stderr := &replayed{to: w.Stdout}, &replayed{to: w.Stderr}
	q := broker.Request{
		Envelope: w.Envelope, Timeout: w.Timeout, Detach: true, Ticket: w.Name,
		Content: b.content, Stdout: stdout, Stderr: stderr, Collect: w.Collect,
		Started: func(called string) {
			started = true
			if name = called; w.Started != nil {
				nameErr = w.Started(called)
			}
		},
	}
	resp, err := insist(ctx, func() (broker.Response, error) {
		stdout.again()
		stderr.again()
		if started {
			return b.Client.Attach(ctx, heard(name), q)
		}
		return b.Client.Run(ctx, q)
	})
	if ctx.Err() != nil && name != "" {
		if errors.Is(context.Cause(ctx), ErrLeave) {
			return Outcome{}, ErrLeave
		}
		if resp, err = b.cancel(ctx, name); err != nil {
			return Outcome{}, fmt.Errorf("end execution: %w", err)
		}
	}
	if err = errors.Join(err, nameErr); err != nil {
		return Outcome{}, final(err)
	}
	return Outcome{Result: resp.Result, Started: resp.Started, Finished: resp.Finished}, nil
}

// cancel ends an execution, whatever has become of ctx. One that the broker does not know has not started, and never will.
func (b *Broker) cancel(ctx context.Context, name string) (broker.Response, error) {
	ctx = context.WithoutCancel(ctx)
	resp, err := insist(ctx, func() (broker.Response, error) {
		return b.Client.Cancel(ctx, heard(name), broker.Request{Ticket: name})
	})
	if r, ok := errors.AsType[*broker.Refusal](err); ok && r.Code == broker.CodeUnknown {
		return broker.Response{Result: runner.Result{Reason: runner.ReasonCancelled}}, nil
	}
	return resp, err
}

// insist asks again while the broker is away, until it has been for too long: what it runs does not end with it.
func insist(ctx context.Context, ask func() (broker.Response, error)) (broker.Response, error) {
	const first, most = 50 * time.Millisecond, 2 * time.Second
	wait := first
	var gone time.Time // since when; zero: it is there
	for {
		asked := time.Now()
		resp, err := ask()
		if !away(err) || ctx.Err() != nil {
			return resp, err
		}
		now := time.Now()
		if gone.IsZero() || now.Sub(asked) > 2*most { // it was there for a while
			gone, wait = now, first
		}
		if now.Sub(gone) > brokerPatience {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return resp, err
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

// away reports whether an error says that there is no broker, or will be none in a moment.
func away(err error) bool {
	_, lost := errors.AsType[*broker.LostError](err)
	_, unreachable := errors.AsType[*broker.UnreachableError](err)
	r, refused := errors.AsType[*broker.Refusal](err)
	return lost || unreachable || refused && r.Code == broker.CodeStopping
}

// replayed passes on what it has not passed on before, of a story that is told from its beginning each time.
type replayed struct {
	to           io.Writer // nil: nobody listens
	passed, skip int64     // bytes
}

// again says that the story begins anew.
func (r *replayed) again() { r.skip = r.passed }

// Write implements io.Writer.
func (r *replayed) Write(p []byte) (int, error) {
	old := int(min(r.skip, int64(len(p))))
	r.skip -= int64(old)
	if r.to == nil || old == len(p) {
		return len(p), nil
	}
	n, err := r.to.Write(p[old:])
	r.passed += int64(n)
	return old + n, err
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
	_, err := b.cancel(ctx, name)
	return err
}
