package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
)

// DefaultSocket is where the broker listens.
const DefaultSocket = "/run/arch-runnerd/socket"

// Client asks a broker. The zero value asks the one at DefaultSocket; it may be used by several goroutines at once.
type Client struct {
	Path string // of the socket; empty: DefaultSocket
}

// Request is one job.
type Request struct {
	Envelope  []byte        // the DSSE envelope of a Job, as JSON
	Timeout   time.Duration // shortens what the document and the policy allow, to the millisecond; zero: it does not
	Interpret bool          // run a module without compiling it

	// Content opens what the document pins, when the broker does not have it yet: the bytes of a Blob, the NAR of a Tree. Run closes
	// it. An error that wraps fs.ErrNotExist, or any other, ends the job before it starts.
	Content func(ctx context.Context, item Item) (io.ReadCloser, error)

	// Detach lets the job go on when the connection ends, whether by Run's context or because this process does. Attach follows it
	// again, by the name that Started gets; its result is kept until somebody has taken it, for a day at most.
	Detach bool

	// Ticket is what the client calls a detached job: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', unique among the jobs of its user that the broker has.
	// Asking again with the same document and ticket, as after a crash between asking and hearing the answer, does not start another job: it follows
	// the one that is there. With another document it is refused with CodeTicket. Empty: asking again runs it again.
	Ticket string

	// StopAt stops a checkpointable job at the first place after this much gas; zero: it goes on to its end.
	StopAt uint64
	// Stop stops a checkpointable job where it stands when it is closed; also one that is attached to. Nil: never.
	Stop <-chan struct{}
	// Snapshot goes on from where the same job was stopped, by the same broker: Response.Snapshot. Zero: it begins at its beginning.
	Snapshot digest.SHA256

	// Started is called when the job starts, with its name. Nil: no call.
	Started        func(name string)
	Stdout, Stderr io.Writer // nil: discarded
	// Collect receives each output as a NAR; see runner.Spec.Collect. What it was given is what the result's digest says,
	// once Run has returned without error. Nil: outputs are discarded.
	Collect func(name string, nar io.Reader) error
	// Keep is called, for a detached job that is over, with what Run is about to return, so that it can be made to last: only when Keep has returned
	// nil does the broker forget the job. ErrLeave leaves the result with the broker and is no error; any other error leaves it too, and is
	// returned. Nil: the broker forgets the job at once.
	Keep func(Response, error) error
}

// ErrLeave makes a Request.Keep leave the result where it is, for somebody to take it later.
var ErrLeave = errors.New("leave the result with the broker")

// Response is what came of it.
type Response struct {
	Result            runner.Result
	Started, Finished time.Time     // by the broker's clock
	ID                digest.SHA256 // of the document that ran
	Policy            string        // metadata.name of the policy that allowed it
	PolicyID          digest.SHA256
	Snapshot          *Snapshot // of a job that was stopped where it stood; nil: it came to an end
}

