package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

func (w *world) client() *Client { return &Client{Path: w.socket} }

func (w *world) request(envelope []byte, ticket string) Request {
	return Request{Envelope: envelope, Content: w.content, Ticket: ticket}
}

// errSeen ends watching.
var errSeen = errors.New("seen")

// TestWatch drives jobs as a program does that runs for long: it submits, watches all of them over one connection, and takes results.
func TestWatch(t *testing.T) {
	release := make(chan struct{})
	part := twoParts(release)
	w := newWorld(t, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		spec.Observe(runner.Usage{Wall: time.Second, CPU: 2 * time.Second, MemoryPeak: 3, IORead: 4, IOWrite: 5})
		return part(ctx, spec)
	})
	c, envelope := w.client(), sign(t, outputJob(), "alice", "bob")
	if jobs, err := c.Jobs(t.Context()); err != nil || len(jobs) > 0 {
		t.Fatalf("got %v, %v", jobs, err)
	}
	first, err := c.Submit(t.Context(), w.request(envelope, "one"))
	if err != nil {
		t.Fatal(err)
	}
	watching, told := make(chan struct{}), make(chan error, 1)
	var seen []string
	second := make(chan struct{}) // it was seen to run
	go func() {
		told <- c.Watch(t.Context(), func(jobs []Job) error {
			if len(seen) == 0 {
				close(watching)
			}
			for _, j := range jobs {
				s := fmt.Sprint(j.Ticket, " ", j.Phase)
				if len(seen) == 0 || seen[len(seen)-1] != s {
					seen = append(seen, s)
					if s == "two running" {
						close(second)
					}
				}
				if s == "two gone" {
					if j.Usage.CPU != 2*time.Second || j.Usage.IOWrite != 5 || !j.Started.Equal(now) {
						t.Errorf("told %+v", j)
					}
					return errSeen
				}
			}
			return nil
		})
	}()
	<-watching
	release <- struct{}{}
	if resp, err := c.Attach(t.Context(), first, Request{}); err != nil || !resp.Result.OK() {
		t.Fatalf("got %+v, %v", resp, err)
	}
	name, err := c.Submit(t.Context(), w.request(envelope, "two"))
	if err != nil {
		t.Fatal(err)
	}
	<-second
	release <- struct{}{}
	if resp, err := c.Attach(t.Context(), name, Request{}); err != nil || !resp.Result.OK() {
		t.Fatalf("got %+v, %v", resp, err)
	}
	if err := <-told; !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one running", "one over", "one gone", "two running", "two over", "two gone"}, seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	settle(w.server.connections)
	settle(w.server.jobs)
}

