package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"arch.network/builder/guix"
)

// guixFlags are the flags of every command that has Guix evaluate.
type guixFlags struct {
	guix      bool
	manifests []string
	channels  string
}

func (f *guixFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.guix, "guix", false, "Guix builds: TARGET is a package, NAME or NAME@VERSION, or a file FILE.scm that gives one")
	c.Flags().StringArrayVarP(&f.manifests, "manifest", "m", nil, "with --guix: build every package of this manifest (repeatable)")
	c.Flags().StringVar(&f.channels, "channels", "", "with --guix: evaluate with the Guix of the channels in this file, as guix time-machine does")
}

// check refuses flags that have no meaning without --guix.
func (f *guixFlags) check() error {
	switch {
	case f.guix:
		return nil
	case len(f.manifests) > 0:
		return hinted(usage("--manifest names a manifest of Guix, but --guix is not given"), "add --guix; a Build manifest is named without a flag")
	case f.channels != "":
		return hinted(usage("--channels names channels of Guix, but --guix is not given"), "add --guix")
	}
	return nil
}

// targets returns what is to be built by Guix.
func (f *guixFlags) targets(args []string) ([]guix.Target, error) {
	var list []guix.Target
	for _, arg := range args {
		t, err := guix.ParseTarget(arg)
		if err != nil {
			return nil, hinted(usage("%v", err), "`guix search WORD` finds packages")
		}
		list = append(list, t)
	}
	for _, file := range f.manifests {
		t, err := guix.ManifestTarget(file)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// openGuix returns the store that Guix builds in.
func (w *workshop) openGuix(ctx context.Context, f guixFlags) (*guix.Backend, error) {
	return guix.Open(ctx, guix.Options{Socket: os.Getenv("GUIX_DAEMON_SOCKET"), Offline: w.fetch.Offline, Channels: f.channels})
}

// openConfinedGuix is openGuix for what is to be attested.
func (w *workshop) openConfinedGuix(ctx context.Context, f guixFlags, degraded bool) (*guix.Backend, error) {
	b, err := w.openGuix(ctx, f)
	if err == nil && !degraded {
		err = b.Unconfined()
	}
	return b, err
}
