package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// detach asks for a detached job that says "one" when it starts, and goes. It returns the job's name.
func (w *world) detach(envelope []byte) string {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	var name string
	_, err := (&Client{Path: w.socket}).Run(ctx, Request{
		Envelope: envelope, Content: w.content, Detach: true, Started: func(n string) { name = n },
		Stdout: writerFunc(func(p []byte) (int, error) {
			if string(p) != "one" {
				w.t.Errorf("stdout %q", p)
			}
			cancel()
			return len(p), nil
		}),
	})
	if !errors.Is(err, context.Canceled) {
		w.t.Fatalf("the client got %v", err)
	}
	return name
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// attach follows a job, and returns what it printed, its outputs, and its result.
func (w *world) attach(name string) (out, outputs string, resp Response, err error) {
	w.t.Helper()
	var b, o bytes.Buffer
	resp, err = (&Client{Path: w.socket}).Attach(w.t.Context(), name, Request{Stdout: &b, Collect: func(_ string, r io.Reader) error {
		_, err := io.Copy(&o, r)
		return err
	}})
	return b.String(), o.String(), resp, err
}

func outputJob() *manifest.Job {
	j := newJob()
	j.Spec.Outputs = map[string]manifest.Target{"index": {Destination: "store"}}
	return j
}

// twoParts is a job that says "one", waits, says "two", and leaves an output.
func twoParts(release <-chan struct{}) runFunc {
	return func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		if _, err := io.WriteString(spec.Stdout, "one"); err != nil {
			return runner.Result{}, err
		}
		select {
		case <-release:
		case <-ctx.Done():
			return runner.Result{Reason: runner.ReasonCancelled}, nil
		}
		return secondPart(ctx, spec)
	}
}

func secondPart(_ context.Context, spec runner.Spec) (runner.Result, error) {
	if _, err := io.WriteString(spec.Stdout, "two"); err != nil {
		return runner.Result{}, err
	}
	if err := spec.Collect(spec.Outputs[0], strings.NewReader("NAR")); err != nil {
		return runner.Result{}, err
	}
	return runner.Result{Reason: runner.ReasonExit, Outputs: []runner.Collected{{Name: "index", NAR: digest.Of([]byte("NAR")), Size: 3}}}, nil
}

func wantUnknown(t *testing.T, err error) {
	t.Helper()
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeUnknown {
		t.Errorf("got %v, want code %s", err, CodeUnknown)
	}
}

func TestDetach(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release))
	name := w.detach(sign(t, outputJob(), "alice", "bob"))
	close(release)
	out, outputs, resp, err := w.attach(name)
	if err != nil || !resp.Result.OK() || out != "onetwo" || outputs != "NAR" {
		t.Errorf("got %v, %q, %q, %+v", err, out, outputs, resp)
	}
	settle(w.server.connections) // the client's last word has arrived
	_, _, _, err = w.attach(name)
	wantUnknown(t, err)
	if left, _ := os.ReadDir(w.server.tasks.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	settle(w.server.jobs)
}

func TestAnothersJob(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release))
	name := w.detach(sign(t, outputJob(), "alice", "bob"))
	w.server.tasks.mu.Lock()
	mine := w.server.tasks.list[name]
	mine.order.User++
	w.server.tasks.mu.Unlock()
	_, _, _, err := w.attach(name)
	wantUnknown(t, err)
	_, err = (&Client{Path: w.socket}).Cancel(t.Context(), name, Request{})
	wantUnknown(t, err)
	w.server.tasks.mu.Lock()
	mine.order.User--
	w.server.tasks.mu.Unlock()
	for _, bad := range []string{"../../etc", "job-" + strings.Repeat("0", 24) + "-../../../../x", name + "/order", strings.ToUpper(name)} {
		_, _, _, err = w.attach(bad)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeProtocol {
			t.Errorf("%q: %v", bad, err)
		}
	}
	resp, err := (&Client{Path: w.socket}).Cancel(t.Context(), name, Request{})
	if err != nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Errorf("got %+v, %v", resp, err)
	}
	settle(w.server.connections)
	settle(w.server.jobs)
}

// survivor is an execution that outlived its broker.
type survivor struct {
	wait   func(ctx context.Context, spec runner.Spec) (runner.Result, error)
	had    runner.Kept
	killed bool
}

func (s *survivor) Wait(ctx context.Context, spec runner.Spec, had runner.Kept) (runner.Result, error) {
	s.had = had
	return s.wait(ctx, spec)
}
func (s *survivor) Kill(context.Context) error { s.killed = true; return nil }

// nativeJob runs a program of an image, which can be taken up again, unlike a module.
func nativeJob(t *testing.T, w *world) []byte {
	t.Helper()
	j := outputJob()
	j.Spec.Runtime = manifest.RuntimeOCI
	j.Spec.Determinism = manifest.Determinism{Clock: manifest.ClockReal, Randomness: manifest.RandomReal}
	config := []byte(`{"architecture":"` + runtime.GOARCH + `","os":"linux","config":{"Entrypoint":["/bin/x"]},"rootfs":{"type":"layers","diff_ids":[]}}`)
	image := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		digest.Of(config).String() + `","size":` + strconv.Itoa(len(config)) + `},"layers":[]}`)
	w.blobs[digest.Of(config)], w.blobs[digest.Of(image)] = config, image
	j.Spec.Image = manifest.Ref{Scheme: manifest.RefOCI, Location: "example.org/x", Digest: digest.Of(image)}
	return sign(t, j, "alice", "bob")
}

