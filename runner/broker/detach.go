package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// Survivor is an execution that went on while there was no broker; runner/systemd has them.
type Survivor interface {
	// Wait does what Run would have done from now on, for somebody who has that much of what it printed. See systemd.Running.
	Wait(ctx context.Context, spec runner.Spec, had runner.Kept) (runner.Result, error)
	// Kill ends it and returns when it is gone.
	Kill(ctx context.Context) error
}

// sink takes what a job says: its connection, or its task.
type sink interface {
	send(k kind, message any) error
	frame(k kind, body []byte) error
}

// tasks are the jobs that are on disk.
type tasks struct {
	dir string

	mu   sync.Mutex // guards list, asked and left
	list map[string]*task
	// asked are the requests for detached jobs with a ticket that are no tasks yet.
	asked map[*asking]struct{}
	left  bool // the broker is going, and its jobs stay: nothing that happens to them now is their end

	bell bell // rings when there is something to tell of a job
}

func openTasks(dir string) (*tasks, error) {
	if err := makeOwn(dir); err != nil {
		return nil, err
	}
	return &tasks{dir: dir, list: map[string]*task{}, asked: map[*asking]struct{}{}}, nil
}

// asking is a request that may become a task.
type asking struct {
	user    uint32
	ticket  string
	revoked bool // it must not any more
}

// ask notes that a request may become a task soon. Forget is called when it has, or never will.
func (t *tasks) ask(user uint32, ticket string) (a *asking, forget func()) {
	a = &asking{user: user, ticket: ticket}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked[a] = struct{}{}
	return a, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.asked, a)
	}
}

// cancel returns the task that find does. If there is none, a request for it that is under way will not become one: who hears that the
// job is unknown can rely on its never running.
func (t *tasks) cancel(name, ticket string, user uint32) (*task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.findLocked(name, ticket, user)
	for a := range t.asked {
		if err != nil && ticket != "" && a.user == user && a.ticket == ticket {
			a.revoked = true
		}
	}
	return n, err
}

// add makes a task of what was asked for, unless there are too many, or they keep too many bytes. If one has the ticket, it returns that,
// and nothing is new.
func (t *tasks) add(name string, o order, by *asking, most int, bytes int64) (n *task, isNew bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if by.revoked {
		return nil, false, protocolErrorf("the job was cancelled before it started")
	}
	if n, err := t.holder(o.User, o.Request); n != nil || err != nil {
		return n, false, err
	}
	for _, n := range t.list {
		size, _, _ := n.state()
		bytes -= size
	}
	if bytes < 0 && o.Request.Detach {
		return nil, false, refuse(CodeBusy, "take the results of those that are over", "the results that are kept are larger than the broker has room for")
	}
	if len(t.list) >= most {
		return nil, false, refuse(CodeBusy, "take the results of those that are over", "%d jobs are kept, the most that the broker keeps", len(t.list))
	}
	if n, err = newTask(t.dir, name, o); err != nil {
		return nil, false, err
	}
	t.put(n)
	return n, true, nil
}

// put adds a task to the list; the caller holds mu, or nobody else has t yet.
func (t *tasks) put(n *task) {
	n.bell = &t.bell
	t.list[n.name] = n
	t.bell.ring()
}

// find returns a task of a user, by its name or, with none, by its ticket. Another's might as well not be there.
func (t *tasks) find(name, ticket string, user uint32) (*task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.findLocked(name, ticket, user)
}

// findLocked does what find does; the caller holds mu.
func (t *tasks) findLocked(name, ticket string, user uint32) (*task, error) {
	n, ok := t.list[name]
	if name == "" {
		name = ticket
		for _, n = range t.list {
			if ok = n.order.User == user && n.order.Request.Ticket == ticket; ok {
				break
			}
		}
	}
	if !ok || n.order.User != user || !n.order.Request.Detach {
		return nil, refuse(CodeUnknown, "its result is kept until it is taken, and for a day at most", "there is no job %q of this user", name)
	}
	return n, nil
}

// drop forgets a task.
func (t *tasks) drop(n *task) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.list, n.name)
	t.bell.ring()
	return n.remove()
}

// sweep forgets what is over and was not taken in time.
func (t *tasks) sweep(now time.Time, keep time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, n := range t.list {
		if _, done, _ := n.state(); done && n.age(now) > keep {
			delete(t.list, name)
			t.bell.ring()
			n.remove()
		}
	}
}

// leave says that the broker goes and its detached jobs stay.
func (t *tasks) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = true
	for _, n := range t.list {
		n.leave()
	}
}

// finish writes a task's last frame.
func (t *tasks) finish(n *task, k kind, message any) error {
	frame, err := encode(k, message)
	if err != nil {
		return err
	}
	return n.finish(frame)
}

