package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Open returns the backend of a store, after a look at what Nix's configuration lets builders see there.
func Open(ctx context.Context, n Nix, s Store) (Backend, error) {
	b := Backend{Nix: n, At: s}
	if !s.own() {
		return b, nil
	}
	var err error
	b.lent, err = n.lentPaths(ctx, s)
	return b, err
}

// Unconfined returns a *DaemonError or a *LentError if builders are not in a sandbox, or not in one that holds nothing but what they depend on.
func (b Backend) Unconfined() error {
	switch {
	case !b.At.own():
		return &DaemonError{}
	case len(b.lent) > 0:
		return &LentError{b.lent}
	}
	return nil
}

// LentError says that builders see files of this machine that no receipt lists.
type LentError struct{ Paths []string }

func (e *LentError) Error() string {
	return "attest a build by Nix: its configuration lets builders see " + strings.Join(e.Paths, ", ") + ", which the receipt would not list"
}

// Hint tells the way out.
func (e *LentError) Hint() string {
	return "take sandbox-paths out of nix.conf and NIX_CONFIG; or allow it with --degraded, and the receipt names another builder"
}

// lentPaths returns the sandbox-paths of Nix's configuration beyond those that this Nix has by itself, such as a static shell as /bin/sh.
func (n *Nix) lentPaths(ctx context.Context, s Store) ([]string, error) {
	configured, err := n.sandboxPaths(ctx, s)
	if err != nil || len(configured) == 0 {
		return nil, err
	}
	bare := Nix{Bin: n.Bin, Offline: n.Offline, Conf: filepath.Join(s.Dir, "no-configuration")}
	usual, err := bare.sandboxPaths(ctx, s)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(configured, func(p string) bool { return slices.Contains(usual, p) }), nil
}

// sandboxPaths returns what builders in a store see besides what they depend on, as INSIDE=OUTSIDE or, if both are the same, INSIDE; sorted.
func (n *Nix) sandboxPaths(ctx context.Context, s Store) ([]string, error) {
	text, err := n.run(ctx, s, call{act: "look up Nix's settings", program: "nix", verb: []string{"show-config"}, args: []string{"--json"}})
	if err != nil {
		return nil, err
	}
	var settings struct {
		Paths *struct {
			Value json.RawMessage `json:"value"`
		} `json:"sandbox-paths"`
	}
	if err := json.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("look up Nix's settings: %w", err)
	}
	if settings.Paths == nil {
		return nil, errors.New("look up Nix's settings: sandbox-paths is not among them")
	}
	var list []string
	if json.Unmarshal(settings.Paths.Value, &list) == nil { // as 2.8 has it
		return slices.Sorted(slices.Values(list)), nil
	}
	var byPath map[string]struct {
		Source string `json:"source"`
	}
	if err := json.Unmarshal(settings.Paths.Value, &byPath); err != nil { // as 2.34 has it
		return nil, fmt.Errorf("look up Nix's settings: sandbox-paths: %w", err)
	}
	for inside, p := range byPath {
		if p.Source != inside {
			inside += "=" + p.Source
		}
		list = append(list, inside)
	}
	return slices.Sorted(slices.Values(list)), nil
}
