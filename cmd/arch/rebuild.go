package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/builder"
	"arch.network/builder/artifact"
	"arch.network/builder/diff"
)

const rebuildHelp = `Rebuild builds again what a receipt claims, from the receipt and its pinned inputs alone, and compares every output.

If every output comes out as claimed, it co-signs the claim and adds its own provenance. If not, it signs a negative
result that says why: the bits differ, a step failed, or inputs are missing. Either goes into a receipt of its own beside
the given one, or to --out. What the original artifacts beside the receipt show of the difference is explained.

What Nix built is evaluated again if it was a flake, what its derivation needs is got or built by Nix and compared with the claim, too, and the
derivation is built in a new store. What Guix built is built by this machine's guix-daemon, or checked, if it is there already.

EXIT STATUS: 0 reproduced; 1 error; 2 usage; 4 the claim contradicts itself; 5 differs; 6 a step failed; 7 inputs are
missing; 130 interrupted.`

type rebuildOptions struct {
	fetchFlags
	signFlags
	nixFlags
	out      string
	keep     string
	unsigned bool
	degraded bool
	dryRun   bool
}

func newRebuildCommand(a *app) *cobra.Command {
	var o rebuildOptions
	c := &cobra.Command{
		Use:   "rebuild RECEIPT",
		Short: "Build again from a receipt alone, and co-sign it or say what differs",
		Long:  rebuildHelp,
		Example: `  arch rebuild result/hello.receipt.jsonl
  arch rebuild --offline --archive inputs/ hello.receipt.jsonl
  arch rebuild --keep mine/ hello.receipt.jsonl                # keep what was built`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return runRebuild(c.Context(), a, o, args[0])
		},
	}
	f := c.Flags()
	f.StringVarP(&o.out, "out", "o", "", "receipt to write (default: NAME.KEY.intoto.jsonl beside RECEIPT)")
	f.StringVar(&o.keep, "keep", "", "also write the outputs into this directory")
	f.BoolVar(&o.unsigned, "unsigned", false, "only compare: sign and write nothing")
	f.BoolVar(&o.degraded, "degraded", false, "let Nix or Guix build in weaker confinement, such as that of this machine's daemon; the receipt names another builder")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be fetched and run, and do nothing")
	o.fetchFlags.add(c)
	o.signFlags.add(c)
	o.nixFlags.add(c)
	return c
}

// rebuildResult is what --json shows.
type rebuildResult struct {
	Name    string                      `json:"name"`
	State   string                      `json:"state"` // reproduced, differs, failed-to-build or inputs-missing
	Claim   digest.SHA256               `json:"claim"`
	Outputs []attest.ResourceDescriptor `json:"outputs"`
	Result  *attest.Negative            `json:"negative,omitempty"`
	Receipt string                      `json:"receipt,omitempty"`
	Signer  string                      `json:"signer,omitempty"`
	Diffs   map[string]*diff.Report     `json:"diffs,omitempty"` // by output
}

func (rebuildResult) kind() string { return "RebuildResult" }

// check refuses flags that contradict each other.
func (o *rebuildOptions) check() error {
	for _, f := range []struct{ name, value string }{{"key", o.key}, {"out", o.out}} {
		if o.unsigned && f.value != "" {
			return hinted(usage("--unsigned signs and writes no receipt, so --%s has no meaning", f.name), "leave out one of them")
		}
	}
	return nil
}

