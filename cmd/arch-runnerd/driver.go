package main

import (
	"context"
	"errors"

	"arch.network/runner"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// open makes the driver, and the engine for modules around it.
func open(ctx context.Context, o options) (runner.Runner, func() error, error) {
	driver, closer, err := openDriver(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	m, err := wasm.New(wasm.Options{Driver: driver, Cache: o.wasmCache()})
	if err != nil {
		return nil, nil, errors.Join(err, closer())
	}
	return m, func() error { return errors.Join(m.Close(), closer()) }, nil
}

func openDriver(ctx context.Context, o options) (runner.Runner, func() error, error) {
	if o.driver == "systemd" {
		r, err := systemd.New(ctx, systemd.Options{})
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	r, err := namespace.New(namespace.Options{})
	return r, func() error { return nil }, err
}
