package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/attest/digest"
	"arch.network/attest/ledger/durable"
)

func newArchiveCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "archive",
		Short: "List, export and import archived jobs",
		Long: `A job whose result holds is archived: its document, everything that went in and came out, the signed statements and its place in the
ledger are kept for as long as the policy says. An archive file has all of that, and arch replay runs it again anywhere.`,
	}
	c.AddCommand(newArchiveListCommand(a), newArchiveShowCommand(a), newArchiveExportCommand(a), newArchiveImportCommand(a))
	return c
}

func newArchiveListCommand(a *app) *cobra.Command {
	var f remoteFlags
	var limit int
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the archived jobs of a node",
		Long:    "Ls lists the jobs that a node keeps the archive of, newest first." + remoteExit,
		Example: "  arch archive ls\n  arch archive ls --json --limit 1000",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > 1000 {
				return usage("--limit must be from 1 to 1000")
			}
			node, err := f.open()
			if err != nil {
				return err
			}
			jobs, err := node.Jobs(c.Context(), agent.Query{States: []agent.State{agent.Archived}, Limit: limit})
			if err != nil {
				return err
			}
			return a.listJobs(jobs)
		},
	}
	c.Flags().IntVar(&limit, "limit", 100, "list no more than so many")
	f.add(c)
	return c
}

func newArchiveShowCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:   "show ID|FILE",
		Short: "Show what an archived job consists of",
		Long: `Show tells what is in the archive entry of a job of a node, or of an archive file: what its result, runs, outputs and objects are called.
It is what the entry says; arch archive import and arch replay check it.` + remoteExit,
		Example: "  arch archive show wordcount\n  arch archive show wordcount.arch.tar --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.openArchive(c.Context(), &f, args[0])
			if err != nil {
				return err
			}
			defer r.Close()
			e, err := archive.Peek(c.Context(), r)
			if err != nil {
				return err
			}
			return a.showEntry(e)
		},
	}
	return f.asks(c, agent.Archived)
}

func newArchiveExportCommand(a *app) *cobra.Command {
	var f remoteFlags
	var out string
	c := &cobra.Command{
		Use:   "export ID",
		Short: "Write an archived job into one file",
		Long: `Export fetches the archive of a job from a node: document, content, outputs, signed statements. The bytes of the file follow from the
entry alone.` + remoteExit,
		Example: "  arch archive export wordcount -o wordcount.arch.tar\n  arch archive export 3f2c81 -o - | ssh elsewhere arch archive import -",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runArchiveExport(c.Context(), a, &f, args[0], out)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write, - for stdout (default: NAME.arch.tar)")
	return f.asks(c, agent.Archived)
}

func runArchiveExport(ctx context.Context, a *app, f *remoteFlags, ref, out string) error {
	node, err := f.open()
	if err != nil {
		return err
	}
	job, err := node.Job(ctx, ref)
	if err != nil {
		return err
	}
	r, err := node.Archive(ctx, job.ID)
	if err != nil {
		return err
	}
	defer r.Close()
	if out == "-" {
		_, err := io.Copy(a.out, r)
		return err
	}
	if out == "" {
		out = fileName(job.Name, job.ID) + ".arch.tar"
	}
	if err := durable.WriteFrom(out, r, 0o644); err != nil {
		return err
	}
	return a.print(archiveFile{job.ID, out}, func(s *screen) {
		fmt.Fprintf(s, "%s: %s\n", printableLine(job.Name), printableLine(out))
	})
}

// archiveFile tells where an archive was written to.
type archiveFile struct {
	Job  digest.SHA256 `json:"job"`
	File string        `json:"file"`
}

func (archiveFile) kind() string { return "ArchiveFile" }

// fileName is a name that somebody else gave a job, or its id, if that name would be a path or hidden.
func fileName(name string, id digest.SHA256) string {
	if name == "" || strings.HasPrefix(name, ".") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return shortID(id)
	}
	return name
}

func newArchiveImportCommand(a *app) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Check an archive file, and keep what it holds in the local store",
		Long: `Import reads an archive file, from whomever it comes, and hashes everything in it before it counts; - is stdin. The store keeps it from
then on, under a root of the job's id. That the node which signed it is one to believe is for you to decide.

EXIT STATUS: 0 it is what it must be; 1 it is not, or cannot be read; 2 usage; 130 interrupted.`,
		Example: "  arch archive import wordcount.arch.tar\n  arch archive import --dry-run wordcount.arch.tar",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r := io.NopCloser(a.in)
			if args[0] != "-" {
				f, err := openRegular(args[0]) // it never waits for a FIFO
				if err != nil {
					return err
				}
				r = f
			}
			defer r.Close()
			return runArchiveImport(c.Context(), a, r, dry)
		},
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only check the file, and show what would be kept")
	return c
}

func runArchiveImport(ctx context.Context, a *app, r io.Reader, dry bool) error {
	if dry {
		b, err := archive.Check(ctx, r, archive.ImportOptions{})
		if err != nil {
			return err
		}
		a.note("nothing was kept: without --dry-run the store would keep its %d objects", len(b.Entry.Objects))
		return a.showEntry(b.Entry)
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	b, err := archive.Import(ctx, r, s, archive.ImportOptions{})
	if err != nil {
		return err
	}
	return a.showEntry(b.Entry)
}

// openArchive opens an archive file, if there is one of that name, or else that of a node's job. A path, or what ends in .tar, is no job.
func (a *app) openArchive(ctx context.Context, f *remoteFlags, ref string) (io.ReadCloser, error) {
	file, err := openRegular(ref)
	if err == nil {
		return file, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || filepath.Base(ref) != ref || strings.HasSuffix(ref, ".tar") {
		return nil, err
	}
	node, err := f.open()
	if err != nil {
		return nil, err
	}
	job, err := node.Job(ctx, ref)
	if err != nil {
		return nil, err
	}
	return node.Archive(ctx, job.ID)
}

// archiveEntry is what an archive holds of a job.
type archiveEntry struct{ *archive.Entry }

func (archiveEntry) kind() string { return "ArchiveEntry" }

func (a *app) showEntry(e *archive.Entry) error {
	return a.print(archiveEntry{e}, func(s *screen) {
		fmt.Fprintf(s, "%s\n  id       %s\n  result   %s\n", printableLine(e.Name), e.Job, e.Result)
		for _, r := range e.Runs {
			fmt.Fprintf(s, "  run      %s\n", r)
		}
		for _, o := range e.Outputs {
			fmt.Fprintf(s, "  output   %s %s\n", printableLine(o.Name), o.NAR)
		}
		fmt.Fprintf(s, "  gas      %d\n  objects  %d\n", e.Gas, len(e.Objects))
		for _, p := range e.Pins {
			fmt.Fprintf(s, "  pin only %s\n", printableLine(p))
		}
		fmt.Fprintf(s, "  node     %s\n", printableLine(e.Node))
	})
}
