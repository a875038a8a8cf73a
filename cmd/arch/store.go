package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/builder/store"
	"arch.network/runner/oci"
)

func newStoreCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "List, verify and clean the store",
		Long:  "The store holds inputs and outputs by content. It can be removed at any time: everything in it can be fetched or built again.",
	}
	c.AddCommand(newStoreListCommand(a), newStoreGCCommand(a), newStoreVerifyCommand(a))
	return c
}

// objectResult is what --json shows of an object.
type objectResult struct {
	Kind   string    `json:"type"`
	Digest string    `json:"digest"`
	Size   int64     `json:"size"`
	Added  time.Time `json:"added"`
	Roots  []string  `json:"roots,omitempty"`
}

func (objectResult) kind() string { return "StoreObject" }

// objectList is what is in the store.
type objectList struct {
	Objects []objectResult `json:"objects"`
}

func (objectList) kind() string { return "StoreObjectList" }

func (l objectList) items() []result { return itemsOf(l.Objects) }

func describeObjects(objects []store.Object) []objectResult {
	out := []objectResult{}
	for _, o := range objects {
		out = append(out, objectResult{string(o.Kind), o.Digest.String(), o.Size, o.Added, o.Roots})
	}
	return out
}

func showObjects(w *screen, objects []objectResult) {
	for _, o := range objects {
		kept := ""
		if len(o.Roots) > 0 {
			quoted := make([]string, len(o.Roots))
			for i, root := range o.Roots {
				quoted[i] = strconv.Quote(root)
			}
			kept = "  kept by " + strings.Join(quoted, ", ")
		}
		fmt.Fprintf(w, "%-4s %s %10s%s\n", o.Kind, o.Digest, size(o.Size), kept)
	}
}

func (a *app) withStore(run func(s *store.Store) error) error {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	return run(s)
}

func newStoreListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List what is in the store and what keeps it",
		Example: "  arch store ls",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(func(s *store.Store) error {
				objects, err := s.List(c.Context())
				if err != nil {
					return err
				}
				res := describeObjects(objects)
				return a.print(objectList{res}, func(w *screen) { showObjects(w, res) })
			})
		},
	}
}

func newStoreGCCommand(a *app) *cobra.Command {
	var opts store.GCOptions
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no result directory keeps",
		Long: `Gc removes objects that no root keeps and that were added longer ago than --age. Result directories of builds are roots;
what was fetched is not. It waits for running builds. Then it removes images that were unpacked for jobs and not used for as long,
unless a job runs on them.`,
		Example: "  arch store gc --dry-run\n  arch store gc --age 720h",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opts.Age < 0 {
				return usage("--age: %s is negative", opts.Age)
			}
			return a.withStore(func(s *store.Store) error { return a.runGC(c.Context(), s, opts) })
		},
	}
	c.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be removed")
	c.Flags().DurationVar(&opts.Age, "age", store.DefaultAge, "keep what was added within this time")
	return c
}

// gcResult is what was removed from the store.
type gcResult struct {
	DryRun  bool           `json:"dryRun"` // nothing was
	Removed []objectResult `json:"removed"`
	Kept    int            `json:"kept"`
	Freed   int64          `json:"freed"`  // bytes
	Images  int            `json:"images"` // unpacked layers and root file systems that were removed
}

func (gcResult) kind() string { return "StoreCollection" }

func (a *app) runGC(ctx context.Context, s *store.Store, opts store.GCOptions) error {
	if opts.Age == 0 {
		opts.Age = -1 // the store's zero means its default
	}
	report, err := s.GC(ctx, opts)
	if err != nil {
		return err
	}
	images, err := a.cleanImages(ctx, opts)
	if err != nil {
		return err
	}
	res := gcResult{opts.DryRun, describeObjects(report.Removed), report.Kept, report.Freed, images}
	return a.print(res, func(w *screen) {
		verb := "removed"
		if opts.DryRun {
			verb = "would remove"
			showObjects(w, res.Removed)
		}
		fmt.Fprintf(w, "%s %d objects, %s; %d stay\n", verb, len(res.Removed), size(res.Freed), res.Kept)
		if res.Images > 0 {
			fmt.Fprintf(w, "%s %d unpacked layers and root file systems of images\n", verb, res.Images)
		}
	})
}

// cleanImages removes what images were unpacked to, and what nobody has used within the age.
func (a *app) cleanImages(ctx context.Context, opts store.GCOptions) (int, error) {
	dir, err := a.cacheDir("images")
	if err != nil {
		return 0, err
	}
	cache, err := oci.Open(ctx, oci.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer cache.Close()
	return cache.Clean(ctx, oci.CleanOptions{Unused: opts.Age, DryRun: opts.DryRun})
}

func newStoreVerifyCommand(a *app) *cobra.Command {
	var repair bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Hash everything in the store again",
		Long: `Verify hashes every object and checks every record. With --repair, damaged ones are moved to the directory "corrupt" of the
store, so that they are fetched or built again.

EXIT STATUS: 0 everything is whole; 1 error; 4 something is damaged.`,
		Example: "  arch store verify --repair",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(func(s *store.Store) error { return a.verifyStore(c.Context(), s, repair) })
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "move what is damaged out of the way")
	return c
}

// storeCheck is what was found when everything in the store was hashed.
type storeCheck struct {
	OK      bool     `json:"ok"`
	Objects int      `json:"objects"`
	Records int      `json:"records"`
	Bytes   int64    `json:"bytes"`
	Damaged []damage `json:"damaged"`
}

func (storeCheck) kind() string { return "StoreCheck" }

// damage is something in the store that is not what it was.
type damage struct {
	Path  string `json:"path"`
	Cause string `json:"cause"`
	Moved string `json:"moved,omitempty"` // where to, if it was moved away
}

func (a *app) verifyStore(ctx context.Context, s *store.Store, repair bool) error {
	report, err := s.Verify(ctx, store.VerifyOptions{Repair: repair})
	if err != nil {
		return err
	}
	res := storeCheck{report.OK(), report.Objects, report.Records, report.Bytes, []damage{}}
	for _, d := range report.Damaged {
		res.Damaged = append(res.Damaged, damage(d))
	}
	err = a.print(res, func(w *screen) {
		for _, d := range res.Damaged {
			fmt.Fprintf(w, "DAMAGED %s: %s\n", d.Path, d.Cause)
			if d.Moved != "" {
				fmt.Fprintf(w, "        moved to %s\n", d.Moved)
			}
		}
		fmt.Fprintf(w, "%d objects (%s) and %d records checked, %d damaged\n", res.Objects, size(res.Bytes), res.Records, len(res.Damaged))
	})
	if err != nil || res.OK {
		return err
	}
	err = withStatus(exitVerification, fmt.Errorf("verify store: %d of %d objects and records are damaged", len(res.Damaged), res.Objects+res.Records))
	if repair {
		return hinted(err, "they were moved away, and will be fetched or built again when they are needed")
	}
	return hinted(err, "--repair moves them out of the way, so that they are fetched or built again")
}
