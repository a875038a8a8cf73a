// Package runner is the contract of confined execution: what a process may see and use (Spec),
// what became of it (Result), and who can do that (Runner). A build step and a job are both a Spec.
//
// The package holds no driver. Drivers live in runner/namespace and, later, runner/systemd; commands
// choose one by an explicit table. A Runner knows nothing of keys, networks, documents' trust or stores:
// whoever calls it has verified and fetched everything.
package runner

import (
	"context"
)

// Runner runs commands in confinement.
type Runner interface {
	// Run runs the commands of spec one after the other in one confinement, stopping at the first that
	// does not exit with 0, and returns when every process it started is gone. Processes that a command leaves
	// behind are killed before the next command starts, and before anything is collected.
	//
	// The error is nil whenever the commands were started, whatever became of them: see Result.Reason.
	// It is a *SetupError if the confinement could not be made or the Spec makes no sense; then nothing ran.
	// It is Collect's error, or that of Stdout or Stderr, if one of them failed.
	// Cancelling ctx kills the processes; the Result's Reason is then Cancelled.
	Run(ctx context.Context, spec Spec) (Result, error)
}