// UnreachableError says that there is no broker to talk to.
type UnreachableError struct {
	Path string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("reach broker at %s: %v", e.Path, e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// LostError says that the broker went away in the middle. A detached job may go on: attach to it, or ask with its Ticket again, when the
// broker is back.
type LostError struct{ Err error }

func (e *LostError) Error() string { return e.Err.Error() }
func (e *LostError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *LostError) Hint() string {
	return "see whether the broker is back: systemctl status arch-runnerd"
}

// Hint tells the way out.
func (e *UnreachableError) Hint() string {
	return "start it: systemctl start arch-runnerd.socket; its socket belongs to the user who may ask"
}

// Run has a job run and returns when it is over. Cancelling ctx ends it. The error is a *Refusal if the broker said no,
// an *UnreachableError if there is none.
func (c *Client) Run(ctx context.Context, q Request) (Response, error) {
	return c.do(ctx, q, q.first())
}

// first is the frame that asks for q.
func (q Request) first() request {
	return request{
		Version: protocolVersion, Envelope: q.Envelope, Timeout: q.Timeout.Milliseconds(), Interpret: q.Interpret, Detach: q.Detach, Ticket: q.Ticket,
		StopAt: integer(q.StopAt), Snapshot: q.Snapshot,
	}
}

// Submit has a job run detached and returns its name as soon as it has started; Attach follows it, Watch tells when it is over. Errors are those of Run; a
// LostError leaves open whether it started: ask again with the same Ticket.
func (c *Client) Submit(ctx context.Context, q Request) (name string, err error) {
	q.Detach = true
	q.Started = func(n string) { name = n }
	e, err := c.open(ctx, q)
	if err != nil {
		return "", err
	}
	defer e.close()
	e.submit = true
	if _, err = e.run(q.first()); errors.Is(err, errSubmitted) {
		return name, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return "", err
}

// errSubmitted ends the conversation of Submit.
var errSubmitted = errors.New("the job has started")

// Attach follows a detached job of the same user from its start on, as Run would have: the one of that name or, with no name, the one that
// was asked for with q.Ticket. Otherwise, of q only where things go counts.
func (c *Client) Attach(ctx context.Context, name string, q Request) (Response, error) {
	return c.do(ctx, q, q.about(name))
}

// Cancel ends a detached job, which it finds as Attach does, and follows it to its end.
func (c *Client) Cancel(ctx context.Context, name string, q Request) (Response, error) {
	first := q.about(name)
	first.Cancel = true
	return c.do(ctx, q, first)
}

// about is the frame that asks for a job that is there already.
func (q Request) about(name string) request {
	if name != "" {
		return request{Version: protocolVersion, Attach: name}
	}
	return request{Version: protocolVersion, Ticket: q.Ticket}
}

func (c *Client) do(ctx context.Context, q Request, first request) (Response, error) {
	e, err := c.open(ctx, q)
	if err != nil {
		return Response{}, err
	}
	defer e.close()
	resp, err := e.run(first)
	if err != nil && !e.last && ctx.Err() != nil {
		return Response{}, ctx.Err()
	}
	if e.last && !e.resp.ID.IsZero() && (first.Detach || first.existing()) {
		return resp, e.settle(resp, err)
	}
	return resp, err
}

// settle hands a result over before the broker may forget it.
func (e *exchange) settle(resp Response, err error) error {
	if keep := e.q.Keep; keep != nil {
		switch kept := keep(resp, err); {
		case errors.Is(kept, ErrLeave):
			return err
		case kept != nil:
			return kept
		}
	}
	e.taken()
	return err
}

// open connects. The conversation ends with ctx; the caller closes it.
func (c *Client) open(ctx context.Context, q Request) (*exchange, error) {
	path := c.Path
	if path == "" {
		path = DefaultSocket
	}
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, &UnreachableError{path, err}
	}
	e := &exchange{ctx: ctx, conn: conn, in: frameReader{r: conn}, q: q, sums: map[string]digest.SHA256{}}
	e.stop = context.AfterFunc(ctx, func() { conn.Close() })
	return e, nil
}

func (e *exchange) close() {
	e.stop()
	e.endStop()
	e.conn.Close()
}

// dial connects. While more wait to be accepted than the socket has room for, the kernel says so, and it tries again for a while.
func dial(ctx context.Context, path string) (net.Conn, error) {
	const tries, wait = 100, 50 * time.Millisecond
	for i := 0; ; i++ {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil || i == tries || !errors.Is(err, unix.EAGAIN) || !pause(ctx, wait) {
			return conn, err
		}
	}
}

// taken says that the result was taken, and waits until the broker has heard it. If it does not, it keeps the result a while.
func (e *exchange) taken() {
	const patience = 5 * time.Second
	e.endStop()
	e.conn.SetDeadline(time.Now().Add(patience))
	if e.write(appendFrame(nil, kindEnd, nil)) == nil {
		e.in.next() // returns when the broker closes the connection
	}
}

// exchange is one connection, from the client's side.
type exchange struct {
	ctx  context.Context
	conn net.Conn
	in   frameReader
	q    Request
	buf  []byte
	resp Response
	sums map[string]digest.SHA256 // of the outputs, as they were received
	last bool                     // the last frame was received

	stop   func() bool // ends the watching of ctx
	submit bool        // the conversation ends when the job starts

	over     chan struct{}  // closed when no order to stop may be sent any more; nil: none can come
	ordering sync.WaitGroup // of sending it
}

// watchStop sends the order to stop when it is given.
func (e *exchange) watchStop() {
	if e.q.Stop == nil || e.over != nil {
		return
	}
	over := make(chan struct{})
	e.over = over
	e.ordering.Go(func() {
		select {
		case <-e.q.Stop:
			e.conn.Write(appendFrame(nil, kindStop, nil)) // a broker that is gone needs no order
		case <-over:
		}
	})
}

// endStop ends that.
func (e *exchange) endStop() {
	if e.over == nil {
		return
	}
	close(e.over)
	e.over = nil
	e.conn.SetWriteDeadline(time.Unix(1, 0)) // if it is being written
	e.ordering.Wait()
	e.conn.SetWriteDeadline(time.Time{})
}

func (e *exchange) run(first request) (Response, error) {
	frame, err := encode(kindRequest, first)
	if err != nil {
		return Response{}, fmt.Errorf("ask broker: %w", err)
	}
	if err := e.write(frame); err != nil {
		return Response{}, err
	}
	for {
		k, body, err := e.in.next(kindNeed, kindStarted, kindStdout, kindStderr, kindOutput, kindResult, kindRefusal)
		if err != nil {
			return Response{}, lost(err)
		}
		if k == kindResult {
			err := e.result(body)
			return e.resp, err
		}
		if err := e.frame(k, body); err != nil {
			return Response{}, err
		}
	}
}

// lost is what a failure to read from the broker means: it has gone, unless it says what it must not.
func lost(err error) error {
	if _, wrong := errors.AsType[*protocolError](err); wrong && !errors.Is(err, errCut) {
		return fmt.Errorf("read from broker: %w", err)
	}
	if errors.Is(err, io.EOF) {
		return &LostError{errors.New("the broker closed the connection without a result")}
	}
	return &LostError{fmt.Errorf("read from broker: %w", err)}
}

// frame does what a frame before the last one asks for.
func (e *exchange) frame(k kind, body []byte) error {
	switch k {
	case kindNeed:
		var item Item
		if err := decode(body, &item); err != nil {
			return lost(err)
		}
		return e.provide(item)
	case kindStarted:
		var s started
		if err := decode(body, &s); err != nil {
			return lost(err)
		}
		e.resp.ID, e.resp.Started = s.ID, time.UnixMicro(s.At).UTC()
		if e.q.Started != nil {
			e.q.Started(s.Name)
		}
		if e.submit {
			return errSubmitted
		}
		e.watchStop()
		return nil
	case kindStdout:
		return pass(e.q.Stdout, body)
	case kindStderr:
		return pass(e.q.Stderr, body)
	case kindOutput:
		var o output
		if err := decode(body, &o); err != nil {
			return lost(err)
		}
		return e.collect(o.Name)
	}
	return e.refused(body)
}

func (e *exchange) refused(body []byte) error {
	r := new(Refusal)
	if err := decode(body, r); err != nil {
		return lost(err)
	}
	e.last = true
	return r
}

func pass(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// provide sends an item.
func (e *exchange) provide(item Item) error {
	err := errors.New("no content was given")
	var r io.ReadCloser
	if e.q.Content != nil {
		r, err = e.q.Content(e.ctx, item)
	}
	if err != nil {
		frame, encodeErr := encode(kindLack, lack{Reason: short(err.Error())})
		if encodeErr != nil {
			return encodeErr
		}
		return e.write(frame)
	}
	defer r.Close()
	data := make([]byte, maxData)
	for {
		n, err := io.ReadFull(r, data)
		if n > 0 {
			e.buf = appendFrame(e.buf[:0], kindData, data[:n])
			if err := e.write(e.buf); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return e.write(appendFrame(nil, kindEnd, nil))
		case err != nil:
			return fmt.Errorf("read %s %s: %w", item.Kind, item.Digest, err)
		}
	}
}

// write sends a frame. A broker that no longer listens has said why.
func (e *exchange) write(frame []byte) error {
	_, err := e.conn.Write(frame)
	if err == nil {
		return nil
	}
	for {
		k, body, readErr := e.in.next(kindNeed, kindRefusal)
		if readErr != nil {
			return &LostError{fmt.Errorf("write to broker: %w", err)}
		}
		if k == kindRefusal {
			return e.refused(body)
		}
	}
}

// collect hands out an output, to its end.
func (e *exchange) collect(name string) error {
	r := &outputReader{e: e, in: &e.in}
	var sum digest.Writer
	in := io.TeeReader(r, &sum)
	if e.q.Collect != nil {
		if err := e.q.Collect(name, in); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	e.sums[name] = sum.Sum()
	return nil
}

// outputReader reads the data frames up to the end frame.
type outputReader struct {
	e    *exchange
	in   *frameReader
	rest []byte
	done bool
}

func (r *outputReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		k, body, err := r.in.next(kindData, kindEnd, kindStdout, kindStderr, kindRefusal)
		if err != nil {
			return 0, lost(err)
		}
		switch k {
		case kindStdout, kindStderr: // what was printed may come after the first output
			if err := r.e.frame(k, body); err != nil {
				return 0, err
			}
		case kindEnd:
			r.done = true
		case kindRefusal:
			refusal := new(Refusal)
			if err := decode(body, refusal); err != nil {
				return 0, lost(err)
			}
			return 0, refusal
		default:
			r.rest = body
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// result reads the last frame and compares the outputs' digests with what was received.
func (e *exchange) result(body []byte) error {
	var res result
	if err := decode(body, &res); err != nil {
		return lost(err)
	}
	e.last = true
	e.resp.Snapshot = res.Snapshot
	e.resp.Result, e.resp.Finished = res.Result.result(), time.UnixMicro(res.Finished).UTC()
	if res.Policy != nil {
		e.resp.Policy, e.resp.PolicyID = res.Policy.Name, res.Policy.ID
	}
	for _, o := range e.resp.Result.Outputs {
		if got, ok := e.sums[o.Name]; !ok || got != o.NAR {
			return fmt.Errorf("output %q: received %s, the broker says %s", o.Name, got, o.NAR)
		}
	}
	return nil
}

// DumpTree is a Request.Content of a tree on this machine: its NAR.
func DumpTree(ctx context.Context, path string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(nar.Dump(ctx, w, path, nar.Options{})) }()
	return r
}
