package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/dsse"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/receiptdir"
	"arch.network/builder/challenge"
	"arch.network/builder/nix/drv"
)

func newReceiptsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "receipts",
		Short: "Put receipts beside a binary cache, where others find them",
		Long: `A signature of a binary cache says who serves a path, not who built it, and a cache has room for one builder's word. Receipts lie beside it, in the
directory receipts, many builders' side by side: HASH.receipt.jsonl by the hash part of the store path, and sha256-NIXBASE32.receipt.jsonl by its NAR hash.
arch challenge and arch verify-sigs read them there.`,
	}
	c.AddCommand(newReceiptsPublishCommand(a))
	return c
}

const receiptsPublishHelp = `Publish files each statement of the given receipts under every store path that is a subject of it. What is there already stays. It verifies
nothing: receipts prove what their signatures do, wherever they lie.

With --post-build-hook it makes the receipt, too: as the setting post-build-hook of nix.conf Nix calls it with OUT_PATHS and DRV_PATH in the environment, and it
signs a provenance which says that this machine's Nix built these paths, with their NAR hashes, from that derivation.

EXIT STATUS: 0 published; 1 error; 2 usage.`

type receiptsPublishOptions struct {
	signFlags
	cache, root string
	hook, dry   bool
}

func newReceiptsPublishCommand(a *app) *cobra.Command {
	var o receiptsPublishOptions
	c := &cobra.Command{
		Use:   "publish [FILE...]",
		Short: "File receipts on store paths beside a cache",
		Long:  receiptsPublishHelp,
		Example: `  arch receipts publish --cache /srv/cache hello.receipt.jsonl
  arch receipts publish --cache /srv/cache --post-build-hook --key /etc/arch/key`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case o.cache == "":
				return hinted(usage("--cache is missing: beside which cache?"), "add --cache DIRECTORY")
			case o.hook && len(args) > 0:
				return usage("--post-build-hook makes the receipt from what was built: no files")
			case !o.hook && len(args) == 0:
				return hinted(usage("no receipts are named"), "name files *.receipt.jsonl, or use --post-build-hook")
			case c.Flags().Changed("key") && !o.hook:
				return hinted(usage("--key has no meaning without --post-build-hook"), "receipts in files are signed already")
			}
			return runReceiptsPublish(c.Context(), a, o, args)
		},
	}
	o.signFlags.add(c)
	c.Flags().StringVar(&o.cache, "cache", "", "directory of the cache")
	c.Flags().BoolVar(&o.hook, "post-build-hook", false, "sign a receipt for what $OUT_PATHS names, built from $DRV_PATH")
	c.Flags().BoolVarP(&o.dry, "dry-run", "n", false, "only show the files that would hold them; sign and write nothing")
	c.Flags().StringVar(&o.root, "root", "/", "root below which the store lies that was built in")
	return c
}

func runReceiptsPublish(ctx context.Context, a *app, o receiptsPublishOptions, files []string) error {
	receipt := &attest.Receipt{}
	if o.hook {
		stmt, err := a.hookStatement(ctx, o.root, os.Getenv("OUT_PATHS"), os.Getenv("DRV_PATH"))
		if err != nil {
			return err
		}
		env, err := a.signHook(ctx, o, stmt)
		if err != nil {
			return err
		}
		receipt.Add(env)
	}
	for _, file := range files {
		r, err := readReceipt(file)
		if err != nil {
			return err
		}
		receipt.Merge(r)
	}
	add := func() ([]string, error) { return receiptdir.Add(o.cache, receipt) }
	if o.dry {
		add = func() ([]string, error) { return receiptdir.Files(receipt) }
		a.note("nothing was published: without --dry-run these files would hold the receipts")
	}
	files, err := add()
	if err != nil {
		return err
	}
	return a.print(publishedReceipts{append([]string{}, files...), o.dry}, func(s *screen) {
		for _, name := range files {
			fmt.Fprintln(s, filepath.Join(o.cache, name))
		}
	})
}

