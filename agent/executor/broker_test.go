package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/broker"

	"github.com/google/go-cmp/cmp"
)

// newBroker starts a broker that trusts the same root and policy as the node, and returns its socket.
func newBroker(t *testing.T, run runFunc, policy *manifest.Policy) string {
	t.Helper()
	dir := tempDir(t)
	t.Cleanup(startBroker(t, dir, run, policy))
	return filepath.Join(dir, "socket")
}

// startBroker starts one in a directory, where one may have been before, and returns what stops it.
func startBroker(t *testing.T, dir string, run runFunc, policy *manifest.Policy) (stop func()) {
	t.Helper()
	for name, data := range map[string][]byte{"root": sign(t, newRoot(), "carol"), "policy": sign(t, policy, "carol")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := broker.New(t.Context(), broker.Options{
		Runner: run, Files: broker.Files{TrustRoot: filepath.Join(dir, "root"), Policy: filepath.Join(dir, "policy")},
		State: filepath.Join(dir, "state"), Users: []uint32{uint32(os.Geteuid())},
		Survivors: func(context.Context) (map[string]broker.Survivor, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	return func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Errorf("stop broker: %v", err)
		}
	}
}

func byBroker(t *testing.T, dir, socket string) executor.Driver {
	t.Helper()
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &executor.Broker{Client: broker.Client{Path: socket}, Store: s}
}

// TestBrokerGoesOn stops a node while the broker runs a job for it: the next node follows the same execution to its end, with all that was
// printed. A job that is cancelled is ended by the broker, too.
func TestBrokerGoesOn(t *testing.T) {
	begun, end := make(chan string, 2), make(chan struct{})
	run := func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		io.WriteString(spec.Stdout, "begun\n")
		begun <- spec.Name
		select {
		case <-end:
			return exits(ctx, spec)
		case <-ctx.Done():
			return runner.Result{Reason: runner.ReasonCancelled, Confinement: runner.Confinement{Driver: "test"}}, nil
		}
	}
	dir := tempDir(t)
	socket := newBroker(t, run, newPolicy())
	quick := func(o *executor.Options) { o.Drain = time.Millisecond }
	n := newNode(t, setup{dir: dir, driver: byBroker(t, dir, socket), change: quick})
	out := func(j *manifest.Job) {
		j.Spec.Outputs = map[string]manifest.Target{"x": {Destination: "store"}}
		j.Metadata.Owner = "user:alice"
	}
	j := n.submit(n.example("c-hello-wasm", out, nonce(1)))
	name := <-begun
	for got := (agent.Job{}); len(got.Attempts) == 0 || got.Attempts[0].Name != name; {
		var err error
		if got, err = n.Job(t.Context(), j.ID.String()); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
	n = newNode(t, setup{dir: dir, driver: byBroker(t, dir, socket), change: quick})
	close(end)
	j = n.await(j.ID)
	if j.State != agent.Archived || len(j.Attempts) != 1 || j.Attempts[0].Name != name || len(j.Outputs) != 1 {
		t.Fatalf("it is %s: %s; %+v", j.State, j.Summary, j.Attempts)
	}
	if got := n.log(j.ID, agent.LogQuery{Stream: "stdout"}); got != "begun\nhello\n" {
		t.Errorf("it printed %q", got)
	}
	want := []string{"proposal received", "admission accepted", "placement here", "start started", "result holds", "archive kept"}
	if diff := cmp.Diff(want, n.journal.verdicts(j.ID)); diff != "" {
		t.Errorf("ledger (-want +got)\n%s", diff)
	}
	checkReceipts(t, n, j)
}

// TestBrokerComesBack stops the broker while it runs a job, and starts it again: the node follows the job on, and what was printed before is
// in its log once.
func TestBrokerComesBack(t *testing.T) {
	begun := make(chan struct{}, 1)
	dir := tempDir(t)
	stop := startBroker(t, dir, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		io.WriteString(spec.Stdout, "begun\n")
		begun <- struct{}{}
		<-ctx.Done()
		return runner.Result{Reason: runner.ReasonCancelled, Confinement: runner.Confinement{Driver: "test"}}, nil
	}, newPolicy())
	n := newNode(t, setup{dir: dir, driver: byBroker(t, dir, filepath.Join(dir, "socket"))})
	j := n.submit(n.example("c-hello-wasm"))
	<-begun
	for printed := ""; printed != "begun\n"; {
		printed = n.log(j.ID, agent.LogQuery{Stream: "stdout"})
	}
	stop()
	t.Cleanup(startBroker(t, dir, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		io.WriteString(spec.Stdout, "begun\n")
		return exits(ctx, spec)
	}, newPolicy()))
	if j = n.await(j.ID); j.State != agent.Archived || len(j.Attempts) != 1 {
		t.Fatalf("it is %s: %s; %+v", j.State, j.Summary, j.Attempts)
	}
	if got := n.log(j.ID, agent.LogQuery{Stream: "stdout"}); got != "begun\nhello\n" {
		t.Errorf("it printed %q", got)
	}
}