// TestWatchEnds has the broker stopped while somebody watches, although it would let jobs go on for an hour.
func TestWatchEnds(t *testing.T) {
	w := newWorld(t, exits, func(o *Options) { o.Drain = time.Hour })
	watching, told := make(chan struct{}), make(chan error, 1)
	go func() {
		told <- w.client().Watch(t.Context(), func([]Job) error {
			close(watching)
			return nil
		})
	}()
	<-watching
	w.stop()
	if r, ok := errors.AsType[*Refusal](<-told); !ok || r.Code != CodeStopping {
		t.Errorf("got %v", r)
	}
	if _, err := w.client().Jobs(t.Context()); err == nil {
		t.Error("it still answers")
	} else if _, ok := errors.AsType[*UnreachableError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestTicket asks twice for the same, as after a crash between asking and hearing the answer.
func TestTicket(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release))
	c, envelope := w.client(), sign(t, outputJob(), "alice", "bob")
	name, err := c.Submit(t.Context(), w.request(envelope, "42"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Submit(t.Context(), w.request(envelope, "42")); err != nil || again != name {
		t.Errorf("got %q, %v; the first was %q", again, err, name)
	}
	other := outputJob()
	other.Metadata.Name = "other"
	_, err = c.Submit(t.Context(), w.request(sign(t, other, "alice", "bob"), "42"))
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeTicket {
		t.Errorf("another document: %v", err)
	}
	release <- struct{}{} // to the one that has started
	if n := w.started(); n != 1 {
		t.Errorf("%d jobs ran", n)
	}
	// Run with the same ticket follows it; what is not kept is left.
	q := w.request(envelope, "42")
	q.Detach = true
	lost := errors.New("no room")
	for _, want := range []error{lost, ErrLeave, nil} {
		q.Keep = func(resp Response, err error) error {
			if err != nil || !resp.Result.OK() {
				t.Errorf("keep %+v, %v", resp, err)
			}
			return want
		}
		resp, err := c.Run(t.Context(), q)
		if !resp.Result.OK() || errors.Is(want, lost) != errors.Is(err, lost) || !errors.Is(want, lost) && err != nil {
			t.Errorf("got %+v, %v", resp, err)
		}
	}
	settle(w.server.connections)
	if jobs, err := c.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("left: %v, %v", jobs, err)
	}
	if n := w.started(); n != 1 {
		t.Errorf("%d jobs ran", n)
	}
	settle(w.server.jobs)
}

// TestCancelBeforeStart cancels a job whose content the broker is still being sent: it must never run.
func TestCancelBeforeStart(t *testing.T) {
	w := newWorld(t, exits)
	q := w.request(sign(t, outputJob(), "alice", "bob"), "early")
	content := q.Content
	q.Content = func(ctx context.Context, item Item) (io.ReadCloser, error) {
		_, err := w.client().Cancel(ctx, "", Request{Ticket: "early"})
		wantUnknown(t, err)
		return content(ctx, item)
	}
	_, err := w.client().Submit(t.Context(), q)
	if r, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(r.Message, "cancelled before it started") {
		t.Errorf("got %v", err)
	}
	// The ticket can be used again, and a client that has gone before its request was read gets no job.
	q.Content, q.Ticket = content, "early"
	if _, err := w.client().Submit(t.Context(), q); err != nil {
		t.Error(err)
	}
	w.running()
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := encode(kindRequest, request{Version: 1, Envelope: q.Envelope, Detach: true, Ticket: "late"})
	if err != nil {
		t.Fatal(err)
	}
	w.server.tasks.mu.Lock() // which each request needs
	conn.Write(frame)
	conn.Close()
	w.server.tasks.mu.Unlock()
	settle(w.server.connections)
	w.running()
	if n := w.started(); n != 1 {
		t.Errorf("%d jobs ran, want the one that was not cancelled", n)
	}
}

// TestTicketOutlivesBroker finds a job by its ticket after a restart.
func TestTicketOutlivesBroker(t *testing.T) {
	dir, alive := t.TempDir(), map[string]Survivor{}
	survivors := func(o *Options) {
		o.Survivors = func(context.Context) (map[string]Survivor, error) { return alive, nil }
	}
	release := make(chan struct{})
	w := newWorldIn(t, dir, twoParts(release), survivors)
	envelope := nativeJob(t, w)
	name, err := w.client().Submit(t.Context(), w.request(envelope, "t"))
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	close(release)
	alive[name] = &survivor{wait: secondPart}
	next := newWorldIn(t, dir, exits, survivors)
	if again, err := next.client().Submit(t.Context(), next.request(envelope, "t")); err != nil || again != name {
		t.Errorf("got %q, %v; it was %q", again, err, name)
	}
	_, outputs, resp, err := next.attach(name)
	if err != nil || outputs != "NAR" || !resp.Result.OK() {
		t.Errorf("got %q, %+v, %v", outputs, resp, err)
	}
	next.running()
	settle(next.server.connections)
}

// TestByTicket follows and ends jobs of which only the ticket is known, as after a crash before their names were heard.
func TestByTicket(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release))
	if _, err := w.client().Submit(t.Context(), w.request(sign(t, outputJob(), "alice", "bob"), "ask-1")); err != nil {
		t.Fatal(err)
	}
	close(release)
	var out bytes.Buffer
	if resp, err := w.client().Attach(t.Context(), "", Request{Ticket: "ask-1", Stdout: &out}); err != nil || out.String() != "onetwo" || !resp.Result.OK() {
		t.Errorf("got %q, %+v, %v", out.String(), resp, err)
	}
	other := outputJob()
	other.Metadata.Name = "endless"
	w = newWorld(t, twoParts(nil))
	if _, err := w.client().Submit(t.Context(), w.request(sign(t, other, "alice", "bob"), "ask-2")); err != nil {
		t.Fatal(err)
	}
	w.server.tasks.mu.Lock()
	for _, n := range w.server.tasks.list {
		n.order.User++
	}
	w.server.tasks.mu.Unlock()
	_, err := w.client().Cancel(t.Context(), "", Request{Ticket: "ask-2"})
	wantUnknown(t, err) // it is another's
	w.server.tasks.mu.Lock()
	for _, n := range w.server.tasks.list {
		n.order.User--
	}
	w.server.tasks.mu.Unlock()
	if resp, err := w.client().Cancel(t.Context(), "", Request{Ticket: "ask-2"}); err != nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Errorf("cancel: got %+v, %v", resp, err)
	}
	for _, ask := range []func(context.Context, string, Request) (Response, error){w.client().Attach, w.client().Cancel} {
		_, err := ask(t.Context(), "", Request{Ticket: "ask-3"})
		wantUnknown(t, err)
		for _, bad := range []string{"", "../ask"} {
			_, err = ask(t.Context(), "", Request{Ticket: bad})
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeProtocol {
				t.Errorf("ticket %q: %v", bad, err)
			}
		}
	}
	settle(w.server.connections)
	settle(w.server.jobs)
}

