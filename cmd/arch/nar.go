package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

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
		Use:     "restore [FILE] PATH",
		Short:   "Unpack a NAR, a file or stdin, to the new PATH",
		Long:    `Restore unpacks the NAR in FILE, or on stdin without FILE or with -, to PATH, where nothing may be yet.`,
		Example: "  arch nar restore src.nar ./src\n  arch nar dump ./src | arch nar restore ./copy",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			to := args[len(args)-1]
			if len(args) == 1 {
				if _, err := os.Lstat(to); err == nil { // most likely the archive
					return hinted(fmt.Errorf("restore %q: %w", to, fs.ErrExist), fmt.Sprintf("name a path where nothing is yet; to unpack %s: arch nar restore %[1]s PATH", to))
				}
			}
			in, err := a.openNAR(args[:len(args)-1], "arch nar restore FILE PATH")
			if err != nil {
				return err
			}
			defer in.Close()
			return a.restoreNAR(c.Context(), in, to)
		},
	}
	list := &cobra.Command{
		Use:     "ls [FILE]",
		Short:   "List the entries of a NAR: a file, or stdin without FILE or with -",
		Example: "  arch nar ls src.nar\n  arch nar dump ./src | arch nar ls",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
					return hinted(fmt.Errorf("open %s: it is a directory, not a NAR", args[0]), fmt.Sprintf("arch nar dump %s | arch nar ls lists what its NAR holds", args[0]))
				}
			}
			in, err := a.openNAR(args, "arch nar ls FILE")
			if err != nil {
				return err
			}
			defer in.Close()
			return a.listNAR(in)
		},
	}
	c.AddCommand(dump, restore, list)
	return c
}

// openNAR opens the file that args name, or stdin; nobody types a NAR.
func (a *app) openNAR(args []string, instead string) (io.ReadCloser, error) {
	if len(args) == 1 && args[0] != "-" {
		return openRegular(args[0])
	}
	if f, ok := a.in.(*os.File); ok && isTerminal(f) {
		return nil, hinted(usage("a NAR is expected on stdin, and stdin is a terminal"), instead)
	}
	return io.NopCloser(a.in), nil
}

// restoreNAR unpacks an archive, and says what it was.
func (a *app) restoreNAR(ctx context.Context, archive io.Reader, path string) error {
	var sum digest.Writer
	in := io.TeeReader(bufio.NewReaderSize(archive, 256<<10), &sum)
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
