package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheserver"
	"arch.network/builder/nix"
)

const serveStoreHelp = `Serve-store publishes a store over HTTP as a binary cache, which Nix substitutes from: narinfos, NARs packed with zstd, and listings. It opens
nothing else, writes nothing, and by default is reached from this machine only.

Without --nix-store it is the store of arch. Its trees have no names and no references, so each is published as the path that is named by its NAR hash
and the name "source", which is where Nix looks for the inputs of flakes and what else it fetches; NAME=DIGEST publishes a tree under a further
name. Such paths prove themselves, and need no signature.

With --nix-store it is the store of a Nix: / or the root of a chroot store. Its paths are read and hashed as they are asked for, and no
database is; references are found as Nix finds them. Realisations, which say what came out of content-addressed derivations, are in the database
alone: nix-daemon is asked for them, of an installed Nix with the experimental feature ca-derivations. They are published in the layout that Nix until 2.34
reads, and signed; but a Nix that substitutes does not look at signatures of realisations: who may say them is decided by which caches it is given.

--key names a key of Nix, as arch key cache makes them. --receipts publishes what arch receipts publish has put beside a cache.

EXIT STATUS: 0 stopped; 1 error; 2 usage.`

type serveStoreOptions struct {
	listen, nixStore, key, receipts string
	priority                        int
}

func newServeStoreCommand(a *app) *cobra.Command {
	var o serveStoreOptions
	c := &cobra.Command{
		Use:   "serve-store [NAME=DIGEST...]",
		Short: "Publish a store as a binary cache for Nix, to be read only",
		Long:  serveStoreHelp,
		Example: `  arch serve-store hello-src=sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
  arch serve-store --nix-store / --key cache.sec --listen 127.0.0.1:7342`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.priority < 1 {
				return usage("--priority: %d is not 1 or more", o.priority)
			}
			opts := cacheserver.Options{Priority: o.priority, Receipts: o.receipts}
			if o.key != "" {
				key, err := a.readCacheKey(o.key)
				if err != nil {
					return err
				}
				opts.Keys = append(opts.Keys, key)
			}
			if o.nixStore != "" {
				return a.serveNixStore(c, o, opts, args)
			}
			names, err := parseTreeNames(args)
			if err != nil {
				return err
			}
			s, err := a.openStore()
			if err != nil {
				return err
			}
			defer s.Close()
			return a.serveCache(c, o, cacheserver.New(&cacheserver.Trees{Store: s, Names: names}, opts), opts)
		},
	}
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:7342", "address to listen at")
	c.Flags().StringVar(&o.nixStore, "nix-store", "", "publish the store of Nix below this root instead")
	c.Flags().StringVar(&o.key, "key", "", "secret key of a binary cache that signs, a file with NAME:BASE64")
	c.Flags().StringVar(&o.receipts, "receipts", "", "directory of a cache whose receipts are published, too")
	c.Flags().IntVar(&o.priority, "priority", 50, "what clients sort caches by: the lower, the earlier")
	return c
}

func (a *app) serveNixStore(c *cobra.Command, o serveStoreOptions, opts cacheserver.Options, args []string) error {
	if len(args) > 0 {
		return usage("names are for trees of the store of arch; paths of a store of Nix have theirs")
	}
	if o.key == "" {
		return hinted(usage("--nix-store needs --key: Nix takes such paths only if they are signed"), "arch key cache NAME FILE makes a key")
	}
	s, err := cacheserver.OpenDir(o.nixStore, "/nix/store")
	if err != nil {
		return hinted(err, "--nix-store names the directory that has nix/store in it")
	}
	defer s.Close()
	at, err := nix.OpenStore(cmp.Or(strings.TrimSuffix(o.nixStore, "/"), nix.Machine))
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.nixStore, "nix/var/nix/db/db.sqlite")); err == nil { // or else Nix would make one
		opts.Realisations = &cacheserver.Realisations{Open: (&nix.Nix{Offline: true}).Database(at)}
		defer opts.Realisations.Close()
	}
	return a.serveCache(c, o, cacheserver.New(s, opts), opts)
}

func (a *app) serveCache(c *cobra.Command, o serveStoreOptions, h http.Handler, opts cacheserver.Options) error {
	for _, key := range opts.Keys {
		a.note("clients trust it with: trusted-public-keys = %s", key.Public())
	}
	return a.serve(c.Context(), o.listen, h, "the cache is published")
}

// readCacheKey reads the secret key of a binary cache.
func (a *app) readCacheKey(path string) (binarycache.SecretKey, error) {
	const hint = "arch key cache NAME FILE makes a key"
	text, err := a.readFile(path, 4<<10)
	if err != nil {
		return binarycache.SecretKey{}, hinted(fmt.Errorf("read cache key: %w", err), hint)
	}
	key, err := binarycache.ParseSecretKey(string(text))
	if err != nil {
		return binarycache.SecretKey{}, hinted(fmt.Errorf("%s: %w", path, err), hint)
	}
	return key, nil
}

// parseTreeNames reads NAME=DIGEST.
func parseTreeNames(args []string) (map[digest.SHA256][]string, error) {
	names := map[digest.SHA256][]string{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		sum, err := digest.Parse(text)
		if !ok || err != nil {
			return nil, hinted(usage("%q is not NAME=DIGEST", arg), "the digest is a tree's, as arch store ls shows it")
		}
		if _, err := storepath.Source(storepath.Nix, name, sum, nil, false); err != nil {
			return nil, usage("%q: %v", arg, err)
		}
		names[sum] = append(names[sum], name)
	}
	return names, nil
}
