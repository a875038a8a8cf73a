package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"

	"arch.network/attest"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/runner/closure"
)

// closure finds every store path that the program refers to, each checked against the NAR hash that somebody vouches for.
func (w *runshop) closure(ctx context.Context, got source.Content, c *jobContent) error {
	top := got.Ref.Location
	known, err := hostStore(ctx, top)
	if err != nil {
		return err
	}
	o := closure.Options{Locate: w.fetch.StorePath}
	if len(known) > 0 {
		o.Verify = closure.Lookup(known)
	}
	paths, err := closure.Compute(ctx, top, got.Ref.Digest, o)
	if err != nil {
		if _, ok := errors.AsType[*closure.HashError](err); ok {
			err = withStatus(exitVerification, err)
		}
		return err
	}
	c.Program.Closure = paths
	for _, p := range paths {
		if p.StorePath == top {
			continue // is there by its own reference
		}
		ref := manifest.Ref{Scheme: manifest.RefStore, Location: p.StorePath, Digest: p.NAR}
		c.inputs = append(c.inputs, attest.ResourceDescriptor{
			Name: path.Base(p.StorePath), URI: ref.String(), MediaType: attest.MediaNAR, Digest: map[string]string{"sha256": p.NAR.Hex()},
		})
	}
	return nil
}

// hostStore asks the database of the host's Nix store what it knows of a closure. Without Nix, or if it does not know the
// path, only what is pinned or content-addressed can be checked.
func hostStore(ctx context.Context, top string) (map[string]closure.Proof, error) {
	if !strings.HasPrefix(top, "/nix/store/") {
		return nil, nil
	}
	if _, err := exec.LookPath("nix-store"); err != nil {
		return nil, nil
	}
	if _, err := os.Lstat(top); err != nil {
		return nil, nil
	}
	known, err := closure.Nix{}.Closure(ctx, top)
	if errors.Is(err, closure.ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the Nix database: %w", err)
	}
	return known, nil
}
