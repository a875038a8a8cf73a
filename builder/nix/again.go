package nix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/source"
)

// EvaluateAgain implements derivation.Backend: the flake that a claim names must give the derivation.
func (b Backend) EvaluateAgain(ctx context.Context, doc *manifest.Build, fetch derivation.Fetcher) error {
	claim := doc.Spec.Derivation
	lie := func(format string, args ...any) error {
		return &builder.ClaimError{Name: doc.Metadata.Name, Cause: fmt.Sprintf(format, args...)}
	}
	if len(claim.Flakes) == 0 {
		return nil
	}
	for i, f := range claim.Flakes {
		err := b.bringFlake(ctx, f, fetch)
		if _, missing := errors.AsType[*source.MissingError](err); missing && i > 0 {
			continue // Nix gets it from where the lock file says, if it is needed
		}
		if err != nil {
			return err
		}
	}
	top := claim.Flakes[0]
	tree, err := storepath.Source(storepath.Nix, "source", top.Ref.Digest, nil, false)
	if err != nil {
		return err
	}
	inputs, err := lockedInputs(b.At.file(tree.String()), top.Dir)
	if err != nil {
		return err
	}
	if !slices.Equal(inputs, claim.Flakes[1:]) {
		return lie("its flake locks other inputs than it lists")
	}
	got, err := b.Nix.evaluateTree(ctx, b.At, "evaluate the claim's flake", top, claim.Attribute)
	if failed, ok := errors.AsType[*CommandError](err); ok {
		return &source.MissingError{Inputs: []string{claim.Flakes[0].Ref.String()}, Cure: failed.Error()}
	}
	if err != nil {
		return err
	}
	if got != claim.Ref.Location {
		return lie("its flake gives the derivation %s, not %s", got, claim.Ref.Location)
	}
	return nil
}

// bringFlake brings the tree of a flake into the store: from the receipt or an archive, or from where it may be found.
func (b Backend) bringFlake(ctx context.Context, f manifest.BuildFlake, fetch derivation.Fetcher) error {
	at, err := storepath.Source(storepath.Nix, "source", f.Ref.Digest, nil, false)
	if err != nil {
		return err
	}
	if valid, err := b.Nix.isValid(ctx, b.At, at.String()); err != nil || valid {
		return err
	}
	trees, err := fetch.FetchAll(ctx, []manifest.BuildInput{{Name: f.Ref.Location, Ref: f.Ref}}, "")
	if _, missing := errors.AsType[*source.MissingError](err); missing && fetchable(f.URL) && !b.Nix.Offline {
		_, nixErr := b.Nix.run(ctx, b.At, call{act: "fetch " + f.URL, program: "nix", verb: []string{"flake", "metadata"}, args: []string{"--json", f.URL}})
		if valid, validErr := b.Nix.isValid(ctx, b.At, at.String()); nixErr == nil && validErr == nil && valid {
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	return b.Nix.bring(ctx, b.At, []derivation.Import{{Path: at.String(), File: trees[f.Ref.Location].Path}})
}

// fetchable reports whether Nix may be told to fetch from a place that only a claim names: it is no option, no local file, and no program.
func fetchable(place string) bool {
	for _, scheme := range []string{"github:", "gitlab:", "sourcehut:", "https://", "git+https://"} {
		if strings.HasPrefix(place, scheme) {
			return true
		}
	}
	return false
}
