package nix

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"arch.network/builder/derivation"
	"arch.network/runner/closure/daemon"
)

// Store is a Nix store on this machine. The zero Store is the machine's own, through its daemon if there is one.
type Store struct {
	// Dir is the directory that is / of a store of its own ("chroot store"): its objects are in Dir/nix/store, and are named /nix/store.
	Dir string
}

// Machine is the name of the machine's own store, as Nix calls it.
const Machine = "auto"

// OpenStore returns the store that a text names: "auto", or a directory, which need not exist.
func OpenStore(name string) (Store, error) {
	if name == Machine {
		return Store{}, nil
	}
	if strings.Contains(name, "://") || name == "" {
		return Store{}, fmt.Errorf("open Nix store: %q is neither a directory nor %q", name, Machine)
	}
	dir, err := filepath.Abs(name)
	return Store{Dir: dir}, err
}

func (s Store) url() string {
	if s.Dir == "" {
		return Machine
	}
	return s.Dir
}

// own reports whether Nix works in the store as ourselves, so that the settings that we give are the ones that hold.
func (s Store) own() bool { return s.Dir != "" }

// file returns where a store path is on this machine.
func (s Store) file(path string) string { return filepath.Join("/", s.Dir, path) }

// maxArgs is how many paths one program is given: a path has at most 250 bytes, and Linux allows 2 MiB of arguments at least where it
// allows less than that for all.
const maxArgs = 1000

// Database is what Nix's database says of a store: the machine's own daemon is asked, or else Nix itself, which is started for it. That Nix is not installed is
// a *MissingProgramError.
func (n *Nix) Database(s Store) derivation.Database {
	return func(ctx context.Context) (*daemon.Client, error) {
		cmd, err := n.command(context.WithoutCancel(ctx), s, call{program: "nix-daemon", args: []string{"--stdio"}})
		if err != nil {
			return nil, err
		}
		return daemon.Start(ctx, cmd, nil)
	}
}

// isValid reports whether a store has an object.
func (n *Nix) isValid(ctx context.Context, s Store, path string) (bool, error) {
	missing, err := n.Database(s).Missing(ctx, []string{path})
	return err == nil && !missing[path], err
}
