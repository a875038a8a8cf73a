package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/namespace"
	"arch.network/runner/systemd"
	"arch.network/runner/wasm"
)

// The ways to confine a job.
const (
	driverAuto      = "auto"
	driverSystemd   = "systemd"
	driverNamespace = "namespace"
)

// driver is one row of the table of drivers.
type driver struct {
	name string
	// fits reports whether auto would choose it here, and why not.
	fits func() error
	open func(ctx context.Context) (runner.Runner, func() error, error)
}

// drivers are all that there are, in the order in which auto tries them. Each one says for itself whether it fits, by looking
// at the host and trying nothing: the runner's own probes decide whether it works.
func drivers() []driver {
	return []driver{
		{driverSystemd, fitsSystemd, openSystemd},
		{driverBroker, fitsBroker, nil}, // opened for a job: see openRunner
		{driverNamespace, func() error { return nil }, openNamespace},
	}
}

func driverNames() []string {
	names := []string{driverAuto}
	for _, d := range drivers() {
		names = append(names, d.name)
	}
	return names
}

func checkDriver(name string) error {
	if !slices.Contains(driverNames(), name) {
		return usage("--driver: %q is not one of %s", name, strings.Join(driverNames(), ", "))
	}
	return nil
}

// chooseDriver returns the driver of that name; for auto the first that fits. The broker takes only what is signed.
func chooseDriver(name string, signed bool) driver {
	all := drivers()
	for _, d := range all {
		if d.name == name || name == driverAuto && (d.name != driverBroker || signed) && d.fits() == nil {
			return d
		}
	}
	return all[len(all)-1]
}

// systemdRunning is there if and only if systemd is the first process: sd_booted(3).
const systemdRunning = "/run/systemd/system"

func fitsSystemd() error {
	if info, err := os.Lstat(systemdRunning); err != nil || !info.IsDir() {
		return errors.New("systemd is not the first process here")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root may start units")
	}
	return nil
}

func openSystemd(ctx context.Context) (runner.Runner, func() error, error) {
	r, err := systemd.New(ctx, systemd.Options{})
	if err != nil {
		return nil, nil, err
	}
	return r, r.Close, nil
}

func openNamespace(context.Context) (runner.Runner, func() error, error) {
	r, err := namespace.New(namespace.Options{})
	return r, func() error { return nil }, err
}

// ownWorker is a static build of this program, for where the running one is linked dynamically; empty: the running one.
func ownWorker() string { return os.Getenv("ARCH_WORKER") }

// unitInner is what confines within a unit of the systemd driver.
func unitInner() (runner.Runner, error) {
	return namespace.New(namespace.Options{NoCgroups: true, CountRefused: true})
}

// cacheDir is a directory for what can be made again: unpacked images, machine code of modules.
func (a *app) cacheDir(name string) (string, error) {
	d, err := a.dir("ARCH_CACHE", "XDG_CACHE_HOME", ".cache")
	if err != nil {
		return "", err
	}
	d = filepath.Join(d, name)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	return d, nil
}

// openRunner starts nothing: it makes the driver, and for modules the engine around it.
func (w *runshop) openRunner(ctx context.Context, t *jobTarget, o runOptions) error {
	if t.byBroker {
		w.runner = &brokerRunner{
			envelope: t.env.Marshal(), store: w.store, fetch: w.fetch, timeout: o.timeout, interpret: o.interpret,
			told: func(r broker.Response) { t.allowedBy = "by the broker, under policy " + r.Policy },
		}
		return nil
	}
	r, closer, err := w.driver.open(ctx)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, closer)
	if w.runner = r; t.doc.Spec.Runtime != manifest.RuntimeWasm {
		return nil
	}
	dir, err := w.app.cacheDir("wasm")
	if err != nil {
		return err
	}
	m, err := wasm.New(wasm.Options{Driver: r, Worker: ownWorker(), Cache: dir})
	if err != nil {
		return err
	}
	w.runner, w.closers = m, append(w.closers, m.Close)
	return nil
}
