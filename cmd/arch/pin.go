package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"arch.network/attest/manifest"
)

func newPinCommand(a *app) *cobra.Command {
	var o fetchFlags
	var dry bool
	var out string
	c := &cobra.Command{
		Use:   "pin FILE",
		Short: "Replace every reference of a document by what it is now, pinned",
		Long: `Pin asks where each unpinned reference of a YAML document points to now (a registry for a tag, a server for a URL, a
module proxy for a version, a repository for a branch) and writes the pin into the file. Comments and layout stay as they
are. What cannot be resolved is an error, and then nothing is written.`,
		Example: "  arch pin job.yaml\n  arch pin --dry-run build.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dry && out != "" {
				return hinted(usage("--dry-run writes nothing, so --out has no meaning"), "leave out one of them")
			}
			return runPin(c.Context(), a, o, args[0], out, dry)
		},
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only show what would be written")
	c.Flags().StringVarP(&out, "out", "o", "", "write here instead of in place; - for stdout")
	o.add(c)
	return c
}

type pinResult struct {
	Path string `json:"path"`
	Line int    `json:"line"`
	From string `json:"from"`
	To   string `json:"to"`
}

func (pinResult) kind() string { return "Pin" }

// pinList is the references that were pinned.
type pinList struct {
	Pins []pinResult `json:"pins"`
}

func (pinList) kind() string { return "PinList" }

func (l pinList) items() []result { return itemsOf(l.Pins) }

func runPin(ctx context.Context, a *app, o fetchFlags, path, out string, dry bool) error {
	src, err := a.readFile(path, manifest.MaxSize)
	if err != nil {
		return err
	}
	refs, err := manifest.FindRefs(src)
	if err != nil {
		return inFile(err, path)
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	p := newProgress(a)
	fetch := a.newFetcher(s, o, p)
	defer p.end()
	replace := map[manifest.RefNode]string{}
	done := []pinResult{}
	for _, ref := range refs {
		if ref.Pinned {
			continue
		}
		pinned, err := fetch.Resolve(ctx, ref.Value, filepath.Dir(path))
		if err != nil {
			return fmt.Errorf("%s:%d:%d: %s: %w", path, ref.Line, ref.Column, ref.Path, err)
		}
		replace[ref] = pinned.String()
		done = append(done, pinResult{ref.Path, ref.Line, ref.Value, pinned.String()})
	}
	if len(done) > 0 && !dry {
		text, err := manifest.ReplaceRefs(src, replace)
		if err != nil {
			return inFile(err, path)
		}
		if out == "" {
			out = path
		}
		if err := a.writeOut(out, text); err != nil || out == "-" {
			return err
		}
	}
	return a.print(pinList{done}, func(w *screen) {
		for _, d := range done {
			fmt.Fprintf(w, "%s:%d %s\n  from %s\n  to   %s\n", path, d.Line, d.Path, d.From, d.To)
		}
		if len(done) == 0 {
			fmt.Fprintf(w, "%s: every reference is pinned already\n", path)
		}
	})
}
