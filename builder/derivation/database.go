package derivation

import (
	"context"
	"slices"

	"arch.network/attest/digest"
	"arch.network/runner/closure/daemon"
)

// Database is what a store's database says, which is asked over a connection of its own each time.
type Database func(ctx context.Context) (*daemon.Client, error)

// Hashes is Backend.Hashes.
func (d Database) Hashes(ctx context.Context, paths []string) (map[string]digest.SHA256, error) {
	c, err := d(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	sums := make(map[string]digest.SHA256, len(paths))
	for _, path := range paths {
		info, err := c.PathInfo(ctx, path)
		if err != nil {
			return nil, err
		}
		sums[path] = info.NAR
	}
	return sums, nil
}

// References is Backend.References.
func (d Database) References(ctx context.Context, path string) ([]string, error) {
	c, err := d(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	info, err := c.PathInfo(ctx, path)
	return slices.DeleteFunc(info.References, func(ref string) bool { return ref == path }), err
}

// Missing is Backend.Missing.
func (d Database) Missing(ctx context.Context, paths []string) (map[string]bool, error) {
	c, err := d(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	missing := map[string]bool{}
	for _, path := range paths {
		valid, err := c.IsValid(ctx, path)
		if err != nil {
			return nil, err
		}
		if !valid {
			missing[path] = true
		}
	}
	return missing, nil
}
