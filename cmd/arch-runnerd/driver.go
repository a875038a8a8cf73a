package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/cdi"
	"arch.network/runner/checkpoint"
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// confinement is what jobs run in.
type confinement struct {
	modules   *wasm.Runner
	survivors func(ctx context.Context) (map[string]broker.Survivor, error) // nil: nothing outlives this process
	close     func() error
}

// checkpoint runs a module so that it can be stopped where it stands.
func (c confinement) checkpoint(ctx context.Context, spec runner.Spec, o checkpoint.Options) (runner.Result, *checkpoint.Checkpoint, error) {
	return checkpoint.Run(ctx, c.modules, spec, o)
}

// open makes the driver, and the engine for modules around it.
func open(ctx context.Context, o options) (confinement, error) {
	if o.driver == "systemd" {
		return openSystemd(ctx, o)
	}
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		return confinement{}, err
	}
	m, err := wasm.New(wasm.Options{Driver: r, Cache: o.wasmCache()})
	if err != nil {
		return confinement{}, err
	}
	return confinement{m, nil, m.Close}, nil
}

// openSystemd makes units for jobs, and keeps some ready for modules. The connection to systemd is closed by the end of the process, at
// the same instant for all jobs: an error before that would look like theirs.
func openSystemd(ctx context.Context, o options) (confinement, error) {
	r, err := systemd.New(ctx, systemd.Options{})
	if err != nil {
		return confinement{}, err
	}
	engine := wasm.Options{Driver: r, Cache: o.wasmCache()}
	closePool := func() error { return nil }
	if o.pool > 0 {
		p, err := openPool(ctx, r, o.pool)
		if err != nil {
			return confinement{}, errors.Join(err, r.Close())
		}
		engine.Pool, closePool = p, p.Close
	}
	m, err := wasm.New(engine)
	if err != nil {
		return confinement{}, errors.Join(err, closePool(), r.Close())
	}
	stop := func() error { return errors.Join(m.Close(), closePool()) }
	return confinement{m, func(ctx context.Context) (map[string]broker.Survivor, error) { return survivors(ctx, r) }, stop}, nil
}

// poolScratch is the size of what a module in the pool finds at /tmp besides what its own limits allow it in memory.
const poolScratch = 128 << 20

// openPool starts workers for modules.
func openPool(ctx context.Context, r *systemd.Runner, size int) (*systemd.Pool, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return r.NewPool(ctx, systemd.PoolOptions{Size: size, Compile: true, Class: runner.Spec{
		Commands: []runner.Command{wasm.PoolCommand("/bin/worker")},
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: self, Target: "/bin/worker"},
			{Kind: runner.Tmpfs, Target: "/tmp", Size: poolScratch},
		},
	}})
}

// wasmCache is where machine code of modules is kept.
func (o options) wasmCache() string { return filepath.Join(o.state, "wasm") }

// survivors lists the units that still run.
func survivors(ctx context.Context, r *systemd.Runner) (map[string]broker.Survivor, error) {
	list, err := r.Adopt(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]broker.Survivor{}
	for _, j := range list {
		out[j.Name] = j
	}
	return out, nil
}

// openStore asks the daemon of the host's store that a path lies in.
func openStore(ctx context.Context, path string) (broker.Vouching, error) {
	socket := closure.NixSocket
	if strings.HasPrefix(path, "/gnu/") {
		socket = closure.GuixSocket
	}
	if _, err := os.Lstat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil, closure.ErrUnknown
	}
	return closure.OpenDaemon(ctx, socket)
}

// devices resolves names by the specifications of the host.
func devices(names []string) (job.Devices, error) {
	e, err := cdi.Resolve(names, cdi.Directories())
	return job.Devices{Nodes: e.Devices, Mounts: e.Mounts, Env: e.Env}, err
}
