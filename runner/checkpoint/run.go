package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"math"

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
	var heard []byte
	most := maxHeard(spec)
	result, err := r.RunExtra(ctx, spec, wasm.Extra{
		Name: ExtensionName, Send: send, Stop: o.Stop,
		Receive: func(b []byte) error {
			if int64(len(heard)+len(b)) > most {
				return fmt.Errorf("receive checkpoint: more than %d bytes, although the module's memory is bounded", most)
			}
			heard = append(heard, b...)
			return nil
		},
	})
	if err != nil || len(heard) == 0 {
		return result, nil, err
	}
	c, err := o.hear(heard, spec.Module, result)
	return result, c, err
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

func (o Options) request(spec runner.Spec) ([]byte, error) {
	m := spec.Module
	r := request{Version: 2, Slice: o.Slice, Stop: o.StopAt, Entry: m.Entry, Deterministic: m.Clock != nil && m.Seed != nil, Dirs: passing(spec)}
	if r.Slice == 0 {
		r.Slice = DefaultSlice
	}
	if r.Entry == "" {
		r.Entry = defaultEntry
	}
	if r.Slice > math.MaxInt64/4 || o.StopAt > math.MaxInt64/4 {
		return nil, fmt.Errorf("stop module: slice of %d, stop at %d: more than %d", o.Slice, o.StopAt, math.MaxInt64/4)
	}
	if o.From == nil {
		return r.marshal(nil)
	}
	if o.From.Module != o.Module {
		return nil, &RefusedError{fmt.Sprintf("the checkpoint is of module %v, not %v", o.From.Module, o.Module)}
	}
	if o.From.Snapshot == nil && !r.Deterministic {
		return nil, &RefusedError{"a mark is resumed by repetition, and the module has the host's clock or randomness"}
	}
	return r.marshal(o.From.Marshal())
}

// hear reads what a worker, which may be hostile, says of the end.
func (o Options) hear(said []byte, m *runner.Module, result runner.Result) (*Checkpoint, error) {
	switch said[0] {
	case saysFailed:
		return nil, &RefusedError{string(said[1:min(len(said), 500)])}
	case saysStopped:
		c, err := Parse(said[1:])
		if err != nil {
			return nil, err
		}
		if c.Gas != result.Gas {
			return nil, fmt.Errorf("checkpoint of %d gas, but the run used %d", c.Gas, result.Gas)
		}
		c.Module = o.Module
		return c, nil
	}
	return nil, fmt.Errorf("worker says %q instead of a checkpoint", said[:1])
}
