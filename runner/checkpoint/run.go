package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"arch.network/attest/digest"
	"arch.network/runner"
	"arch.network/runner/wasm"
)

// DefaultSlice is the gas after which a module can be stopped again: a few milliseconds.
const DefaultSlice = 10_000_000

// Options say where a run begins and where it is stopped.
type Options struct {
	// Module names the module: its digest goes into the Checkpoint, and is compared with that of From.
	Module digest.SHA256
	// From is where the run goes on; nil: at the beginning. It may be a stranger's: nothing worse can come of it than
	// of a hostile module. A snapshot's outputs are worth what its maker's word is; a mark is verified.
	From *Checkpoint
	// Into is an empty file of the caller's own that the checkpoint is written to, so that nothing of a large one is in memory: the Checkpoint
	// that Run returns then has a Snapshot without content, or none. Nil: it is kept in memory.
	Into *os.File
	// Slice is the gas between two places where the run can be stopped; zero: DefaultSlice.
	Slice uint64
	// StopAt stops the run at the first place after this much gas; zero: never.
	StopAt uint64
	// Stop stops the run at the end of the slice when it is closed; nil: never.
	Stop <-chan struct{}
}

// RefusedError says why a run could not go on from a Checkpoint.
type RefusedError struct {
	Why string // a worker's word
}

func (e *RefusedError) Error() string { return fmt.Sprintf("resume module: %q", e.Why) }

// Hint tells the way out.
func (e *RefusedError) Hint() string {
	return "start the job again from its beginning, or resume it with the module, inputs and options that it was stopped with"
}

// Run runs the module of spec by r, whose worker has the Extension, and returns the Checkpoint of a run that was stopped; nil
// if it came to an end. The Result of a stopped one has Reason runner.ReasonCancelled, and the gas used from the very beginning.
//
// What a module has written belongs to its state. What lies on a Tmpfs is in a snapshot, and is put back; what lies in a Bind mount stays
// where it is, and must still be there to go on. Stdout and Stderr get what follows. To go on from a mark, writable directories must be as
// they were at the beginning, and Stdout and Stderr get everything once more.
func Run(ctx context.Context, r *wasm.Runner, spec runner.Spec, o Options) (runner.Result, *Checkpoint, error) {
	if spec.Module == nil {
		return runner.Result{}, nil, &runner.SetupError{Act: "check spec", Err: errors.New("only a module can be stopped and resumed")}
	}
	send, err := o.request(spec)
	if err != nil {
		return runner.Result{}, nil, err
	}
	heard := listener{file: o.Into, left: maxHeard(spec)}
	result, err := r.RunExtra(ctx, spec, wasm.Extra{Name: ExtensionName, Send: send, Stop: o.Stop, Receive: heard.take})
	if err != nil || heard.kind == 0 {
		return result, nil, err
	}
	c, err := o.hear(&heard, result)
	return result, c, err
}

// listener keeps what a worker says: one byte for what it is, then its bytes.
type listener struct {
	file   *os.File // nil: in memory
	left   int64    // bytes that may still come
	kind   byte     // zero: it has said nothing
	memory []byte
}

func (l *listener) take(b []byte) error {
	if l.left -= int64(len(b)); l.left < 0 {
		return errors.New("receive checkpoint: more bytes than the module's memory and files can have")
	}
	if l.kind == 0 && len(b) > 0 {
		l.kind, b = b[0], b[1:]
	}
	if l.file == nil {
		l.memory = append(l.memory, b...)
		return nil
	}
	_, err := l.file.Write(b)
	return err
}

// maxHeard is how many bytes a worker may send: the memory that spec allows, and everything else.
func maxHeard(spec runner.Spec) int64 {
	const rest = 64<<20 + maxFiles
	memory := int64(4 << 30)
	for _, limit := range []int64{spec.Module.Memory, spec.Limits.Memory} {
		if limit > 0 {
			memory = min(memory, limit)
		}
	}
	return memory + memory/512 + rest
}

func (o Options) request(spec runner.Spec) ([][]byte, error) {
	m := spec.Module
	r := request{Version: 2, Module: o.Module, Slice: o.Slice, Stop: o.StopAt, Entry: m.Entry, Deterministic: m.Clock != nil && m.Seed != nil, Dirs: passing(spec)}
	if r.Slice == 0 {
		r.Slice = DefaultSlice
	}
	if r.Entry == "" {
		r.Entry = defaultEntry
	}
	if r.Slice > math.MaxInt64/4 || o.StopAt > math.MaxInt64/4 {
		return nil, fmt.Errorf("stop module: slice of %d, stop at %d: more than %d", o.Slice, o.StopAt, math.MaxInt64/4)
	}
	head, err := r.marshal()
	if o.From == nil || err != nil {
		return [][]byte{head}, err
	}
	if o.From.Module != o.Module {
		return nil, &RefusedError{fmt.Sprintf("the checkpoint is of module %v, not %v", o.From.Module, o.Module)}
	}
	if o.From.Snapshot == nil && !r.Deterministic {
		return nil, &RefusedError{"a mark is resumed by repetition, and the module has the host's clock or randomness"}
	}
	return [][]byte{head, o.From.Marshal()}, nil
}

// hear reads what a worker, which may be hostile, says of the end.
func (o Options) hear(l *listener, result runner.Result) (*Checkpoint, error) {
	said := l.memory
	if l.file != nil {
		m, err := mapFile(l.file)
		if err != nil {
			return nil, err
		}
		defer unmapBytes(m)
		said = m
	}
	switch l.kind {
	case saysFailed:
		return nil, &RefusedError{string(said[:min(len(said), 500)])}
	case saysStopped:
		c, err := Parse(said)
		if err != nil {
			return nil, err
		}
		if c.Gas != result.Gas {
			return nil, fmt.Errorf("checkpoint of %d gas, but the run used %d", c.Gas, result.Gas)
		}
		if c.Module != o.Module {
			return nil, fmt.Errorf("checkpoint of module %v, but %v ran", c.Module, o.Module)
		}
		if l.file != nil {
			c = c.strip()
		}
		return c, nil
	}
	return nil, fmt.Errorf("worker says %q instead of a checkpoint", l.kind)
}
