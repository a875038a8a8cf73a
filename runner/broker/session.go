package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/job"
)

// session is one connection, from the broker's side.
type session struct {
	server *Server
	conn   *net.UnixConn
	user   uint32
	in     frameReader
	id     digest.SHA256 // of the document, when it is admitted
	reason runner.Reason

	mu  sync.Mutex // guards writes to conn, and buf
	buf []byte
}

func newSession(s *Server, conn *net.UnixConn, user uint32) *session {
	return &session{server: s, conn: conn, user: user, in: frameReader{r: conn}}
}

// run is everything between the first frame and the last.
func (c *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.endRead)
	defer stop()
	q, err := c.request()
	if err != nil {
		return err
	}
	switch {
	case q.Watch:
		return c.watch(ctx)
	case q.existing():
		return c.attach(ctx, q)
	}
	by, forget := c.server.tasks.ask(c.user, q.Ticket)
	defer forget()
	if t, err := c.server.tasks.ticket(c.user, q); err != nil {
		return err
	} else if t != nil {
		c.id = t.id
		return c.follow(ctx, t)
	}
	a, err := c.server.judge(q)
	if err != nil {
		return err
	}
	c.id = a.id
	select {
	case c.server.jobs <- struct{}{}:
	default:
		return refuse(CodeBusy, "try again when one has ended", "%d jobs are running, the most that the broker runs", c.server.o.Jobs)
	}
	hold := &holding{give: []func(){func() { <-c.server.jobs }}}
	defer hold.release()
	w, err := c.server.work(a, q, hold)
	if err != nil {
		return err
	}
	spec, err := c.prepare(ctx, a, q, hold)
	if err != nil {
		return err
	}
	return c.start(ctx, a, q, by, spec, w, hold)
}

// holding is what a job has of the broker: a place among the running, content, a share of what all may use. A detached job
// takes it along.
type holding struct{ give []func() }

func (h *holding) add(f func()) { h.give = append(h.give, f) }

// release gives everything back, once: what was taken last first.
func (h *holding) release() {
	for _, f := range slices.Backward(h.give) {
		f()
	}
	h.give = nil
}

// pass hands everything to another holding.
func (h *holding) pass() *holding {
	other := &holding{give: h.give}
	h.give = nil
	return other
}

// judge reads what is trusted, as it is now, and admits the request's job or refuses it.
func (s *Server) judge(q request) (*admitted, error) {
	now := s.o.Now()
	t, err := s.o.Files.load(now)
	if err == nil {
		err = s.ledger.noOlder(t)
	}
	if err != nil {
		return nil, refuse(CodeTrust, refusalOf(err).Cure, "%v", err)
	}
	return admit(q.Envelope, t, s.o.Names, now)
}

// prepare gathers what the job pins, derives its confinement, and sees whether there is room for it.
func (c *session) prepare(ctx context.Context, a *admitted, q request, hold *holding) (runner.Spec, error) {
	o := c.server.o
	g := &gatherer{server: c.server, left: o.Content, fetch: c.ask}
	hold.add(g.release)
	content, err := g.gather(ctx, a.doc)
	if err != nil {
		return runner.Spec{}, err
	}
	spec, err := derive(a, content, q, "")
	if err != nil {
		return runner.Spec{}, err
	}
	// Gathering may have taken long.
	if reasons := job.Due(a.doc, o.Now()); len(reasons) > 0 {
		return runner.Spec{}, refuse(CodeTime, reasons[0].Cure, "job %s: %s", a.doc.Metadata.Name, reasons[0].Msg)
	}
	unload, err := c.server.load.take(a, spec.Limits)
	if err != nil {
		return runner.Spec{}, err
	}
	hold.add(unload)
	return spec, nil
}

// start puts the job on disk, counts it if it may run only so often, and runs it.
func (c *session) start(ctx context.Context, a *admitted, q request, by *asking, spec runner.Spec, w *work, hold *holding) error {
	s := c.server
	at := s.o.Now()
	s.tasks.sweep(at, s.o.Keep)
	if err := s.snapshots.sweep(time.Now(), s.o.Keep); err != nil {
		s.o.Log.WarnContext(ctx, "snapshots not swept", "error", err)
	}
	if q.Detach && c.left() {
		return protocolErrorf("the client is gone")
	}
	t, isNew, err := s.tasks.add(spec.Name, order{User: c.user, Started: at.UnixMicro(), Request: q}, by, s.o.Kept+s.o.Jobs, s.o.Cache)
	if err != nil {
		return err
	}
	if !isNew {
		hold.release()
		return c.follow(ctx, t)
	}
	begin := started{ID: a.id, Name: spec.Name, At: at.UnixMicro()}
	if q.Snapshot.IsZero() { // else it was counted when it began
		err = s.ledger.spend(a, at)
	}
	if err == nil && q.Detach {
		err = t.send(kindStarted, begin)
	}
	if err != nil {
		s.tasks.drop(t)
		return err
	}
	if q.Detach {
		return c.detached(ctx, a, t, spec, w, hold.pass())
	}
	defer s.tasks.drop(t)
	if err := c.send(kindStarted, begin); err != nil {
		return err
	}
	return c.execute(ctx, a, spec, w)
}

