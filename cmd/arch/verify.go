package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
)

const verifyHelp = `Verify checks an artifact against receipts, a trust root and, if given, a policy: who built it, from what, under which
rules. Every check is a line, PASS, FAIL or SKIP, with its reason. It opens no connection.

Receipts are read from the files and directories that --receipts names (*.receipt.jsonl and *.intoto.jsonl); without it
from the artifact's own directory.

EXIT STATUS: 0 every required check passed; 1 error; 2 usage; 3 genuine, but denied by the trust root's quorum or the
policy; 4 verification failed, or there is nothing that could be verified; 5 someone trusted got other bits.`

type verifyOptions struct {
	signFlags
	receipts        []string
	trust           string
	policy          string
	rebuilds        int
	operators       int
	degraded        bool
	varied          bool
	negatives       bool
	layout          string
	layoutKey       []string
	links           string
	skipInspections bool
	vsa             string
	resource        string
	verifier        string
	at              string
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify ARTIFACT",
		Short: "Check an artifact against its receipts, offline",
		Long:  verifyHelp,
		Example: `  arch verify result/hello --receipts result/
  arch verify result/hello -k 2 --operators 2 --vsa hello.vsa.intoto.jsonl    # two independent builders must agree
  arch verify result/hello --layout root.layout --layout-key alice.pub --links links/`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runVerify(c.Context(), a, o, args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.receipts, "receipts", nil, "file or directory with receipts (repeatable; default: the artifact's directory)")
	f.StringVar(&o.trust, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	f.StringVar(&o.policy, "policy", "", "policy document, signed by the policy role")
	f.IntVarP(&o.rebuilds, "rebuilds", "k", 0, "how many principals must have made the same bits (default: as the builder role says)")
	f.IntVar(&o.operators, "operators", 0, "how many distinct operators there must be among them")
	f.BoolVar(&o.degraded, "allow-degraded", false, "accept builds whose confinement was not fully enforced")
	f.BoolVar(&o.varied, "require-varied", false, "refuse builds that were not repeated in other surroundings")
	f.BoolVar(&o.negatives, "allow-negative", false, "pass although someone trusted reports another result")
	f.StringVar(&o.layout, "layout", "", "also check this in-toto layout")
	f.StringArrayVar(&o.layoutKey, "layout-key", nil, "public key, PEM, that must have signed the layout (repeatable)")
	f.BoolVar(&o.skipInspections, "skip-inspections", false, "accept a layout with inspections without running them")
	f.StringVar(&o.links, "links", ".", "directory of the layout's links")
	f.StringVar(&o.vsa, "vsa", "", "write a signed SLSA verification summary to this file")
	f.StringVar(&o.resource, "resource", "", "resourceUri of the verification summary (default: the artifact's digest)")
	f.StringVar(&o.verifier, "verifier", "https://arch.network/verifiers/arch/v1", "verifier.id of the verification summary")
	f.StringVar(&o.at, "at", "", "judge expiry at this time, RFC 3339 (default: now)")
	o.signFlags.add(c)
	return c
}

func runVerify(ctx context.Context, a *app, o verifyOptions, path string) error {
	at := time.Now()
	if o.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usage("--at: %q is not an RFC 3339 time", o.at)
		}
	}
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	receipt, err := readReceipts(o.receipts, path)
	if err != nil {
		return err
	}
	_, trust, err := a.openTrust(o.trust)
	if err != nil {
		return err
	}
	in := attest.VerifyInput{
		Artifact: openArtifact(path), Receipt: receipt, Trust: trust, At: at,
		Rebuilds: o.rebuilds, Operators: o.operators, RequireVaried: o.varied, AllowNegative: o.negatives,
	}
	if o.degraded {
		in.BuilderIDs = []string{attest.BuilderHermetic, attest.BuilderDegraded}
	}
	summary := attest.SummaryOptions{
		VerifierID: o.verifier, VerifierVersion: map[string]string{"arch": version}, ResourceURI: o.resource,
		PolicyURI: "trust-root:" + trust.ID().String(), PolicyDigest: trust.ID(),
	}
	if o.policy != "" {
		if in.Policy, summary.PolicyDigest, err = openPolicy(o.policy, in); err != nil {
			return err
		}
		summary.PolicyURI = "policy:" + summary.PolicyDigest.String()
	}
	report, err := attest.Verify(ctx, in)
	if err != nil {
		return err
	}
	if o.layout != "" {
		if err := checkLayout(ctx, o, report, at); err != nil {
			return err
		}
	}
	if o.vsa != "" {
		if err := a.writeSummary(ctx, o, report, summary); err != nil {
			return err
		}
	}
	if err := a.print(report, func(w io.Writer) { a.showReport(w, report) }); err != nil {
		return err
	}
	if err := report.Err(); err != nil {
		return withStatus(verifyStatus(report.Class), errSilent)
	}
	return nil
}

// verifyStatus maps the class of a failed report to the exit status.
func verifyStatus(c attest.Class) int {
	switch c {
	case attest.ClassPolicy:
		return exitDenied
	case attest.ClassDiffers:
		return exitNotReproducible
	}
	return exitVerification
}

