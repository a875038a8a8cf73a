package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"arch.network/runner/checkpoint"
)

const instrumentHelp = `Instrument prepares a WebAssembly module so that a job of it can be stopped, stored and resumed without repeating its work
(spec.checkpointable: true): it counts gas, and binaryen's wasm-opt makes its functions able to return early and to be
entered again where they were. The same module and the same wasm-opt give the same bytes, so it can be a step of a Build.

The result counts the same gas as the module alone, and runs about twice as long where it calls functions all the time.
A module that cannot be prepared can still be stopped and go on: it repeats its work up to that place.`

type instrumentOptions struct {
	out     string
	wasmOpt string
}

func newInstrumentCommand(a *app) *cobra.Command {
	var o instrumentOptions
	c := &cobra.Command{
		Use:     "instrument MODULE",
		Short:   "Prepare a WebAssembly module for checkpoints",
		Long:    instrumentHelp,
		Example: `  arch instrument app.wasm --out app.checkpointable.wasm`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runInstrument(c.Context(), o, args[0])
		},
	}
	c.Flags().StringVarP(&o.out, "out", "o", "", "file to write, - for stdout (required)")
	c.Flags().StringVar(&o.wasmOpt, "wasm-opt", "wasm-opt", "binaryen's wasm-opt, version 108 or later")
	return c
}

// maxModule bounds what is read: bytes.
const maxModule = 64 << 20

func (a *app) runInstrument(ctx context.Context, o instrumentOptions, path string) error {
	if o.out == "" {
		return hinted(usage("--out is not given"), "name the file to write, such as --out app.checkpointable.wasm")
	}
	tool, err := exec.LookPath(o.wasmOpt)
	if errors.Is(err, exec.ErrNotFound) {
		return hinted(fmt.Errorf("find wasm-opt: %w", err), "install binaryen, or name the program with --wasm-opt")
	}
	if err != nil {
		return fmt.Errorf("find wasm-opt: %w", err)
	}
	module, err := a.readFile(path, maxModule)
	if err != nil {
		return err
	}
	prepared, record, err := checkpoint.Instrument(ctx, module, tool)
	if err != nil {
		return fmt.Errorf("instrument %s: %w", path, err)
	}
	if err := a.writeOut(o.out, prepared); err != nil {
		return err
	}
	if o.out == "-" {
		return nil
	}
	return a.print(instrumented{record}, func(s *screen) {
		fmt.Fprintf(s, "%s\n  module   %s\n  was      %s\n  gas      %s\n  wasm-opt %s, %s\n", o.out, record.Output, record.Input, record.Gas, record.ToolVersion, record.Tool)
	})
}

// instrumented is what was done to a module.
type instrumented struct{ checkpoint.Record }

func (instrumented) kind() string { return "InstrumentRecord" }
