package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/broker"
)

const driverBroker = "broker"

// fitsBroker reports whether auto would hand a job to the broker: an ordinary user's, where there is one.
func fitsBroker() error {
	if os.Geteuid() == 0 {
		return errors.New("root needs no broker")
	}
	info, err := os.Lstat(brokerSocket())
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("there is no broker at %s", brokerSocket())
	}
	return nil
}

// brokerSocket is where the broker listens.
func brokerSocket() string {
	if path := os.Getenv("ARCH_BROKER"); path != "" {
		return path
	}
	return broker.DefaultSocket
}

// brokerRunner has the broker run the document. What it does with it, it derives by itself: of a Spec it takes only where
// things go.
type brokerRunner struct {
	envelope  []byte
	store     *store.Store
	fetch     *source.Fetcher
	timeout   time.Duration
	interpret bool
	told      func(broker.Response)

	checkpoint *checkpointed // nil: it is not stopped
	stopAt     uint64
}

// Run implements runner.Runner.
func (b *brokerRunner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	client := broker.Client{Path: brokerSocket()}
	q := broker.Request{
		Envelope: b.envelope, Timeout: b.timeout, Interpret: b.interpret, Content: b.content, Stdout: spec.Stdout, Stderr: spec.Stderr,
		Collect: func(name string, nar io.Reader) error { return spec.Collect(runner.Output{Name: name}, nar) },
	}
	if c := b.checkpoint; c != nil && c.dir != "" {
		q.StopAt, q.Stop = b.stopAt, ctx.Done()
		if c.broker != nil {
			q.Snapshot = c.broker.Digest
		}
		ctx = context.WithoutCancel(ctx) // the job itself goes on until it has stopped
	}
	response, err := client.Run(ctx, q)
	if err != nil {
		return runner.Result{}, refusedByBroker(err)
	}
	b.told(response)
	if s := response.Snapshot; s != nil && b.checkpoint != nil {
		err = b.checkpoint.keepWithBroker(s)
		return response.Result, err
	}
	return response.Result, nil
}

// content opens what the broker asks for; it was fetched before.
func (b *brokerRunner) content(ctx context.Context, item broker.Item) (io.ReadCloser, error) {
	switch item.Kind {
	case broker.Blob:
		return b.store.OpenBlob(item.Digest)
	case broker.Module: // the store knows what its reference became
		ref, err := manifest.ParseRef(item.Ref)
		if err != nil {
			return nil, err
		}
		got, err := b.fetch.FetchRef(ctx, ref)
		if err != nil {
			return nil, err
		}
		return broker.DumpTree(ctx, got.Path), nil
	}
	path, ok := b.store.TreePath(item.Digest)
	if !ok {
		return nil, fmt.Errorf("tree %s: %w", item.Digest, fs.ErrNotExist)
	}
	return broker.DumpTree(ctx, path), nil
}

// refusedByBroker gives a refusal its exit status.
func refusedByBroker(err error) error {
	refusal, ok := errors.AsType[*broker.Refusal](err)
	if !ok {
		return err
	}
	err = hinted(fmt.Errorf("the broker refuses: %w", err), refusal.Cure)
	switch refusal.Code {
	case broker.CodePeer, broker.CodeQuorum, broker.CodePolicy, broker.CodeTime, broker.CodeAudience, broker.CodeReplay, broker.CodeTrust:
		return withStatus(exitDenied, err)
	case broker.CodeSignature, broker.CodeEnvelope, broker.CodeDigest:
		return withStatus(exitVerification, err)
	case broker.CodeContent:
		return withStatus(exitInputsMissing, err)
	}
	return err
}