// signHook signs a statement, unless nothing is to be published.
func (a *app) signHook(ctx context.Context, o receiptsPublishOptions, stmt *attest.Statement) (*dsse.Envelope, error) {
	if o.dry {
		form, err := stmt.Encode()
		return &dsse.Envelope{PayloadType: attest.PayloadType, Payload: form}, err
	}
	signer, err := a.signer(ctx, o.key, false)
	if err != nil {
		return nil, err
	}
	env, err := stmt.Sign(ctx, signer)
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	return env, nil
}

// publishedReceipts are the files of a cache that hold the receipts.
type publishedReceipts struct {
	Files  []string `json:"files"`
	DryRun bool     `json:"dryRun,omitempty"` // nothing was written
}

func (publishedReceipts) kind() string { return "PublishedReceipts" }

// maxHookOutputs bounds the outputs of one derivation.
const maxHookOutputs = 256

const hookHint = "Nix sets OUT_PATHS and DRV_PATH for its post-build-hook; --root says where a chroot store lies"

// hookStatement is what Nix tells its post-build hook, with the hashes of what is there.
func (a *app) hookStatement(ctx context.Context, root, outPaths, drvPath string) (*attest.Statement, error) {
	from, err := storepath.Parse(drvPath)
	if err != nil || !strings.HasSuffix(from.Name, drv.Suffix) {
		return nil, hinted(usage("DRV_PATH: %.250q is no derivation", drvPath), hookHint)
	}
	source := attest.ResourceDescriptor{Name: from.Name, URI: challenge.ResourceURI(from)}
	outs := strings.Fields(outPaths)
	recipe, err := a.readFile(filepath.Join(root, drvPath), drv.MaxSize)
	switch {
	case err == nil:
		source.Digest = map[string]string{"sha256": digest.Of(recipe).Hex()}
		if len(outs) == 0 { // Nix 2.8 leaves OUT_PATHS empty
			outs, err = builtOutputs(root, recipe)
		}
	case errors.Is(err, fs.ErrNotExist): // what was built for another machine may not be here
		err = nil
	}
	if err != nil {
		return nil, hinted(fmt.Errorf("read derivation %s: %w", from, err), hookHint)
	}
	if len(outs) == 0 || len(outs) > maxHookOutputs {
		return nil, hinted(usage("OUT_PATHS names %d paths, not 1 to %d", len(outs), maxHookOutputs), hookHint)
	}
	var subjects []attest.ResourceDescriptor
	for _, out := range outs {
		p, err := storepath.Parse(out)
		if err != nil {
			return nil, hinted(usage("OUT_PATHS: %v", err), hookHint)
		}
		sum, _, err := nar.Hash(ctx, filepath.Join(root, out), nar.Options{})
		if err != nil {
			return nil, hinted(fmt.Errorf("hash %s: %w", out, err), hookHint)
		}
		subjects = append(subjects, binarycache.Subject(p, sum))
	}
	params, err := json.Marshal(map[string]string{"derivation": from.String()})
	if err != nil {
		return nil, err
	}
	return attest.NewStatement(subjects, &attest.Provenance{
		BuildDefinition: attest.BuildDefinition{
			BuildType: "https://arch.network/buildtypes/nix-derivation/v1", ExternalParameters: params,
			ResolvedDependencies: []attest.ResourceDescriptor{source},
		},
		RunDetails: attest.RunDetails{Builder: attest.Builder{
			ID: "https://arch.network/builders/nix/post-build-hook/v1", Version: map[string]string{"arch": version},
		}},
	})
}

// builtOutputs returns those outputs that a derivation names and that are there.
func builtOutputs(root string, recipe []byte) ([]string, error) {
	d, err := drv.Parse(recipe)
	if err != nil {
		return nil, err
	}
	var outs []string
	for _, o := range d.Outputs {
		if o.Path == "" { // only building told where it is
			continue
		}
		if _, err := os.Lstat(filepath.Join(root, o.Path)); err == nil {
			outs = append(outs, o.Path)
		}
	}
	return outs, nil
}
