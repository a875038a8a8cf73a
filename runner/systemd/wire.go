package systemd

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"arch.network/runner"
)

// The frames of the control socket: one byte of kind, four bytes of big-endian length, then that many bytes. The driver
// bounds and checks those of a unit as input from a stranger.
const (
	// From the driver to the unit.
	frameOrder  = 'O' // JSON of order; the descriptors that it counts come along
	frameAttach = 'A' // JSON of runner.Kept: a later driver takes over, and has that much already
	frameHave   = 'G' // JSON of an int: the index of the output that came last, and is collected
	frameKept   = 'R' // a stream, as in frameLog, and eight bytes of big-endian count: so much of it is kept
	frameTaken  = 'K' // the outcome has arrived, and the counters are read: the unit may end

	// From the unit to the driver.
	frameHello   = 'H' // JSON of hello: what the unit finds in force
	frameBegin   = 'B' // the first command starts
	frameLog     = 'L' // one byte, 0 for stdout and 1 for stderr, and what was printed; also between the frames of an output
	frameOutput  = 'F' // JSON of an int: the index of the output whose bytes follow
	frameData    = 'D' // bytes of the current output
	frameEOF     = 'Z' // end of the current output; a text that is not empty says why it is incomplete
	frameOutcome = 'X' // JSON of outcome: every process of the commands is dead, and nothing follows
)

const (
	maxFrame = 128 << 10 // bytes of a frame's body from a unit, but for an outcome
	maxOrder = 16 << 20  // bytes of an order
)

// order is what the unit's first process is told: the Spec as it looks from inside the unit.
type order struct {
	Name        string
	Commands    []runner.Command
	Mounts      []runner.Mount
	Devices     []runner.Device
	Outputs     []runner.Output
	Hostname    string
	UID, GID    int
	Umask       int
	CPUs        int
	ClockOffset time.Duration
	Network     runner.Network
	Limits      runner.Limits // what the inner layer keeps
	Wall        time.Duration // what the first process keeps; zero: no limit
	Degraded    bool
	HostUID     int // to become; zero: a user id that no other unit has
	HostGID     int
	Exchange    bool // a descriptor comes along, the driver's end of the exchange
	OneLog      bool // stdout and stderr are the same: all is stdout
}

// hello tells what the first process finds in force, before it looks at the order.
type hello struct {
	Groups       string // its control groups: /proc/self/cgroup
	Capabilities string // effective set, in hexadecimal
	Bounding     string
	NoNewPrivs   bool
	Filters      int // of system calls
}

// outcome is how the inner layer's Run has ended.
type outcome struct {
	Result runner.Result
	Setup  *setup // not nil: a *runner.SetupError
	Err    string // another error, unless it is empty
	// CPU is the processor time of all that the first process has waited for, by wait4(2).
	CPU time.Duration
}

// setup carries a *runner.SetupError.
type setup struct{ Act, Err, Cure string }

// error returns what the inner Run has returned.
func (o outcome) error() error {
	switch {
	case o.Setup != nil:
		return &runner.SetupError{Act: o.Setup.Act, Err: errors.New(o.Setup.Err), Cure: o.Setup.Cure}
	case o.Err != "":
		return errors.New(o.Err)
	default:
		return nil
	}
}

// setError stores err.
func (o *outcome) setError(err error) {
	if s, ok := errors.AsType[*runner.SetupError](err); ok {
		o.Setup = &setup{Act: s.Act, Err: s.Err.Error(), Cure: s.Cure}
	} else if err != nil {
		o.Err = err.Error()
	}
}

func writeFrame(w io.Writer, kind byte, body []byte) error {
	frame := make([]byte, 5, 5+len(body))
	frame[0] = kind
	binary.BigEndian.PutUint32(frame[1:], uint32(len(body)))
	_, err := w.Write(append(frame, body...))
	return err
}

func writeJSON(w io.Writer, kind byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, body)
}

// readFrame returns the next frame, whose body has at most limit bytes. At the end of the stream the error is io.EOF.
func readFrame(r io.Reader, limit int) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	return readBody(r, head, limit)
}

// readBody reads what follows head.
func readBody(r io.Reader, head [5]byte, limit int) (kind byte, body []byte, err error) {
	size := binary.BigEndian.Uint32(head[1:])
	if uint64(size) > uint64(limit) {
		return 0, nil, fmt.Errorf("read frame %q: %d bytes are more than %d", head[0], size, limit)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("read frame %q: %w", head[0], io.ErrUnexpectedEOF)
	}
	return head[0], body, nil
}

// dataWriter writes one output as frames.
type dataWriter struct{ w io.Writer }

func (d dataWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxFrame)
		if err := writeFrame(d.w, frameData, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}