// request reads the first frame.
func (c *session) request() (request, error) {
	c.conn.SetReadDeadline(time.Now().Add(c.server.o.RequestTime))
	_, body, err := c.in.next(kindRequest)
	if errors.Is(err, io.EOF) {
		return request{}, protocolErrorf("the connection ended before a request")
	}
	if err != nil {
		return request{}, err
	}
	var q request
	if err := decode(body, &q); err != nil {
		return request{}, err
	}
	c.in.body = nil // content needs another size
	return q, q.validate()
}

// degradation is how a policy spells that the weaker confinement of a host without namespaces is enough.
const degradation = "namespaces"

// derive makes the Spec. Its name is the broker's choice, so that nobody can collide with another's job; name is that of a
// Spec that was derived before, or empty.
func derive(a *admitted, content job.Content, q request, name string) (runner.Spec, error) {
	degraded := false
	for _, d := range a.trust.policy.Spec.Degradations {
		degraded = degraded || d == degradation
	}
	instance := newInstance()
	if name != "" {
		instance = name[strings.LastIndexByte(name, '-')+1:]
	}
	return job.Derive(a.doc, content, job.Options{
		ID: a.id, Policy: a.trust.policy, Instance: instance, Timeout: time.Duration(q.Timeout) * time.Millisecond,
		Interpret: q.Interpret, Degraded: degraded,
	})
}

// execute runs the job, and ends it when the client goes or speaks.
func (c *session) execute(ctx context.Context, a *admitted, spec runner.Spec, w *work) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	c.conn.SetReadDeadline(time.Time{})
	watch.Go(func() { cancel(c.listen(w.stop)) })
	run := w.run
	w.run = func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		res, err := run(ctx, spec)
		c.endRead()
		watch.Wait()
		if cause, ok := errors.AsType[*protocolError](context.Cause(ctx)); ok {
			return runner.Result{}, cause
		}
		return res, err
	}
	return perform(ctx, c.server, c, a, spec, w)
}

// left reports whether the client has closed the connection: whom nobody has told that his job runs, and who may have cancelled it
// before its request was read, gets none.
func (c *session) left() bool {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		closed = n == 0 && err == nil || errors.Is(err, unix.ECONNRESET)
	})
	return closed || err != nil
}

// endRead ends the reading that goes on, as that of listen.
func (c *session) endRead() { c.conn.SetReadDeadline(time.Unix(1, 0)) }

// errDone says that listening is over because the job is.
var errDone = errors.New("the job is over")

// listen returns when the client closes the connection or sends something that it must not: all but the order to stop, where there is a stopper.
func (c *session) listen(s *stopper) error {
	var err error
	for err == nil && s != nil {
		if _, _, err = c.in.next(kindStop); err == nil {
			s.stop()
		}
	}
	if s == nil {
		var b [1]byte
		_, err = c.conn.Read(b[:])
	}
	_, wrong := errors.AsType[*protocolError](err)
	switch {
	case err == nil:
		return protocolErrorf("the client sent something while its job was running")
	case wrong:
		return err
	case errors.Is(err, io.EOF):
		return protocolErrorf("the client is gone")
	case isTimeout(err):
		return errDone // not the client, but the end of the job or of the broker
	}
	return fmt.Errorf("the client is gone: %w", err)
}

// send sends a message.
func (c *session) send(k kind, message any) error {
	frame, err := encode(k, message)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(frame)
}

// frame sends raw bytes.
func (c *session) frame(k kind, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = appendFrame(c.buf[:0], k, body)
	return c.write(c.buf)
}

// write writes a frame; the caller holds mu.
func (c *session) write(frame []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(c.server.o.WriteTime))
	if _, err := c.conn.Write(frame); err != nil {
		return fmt.Errorf("answer the client: %w", err)
	}
	return nil
}

// refuse sends the last frame. The client may be gone.
func (c *session) refuse(r *Refusal) {
	frame, err := encode(kindRefusal, r.bounded())
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	c.conn.Write(frame)
}

// ask asks the client for an item.
func (c *session) ask(item Item) (io.Reader, error) {
	if err := c.send(kindNeed, item); err != nil {
		return nil, err
	}
	return &contentReader{c: c, item: item, start: time.Now()}, nil
}

// slowest is the rate, in bytes a second, below which a client is too slow.
const slowest = 1 << 20

// contentReader reads the frames of one item up to its end.
type contentReader struct {
	c     *session
	item  Item
	start time.Time
	size  int64
	rest  []byte
	done  bool
}

func (r *contentReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.frame(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// frame reads one frame. Each must come in time, and all together not too slowly.
func (r *contentReader) frame() error {
	patience := r.c.server.o.RequestTime
	all := r.start.Add(3*patience + time.Duration(r.size/slowest)*time.Second)
	if soon := time.Now().Add(patience); soon.Before(all) {
		all = soon
	}
	r.c.conn.SetReadDeadline(all)
	k, body, err := r.c.in.next(kindData, kindEnd, kindLack)
	switch {
	case errors.Is(err, io.EOF):
		return protocolErrorf("the client is gone")
	case err != nil:
		return err
	}
	switch k {
	case kindEnd:
		r.done = true
	case kindLack:
		var l lack
		if err := decode(body, &l); err != nil {
			return err
		}
		return refuse(CodeContent, "fetch it first", "the client does not have the %s %s of %s: %.500q", r.item.Kind, r.item.Digest, r.item.Ref, l.Reason)
	default:
		if len(body) == 0 {
			return protocolErrorf("a data frame is empty")
		}
		r.rest, r.size = body, r.size+int64(len(body))
	}
	return nil
}
