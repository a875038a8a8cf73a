package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

// lentPaths returns the sandbox-paths of Nix's configuration beyond those that Nix was compiled with, such as a static shell as /bin/sh.
func (n *Nix) lentPaths(ctx context.Context, s Store) ([]string, error) {
	text, err := n.run(ctx, s, call{act: "look up Nix's settings", program: "nix", verb: []string{"show-config"}, args: []string{"--json"}})
	if err != nil {
		return nil, err
	}
	var settings map[string]struct {
		Value        json.RawMessage `json:"value"`
		DefaultValue json.RawMessage `json:"defaultValue"`
	}
	if err := json.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("look up Nix's settings: %w", err)
	}
	paths, ok := settings["sandbox-paths"]
	if !ok || len(paths.Value) == 0 {
		return nil, fmt.Errorf("look up Nix's settings: there is no sandbox-paths among the %d", len(settings))
	}
	var value, usual []string
	if json.Unmarshal(paths.Value, &value) != nil || json.Unmarshal(paths.DefaultValue, &usual) != nil {
		if bytes.Equal(paths.Value, paths.DefaultValue) {
			return nil, nil
		}
		return []string{string(paths.Value)}, nil
	}
	return slices.DeleteFunc(value, func(p string) bool { return slices.Contains(usual, p) }), nil
}
