package main

import (
	"context"
	"errors"
	"path/filepath"

	"arch.network/runner"
	"arch.network/runner/broker"
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
