package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"arch.network/attest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/identity"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/diff"
	"arch.network/builder/guix"
	"arch.network/builder/nix"
)

// derivations are targets that Nix or Guix builds: one of the lists is empty.
type derivations struct {
	nix  []nix.Target
	guix []guix.Target
}

func (d derivations) none() bool { return len(d.nix)+len(d.guix) == 0 }

// derivations returns the arguments as what Nix or Guix builds; none if they are manifests of ours.
func (o *buildOptions) derivations(args []string) (d derivations, err error) {
	if o.guix {
		d.guix, err = o.targets(args)
		return d, err
	}
	if err := o.guixFlags.check(); err != nil {
		return d, err
	}
	for _, arg := range args {
		if t, ok := nix.FindTarget(arg); ok {
			d.nix = append(d.nix, t)
		} else if t, ok := guix.FindPath(arg); ok {
			d.guix = append(d.guix, t)
		}
	}
	if most := max(len(d.nix), len(d.guix)); most > 0 && most < len(args) {
		return d, hinted(usage("some targets are built by Nix or Guix, and some not by the same"), "build them in several commands")
	}
	return d, nil
}

// checkDerivation refuses flags that say how we build.
func checkDerivation(f *pflag.FlagSet) error {
	for _, name := range []string{"vary", "force", "export", "dry-run"} {
		if f.Changed(name) {
			return hinted(usage("--%s is for manifests: a derivation says itself how it is built", name), "leave out --"+name)
		}
	}
	return nil
}

// builderOf returns what attests what a backend builds.
func (w *workshop) builderOf(b derivation.Backend) *derivation.Builder {
	return &derivation.Builder{
		At: b, Store: w.store, Fetch: w.fetch, Now: time.Now,
		Events: func(stage builder.Stage, name string) { w.progress.stage(builder.Event{Stage: stage, Name: name}) },
	}
}

// buildDerivations builds what Nix or Guix builds, one after the other.
func (w *workshop) buildDerivations(ctx context.Context, o buildOptions, d derivations, signer identity.Signer) error {
	degraded := o.degraded || signer == nil // which is of importance for receipts alone
	if len(d.guix) > 0 {
		b, err := w.openConfinedGuix(ctx, o.guixFlags, degraded)
		if err != nil {
			return err
		}
		for _, t := range d.guix {
			w.progress.stage(builder.Event{Stage: builder.StageFetch, Name: t.Text})
			list, err := b.Evaluate(ctx, t)
			if err != nil {
				return err
			}
			for _, e := range list {
				if err := w.buildDerivation(ctx, o, b, e, signer); err != nil {
					return err
				}
			}
		}
		return nil
	}
	b, err := w.openConfinedNix(ctx, o.nixFlags, degraded)
	if err != nil {
		return err
	}
	for _, t := range d.nix {
		w.progress.stage(builder.Event{Stage: builder.StageFetch, Name: t.Text})
		e, err := b.Evaluate(ctx, t)
		if err != nil {
			return err
		}
		if err := w.buildDerivation(ctx, o, b, e, signer); err != nil {
			return err
		}
	}
	return nil
}

func (w *workshop) buildDerivation(ctx context.Context, o buildOptions, b derivation.Backend, e derivation.Evaluated, signer identity.Signer) error {
	made, err := w.builderOf(b).Build(ctx, derivation.Request{Of: e, Attest: o.attest, Again: o.attest && !o.once})
	if err != nil {
		return w.showDifferences(err)
	}
	if err := w.mayReplace(made.Manifest, o.out); err != nil {
		return err
	}
	return w.finish(ctx, o, made, signer)
}

// buildDifference tells how two builds of a derivation differ.
type buildDifference struct {
	Derivation string                  `json:"derivation"`
	Differ     []builder.Mismatch      `json:"differ"`
	Diffs      map[string]*diff.Report `json:"diffs"` // by output
}

func (buildDifference) kind() string { return "BuildDifference" }

// showDifferences prints what an error knows of how two builds differ, and returns it.
func (w *workshop) showDifferences(err error) error {
	differs, ok := asNotReproducible(err)
	if !ok {
		return err
	}
	w.progress.end()
	shown := buildDifference{differs.Drv, differs.Differ, differs.Reports}
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

func asNotReproducible(err error) (*derivation.NotReproducibleError, bool) {
	return errors.AsType[*derivation.NotReproducibleError](err)
}

// rebuildDerivation rebuilds a claim of what Nix or Guix built.
func (w *workshop) rebuildDerivation(ctx context.Context, o rebuildOptions, r *builder.Rebuild, receipt *attest.Receipt, originals map[string]string) error {
	b, err := w.rebuildsIn(ctx, o, r)
	if err != nil {
		return err
	}
	return w.builderOf(b).Rebuild(ctx, w.builder, r, receipt, originals)
}

// rebuildsIn returns the store in which a claim is rebuilt.
func (w *workshop) rebuildsIn(ctx context.Context, o rebuildOptions, r *builder.Rebuild) (derivation.Backend, error) {
	at, err := storepath.Parse(r.Build.Spec.Derivation.Ref.Location)
	if err != nil {
		return nil, err
	}
	if at.Dir == storepath.Guix {
		return w.openConfinedGuix(ctx, guixFlags{}, o.degraded)
	}
	return w.openConfinedNix(ctx, o.nixFlags, false)
}
