package executor_test

import (
	"context"
	"crypto/rand"
	"io"
	"testing"

	"arch.network/agent/nodetest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// TestNode runs the suite of all nodes on the engine.
func TestNode(t *testing.T) {
	nodetest.Test(t, func(t *testing.T) nodetest.Subject {
		n := newNode(t, setup{driver: direct(plays)})
		return nodetest.Subject{Node: n, By: "uid:0", Envelope: func(t *testing.T, name string, does nodetest.Does) []byte {
			return n.example("c-hello-wasm", func(j *manifest.Job) {
				j.Metadata.Name, j.Metadata.Expires = name, "2099-01-01T00:00:00Z"
				j.Spec.Args, j.Spec.Nonce = nodetest.Document(t, name, does).Spec.Args, rand.Text()
			})
		}}
	})
}

// plays does what a job of the suite says.
func plays(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	argv := spec.Module.Args
	doc := &manifest.Job{Spec: manifest.JobSpec{Args: argv[len(argv)-4:]}}
	res := nodetest.Play(ctx, doc, spec.Stdout, io.Discard)
	if ctx.Err() != nil {
		return runner.Result{}, ctx.Err()
	}
	r := runner.Result{Reason: runner.ReasonExit, Exit: res.Exit, Engine: "test", Confinement: runner.Confinement{Driver: "test"}}
	r.Gas = res.Gas
	if r.OK() {
		return r, collect(spec, "output")
	}
	return r, nil
}
