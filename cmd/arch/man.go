package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/cmd/manual"
)

func newManCommand(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "man [COMMAND...]",
		Short: "Print the manual page of a command, or write all of them",
		Long: `Man prints the manual page of arch, or of a command, in the form that man reads. With --dir it writes the pages of all commands into a
directory, which packages install as share/man/man1; it prints the name of each.`,
		Example: "  arch man build | man -l -\n  arch man --dir ~/.local/share/man/man1",
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			root := newRootCommand(newApp(a.in, a.out, a.err)) // with all commands, not those of this command line
			if dir != "" {
				if len(args) > 0 {
					return hinted(usage("--dir writes the pages of all commands, so %q has no meaning", args[0]), "leave out one of them")
				}
				return a.writePages(root, dir)
			}
			about, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(about, rest[0])
			}
			_, err = a.out.Write(book().Page(about))
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "directory to write the pages of all commands to; it is made if it is not there")
	return c
}

// book is what the pages of arch share.
func book() manual.Book {
	codes := manual.Chapter{Title: "Errors"}
	for _, name := range codeNames() {
		e, _ := findCode(name)
		codes.Entries = append(codes.Entries, manual.Entry{Term: name, Text: fmt.Sprintf("%s What to do: %s. Exit status %d.", e.Meaning, strings.TrimSuffix(e.Cure, "."), e.Exit)})
	}
	return manual.Book{Section: "1", Version: version, Statuses: exitStatuses(), More: []manual.Chapter{codes}}
}

// manualPages are the files that were written.
type manualPages struct {
	Files []string `json:"files"`
}

func (manualPages) kind() string { return "ManualPages" }

func (a *app) writePages(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	written := manualPages{}
	for _, p := range book().Pages(root) {
		path := filepath.Join(dir, p.File)
		if err := os.WriteFile(path, p.Text, 0o644); err != nil {
			return err
		}
		written.Files = append(written.Files, path)
	}
	return a.print(written, func(s *screen) {
		for _, f := range written.Files {
			fmt.Fprintln(s, f)
		}
	})
}