// attach is a connection to a job that is there already.
func (c *session) attach(ctx context.Context, q request) error {
	find := c.server.tasks.find
	if q.Cancel {
		find = c.server.tasks.cancel
	}
	t, err := find(q.Attach, q.Ticket, c.user)
	if err != nil {
		return err
	}
	c.id = digest.SHA256{}
	if q.Cancel {
		t.abort(protocolErrorf("the client cancelled it"))
	}
	return c.follow(ctx, t)
}

// follow sends a task's frames from the first to the last, as they come. If the client says that it has them, the task is
// forgotten.
func (c *session) follow(ctx context.Context, t *task) error {
	f, err := os.Open(filepath.Join(t.dir, framesFile))
	if err != nil {
		return err
	}
	defer f.Close()
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	taken := make(chan error, 1)
	c.conn.SetReadDeadline(time.Time{})
	go func() {
		k, _, err := c.in.next(kindEnd, kindStop)
		for err == nil && k == kindStop {
			if err = t.halt(); err == nil {
				k, _, err = c.in.next(kindEnd, kindStop)
			}
		}
		if _, done, _ := t.state(); err == nil && !done {
			err = protocolErrorf("the client took a result that is not there yet")
		}
		if err != nil {
			cancel(err)
		}
		taken <- err
	}()
	err = c.copyFrames(ctx, f, t)
	if err != nil {
		c.endRead()
		<-taken
		if outer.Err() != nil { // the broker is being stopped
			return context.Cause(outer)
		}
		if p, ok := errors.AsType[*protocolError](context.Cause(ctx)); ok {
			return p
		}
		return errFollowerGone
	}
	c.conn.SetReadDeadline(time.Now().Add(c.server.o.RequestTime))
	if <-taken == nil {
		return c.server.tasks.drop(t)
	}
	return nil // it may come again
}

// errFollowerGone ends a session, and not its job.
var errFollowerGone = errors.New("the client is gone, its job is not")

// copyFrames sends what f has and will have, until the task is done.
func (c *session) copyFrames(ctx context.Context, f *os.File, t *task) error {
	buf := make([]byte, maxData)
	var at int64
	for {
		size, done, changed := t.state()
		for at < size {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
			if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
				return err
			}
			c.mu.Lock()
			err = c.write(buf[:n])
			c.mu.Unlock()
			if err != nil {
				return err
			}
			at += int64(n)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// detached runs an admitted job apart from its connection, which then follows it.
func (c *session) detached(ctx context.Context, a *admitted, t *task, spec runner.Spec, w *work, hold *holding) error {
	s := c.server
	jobCtx, cancel := context.WithCancelCause(s.lasting)
	t.control(cancel, w.stop)
	s.running.Go(func() {
		defer hold.release()
		defer cancel(nil)
		s.conclude(jobCtx, t, func() error { return perform(jobCtx, s, t, a, spec, w) })
	})
	return c.follow(ctx, t)
}

// conclude does the work of a detached job, and sees to it that it gets a last frame.
func (s *Server) conclude(ctx context.Context, t *task, work func() error) {
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the broker failed: %v", p)
			}
		}()
		return work()
	}()
	if err != nil {
		err = s.tasks.finish(t, kindRefusal, refusalOf(err).bounded())
	}
	if err != nil {
		s.o.Log.ErrorContext(ctx, "result not kept", "name", t.name, "error", err)
	}
}

// perform has a job run, with a sink for what it says, up to the last frame.
func perform(ctx context.Context, s *Server, to sink, a *admitted, spec runner.Spec, w *work) error {
	spec.Stdout, spec.Stderr = stream{to, kindStdout}, stream{to, kindStderr}
	if t, ok := to.(*task); ok {
		spec.Observe = t.observe
	}
	spec.Collect = func(out runner.Output, nar io.Reader) error { return collect(to, out, nar) }
	settled := false
	settle := func(res runner.Result) error {
		settled = true
		last := result{Finished: s.o.Now().UnixMicro(), Result: toWire(res), Policy: &policyUsed{a.trust.policyID, a.trust.policy.Metadata.Name}, Snapshot: w.snapshot}
		if t, ok := to.(*task); ok {
			return s.tasks.finish(t, kindResult, last)
		}
		to.(*session).reason = res.Reason
		return to.send(kindResult, last)
	}
	if _, ok := to.(*task); ok && spec.Module == nil { // what the runner makes of a module is another execution, with another result
		spec.Settle = settle
	}
	res, err := w.run(ctx, spec)
	if err != nil || settled {
		return err
	}
	return settle(res)
}

// collect sends an output.
func collect(to sink, out runner.Output, nar io.Reader) error {
	if err := to.send(kindOutput, output{Name: out.Name}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{stream{to, kindData}}, struct{ io.Reader }{nar}, make([]byte, maxData)); err != nil {
		return err
	}
	return to.frame(kindEnd, nil)
}

// stream sends what is written to it in frames of one kind.
type stream struct {
	to   sink
	kind kind
}

func (s stream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += maxData {
		if err := s.to.frame(s.kind, p[n:min(n+maxData, len(p))]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}