func (a *app) showReport(w io.Writer, r *attest.Report) {
	colors := map[attest.Result]string{attest.Pass: "32", attest.Fail: "31", attest.Skip: "2"}
	for line := range strings.Lines(r.Text()) {
		word, rest, _ := strings.Cut(line, " ")
		if code, ok := colors[attest.Result(word)]; ok {
			line = a.paint(w, code, word) + " " + rest
		}
		io.WriteString(w, printable(line))
	}
	verdict := a.paint(w, "32", "verified")
	if !r.OK {
		verdict = a.paint(w, "31", "NOT verified") + ": " + string(r.Class)
	}
	fmt.Fprintf(w, "%s %s\n", r.Artifact, verdict)
}

// readReceipts merges every receipt found in the given files and directories.
func readReceipts(from []string, artifact string) (*attest.Receipt, error) {
	if len(from) == 0 {
		from = []string{filepath.Dir(filepath.Clean(artifact))}
	}
	all := &attest.Receipt{}
	for _, name := range from {
		files, err := receiptFiles(name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			r, err := readReceipt(file)
			if err != nil {
				return nil, err
			}
			all.Merge(r)
		}
	}
	return all, nil
}

func receiptFiles(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".receipt.jsonl") || strings.HasSuffix(e.Name(), ".intoto.jsonl") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	return files, nil
}

func readReceipt(path string) (*attest.Receipt, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := attest.ReadReceipt(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// openArtifact lets the verifier ask for the digests it needs.
func openArtifact(path string) attest.Artifact {
	return attest.Artifact{
		Name: filepath.Base(path),
		Hash: func(ctx context.Context, form attest.Form) (digest.SHA256, error) {
			info, err := os.Lstat(path)
			if err != nil {
				return digest.SHA256{}, err
			}
			switch {
			case form == attest.FormNAR:
				sum, _, err := nar.Hash(ctx, path, nar.Options{})
				return sum, err
			case form == attest.FormFile && info.Mode().IsRegular():
				return hashFile(path)
			case form == attest.FormTar && info.IsDir():
				return digest.SHA256{}, attest.ErrNoForm // a tree is matched by its NAR: its tar depends on the claim's epoch
			case form == attest.FormOCI && info.IsDir():
				return artifact.LayoutDigest(path)
			}
			return digest.SHA256{}, attest.ErrNoForm
		},
	}
}

func hashFile(path string) (digest.SHA256, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	sum, _, err := digest.OfReader(f)
	return sum, err
}

// openPolicy reads a policy and believes it only if the policy role signed it.
func openPolicy(path string, in attest.VerifyInput) (*manifest.Policy, digest.SHA256, error) {
	env, _, err := readSigned(path)
	if err != nil {
		return nil, digest.SHA256{}, err
	}
	policy, id, err := attest.OpenPolicy(env, in.Trust, in.At, in.Options)
	if err != nil {
		return nil, digest.SHA256{}, withStatus(exitDenied, fmt.Errorf("policy %s: %w", path, err))
	}
	return policy, id, nil
}

// checkLayout adds the checks of an in-toto layout to the report.
func checkLayout(ctx context.Context, o verifyOptions, r *attest.Report, at time.Time) error {
	in := attest.LayoutInput{Name: r.Artifact, Digest: r.Digest, At: at, SkipInspections: o.skipInspections}
	var err error
	if in.Layout, err = readFileLimit(o.layout, maxLayoutFile); err != nil {
		return err
	}
	for _, name := range o.layoutKey {
		key, err := readFileLimit(name, maxLayoutFile)
		if err != nil {
			return err
		}
		in.Keys = append(in.Keys, key)
	}
	names, err := filepath.Glob(filepath.Join(o.links, "*.link"))
	if err != nil {
		return err
	}
	for _, name := range names {
		link, err := readFileLimit(name, maxLayoutFile)
		if err != nil {
			return err
		}
		in.Links = append(in.Links, link)
	}
	layout, err := attest.VerifyLayout(ctx, in)
	if err != nil {
		return fmt.Errorf("check layout %s: %w", o.layout, err)
	}
	r.Add(layout.Checks...)
	if !layout.OK && r.OK {
		return layout.Err()
	}
	return nil
}

// maxLayoutFile bounds each file of a layout, in bytes.
const maxLayoutFile = 16 << 20

// writeSummary signs the verification summary, of a report that passed as of one that failed.
func (a *app) writeSummary(ctx context.Context, o verifyOptions, r *attest.Report, opts attest.SummaryOptions) error {
	signer, err := a.signer(ctx, o.key, false)
	if err != nil {
		return err
	}
	stmt, err := r.VSA(opts)
	if err != nil {
		return err
	}
	payload, err := stmt.Encode()
	if err != nil {
		return err
	}
	env, err := dsse.Sign(ctx, attest.PayloadType, payload, signer)
	if err != nil {
		return fmt.Errorf("sign verification summary: %w", err)
	}
	receipt := &attest.Receipt{}
	receipt.Add(env)
	return writeReceipt(o.vsa, receipt)
}
