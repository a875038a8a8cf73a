package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

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
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	o := c.server.o
	q, err := c.request()
	if err != nil {
		return err
	}
	if q.Attach != "" {
		return c.attach(ctx, q)
	}
	now := o.Now()
	t, err := o.Files.load(now)
	if err == nil {
		err = c.server.ledger.noOlder(t)
	}
	if err != nil {
		return refuse(CodeTrust, refusalOf(err).Cure, "%v", err)
	}
	a, err := admit(q.Envelope, t, o.Names, now)
	if err != nil {
		return err
	}
	c.id = a.id
	select {
	case c.server.jobs <- struct{}{}:
	default:
		return refuse(CodeBusy, "try again when one has ended", "%d jobs are running, the most that the broker runs", o.Jobs)
	}
	g := &gatherer{server: c.server, left: o.Content, fetch: c.ask}
	unload := func() {}
	release := sync.OnceFunc(func() {
		unload()
		g.release()
		<-c.server.jobs
	})
	kept := false // by a detached job
	defer func() {
		if !kept {
			release()
		}
	}()
	content, err := g.gather(ctx, a.doc)
	if err != nil {
		return err
	}
	spec, err := derive(a, content, q, "")
	if err != nil {
		return err
	}
	// Gathering may have taken long.
	if reasons := job.Due(a.doc, o.Now()); len(reasons) > 0 {
		return refuse(CodeTime, reasons[0].Cure, "job %s: %s", a.doc.Metadata.Name, reasons[0].Msg)
	}
	claimed, err := c.server.load.take(a, spec.Limits)
	if err != nil {
		return err
	}
	unload = claimed
	at := o.Now().UnixMicro()
	c.server.tasks.sweep(o.Now(), o.Keep)
	onDisk, err := c.server.tasks.add(spec.Name, order{User: c.user, Started: at, Request: q}, o.Kept+o.Jobs, o.Cache)
	if err != nil {
		return err
	}
	if err := c.server.ledger.spend(a, o.Now()); err != nil {
		c.server.tasks.drop(onDisk)
		return err
	}
	begin := started{ID: a.id, Name: spec.Name, At: at}
	if q.Detach {
		if err := onDisk.send(kindStarted, begin); err != nil {
			return errors.Join(err, c.server.tasks.drop(onDisk))
		}
		kept = true
		return c.detached(ctx, a, onDisk, spec, release)
	}
	defer c.server.tasks.drop(onDisk)
	if err := c.send(kindStarted, begin); err != nil {
		return err
	}
	return c.execute(ctx, a, spec)
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
func (c *session) execute(ctx context.Context, a *admitted, spec runner.Spec) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	c.conn.SetReadDeadline(time.Time{})
	watch.Go(func() { cancel(c.listen()) })
	return perform(ctx, c.server, c, a, spec, func(ctx context.Context, spec runner.Spec) (runner.Result, error) {
		res, err := c.server.o.Runner.Run(ctx, spec)
		c.conn.SetReadDeadline(time.Unix(1, 0)) // ends listen
		watch.Wait()
		if cause, ok := errors.AsType[*protocolError](context.Cause(ctx)); ok {
			return runner.Result{}, cause
		}
		return res, err
	})
}

// errDone says that listening is over because the job is.
var errDone = errors.New("the job is over")

// listen returns when the client closes the connection or sends something, which it must not.
func (c *session) listen() error {
	var b [1]byte
	_, err := c.conn.Read(b[:])
	switch {
	case err == nil:
		return protocolErrorf("the client sent something while its job was running")
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