// TestRestart stops the broker while a detached job runs; the next one takes it up.
func TestRestart(t *testing.T) {
	alive := map[string]Survivor{}
	survivors := func(o *Options) {
		o.Survivors = func(context.Context) (map[string]Survivor, error) { return alive, nil }
	}
	release := make(chan struct{})
	dir := t.TempDir()
	w := newWorldIn(t, dir, twoParts(release), survivors)
	native := w.detach(nativeJob(t, w))
	module := w.detach(sign(t, outputJob(), "alice", "bob"))
	random := outputJob()
	random.Spec.Determinism.Randomness = manifest.RandomReal
	unrepeatable := w.detach(sign(t, random, "alice", "bob"))
	w.stop()
	close(release) // what the old broker learns now is nobody's result, and it takes none of it

	// The job of a connection that is no more, and a directory that makes no sense.
	orphan := "job-" + strings.Repeat("1", 24) + "-" + strings.Repeat("2", 12)
	if _, err := newTask(w.server.tasks.dir, orphan, order{User: 1, Request: request{Version: 1, Envelope: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	broken := "job-" + strings.Repeat("3", 24) + "-" + strings.Repeat("4", 12)
	if err := os.Mkdir(filepath.Join(w.server.tasks.dir, broken), 0o700); err != nil {
		t.Fatal(err)
	}
	// The old broker was killed within an output, and within a frame.
	f, err := os.OpenFile(filepath.Join(w.server.tasks.dir, native, framesFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(appendFrame(nil, kindStderr, []byte("warning")))
	f.Write(appendFrame(nil, kindOutput, []byte(`{"name":"index"}`)))
	f.Write(appendFrame(nil, kindData, []byte("NA")))
	f.Write([]byte{0, 0, 0, 9, 'D', 'x'})
	f.Close()

	orphaned, brokenUnit, moduleUnit := &survivor{}, &survivor{}, &survivor{}
	taken := &survivor{wait: secondPart}
	alive[native] = taken
	alive[orphan], alive[broken], alive[module] = orphaned, brokenUnit, moduleUnit
	if err := os.Remove(w.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	repeat := make(chan struct{})
	close(repeat)
	next := newWorldIn(t, dir, twoParts(repeat), survivors)
	out, outputs, resp, err := next.attach(native)
	if err != nil || !resp.Result.OK() || outputs != "NAR" || out != "onetwo" {
		t.Errorf("got %v, %q, %q, %+v", err, out, outputs, resp)
	}
	if diff := cmp.Diff(runner.Kept{Stdout: 3, Stderr: 7}, taken.had); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	// A module cannot be taken up, but it can be run again, unless that would make a difference.
	out, outputs, resp, err = next.attach(module)
	if err != nil || !resp.Result.OK() || out != "onetwo" || outputs != "NAR" {
		t.Errorf("a module: got %v, %q, %q, %+v", err, out, outputs, resp)
	}
	_, _, _, err = next.attach(unrepeatable)
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeInternal || !strings.Contains(r.Message, "lost") {
		t.Errorf("a module with real randomness: %v", err)
	}
	if diff := cmp.Diff([]bool{true, true, true}, []bool{orphaned.killed, brokenUnit.killed, moduleUnit.killed}); diff != "" {
		t.Errorf("killed (-want +got):\n%s", diff)
	}
	next.running()
	settle(next.server.connections)
	if left, _ := os.ReadDir(next.server.tasks.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestWholeFrames wants the outputs that are whole, and nothing behind the last of them that is part of another.
func TestWholeFrames(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "frames"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var whole []byte
	for _, p := range []struct {
		k    kind
		body string
	}{{kindStdout, "1"}, {kindOutput, `{"name":"a"}`}, {kindData, "N"}, {kindData, "AR"}, {kindEnd, ""}} {
		whole = appendFrame(whole, p.k, []byte(p.body))
	}
	f.Write(appendFrame(appendFrame(whole, kindOutput, []byte(`{"name":"b"}`)), kindData, []byte("N")))
	good, kept, err := wholeFrames(f)
	want := runner.Kept{Stdout: 1, Outputs: []runner.Collected{{Name: "a", NAR: digest.Of([]byte("NAR")), Size: 3}}}
	if diff := cmp.Diff(want, kept); err != nil || good != int64(len(whole)) || diff != "" {
		t.Errorf("%d of %d bytes, %v (-want +got):\n%s", good, len(whole), err, diff)
	}
}

// running waits for the detached jobs.
func (w *world) running() { w.server.running.Wait() }

// TestKept bounds how much is kept, and for how long.
func TestKept(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release), func(o *Options) { o.Kept, o.Jobs = 1, 1 })
	envelope := sign(t, outputJob(), "alice", "bob")
	for range 2 {
		w.detach(envelope)
		release <- struct{}{}
		w.running()
		settle(w.server.jobs)
	}
	r := w.refused(envelope, CodeBusy)
	if !strings.Contains(r.Message, "2 jobs are kept") {
		t.Errorf("got %v", r)
	}
	w.server.tasks.sweep(now.Add(defaultKeep/2), defaultKeep)
	if n := len(w.server.tasks.list); n != 2 {
		t.Errorf("%d are kept", n)
	}
	w.server.tasks.sweep(now.Add(2*defaultKeep), defaultKeep)
	if n := len(w.server.tasks.list); n != 0 {
		t.Errorf("%d are kept for too long", n)
	}
}
