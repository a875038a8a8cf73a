package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// output takes one output and hands it to Collect.
func (e *execution) output(body []byte) error {
	collected, err := takeOutput(e.next, body, e.spec.Outputs, e.spec.Limits.Output, e.spec.Collect)
	if err == nil && collected != nil {
		e.collected = append(e.collected, *collected)
		writeFrame(e.control, frameHave, body) // if it does not arrive, the unit has ended
	}
	return err
}

// defaultOutput is what a Limits.Output of zero stands for.
const defaultOutput = 16 << 30

// nextFrame reads a frame whose body has at most limit bytes. At the end of the stream the error is io.EOF.
type nextFrame func(limit int) (kind byte, body []byte, err error)

// takeOutput reads the frames of the output whose index body is. It returns nil, without an error, for one that the unit
// says is not whole: the outcome will tell why.
func takeOutput(next nextFrame, body []byte, outputs []runner.Output, limit int64, collect func(runner.Output, io.Reader) error) (*runner.Collected, error) {
	var n int
	if err := json.Unmarshal(body, &n); err != nil || n < 0 || n >= len(outputs) {
		return nil, fmt.Errorf("read control socket: output %.100q does not exist", body)
	}
	if limit == 0 {
		limit = defaultOutput
	}
	out := outputs[n]
	r := &outputReader{frame: next, left: limit}
	err := collect(out, r)
	if err == nil || r.broken != "" {
		_, rerr := io.Copy(io.Discard, r)
		if r.broken != "" {
			return nil, nil
		}
		err = rerr
	}
	if err != nil {
		return nil, fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	return &runner.Collected{Name: out.Name, NAR: r.hash.Sum(), Size: r.hash.Size()}, nil
}

// outputReader reads the data frames of one output, which come from a stranger: it bounds them.
type outputReader struct {
	frame  nextFrame
	left   int64 // bytes that may still come
	body   []byte
	hash   digest.Writer
	broken string // what the unit says is wrong with the output
	err    error  // sticky
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

func (r *outputReader) next() {
	kind, body, err := r.frame(maxFrame)
	switch {
	case errors.Is(err, io.EOF):
		r.err = io.ErrUnexpectedEOF
	case err != nil:
		r.err = err
	case kind == frameData && int64(len(body)) > r.left:
		r.err = errors.New("the unit sends more than it may")
	case kind == frameData:
		r.body, r.left = body, r.left-int64(len(body))
	case kind == frameEOF && len(body) == 0:
		r.err = io.EOF
	case kind == frameEOF:
		r.broken = fmt.Sprintf("%.500q", body)
		r.err = errors.New(r.broken)
	default:
		r.err = fmt.Errorf("unexpected frame %q", kind)
	}
}
