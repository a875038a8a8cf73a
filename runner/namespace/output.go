package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// limitError says that an output is larger than it may be.
type limitError struct {
	name  string
	limit int64
}

func (e *limitError) Error() string {
	return fmt.Sprintf("output %s: more than %d bytes", e.name, e.limit)
}

// output takes one output from the report and hands it to Collect.
func (e *execution) output(kind byte, body []byte) error {
	if e.end == nil || e.end.Reason != runner.ReasonExit || e.end.Exit != 0 {
		return errors.New("read report: output before the end of the commands")
	}
	if kind == frameAbsent {
		var a absence
		if err := json.Unmarshal(body, &a); err != nil || a.Output < 0 || a.Output >= len(e.spec.Outputs) {
			return fmt.Errorf("read report: absent output %q does not exist", body)
		}
		e.absent = append(e.absent, a)
		return nil
	}
	var n int
	if err := json.Unmarshal(body, &n); err != nil || n < 0 || n >= len(e.spec.Outputs) {
		return fmt.Errorf("read report: output %q does not exist", body)
	}
	e.logs.wait() // the commands are dead: a log that is kept is whole before the first output is
	out := e.spec.Outputs[n]
	r := &outputReader{report: e.report, name: out.Name, limit: e.spec.Limits.Output, left: e.spec.Limits.Output}
	err := e.spec.Collect(out, r)
	if l, ok := errors.AsType[*limitError](r.err); ok {
		e.kill(ending{Reason: runner.ReasonLimit, Detail: l.Error()}, nil)
		return nil
	}
	verdict := byte(verdictNext)
	if errors.Is(err, runner.ErrAgain) {
		verdict, err = verdictAgain, nil
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	if verdict == verdictNext {
		e.collected = append(e.collected, runner.Collected{Name: out.Name, NAR: r.hash.Sum(), Size: r.hash.Size()})
	}
	if _, err := e.control.Write([]byte{verdict}); err != nil && !errors.Is(err, syscall.EPIPE) { // of one that has ended, the report tells
		return fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	return nil
}

// outputReader reads the data frames of one output. The bytes come from the confinement: it bounds them, and does not
// look at them.
type outputReader struct {
	report io.Reader
	name   string
	limit  int64
	left   int64 // bytes that may still come
	body   []byte
	hash   digest.Writer // of what was handed out
	err    error         // sticky
}

func (r *outputReader) Read(p []byte) (int, error) {
	for len(r.body) == 0 && r.err == nil {
		r.next()
	}
	if len(r.body) == 0 {
		return 0, r.err
	}
	n := copy(p, r.body)
	r.hash.Write(p[:n])
	r.body = r.body[n:]
	return n, nil
}

// next takes the next frame.
func (r *outputReader) next() {
	kind, body, err := readFrame(r.report)
	switch {
	case errors.Is(err, io.EOF):
		r.err = fmt.Errorf("output %s: %w", r.name, io.ErrUnexpectedEOF)
	case err != nil:
		r.err = err
	case kind == frameData && int64(len(body)) > r.left:
		r.err = &limitError{r.name, r.limit}
	case kind == frameData:
		r.body = body
		r.left -= int64(len(body))
	case kind == frameEOF && len(body) == 0:
		r.err = io.EOF
	case kind == frameEOF:
		r.err = fmt.Errorf("output %s: %.500q", r.name, body)
	default:
		r.err = fmt.Errorf("read report: unexpected frame %q", kind)
	}
}
