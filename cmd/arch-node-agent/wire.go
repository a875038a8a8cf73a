package main

import (
	"context"
	"log/slog"
	"net/http"

	"arch.network/agent"
	"arch.network/agent/control/logview"
	"arch.network/attest/dsse"
)

// node is everything that the program serves. Its parts are made by wire.
type node struct {
	agent.Node
	known  func(env *dsse.Envelope) error            // of the trust root
	policy func(ctx context.Context) ([]byte, error) // the envelope of the policy in force
	ledger *logview.Log
	tiles  http.Handler // of the ledger
	ready  func(ctx context.Context) error
	reload func(ctx context.Context) error // reads the policy and the trust root again
	alive  func() bool                     // the main loop turned since it was asked last
	run    func(ctx context.Context) error // works until ctx ends, then stops what it must
}

// wiring makes a node.
type wiring func(ctx context.Context, o options, log *slog.Logger) (*node, error)

// wire is the one place where the parts of a real node meet.
func wire(context.Context, options, *slog.Logger) (*node, error) {
	return nil, &statusError{errNoExecutor, exitError, "run single jobs with arch run"}
}
