package main

import (
	"context"
	"errors"
	"path"

	"arch.network/attest"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/runner/cdi"
	"arch.network/runner/closure"
	"arch.network/runner/job"
)

// closure finds every store path that the program refers to, each checked against the NAR hash that somebody vouches for:
// its own name, if that says what is in it, or else the host's Nix or Guix.
func (w *runshop) closure(ctx context.Context, got source.Content, c *jobContent) error {
	host := &closure.Host{}
	defer host.Close()
	top := got.Ref.Location
	paths, err := closure.Compute(ctx, top, got.Ref.Digest, closure.Options{Verify: host.Verify, Locate: w.fetch.StorePath})
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

// resolveDevices looks up the devices that the document names.
func resolveDevices(names, dirs []string) (job.Devices, error) {
	if len(names) == 0 {
		return job.Devices{}, nil
	}
	if len(dirs) == 0 {
		dirs = cdi.Directories()
	}
	e, err := cdi.Resolve(names, dirs)
	return job.Devices{Nodes: e.Devices, Mounts: e.Mounts, Env: e.Env}, err
}