// TestBrokerKnowsTickets has a node end after it asked and before it heard the execution's name: the next one finds it by what it had written
// down before it asked, and follows it, or ends it.
func TestBrokerKnowsTickets(t *testing.T) {
	begun, end := make(chan struct{}, 2), make(chan struct{})
	dir := tempDir(t)
	socket := newBroker(t, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		begun <- struct{}{}
		select {
		case <-end:
			return exits(ctx, spec)
		case <-ctx.Done():
			return runner.Result{Reason: runner.ReasonCancelled, Confinement: runner.Confinement{Driver: "test"}}, nil
		}
	}, newPolicy())
	d := byBroker(t, dir, socket)
	n := newNode(t, setup{dir: dir, driver: d}) // its store has what the jobs pin
	ask := func(number int) executor.Work {
		env := n.example("c-hello-wasm", nonce(number))
		w := executor.Work{Envelope: env, Name: d.Name(digest.Of(env), "i1")}
		ctx, leave := context.WithCancelCause(t.Context())
		go func() {
			<-begun
			leave(executor.ErrLeave)
		}()
		if _, err := d.Run(ctx, w); !errors.Is(err, executor.ErrLeave) {
			t.Fatalf("run: %v", err)
		}
		return w
	}
	w := ask(1)
	if err := d.End(t.Context(), w.Name); err != nil {
		t.Errorf("end: %v", err)
	}
	if _, err := d.Attach(t.Context(), w); !errors.Is(err, executor.ErrNoSurvivor) {
		t.Errorf("attach to what was ended: %v", err)
	}
	w = ask(2)
	var heard string
	w.Started = func(name string) error { heard = name; return nil }
	close(end)
	if o, err := d.Attach(t.Context(), w); err != nil || !o.Result.OK() || !strings.HasPrefix(heard, "job-") {
		t.Errorf("attach: %+v, %v, heard %q", o, err, heard)
	}
}

func TestBrokerCancels(t *testing.T) {
	begun, ended := make(chan string, 1), make(chan struct{})
	socket := newBroker(t, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		begun <- spec.Name
		<-ctx.Done()
		close(ended)
		return runner.Result{Reason: runner.ReasonCancelled, Confinement: runner.Confinement{Driver: "test"}}, nil
	}, newPolicy())
	dir := tempDir(t)
	n := newNode(t, setup{dir: dir, driver: byBroker(t, dir, socket)})
	j := n.submit(n.example("c-hello-wasm"))
	<-begun
	n.act(agent.VerbCancel, j.ID)
	<-ended
	if j = n.await(j.ID); j.State != agent.Cancelled {
		t.Errorf("it is %s: %s", j.State, j.Summary)
	}
}

// TestBrokerRefuses fails a job that the broker's own policy does not allow, with the broker's reason, whatever retries it may have.
func TestBrokerRefuses(t *testing.T) {
	strict := newPolicy()
	strict.Spec.Runtimes = []manifest.Runtime{manifest.RuntimeOCI}
	dir := tempDir(t)
	n := newNode(t, setup{dir: dir, driver: byBroker(t, dir, newBroker(t, exits, strict))})
	j := n.await(n.submit(n.example("c-hello-wasm", func(j *manifest.Job) { j.Spec.Retries = 3 })).ID)
	if j.State != agent.Failed || len(j.Attempts) != 1 || !strings.Contains(fmt.Sprint(j.Reasons), "runtime wasm is not allowed") {
		t.Errorf("it is %s after %d executions: %+v", j.State, len(j.Attempts), j.Reasons)
	}
}
