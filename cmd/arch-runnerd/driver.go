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
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// confinement is what jobs run in.
type confinement struct {
	runner    runner.Runner
	survivors func(ctx context.Context) (map[string]broker.Survivor, error) // nil: nothing outlives this process
	close     func() error
}

// open makes the driver, and the engine for modules around it.
func open(ctx context.Context, o options) (confinement, error) {
	c, err := openDriver(ctx, o)
	if err != nil {
		return confinement{}, err
	}
	m, err := wasm.New(wasm.Options{Driver: c.runner, Cache: filepath.Join(o.state, "wasm")})
	if err != nil {
		return confinement{}, errors.Join(err, c.close())
	}
	driver := c.close
	c.runner, c.close = m, func() error { return errors.Join(m.Close(), driver()) }
	return c, nil
}

func openDriver(ctx context.Context, o options) (confinement, error) {
	if o.driver == "systemd" {
		r, err := systemd.New(ctx, systemd.Options{})
		if err != nil {
			return confinement{}, err
		}
		return confinement{r, func(ctx context.Context) (map[string]broker.Survivor, error) { return survivors(ctx, r) }, r.Close}, nil
	}
	r, err := namespace.New(namespace.Options{})
	return confinement{r, nil, func() error { return nil }}, err
}

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
