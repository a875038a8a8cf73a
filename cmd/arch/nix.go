package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"arch.network/attest"
	"arch.network/attest/identity"
	"arch.network/builder"
	"arch.network/builder/diff"
	"arch.network/builder/nix"
)

// nixFlags are the flags of every command that has Nix build.
type nixFlags struct {
	store string
	bin   string
}

func (f *nixFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.store, "nix-store", "", `directory of the Nix store to build in, or "auto" for the machine's own (default: one of ours, in the data directory)`)
	c.Flags().StringVar(&f.bin, "nix-bin", "", "directory of Nix's programs (default: PATH)")
}

// nixTargets returns the arguments as what Nix builds; none if they are manifests.
func nixTargets(args []string) ([]nix.Target, error) {
	var list []nix.Target
	for _, arg := range args {
		if t, ok := nix.FindTarget(arg); ok {
			list = append(list, t)
		}
	}
	if len(list) > 0 && len(list) < len(args) {
		return nil, hinted(usage("some targets are built by Nix, and some by us"), "build them in two commands")
	}
	return list, nil
}

// checkNix refuses flags that say how we build.
func checkNix(f *pflag.FlagSet) error {
	for _, name := range []string{"vary", "force", "export", "dry-run"} {
		if f.Changed(name) {
			return hinted(usage("--%s is for manifests: a derivation says itself how it is built", name), "leave out --"+name)
		}
	}
	return nil
}

// openNix returns what has Nix build for a workshop.
func (w *workshop) openNix(f nixFlags, degraded bool) (*nix.Builder, error) {
	name := f.store
	if name == "" {
		data, err := w.app.dir("ARCH_DATA", "XDG_DATA_HOME", ".local/share")
		if err != nil {
			return nil, err
		}
		name = filepath.Join(data, "nix")
	}
	at, err := nix.OpenStore(name)
	if err != nil {
		return nil, hinted(usage("--nix-store: %v", err), `name a directory, or "auto" for the machine's own store`)
	}
	if at.Dir != "" {
		if err := os.MkdirAll(at.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("make Nix store: %w", err)
		}
	}
	return &nix.Builder{
		Nix: nix.Nix{Bin: f.bin, Offline: w.fetch.Offline}, At: at, Store: w.store, Fetch: w.fetch, Now: time.Now, Degraded: degraded,
		Events: func(stage builder.Stage, name string) { w.progress.stage(builder.Event{Stage: stage, Name: name}) },
	}, nil
}

// buildNix builds what Nix builds, one after the other.
func (w *workshop) buildNix(ctx context.Context, o buildOptions, targets []nix.Target, signer identity.Signer) error {
	n, err := w.openNix(o.nixFlags, o.degraded)
	if err != nil {
		return err
	}
	for _, t := range targets {
		made, err := n.Build(ctx, nix.Request{Target: t, Attest: o.attest, Again: o.attest && !o.once})
		if err != nil {
			return w.showDifferences(err)
		}
		if err := w.mayReplace(made.Manifest, o.out); err != nil {
			return err
		}
		if err := w.finish(ctx, o, made, signer); err != nil {
			return err
		}
	}
	return nil
}

// showDifferences prints what an error knows of how two builds differ, and returns it.
func (w *workshop) showDifferences(err error) error {
	differs, ok := asNotReproducible(err)
	if !ok {
		return err
	}
	w.progress.end()
	shown := struct {
		Derivation string                  `json:"derivation"`
		Differ     []builder.Mismatch      `json:"differ"`
		Diffs      map[string]*diff.Report `json:"diffs"`
	}{differs.Drv, differs.Differ, differs.Reports}
	if printErr := w.app.print(shown, func(s *screen) {
		for _, m := range differs.Differ {
			fmt.Fprintf(s, "%s: built twice, with other bits\n  first   %s\n  second  %s\n", m.Output, m.First, m.Second)
			if report := differs.Reports[m.Output]; report != nil {
				report.Text(s)
			}
		}
	}); printErr != nil {
		return printErr
	}
	return err
}

func asNotReproducible(err error) (*nix.NotReproducibleError, bool) {
	return errors.AsType[*nix.NotReproducibleError](err)
}

// rebuildNix rebuilds a claim of what Nix built.
func (w *workshop) rebuildNix(ctx context.Context, o rebuildOptions, r *builder.Rebuild, receipt *attest.Receipt, originals map[string]string) error {
	n, err := w.openNix(o.nixFlags, false)
	if err != nil {
		return err
	}
	return n.Rebuild(ctx, w.builder, r, receipt, originals)
}
