package checkpoint

import (
	"context"

	"arch.network/runner"
	"arch.network/runner/wasm"
)

// Runner is a runner.Runner whose modules can be stopped and resumed, for callers that know nothing of checkpoints. It serves one
// execution.
type Runner struct {
	Wasm    *wasm.Runner
	Options Options
	// Stopped gets the Checkpoint if the module was stopped. Its error is returned by Run. Nil: it is lost.
	Stopped func(*Checkpoint) error
}

// Run implements runner.Runner: see the function Run. What is no module goes to the wasm.Runner as it is.
func (r *Runner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	if spec.Module == nil {
		return r.Wasm.Run(ctx, spec)
	}
	result, c, err := Run(ctx, r.Wasm, spec, r.Options)
	if err == nil && c != nil && r.Stopped != nil {
		err = r.Stopped(c)
	}
	return result, err
}
