package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

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

// openNix returns the store that Nix builds in.
func (w *workshop) openNix(f nixFlags) (nix.Backend, error) {
	name := f.store
	if name == "" {
		data, err := w.app.dir("ARCH_DATA", "XDG_DATA_HOME", ".local/share")
		if err != nil {
			return nix.Backend{}, err
		}
		name = filepath.Join(data, "nix")
	}
	at, err := nix.OpenStore(name)
	if err != nil {
		return nix.Backend{}, hinted(usage("--nix-store: %v", err), `name a directory, or "auto" for the machine's own store`)
	}
	if at.Dir != "" {
		if err := os.MkdirAll(at.Dir, 0o755); err != nil {
			return nix.Backend{}, fmt.Errorf("make Nix store: %w", err)
		}
	}
	return nix.Backend{Nix: nix.Nix{Bin: f.bin, Offline: w.fetch.Offline}, At: at}, nil
}

// openConfinedNix is openNix for what is to be attested.
func (w *workshop) openConfinedNix(ctx context.Context, f nixFlags, degraded bool) (nix.Backend, error) {
	b, err := w.openNix(f)
	if err == nil {
		b, err = nix.Open(ctx, b.Nix, b.At)
	}
	if err == nil && !degraded {
		err = b.Unconfined()
	}
	return b, err
}
