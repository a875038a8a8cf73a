package wasm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// session is the Runner's side of a conversation with one worker. Nothing in it believes the worker more than bounds allow.
type session struct {
	task   task
	module []byte
	files  []*os.File
	extra  Extra

	stdout, stderr io.Writer                            // for frames of a worker that sends them; nil: discarded
	logLimit       int64                                // bytes of both together; zero: such frames are refused
	output         func(index int, nar io.Reader) error // takes an output; nil: they are refused

	serial bool // the worker lives on after its report

	in *bufio.Reader // of the connection: what is read ahead belongs to the worker's next session as well

	logged  int64
	outputs int // complete
	phase   phase
	report  *report
	crash   string
	broken  error  // how the worker broke the protocol
	limit   string // which limit a pooled worker's frames were over
	err     error  // ours: of a writer, of Receive
}

// errEnough ends an exchange for a reason that the session keeps.
var errEnough = errors.New("the conversation was ended")

// exchange is runner.Spec.Exchange.
func (s *session) exchange(conn *os.File) error {
	if err := s.tell(conn, s.task, s.module); err != nil {
		return s.judge(err)
	}
	for _, part := range s.extra.Send {
		if err := gone(writePieces(conn, frameExtra, part)); err != nil {
			return s.judge(err)
		}
	}
	over := make(chan struct{})
	var stopper sync.WaitGroup
	if s.extra.Stop != nil {
		stopper.Go(func() {
			select {
			case <-s.extra.Stop:
				writeFrame(conn, frameStop, nil) // a worker that is gone needs no order
			case <-over:
			}
		})
	}
	err := s.hear(conn)
	close(over)
	stopper.Wait()
	return s.judge(err)
}

// tell sends a task. A worker that does not listen any more is heard all the same.
func (s *session) tell(conn *os.File, t task, module []byte) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if len(text) > maxTask {
		return fmt.Errorf("task of %d bytes is over the limit of %d", len(text), maxTask)
	}
	for len(s.files) > 0 {
		n := min(len(s.files), filesPerFrame)
		message := []byte{byte(frameFiles), 1, 0, 0, 0, byte(n)}
		if n == len(s.files) && len(text) < smallTask { // which then comes with the last of the files
			message, text = append(frameHeader(message, frameTask, len(text)), text...), nil
		}
		if err := sendFiles(conn, message, s.files[:n]); err != nil {
			return gone(err)
		}
		s.files = s.files[n:]
	}
	if text == nil {
		return gone(writePieces(conn, frameModule, module))
	}
	if err := writePieces(conn, frameTask, text); err != nil {
		return gone(err)
	}
	if len(text)%maxFrame == 0 {
		if err := writeFrame(conn, frameTask, nil); err != nil {
			return gone(err)
		}
	}
	return gone(writePieces(conn, frameModule, module))
}