// sameFile reports whether two paths name one file.
func sameFile(a, b string) bool {
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

func runRebuild(ctx context.Context, a *app, o rebuildOptions, path string) error {
	receipt, err := readReceipt(path)
	if err != nil {
		return err
	}
	r, err := builder.OpenClaim(receipt)
	if err != nil {
		return hinted(withStatus(exitVerification, fmt.Errorf("%s: %w", path, err)), "a receipt is the file NAME.receipt.jsonl that arch build --attest wrote")
	}
	if o.out != "" && sameFile(o.out, path) {
		return hinted(usage("--out names the receipt itself"), "name another file")
	}
	if o.dryRun {
		return showPlans(a, []target{{doc: r.Build}})
	}
	carried, err := receipt.Carried()
	if err != nil {
		return withStatus(exitVerification, fmt.Errorf("%s: %w", path, err))
	}
	w, err := a.openWorkshop(o.fetchFlags, o.degraded)
	if err != nil {
		return err
	}
	defer w.close()
	if o.keep != "" {
		if err := w.mayReplace(r.Build, o.keep); err != nil {
			return err
		}
	}
	w.fetch.Carried = carried
	var signer identity.Signer
	if !o.unsigned { // before the build: a missing key should not cost one
		if signer, err = a.signer(ctx, o.key, true); err != nil {
			return err
		}
	}
	beside := originals(r, filepath.Dir(path))
	if r.Build.Spec.Derivation != nil {
		err = w.rebuildDerivation(ctx, o, r, receipt, beside)
	} else {
		err = w.builder.Rebuild(ctx, r, beside)
	}
	if err != nil {
		return err
	}
	res := rebuildResult{Name: r.Build.Metadata.Name, State: "reproduced", Claim: r.Claim.ID(), Outputs: r.Subject.Subject, Result: r.Negative}
	if r.Negative != nil {
		res.State = string(r.Negative.State)
	}
	if o.keep != "" && r.Made != nil {
		if _, err := w.deliver(ctx, r.Made, o.keep); err != nil {
			return err
		}
	}
	if signer != nil {
		if err := w.signRebuild(ctx, r, signer, o.out, path, &res); err != nil {
			return err
		}
	}
	w.progress.end()
	return w.showRebuild(r, res)
}

// originals finds the delivered artifacts beside the receipt that are what the claim says.
func originals(r *builder.Rebuild, dir string) map[string]string {
	found := map[string]string{}
	for _, out := range r.Build.Spec.Outputs {
		path := filepath.Join(dir, out.Name)
		info, err := os.Lstat(path)
		if err != nil {
			continue
		}
		name, sum := out.Name, digest.SHA256{}
		switch {
		case info.Mode().IsRegular():
			sum, err = hashFile(path)
		case out.Type == "oci":
			name += "#oci"
			sum, err = artifact.LayoutDigest(path)
		default:
			name += "#nar"
			sum, err = openArtifact(path).Hash(context.Background(), attest.FormNAR)
		}
		claimed := slices.ContainsFunc(r.Subject.Subject, func(s attest.ResourceDescriptor) bool {
			want, ok := s.SHA256()
			return ok && s.Name == name && want == sum
		})
		if err == nil && claimed {
			found[out.Name] = path
		}
	}
	return found
}

func (w *workshop) signRebuild(ctx context.Context, r *builder.Rebuild, signer identity.Signer, out, path string, res *rebuildResult) error {
	receipt, err := w.builder.Sign(ctx, r, signer, programVersion())
	if err != nil {
		return err
	}
	if out == "" {
		out = fmt.Sprintf("%s.%.12s.intoto.jsonl", strings.TrimSuffix(path, ".receipt.jsonl"), signer.Public().ID().Hex())
	}
	if err := writeReceipt(out, receipt); err != nil {
		return err
	}
	res.Receipt, res.Signer = out, signer.Public().String()
	return nil
}

// showRebuild prints the result; what is not reproduced is an error with the status of its kind.
func (w *workshop) showRebuild(r *builder.Rebuild, res rebuildResult) error {
	for name, report := range r.Diffs {
		if res.Diffs == nil {
			res.Diffs = map[string]*diff.Report{}
		}
		res.Diffs[name] = report
	}
	err := w.app.print(res, func(out *screen) {
		fmt.Fprintf(out, "%s: %s\n", res.Name, res.State)
		if r.Negative != nil {
			fmt.Fprintf(out, "  %s\n", r.Negative.Cause)
			for _, m := range r.Negative.Found {
				fmt.Fprintf(out, "  %s\n    claimed %s\n    found   %s\n", m.Name, m.Expected, m.Found)
			}
			for _, report := range r.Diffs {
				report.Text(out)
			}
		}
		if res.Receipt != "" {
			fmt.Fprintf(out, "  %s\n  signed by %s\n", res.Receipt, res.Signer)
		}
	})
	if err != nil || r.Reproduced() {
		return err
	}
	status := map[attest.NegativeState]int{
		attest.Differs: exitNotReproducible, attest.FailedToBuild: exitExecution, attest.InputsMissing: exitInputsMissing,
	}[r.Negative.State]
	return hinted(withStatus(status, fmt.Errorf("rebuild %s: %s: %s", res.Name, res.State, r.Negative.Cause)), rebuildHint(r))
}

// rebuildHint tells what to do about a rebuild that did not reproduce.
func rebuildHint(r *builder.Rebuild) string {
	switch {
	case r.Cause != nil:
		return hintOf(r.Cause)
	case len(r.Diffs) == 0:
		return "put the original artifacts beside the receipt, and the difference is explained"
	}
	return "--keep DIR keeps what was built here, for arch diff"
}