// TestManyFollowers has several read the log of a running job.
func TestManyFollowers(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, twoParts(release))
	name, err := w.client().Submit(t.Context(), w.request(sign(t, outputJob(), "alice", "bob"), ""))
	if err != nil {
		t.Fatal(err)
	}
	const followers = 4
	logs := make([]strings.Builder, followers)
	started, ended := make(chan struct{}, 2*followers), make(chan error, followers)
	for i := range followers {
		go func() {
			_, err := w.client().Attach(t.Context(), name, Request{
				Stdout: writerFunc(func(p []byte) (int, error) { started <- struct{}{}; return logs[i].Write(p) }),
				Keep:   func(Response, error) error { return ErrLeave },
			})
			ended <- err
		}()
	}
	for range followers {
		<-started
	}
	close(release)
	for range followers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for i := range logs {
		if got := logs[i].String(); got != "onetwo" {
			t.Errorf("follower %d read %q", i, got)
		}
	}
	if _, outputs, _, err := w.attach(name); err != nil || outputs != "NAR" {
		t.Errorf("got %q, %v", outputs, err)
	}
	settle(w.server.connections)
	settle(w.server.jobs)
}

// TestWatchRefuses lists what nobody may ask together.
func TestWatchRefuses(t *testing.T) {
	w := newWorld(t, exits)
	envelope := sign(t, newJob(), "alice", "bob")
	for name, q := range map[string]request{
		"watch a job":                {Watch: true, Attach: "job-" + strings.Repeat("0", 24) + "-" + strings.Repeat("0", 12)},
		"watch and run":              {Watch: true, Envelope: envelope},
		"a ticket without detaching": {Envelope: envelope, Ticket: "x"},
		"a path as ticket":           {Envelope: envelope, Detach: true, Ticket: "../x"},
		"a long ticket":              {Envelope: envelope, Detach: true, Ticket: strings.Repeat("x", 65)},
	} {
		q.Version = protocolVersion
		if r := w.talk(message(t, kindRequest, q)); r.Code != CodeProtocol {
			t.Errorf("%s: %v", name, r)
		}
	}
	w.alive()
}
