package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/checkpoint"
)

// stoppable is a checkpointable job, under a policy that lets it be one.
func (w *world) stoppable(name string) []byte {
	p := newPolicy()
	p.Spec.Capabilities.Allow = append(p.Spec.Capabilities.Allow, "checkpoint")
	w.write("policy.json", sign(w.t, p, "carol"))
	j := newJob()
	j.Metadata.Name, j.Spec.Checkpointable = name, true
	return sign(w.t, j, "alice", "bob")
}

// stops is a module that prints its gas and is stopped at StopAt or when it is told to; it ends at 100 gas.
func stops(ctx context.Context, spec runner.Spec, o checkpoint.Options) (runner.Result, *checkpoint.Checkpoint, error) {
	used := uint64(10)
	if o.From != nil {
		used = o.From.Gas
	}
	if o.StopAt == 0 && o.From == nil {
		if _, err := spec.Stdout.Write([]byte("one")); err != nil {
			return runner.Result{}, nil, err
		}
		select {
		case <-o.Stop:
		case <-ctx.Done():
			return runner.Result{Reason: runner.ReasonCancelled}, nil, nil
		}
	} else if o.StopAt == 0 {
		return runner.Result{Reason: runner.ReasonExit, Usage: runner.Usage{Gas: 100 + used}}, nil, nil
	}
	c := &checkpoint.Checkpoint{Module: o.Module, Gas: max(used, o.StopAt) + 1, Granted: used, Version: "v", Entry: "_start"}
	_, err := o.Into.Write(c.Marshal())
	return runner.Result{Reason: runner.ReasonCancelled, Usage: runner.Usage{Gas: c.Gas}}, c, err
}

func TestSnapshot(t *testing.T) {
	w := newWorld(t, exits, func(o *Options) { o.Checkpoint = stops })
	client := &Client{Path: w.socket}
	ask := func(env []byte, q Request) (Response, error) {
		q.Envelope, q.Content = env, w.content
		return client.Run(t.Context(), q)
	}
	want := func(err error, code Code) {
		t.Helper()
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != code {
			t.Errorf("got %v, want a refusal with code %q", err, code)
		}
	}
	j := newJob()
	j.Spec.Checkpointable = true
	w.refused(sign(t, j, "alice", "bob"), CodePolicy)
	_, err := ask(sign(t, newJob(), "alice", "bob"), Request{StopAt: 50})
	want(err, CodeSpec)

	env, other := w.stoppable("count"), w.stoppable("other")
	first, err := ask(env, Request{StopAt: 50})
	if err != nil || first.Snapshot == nil || first.Snapshot.Gas != 51 || first.Result.Reason != runner.ReasonCancelled {
		t.Fatalf("got %+v, %v", first, err)
	}
	_, err = ask(env, Request{Snapshot: digest.Of([]byte("made up"))})
	want(err, CodeUnknown)
	_, err = ask(other, Request{Snapshot: first.Snapshot.Digest})
	want(err, CodeUnknown)
	second, err := ask(env, Request{Snapshot: first.Snapshot.Digest, StopAt: 70})
	if err != nil || second.Snapshot == nil || second.Snapshot.Gas != 71 {
		t.Fatalf("got %+v, %v", second, err)
	}
	_, err = ask(env, Request{Snapshot: first.Snapshot.Digest}) // it has gone on
	want(err, CodeUnknown)
	last, err := ask(env, Request{Snapshot: second.Snapshot.Digest})
	if err != nil || last.Snapshot != nil || last.Result.Gas != 171 {
		t.Errorf("got %+v, %v", last, err)
	}

	damaged, err := ask(env, Request{StopAt: 50})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.server.snapshots.dir, damaged.Snapshot.Digest.Hex())
	data, err := os.ReadFile(file)
	if err == nil {
		data[60]++
		err = errors.Join(os.Remove(file), os.WriteFile(file, data, 0o400))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask(env, Request{Snapshot: damaged.Snapshot.Digest})
	want(err, CodeInternal)
	if err := w.server.snapshots.sweep(time.Now().Add(48*time.Hour), time.Hour); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(w.server.snapshots.dir); err != nil || len(left) > 0 {
		t.Errorf("snapshots are left: %v, %v", left, err)
	}
	w.alive()
}

// TestStopOrder stops jobs where they stand: by their connection, and a detached one by another.
func TestStopOrder(t *testing.T) {
	w := newWorld(t, twoParts(nil), func(o *Options) { o.Checkpoint = stops })
	client := &Client{Path: w.socket}
	order := func() (chan struct{}, writerFunc) {
		stop := make(chan struct{})
		return stop, func(p []byte) (int, error) { close(stop); return len(p), nil }
	}
	env := w.stoppable("count")
	stop, out := order()
	resp, err := client.Run(t.Context(), Request{Envelope: env, Content: w.content, Stop: stop, Stdout: out})
	if err != nil || resp.Snapshot == nil {
		t.Errorf("by its connection: %+v, %v", resp, err)
	}
	name := w.detach(env)
	stop, out = order()
	resp, err = client.Attach(t.Context(), name, Request{Stop: stop, Stdout: out})
	if err != nil || resp.Snapshot == nil {
		t.Errorf("by another: %+v, %v", resp, err)
	}
	stop, out = order()
	_, err = client.Run(t.Context(), Request{Envelope: sign(t, newJob(), "alice", "bob"), Content: w.content, Stop: stop, Stdout: out})
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeProtocol {
		t.Errorf("of a job that cannot be: %v", err)
	}
	name = w.detach(sign(t, newJob(), "alice", "bob"))
	stop, out = order()
	_, err = client.Attach(t.Context(), name, Request{Stop: stop, Stdout: out})
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeProtocol {
		t.Errorf("of a detached job that cannot be: %v", err)
	}
	if resp, err := client.Cancel(t.Context(), name, Request{}); err != nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Errorf("cancel: %+v, %v", resp, err)
	}
}
