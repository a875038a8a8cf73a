package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

func newNarCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "nar",
		Short: "Write, unpack and list Nix archives",
		Long:  "A NAR is the canonical form of a file or tree: its hash is the tree's name.",
	}
	dump := &cobra.Command{
		Use:     "dump PATH",
		Short:   "Write PATH as a NAR to stdout",
		Example: "  arch nar dump ./src > src.nar",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if a.json {
				return hinted(usage("--json: nar dump writes an archive"), "arch hash --json tells what it is called")
			}
			if isTerminal(a.out) {
				return hinted(usage("a NAR is no text for a terminal"), "arch nar dump PATH > FILE")
			}
			out := bufio.NewWriterSize(a.out, 256<<10)
			if err := nar.Dump(c.Context(), out, args[0], nar.Options{}); err != nil {
				return err
			}
			return out.Flush()
		},
	}
	restore := &cobra.Command{
		Use:     "restore PATH",
		Short:   "Unpack the NAR on stdin to the new PATH",
		Example: "  arch nar restore ./src < src.nar",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.restoreNAR(c.Context(), args[0])
		},
	}
	list := &cobra.Command{
		Use:     "ls [FILE]",
		Short:   "List the entries of a NAR: a file, or stdin",
		Example: "  arch nar ls src.nar\n  arch nar dump ./src | arch nar ls",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			in := a.in
			if len(args) == 1 {
				f, err := openRegular(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return a.listNAR(in)
		},
	}
	c.AddCommand(dump, restore, list)
	return c
}

// restoreNAR unpacks stdin, and says what it was.
func (a *app) restoreNAR(ctx context.Context, path string) error {
	var sum digest.Writer
	in := io.TeeReader(bufio.NewReaderSize(a.in, 256<<10), &sum)
	if err := nar.Restore(ctx, in, path, nar.RestoreOptions{Writable: true}); err != nil {
		return err
	}
	res := narRestored{path, sum.Sum().SRI(), sum.Size()}
	return a.print(res, func(s *screen) { fmt.Fprintf(s, "%s\n  nar %s\n", res.Path, res.NAR) })
}

// narRestored is what was unpacked.
type narRestored struct {
	Path    string `json:"path"`
	NAR     string `json:"nar"`     // SRI
	NARSize int64  `json:"narSize"` // bytes
}

func (narRestored) kind() string { return "NarRestored" }

// narEntry is one entry of a listing.
type narEntry struct {
	Path       string `json:"path"`
	Type       string `json:"type"`
	Executable bool   `json:"executable,omitempty"`
	Size       int64  `json:"size,omitempty"`   // bytes of a regular file
	Offset     int64  `json:"offset,omitempty"` // bytes from the start of the NAR to a file's content
	Target     string `json:"target,omitempty"` // of a symbolic link
}

func (narEntry) kind() string { return "NarEntry" }

// narListing is what a NAR holds.
type narListing struct {
	Entries []narEntry `json:"entries"`
}

func (narListing) kind() string { return "NarListing" }

func (l narListing) items() []result { return itemsOf(l.Entries) }

// listNAR lists all entries once the whole archive has proven to be well-formed.
func (a *app) listNAR(in io.Reader) error {
	r := nar.NewReader(bufio.NewReaderSize(in, 256<<10), nar.Limits{})
	entries := []narEntry{}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		entries = append(entries, narEntry{e.Path, string(e.Type), e.Executable, e.Size, e.Offset, e.Target})
	}
	return a.print(narListing{entries}, func(w *screen) {
		for _, e := range entries {
			mark := map[string]string{"directory": "d", "symlink": "l", "regular": "-"}[e.Type]
			if e.Executable {
				mark = "x"
			}
			fmt.Fprintf(w, "%s %12d  %q", mark, e.Size, "/"+e.Path)
			if e.Target != "" {
				fmt.Fprintf(w, " -> %q", e.Target)
			}
			fmt.Fprintln(w)
		}
	})
}