// gone forgives errors of writing that say that the other side has ended: its last words are still to be read.
func gone(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// smallTask is the size of tasks that go in one message with their descriptors: bytes, less than any socket's buffer.
const smallTask = 16 << 10

// sendFiles sends descriptors with a message, which begins with the frame that announces them.
func sendFiles(conn *os.File, message []byte, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(fds...)
	var n int
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		n, sent = unix.SendmsgN(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	if err = errors.Join(err, sent); err != nil || n == len(message) {
		return err
	}
	_, err = conn.Write(message[n:])
	return err
}

// hear reads what the worker says until it ends.
func (s *session) hear(conn *os.File) error {
	if s.in == nil {
		s.in = bufio.NewReaderSize(conn, readAhead)
	}
	var buffer []byte
	for {
		f, content, err := readFrame(s.in, &buffer)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return s.lastWords(s.in, err)
		case s.report != nil:
			return broken("something follows the report")
		}
		if done, err := s.take(f, content); err != nil || done {
			return err
		}
	}
}

// readAhead is how much of what a worker says is read at a time: bytes. A small job's whole answer fits.
const readAhead = 16 << 10

// take acts on one frame. It returns true where the worker waits to be told more.
func (s *session) take(f frame, content []byte) (bool, error) {
	switch f {
	case framePhase:
		if len(content) != 1 {
			return false, broken("a phase of a wrong length")
		}
		s.phase = phase(content[0])
		return s.phase == phaseReady && s.task.Act == actPrepare, nil
	case frameStdout:
		return false, s.log(s.stdout, content)
	case frameStderr:
		return false, s.log(s.stderr, content)
	case frameOutput, frameOutputEnd:
		return false, s.takeOutput(f, content)
	case frameExtra:
		if s.extra.Receive == nil {
			return false, stray(f)
		}
		if err := s.extra.Receive(content); err != nil {
			s.err = err
			return false, errEnough
		}
		return false, nil
	case frameReport:
		r, err := parseReport(content)
		if err == nil {
			s.report = &r
		}
		return s.serial, err
	default:
		return false, stray(f)
	}
}

// log passes on what a module writes, up to the limit.
func (s *session) log(w io.Writer, content []byte) error {
	if s.logLimit == 0 {
		return broken("stdout or stderr as frames, which nobody asked for")
	}
	if s.logged += int64(len(content)); s.logged > s.logLimit {
		s.limit = fmt.Sprintf("stdout and stderr have more than %d bytes", s.logLimit)
		return errEnough
	}
	if w == nil {
		return nil
	}
	if _, err := w.Write(content); err != nil {
		s.err = fmt.Errorf("write output of module: %w", err)
		return errEnough
	}
	return nil
}

// takeOutput hands one output on, from its first piece to its end.
func (s *session) takeOutput(f frame, content []byte) error {
	if s.output == nil || s.outputs >= len(s.task.Outputs) {
		return stray(f)
	}
	stream := &outputStream{conn: s.in, rest: content, end: f == frameOutputEnd}
	err := s.output(s.outputs, stream)
	s.outputs++
	if err != nil {
		s.err = err
		return errEnough
	}
	return stream.err
}

// outputStream reads the frames of one output.
type outputStream struct {
	conn   io.Reader
	buffer []byte
	rest   []byte
	end    bool
	err    error
}

func (o *outputStream) Read(b []byte) (int, error) {
	for len(o.rest) == 0 {
		if o.end {
			return 0, io.EOF
		}
		f, content, err := readFrame(o.conn, &o.buffer)
		switch {
		case err != nil:
			o.err = err
			return 0, err
		case f == frameOutputEnd && len(content) == 0:
			o.end = true
		case f == frameOutput:
			o.rest = content
		default:
			o.err = stray(f)
			return 0, o.err
		}
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// maxWords is how much of a dying worker's last words is kept: bytes.
const maxWords = 4 << 10

// lastWords keeps what a dying Go runtime says to the socket ("fatal error: …"): a frame's header that is text has a length
// that no frame has.
func (s *session) lastWords(conn io.Reader, err error) error {
	e, ok := errors.AsType[*protocolError](err)
	if !ok || e.header == nil || slices.ContainsFunc(e.header, func(c byte) bool { return (c < ' ' || c > '~') && c != '\n' }) {
		return err
	}
	rest, _ := io.ReadAll(io.LimitReader(conn, maxWords))
	s.crash = string(append(e.header, rest...))
	return nil
}

// judge turns the end of the conversation into Exchange's error. A worker that misbehaves is ended; why is in the session.
func (s *session) judge(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*protocolError](err); ok {
		s.broken = err
		return errEnough
	}
	if !errors.Is(err, errEnough) && s.err == nil {
		s.err = fmt.Errorf("talk with wasm worker: %w", err)
	}
	return errEnough
}

// result makes one Result of what the driver and the worker say.
func (s *session) result(res runner.Result, err error) (runner.Result, error) {
	switch {
	case s.err != nil:
		return res, s.err
	case err != nil && !errors.Is(err, errEnough):
		return res, err
	case s.limit != "":
		res.Reason, res.Detail = runner.ReasonLimit, s.limit
	case s.broken != nil:
		res.Reason, res.Detail = runner.ReasonLimit, s.broken.Error()+" "+s.phase.String()
	case res.Reason != runner.ReasonExit || s.report == nil:
		s.died(&res)
	default:
		return res, s.believe(&res)
	}
	s.usage(&res)
	return res, nil
}

// usage takes over the numbers of a report, and says what was in force inside of the driver's confinement.
func (s *session) usage(res *runner.Result) {
	if s.report != nil {
		res.Gas, res.Engine = s.report.Gas, s.report.Engine
	}
	if res.Confinement.Driver != "" {
		res.Confinement.Enforced = append(slices.Clone(res.Confinement.Enforced), s.task.enforced()...)
		slices.Sort(res.Confinement.Enforced)
	}
}

// believe makes the result of a worker that ended in order.
func (s *session) believe(res *runner.Result) error {
	s.usage(res)
	r := s.report
	ok := r.End == endExit && r.Exit == 0
	if ok != (res.Exit == 0) { // it ended differently from what it said
		s.died(res)
		return nil
	}
	res.Exit, res.Detail = 0, cut(r.Detail)
	switch r.End {
	case endExit, endTrap:
		res.Exit = int(r.Exit)
	case endGas:
		res.Reason = runner.ReasonLimit
	case endMissing:
		res.Reason = runner.ReasonNotFound
	case endRefused:
		res.Reason = runner.ReasonRefused
	case endStopped:
		res.Reason = runner.ReasonCancelled
	case endUnable:
		*res = runner.Result{}
		return &runner.SetupError{Act: "prepare wasm worker", Err: errors.New(cut(r.Detail)), Cure: unableCure(r.Detail)}
	}
	return nil
}

func unableCure(detail string) string {
	if strings.Contains(detail, "permission denied") || strings.Contains(detail, "not permitted") {
		return "let workers map executable memory (systemd: MemoryDenyWriteExecute=no), or ask for the interpreter"
	}
	return ""
}

// died makes the result of a worker that was killed, or ended without a report that fits.
func (s *session) died(res *runner.Result) {
	res.Outputs = nil
	before := s.phase != phaseRun
	where := "the worker died " + s.phase.String()
	switch {
	case res.Reason == runner.ReasonSignal:
		res.Detail = where + ": " + res.Detail
	case res.Reason != runner.ReasonExit: // the driver knows better
		return
	case strings.Contains(s.crash, "out of memory"), strings.Contains(s.crash, "cannot allocate memory"): // runtime/mem_linux.go, malloc.go
		res.Reason, res.Detail = runner.ReasonOutOfMemory, where
	case before:
		res.Reason, res.Detail = runner.ReasonRefused, fmt.Sprintf("%s (status %d)", where, res.Exit)
	default:
		res.Reason, res.Signal, res.Detail = runner.ReasonSignal, "SIGABRT", fmt.Sprintf("%s (status %d)", where, res.Exit)
	}
	res.Exit = 0
}

// ended reports whether ctx ended for its wall-clock limit.
func ended(ctx context.Context) (runner.Reason, bool) {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return "", false
	case errors.Is(cause, errWall):
		return runner.ReasonTimeout, true
	default:
		return runner.ReasonCancelled, true
	}
}
