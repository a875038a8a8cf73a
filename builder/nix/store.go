package nix

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest"
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

// registered returns what Nix's database says of the NAR hash of each path.
func (n *Nix) registered(ctx context.Context, s Store, paths []string) (map[string]digest.SHA256, error) {
	out := map[string]digest.SHA256{}
	for len(paths) > 0 {
		some := paths[:min(len(paths), maxArgs)]
		paths = paths[len(some):]
		text, err := n.run(ctx, s, call{act: "look up hashes", program: "nix-store", args: append([]string{"--query", "--hash"}, some...)})
		if err != nil {
			return nil, err
		}
		lines := strings.Fields(string(text))
		if len(lines) != len(some) {
			return nil, fmt.Errorf("look up hashes: %d answers for %d paths", len(lines), len(some))
		}
		for i, path := range some {
			if out[path], err = digest.Parse(lines[i]); err != nil {
				return nil, fmt.Errorf("look up hash of %s: %w", path, err)
			}
		}
	}
	return out, nil
}

// maxArgs is how many paths one program is given: a path has at most 250 bytes, and Linux allows 2 MiB of arguments at least where it
// allows less than that for all.
const maxArgs = 1000

// invalid returns those paths that a store does not have, as Nix sees it.
func (n *Nix) invalid(ctx context.Context, s Store, paths []string) (map[string]bool, error) {
	out := map[string]bool{}
	for some := range slices.Chunk(paths, maxArgs) {
		text, err := n.run(ctx, s, call{
			act: "look up " + some[0], program: "nix-store", args: append([]string{"--check-validity", "--print-invalid"}, some...),
		})
		if err != nil {
			return nil, err
		}
		for path := range strings.FieldsSeq(string(text)) {
			out[path] = true
		}
	}
	return out, nil
}

// isValid reports whether a store has an object.
func (n *Nix) isValid(ctx context.Context, s Store, path string) (bool, error) {
	missing, err := n.invalid(ctx, s, []string{path})
	return err == nil && !missing[path], err
}
