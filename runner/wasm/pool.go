package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/runner"
)

// pooledScratch is a worker's Tmpfs in a pool: see PoolCommand.
const pooledScratch = "/tmp"

// defaultLog and defaultOutput are runner.Limits' defaults, which the Runner keeps where outputs come through it: bytes.
const (
	defaultLog    = 64 << 20
	defaultOutput = 16 << 30
)

// runPooled runs a module in a worker of the pool.
func (r *Runner) runPooled(ctx context.Context, spec runner.Spec, module []byte, h *handover) (runner.Result, error) {
	defer h.close()
	ctx, cancel := withWall(ctx, spec.Limits.Wall)
	defer cancel()
	w, refused, err := r.ready(ctx, spec, module)
	if err != nil || refused != nil {
		if refused == nil {
			refused = &runner.Result{}
		}
		if reason, ok := ended(ctx); ok && refused.Reason == runner.ReasonCancelled { // whoever prepares knows only that it was
			refused.Reason, refused.Detail = reason, context.Cause(ctx).Error()
		}
		return *refused, err
	}
	if spec.Observe != nil {
		w.worker.Observe(spec.Observe)
	}
	s, c := runSession(spec, w, h)
	res, err := w.finish(ctx, s.exchange)
	return r.conclude(ctx, s, c, res, err)
}

// runSession makes the conversation that runs a module which has been prepared.
func runSession(spec runner.Spec, w *readyWorker, h *handover) (*session, *collector) {
	t := newTask(spec, actRun, nil)
	t.Scratch, t.Frames, t.Dirs, t.Outputs, t.Room = pooledScratch, true, h.dirs, h.outputs, h.room
	c := &collector{spec: spec}
	return &session{
		task: t, files: h.files, phase: phaseRun, in: w.session.in, stdout: spec.Stdout, stderr: spec.Stderr,
		logLimit: cmpOr(spec.Limits.Log, defaultLog), output: c.collect,
	}, c
}

// conclude makes the Result of a pooled run, of what the conversation left and what the pool says of the worker.
func (r *Runner) conclude(ctx context.Context, s *session, c *collector, res runner.Result, err error) (runner.Result, error) {
	// Whoever killed the worker for ctx does not know why ctx ended; the report can have come before that.
	if reason, ok := ended(ctx); ok && (s.report == nil || res.Reason == runner.ReasonCancelled) {
		res.Reason, res.Detail, res.Exit, res.Signal = reason, context.Cause(ctx).Error(), 0, ""
	}
	if s.report != nil && s.report.End == endExit && s.report.Exit == 0 && s.outputs < len(s.task.Outputs) {
		s.broken = broken("an output is missing")
	}
	if c.limit != "" {
		s.err, s.limit = nil, c.limit
	}
	// A worker of a pool ends with a status, as one of a driver does; a pool need not know it.
	if s.report != nil && res.Reason == runner.ReasonExit && res.Exit == 0 && (s.report.End != endExit || s.report.Exit != 0) {
		res.Exit = 1
	}
	res, err = s.result(res, err)
	r.timing(s)
	if res.OK() {
		res.Outputs = c.collected
	}
	return res, err
}

func cmpOr(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return a
}

// readyWorker is a worker of the pool that has prepared a module, or is about to.
type readyWorker struct {
	worker  runner.Worker
	session *session
	cancel  context.CancelFunc
	ended   chan struct{} // closed when result and err are set
	result  runner.Result
	err     error
}

// newReadyWorker watches a worker from its taking to its end.
func newReadyWorker(w runner.Worker) *readyWorker {
	ctx, cancel := context.WithCancel(context.Background())
	r := &readyWorker{worker: w, session: &session{}, cancel: cancel, ended: make(chan struct{})}
	go func() {
		r.result, r.err = w.Wait(ctx)
		shut(w.Conn()) // what was sent can still be read, and then the end comes, whoever else holds the other end
		close(r.ended)
	}()
	return r
}

// shut ends a conversation.
func shut(conn *os.File) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// end kills the worker and waits for its end.
func (w *readyWorker) end() {
	w.cancel()
	<-w.ended
	w.worker.Conn().Close()
}

// finish has the rest of the conversation and returns what the pool says of the worker's end. Cancelling ctx kills it.
func (w *readyWorker) finish(ctx context.Context, exchange func(*os.File) error) (runner.Result, error) {
	defer context.AfterFunc(ctx, w.cancel)()
	if err := exchange(w.worker.Conn()); err != nil {
		w.cancel()
	}
	<-w.ended
	w.worker.Conn().Close()
	return w.result, w.err
}

// collector takes the outputs of a pooled run: it hashes them, checks that they are archives, and keeps their limit.
type collector struct {
	spec      runner.Spec
	collected []runner.Collected
	limit     string
}

func (c *collector) collect(index int, archive io.Reader) error {
	out := c.spec.Outputs[index]
	limit := cmpOr(c.spec.Limits.Output, defaultOutput)
	head, err := io.ReadAll(io.LimitReader(archive, smallOutput+1))
	if err != nil {
		return fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	if len(head) <= smallOutput && int64(len(head)) <= limit {
		return c.small(out, head)
	}
	archive = io.MultiReader(bytes.NewReader(head), archive)
	r := newStrictReader(&io.LimitedReader{R: archive, N: limit + 1}, limit)
	defer r.close()
	if c.spec.Collect != nil {
		err = c.spec.Collect(out, r)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if r.hash.Size() > limit {
		c.limit = fmt.Sprintf("output %s: more than %d bytes", out.Name, limit)
		return errors.New(c.limit)
	}
	if err != nil {
		return fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	c.collected = append(c.collected, runner.Collected{Name: out.Name, NAR: r.hash.Sum(), Size: r.hash.Size()})
	return nil
}

// smallOutput is how large outputs are at most that are checked as a whole, and not while they pass: bytes.
const smallOutput = 32 << 10

// small is collect for an output that is all there.
func (c *collector) small(out runner.Output, archive []byte) error {
	err := skim(nar.NewReader(bytes.NewReader(archive), nar.Limits{Size: int64(len(archive))}))
	if err == nil && c.spec.Collect != nil {
		err = c.spec.Collect(out, bytes.NewReader(archive))
	}
	if err != nil {
		return fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	c.collected = append(c.collected, runner.Collected{Name: out.Name, NAR: digest.Of(archive), Size: int64(len(archive))})
	return nil
}

// strictReader passes an archive on while it checks that it is one: where it is not, reading it ends with an error.
type strictReader struct {
	r       io.Reader
	hash    digest.Writer
	pipe    *io.PipeWriter
	verdict chan error
	once    sync.Once
	err     error
}

func newStrictReader(r io.Reader, limit int64) *strictReader {
	pr, pw := io.Pipe()
	s := &strictReader{r: r, pipe: pw, verdict: make(chan error, 1)}
	go func() {
		err := skim(nar.NewReader(pr, nar.Limits{Size: limit}))
		pr.CloseWithError(cmpErr(err, io.ErrClosedPipe))
		s.verdict <- err
	}()
	return s
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// skim reads an archive to its end.
func skim(r *nar.Reader) error {
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *strictReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.hash.Write(b[:n])
	if _, werr := s.pipe.Write(b[:n]); werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return 0, werr
	}
	if errors.Is(err, io.EOF) {
		if verr := s.close(); verr != nil {
			return n, verr
		}
	}
	return n, err
}

// close ends the check and returns what it says.
func (s *strictReader) close() error {
	s.once.Do(func() {
		s.pipe.Close()
		s.err = <-s.verdict
	})
	return s.err
}
