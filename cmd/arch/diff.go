package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/builder/diff"
)

func newDiffCommand(a *app) *cobra.Command {
	var opts diff.Options
	var html string
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Explain how two files or trees differ, and why",
		Long: `Diff compares two files or trees and explains every difference: which file, which member of which archive, at which byte,
and the likely cause (mtime, owner, mode, order, path, build-id, timestamp-in-content, compressor, randomness, …).

EXIT STATUS: 0 equal; 1 error; 2 usage; 5 they differ.`,
		Example: "  arch diff result/hello other/hello\n  arch diff --html report.html a/ b/",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if opts.Differences < 1 {
				return usage("--max: %d is not 1 or more", opts.Differences)
			}
			if a.json && html == "-" {
				return hinted(usage("--json and --html - both write to stdout"), "give --html a file")
			}
			return runDiff(c.Context(), a, opts, html, args[0], args[1])
		},
	}
	c.Flags().BoolVar(&opts.Metadata, "metadata", false, "also compare permissions, owners and times of files on disk")
	c.Flags().IntVar(&opts.Differences, "max", 1000, "differences to list and explain; more are counted")
	c.Flags().StringVar(&html, "html", "", "also write the report as a self-contained page to this file; - for stdout instead of text")
	return c
}

// diffResult is what --json shows of a comparison.
type diffResult struct{ *diff.Report }

func (diffResult) kind() string { return "DiffResult" }

func runDiff(ctx context.Context, a *app, opts diff.Options, html, left, right string) error {
	report, err := diff.Compare(ctx, left, right, opts)
	if err != nil {
		return err
	}
	if err := a.showDiff(report, html); err != nil || report.Equal {
		return err
	}
	return withStatus(exitNotReproducible, fmt.Errorf("%s and %s differ", left, right))
}

func (a *app) showDiff(report *diff.Report, html string) error {
	switch html {
	case "":
	case "-":
		return report.HTML(a.out)
	default:
		var page bytes.Buffer
		if err := report.HTML(&page); err != nil {
			return err
		}
		if err := replaceFile(html, page.Bytes()); err != nil {
			return err
		}
	}
	return a.print(diffResult{report}, func(w *screen) { report.Text(w) })
}
