package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"arch.network/agent/executor"
	"arch.network/builder/store"
	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// The ways to have jobs run.
const (
	driverAuto      = "auto"
	driverBroker    = "broker"
	driverSystemd   = "systemd"
	driverNamespace = "namespace"
)

// driver is one row of the table of drivers.
type driver struct {
	name string
	fits func(o options) bool // whether auto would choose it here; it tries nothing
	open func(ctx context.Context, o options, s *store.Store) (executor.Driver, func() error, error)
}

// drivers are all that there are, in the order in which auto tries them.
func drivers() []driver {
	return []driver{
		{driverBroker, func(o options) bool { return exists(brokerSocket(o)) }, openBroker},
		{driverSystemd, func(options) bool { return os.Geteuid() == 0 && exists(systemdRunning) }, openSystemd},
		{driverNamespace, func(options) bool { return true }, openNamespace},
	}
}

func driverNames() []string {
	names := []string{driverAuto}
	for _, d := range drivers() {
		names = append(names, d.name)
	}
	return names
}

func chooseDriver(o options) driver {
	for _, d := range drivers() {
		if d.name == o.driver || o.driver == driverAuto && d.fits(o) {
			return d
		}
	}
	return driver{}
}

// systemdRunning is there if and only if systemd is the first process: sd_booted(3).
const systemdRunning = "/run/systemd/system"

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func brokerSocket(o options) string {
	if o.broker != "" {
		return o.broker
	}
	return broker.DefaultSocket
}

func openBroker(_ context.Context, o options, s *store.Store) (executor.Driver, func() error, error) {
	return &executor.Broker{Client: broker.Client{Path: brokerSocket(o)}, Store: s}, func() error { return nil }, nil
}

func openNamespace(_ context.Context, o options, _ *store.Store) (executor.Driver, func() error, error) {
	r, err := namespace.New(namespace.Options{})
	if err != nil {
		return nil, nil, err
	}
	class, err := wasm.PoolClass(os.Getenv("ARCH_WORKER"))
	if err != nil {
		return nil, nil, err
	}
	pool, err := r.NewPool(namespace.PoolOptions{Class: class, Size: poolSize})
	if err != nil {
		return nil, nil, err
	}
	m, err := openWasm(o, r, pool)
	if err != nil {
		return nil, nil, errors.Join(err, pool.Close())
	}
	return &executor.Direct{Runner: m}, func() error { return errors.Join(m.Close(), pool.Close()) }, nil
}

// poolSize is how many workers wait for modules whose limits are the class's; for others they are started when they are needed.
const poolSize = 1

func openSystemd(ctx context.Context, o options, _ *store.Store) (executor.Driver, func() error, error) {
	r, err := systemd.New(ctx, systemd.Options{})
	if err != nil {
		return nil, nil, err
	}
	m, err := openWasm(o, r, nil)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	surviving := func(ctx context.Context) ([]executor.Survivor, error) {
		list, err := r.Adopt(ctx)
		if err != nil {
			return nil, err
		}
		var out []executor.Survivor
		for _, unit := range list {
			out = append(out, survivor{unit})
		}
		return out, nil
	}
	return &executor.Direct{Runner: m, Surviving: surviving}, func() error { return errors.Join(m.Close(), r.Close()) }, nil
}

// survivor is a unit that went on without us.
type survivor struct{ *systemd.Running }

// Name implements executor.Survivor.
func (s survivor) Name() string { return s.Running.Name }

func openWasm(o options, driver runner.Runner, pool runner.Pool) (*wasm.Runner, error) {
	return wasm.New(wasm.Options{Driver: driver, Pool: pool, Worker: os.Getenv("ARCH_WORKER"), Cache: filepath.Join(o.state, "wasm")})
}
