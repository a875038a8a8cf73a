package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"arch.network/builder/binarycache"
)

func newKeyCacheCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cache NAME FILE",
		Short: "Make a key that signs a binary cache of Nix, in the form of Nix",
		Long: `Cache writes a new secret key to FILE, NAME:BASE64 as nix-store --generate-binary-cache-key does, and prints the public key, which
clients add to trusted-public-keys. NAME is by custom the host's, and a number that is counted up with each new key.`,
		Example: "  arch key cache cache.example.org-1 cache.sec",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := binarycache.GenerateKey(args[0], rand.Reader)
			if err != nil {
				return withStatus(exitUsage, err)
			}
			if err := writeSecret(args[1], []byte(key.Reveal()+"\n")); err != nil {
				return hinted(fmt.Errorf("write cache key: %w", err), "a key file is never overwritten")
			}
			res := cacheKey{key.Public().String(), args[1]}
			return a.print(res, func(s *screen) { fmt.Fprintln(s, res.Key) })
		},
	}
}

// cacheKey is a new key of a binary cache.
type cacheKey struct {
	Key  string `json:"key"` // the public one, as clients name it
	File string `json:"file"`
}

func (cacheKey) kind() string { return "CacheKey" }

// writeSecret writes a new file that only its owner may read.
func writeSecret(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}
