package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// Open returns the backend of a store, after a look at what Nix lets builders see there besides what they depend on: what this Nix shows by itself, such as
// a static shell as /bin/sh, is described by its hash; what is configured beyond that, and what cannot be hashed, is lent.
func Open(ctx context.Context, n Nix, s Store) (Backend, error) {
	b := Backend{Nix: n, At: s}
	if !s.own() {
		return b, nil
	}
	usual, lent, err := n.visible(ctx, s)
	if err != nil {
		return b, err
	}
	b.lent = lent
	for _, p := range usual {
		d, err := describe(ctx, p)
		switch {
		case errors.Is(err, errNotShown):
		case err != nil:
			b.lent = append(b.lent, fmt.Sprintf("%s (%v)", p, err))
		default:
			b.shown = append(b.shown, d)
		}
	}
	return b, nil
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

// visible returns what builders see besides what they depend on: what this Nix shows by itself, and what its configuration adds.
func (n *Nix) visible(ctx context.Context, s Store) (usual, lent []string, err error) {
	configured, err := n.sandboxPaths(ctx, s)
	if err != nil || len(configured) == 0 {
		return nil, nil, err
	}
	bare := Nix{Bin: n.Bin, Offline: n.Offline, Conf: filepath.Join(s.Dir, "no-configuration")}
	own, err := bare.sandboxPaths(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range configured {
		if slices.Contains(own, p) {
			usual = append(usual, p)
		} else {
			lent = append(lent, p)
		}
	}
	return usual, lent, nil
}

// errNotShown says that a path is shown only where it is, and is not.
var errNotShown = errors.New("it is not there, and need not be")

// describe returns what builders see at a path, INSIDE=OUTSIDE or INSIDE, by its hash: of a file, or of a directory's NAR. A question mark behind it
// says that it need not be there (nix.conf(5), sandbox-paths).
func describe(ctx context.Context, path string) (attest.ResourceDescriptor, error) {
	path, optional := strings.CutSuffix(path, "?")
	inside, outside, different := strings.Cut(path, "=")
	if !different {
		outside = inside
	}
	d := attest.ResourceDescriptor{Name: inside, MediaType: attest.MediaFile}
	at, err := filepath.EvalSymlinks(outside)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return d, errNotShown
	}
	if err != nil {
		return d, err
	}
	info, err := os.Stat(at)
	if err != nil {
		return d, err
	}
	var sum digest.SHA256
	switch {
	case info.IsDir():
		d.MediaType = attest.MediaNAR
		sum, _, err = nar.Hash(ctx, at, nar.Options{})
	case info.Mode().IsRegular():
		sum, err = digest.OfFile(at)
	default:
		err = errors.New("it is neither a file nor a directory")
	}
	d.Digest = map[string]string{"sha256": sum.Hex()}
	return d, err
}

// sandboxPaths returns what builders in a store see besides what they depend on, as INSIDE=OUTSIDE or, if both are the same, INSIDE, with a question
// mark behind it if it need not be there; sorted.
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
		Source   string `json:"source"`
		Optional bool   `json:"optional"`
	}
	if err := json.Unmarshal(settings.Paths.Value, &byPath); err != nil { // as 2.34 has it
		return nil, fmt.Errorf("look up Nix's settings: sandbox-paths: %w", err)
	}
	for inside, p := range byPath {
		if p.Source != inside {
			inside += "=" + p.Source
		}
		if p.Optional {
			inside += "?"
		}
		list = append(list, inside)
	}
	return slices.Sorted(slices.Values(list)), nil
}
