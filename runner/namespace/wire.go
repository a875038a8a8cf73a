package namespace

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"syscall"
	"time"

	"arch.network/runner"
)

// mode says which of the host's mechanisms confine an execution, strongest first.
type mode string

const (
	modeUser     mode = "user"     // a user namespace and all others inside it
	modeRoot     mode = "root"     // every namespace but the user namespace: needs root
	modeLandlock mode = "landlock" // no namespace: Landlock and seccomp on the host's own paths
)

// order is what the first process of a confinement is told, as JSON, over the control pipe.
type order struct {
	Mode     mode
	Commands []runner.Command
	Mounts   []runner.Mount
	Outputs  []runner.Output
	Devices  []runner.Device
	Hostname string
	UID, GID int
	Umask    int
	CPUs     int
	Scratch  int64 // bytes of a tmpfs without a size; zero: the kernel's default
	Exchange int   // the descriptor that becomes the commands' descriptor 0; zero: /dev/null does

	Filter   program // of system calls
	Refusals int     // the descriptor that counts what it refuses; zero: nothing does
	Sockets  program `json:",omitempty"` // loaded after Filter; empty: there is none

	Network runner.Network
	Link    int // the descriptor by which the network's gateway gets its sockets, if there is one

	ClockOffset time.Duration // zero: the clock is not touched
	NoVDSO      bool          // hide the vDSO instead of changing it

	WatchMemory    int64 // bytes; not zero: sample the memory of all processes and stop above this
	WatchProcesses int   // not zero: count all processes and threads and stop above this
	MaxProcesses   int   // not zero: RLIMIT_NPROC for the commands, on top of the first process's own threads
}

// What the driver says of an output when it has read its end: one byte on the control pipe.
const (
	verdictNext  = 'n'
	verdictAgain = 'a' // send it once more
)

// The frames of the report pipe, from the first process of a confinement to the driver: one byte of kind, four bytes
// of big-endian length, then that many bytes. The driver bounds and checks them as input from a stranger.
const (
	frameReady   = 'R' // JSON of readiness: the confinement stands
	frameRefused = 'E' // JSON of refusal: it could not be made, and nothing ran
	frameStart   = 'C' // JSON of an int: the index of the command that starts now
	frameEnd     = 'X' // JSON of ending: all commands are over and every process is dead
	frameOutput  = 'O' // JSON of an int: the index of the output whose bytes follow
	frameAbsent  = 'N' // JSON of absence: an output that does not exist
	frameData    = 'D' // bytes of the current output
	frameEOF     = 'Z' // end of the current output; a text that is not empty says why it is incomplete
	frameDone    = 'Q' // nothing follows
)

const maxFrame = 128 << 10 // bytes of one frame's body

// maxOrder bounds the order's JSON: manifests are smaller than 64 KiB, environments and mounts add to that.
const maxOrder = 16 << 20

// readiness tells what the first process has put in force.
type readiness struct {
	Enforced []string
	Missing  []string
}

// refusal tells why a confinement could not be made.
type refusal struct {
	Act   string
	Err   string
	Errno syscall.Errno
	// Host is true if the host refused the use of the namespaces themselves, so that a weaker mode may do.
	Host bool
	// MaskedProc is true if it did so because the caller's /proc is partly covered.
	MaskedProc bool
}

// ending tells what became of the commands.
type ending struct {
	Reason     runner.Reason
	Exit       int
	Signal     string
	Command    int
	Detail     string
	MemoryPeak int64 // bytes, if sampled
}

// absence tells of an output that does not exist.
type absence struct {
	Output int
	Detail string
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

// readFrame returns the next frame. At the end of the pipe the error is io.EOF.
func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("read report: frame of %d bytes is larger than %d", size, maxFrame)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("read report: %w", io.ErrUnexpectedEOF)
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

// writeOrder sends o with its length in front; the pipe then stays open until the execution is over.
func writeOrder(w io.Writer, o order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(body) > maxOrder {
		return fmt.Errorf("send order: %d bytes are more than %d", len(body), maxOrder)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body)))); err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

func readOrder(r io.Reader) (order, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return order{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxOrder {
		return order{}, fmt.Errorf("read order: %d bytes are more than %d", size, maxOrder)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return order{}, err
	}
	var o order
	err := json.Unmarshal(body, &o)
	return o, err
}
