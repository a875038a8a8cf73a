package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

const verifyHelp = `Verify checks an artifact against receipts, a trust root and, if given, a policy: who built it, from what, under which
rules. Every check is a line, PASS, FAIL or SKIP, with its reason. It opens no connection. The output of a job is checked
against the results and runs that arch run --attest leaves: role peer must have signed.

Receipts are read from the files and directories that --receipts names (*.receipt.jsonl and *.intoto.jsonl); without it
from the artifact's own directory.

EXIT STATUS: 0 every required check passed; 1 error; 2 usage; 3 genuine, but denied by the trust root's quorum or the
policy; 4 verification failed, or there is nothing that could be verified; 5 someone trusted got other bits.`

type verifyOptions struct {
	name, manifest string
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
		RunE: func(c *cobra.Command, args []string) error {
			at, err := o.check(c.Flags())
			if err != nil {
				return err
			}
			return runVerify(c.Context(), a, o, at, args[0])
		},
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
	f.StringVar(&o.name, "name", "", "name that the claim must give the artifact, whatever the file is called")
	f.StringVar(&o.manifest, "manifest", "", "id of the Build document that must have been built (arch check shows it)")
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

// check refuses flags that contradict each other or make no sense, and reads --at.
func (o *verifyOptions) check(f *pflag.FlagSet) (time.Time, error) {
	for _, need := range []struct{ flag, of string }{
		{"layout-key", "layout"},
		{"links", "layout"},
		{"skip-inspections", "layout"},
		{"key", "vsa"},
		{"resource", "vsa"},
		{"verifier", "vsa"},
	} {
		if f.Changed(need.flag) && !f.Changed(need.of) {
			return time.Time{}, hinted(usage("--%s has no meaning without --%s", need.flag, need.of), "add --"+need.of)
		}
	}
	if o.layout != "" && len(o.layoutKey) == 0 {
		return time.Time{}, hinted(usage("--layout proves nothing without the keys that must have signed it"), "add --layout-key FILE")
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"rebuilds", o.rebuilds}, {"operators", o.operators}} {
		if f.Changed(n.flag) && (n.value < 1 || n.value > maxVotes) {
			return time.Time{}, usage("--%s: %d is not between 1 and %d", n.flag, n.value, maxVotes)
		}
	}
	return parseTime("--at", o.at)
}

// maxVotes bounds --rebuilds and --operators; attest.Verify accepts no more.
const maxVotes = 256

func runVerify(ctx context.Context, a *app, o verifyOptions, at time.Time, path string) error {
	if _, err := os.Lstat(path); err != nil {
		return hinted(fmt.Errorf("read artifact: %w", err), "name the file or directory to verify; arch build puts it into ./result")
	}
	receipt, err := a.readReceipts(o.receipts, path)
	if err != nil {
		return err
	}
	root, trust, err := a.openTrust(o.trust)
	if err != nil {
		return err
	}
	in := attest.VerifyInput{
		Artifact: openArtifact(path), Receipt: receipt, Trust: trust, At: at,
		Rebuilds: o.rebuilds, Operators: o.operators, RequireVaried: o.varied, AllowNegative: o.negatives,
		Name: o.name,
	}
	if o.manifest != "" {
		if in.Manifest, err = digest.Parse(o.manifest); err != nil {
			return usage("--manifest: %v", err)
		}
	}
	if o.degraded {
		in.BuilderIDs = []string{attest.BuilderHermetic, attest.BuilderDegraded, attest.BuilderNix, attest.BuilderNixDegraded, attest.BuilderGuix, attest.BuilderGuixDegraded}
	}
	res := verifyResult{Rules: []ruleResult{{Kind: "TrustRoot", Name: root.Metadata.Name, Version: root.Spec.Version, ID: trust.ID()}}}
	if o.policy != "" {
		var id digest.SHA256
		if in.Policy, id, err = a.openPolicy(o.policy, in); err != nil {
			return err
		}
		res.Rules = append(res.Rules, ruleResult{Kind: "Policy", Name: in.Policy.Metadata.Name, ID: id})
	}
	var signer identity.Signer
	if o.vsa != "" { // before the work: a missing key should not cost it
		if signer, err = a.signer(ctx, o.key, false); err != nil {
			return err
		}
	}
	judge := attest.Verify
	if len(receipt.Claims) == 0 && len(receipt.Results) > 0 { // what a job left, not what was built
		if judge = attest.VerifyJob; o.vsa != "" {
			return hinted(usage("--vsa sums up builds, and %s is a job's output", path), "leave out --vsa")
		}
	}
	if res.Report, err = judge(ctx, in); err != nil {
		return err
	}
	if o.layout != "" {
		if err := a.checkLayout(ctx, o, res.Report, at); err != nil {
			return err
		}
	}
	if signer != nil {
		if err := o.writeSummary(ctx, signer, res); err != nil {
			return err
		}
	}
	res.Build = describeClaim(receipt, res.Report)
	if err := a.print(res, res.text); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 && !res.OK {
		return hinted(res.Err(), "it is a symbolic link, which was verified as one: name what it points to")
	}
	return res.Err()
}

// openPolicy reads a policy and believes it only if the policy role signed it.
func (a *app) openPolicy(path string, in attest.VerifyInput) (*manifest.Policy, digest.SHA256, error) {
	env, _, err := a.readSigned(path)
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
func (a *app) checkLayout(ctx context.Context, o verifyOptions, r *attest.Report, at time.Time) error {
	in := attest.LayoutInput{Name: r.Artifact, Digest: r.Digest, At: at, SkipInspections: o.skipInspections}
	var err error
	if in.Layout, err = a.readFile(o.layout, maxLayoutFile); err != nil {
		return err
	}
	for _, name := range o.layoutKey {
		key, err := a.readFile(name, maxLayoutFile)
		if err != nil {
			return err
		}
		in.Keys = append(in.Keys, key)
	}
	if in.Links, err = a.readLinks(o.links); err != nil {
		return err
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

// Limits of what a layout is read from.
const (
	maxLayoutFile = 16 << 20 // bytes of each file
	maxLinks      = 1024
)

// readLinks reads every link of a directory.
func (a *app) readLinks(dir string) ([][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, hinted(fmt.Errorf("read links: %w", err), "--links names the directory that holds the files *.link")
	}
	var links [][]byte
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".link" {
			continue
		}
		if len(links) == maxLinks {
			return nil, fmt.Errorf("read links: %s holds more than %d", dir, maxLinks)
		}
		link, err := a.readFile(filepath.Join(dir, e.Name()), maxLayoutFile)
		if err != nil {
			return nil, err
		}
		links = append(links, link)
	}
	return links, nil
}

// writeSummary signs the verification summary, of a report that passed as of one that failed.
func (o verifyOptions) writeSummary(ctx context.Context, signer identity.Signer, res verifyResult) error {
	rule := res.Rules[len(res.Rules)-1]
	stmt, err := res.VSA(attest.SummaryOptions{
		VerifierID: o.verifier, VerifierVersion: map[string]string{"arch": version}, ResourceURI: o.resource,
		PolicyURI: rule.uri(), PolicyDigest: rule.ID,
	})
	if err != nil {
		return err
	}
	env, err := stmt.Sign(ctx, signer)
	if err != nil {
		return fmt.Errorf("sign verification summary: %w", err)
	}
	receipt := &attest.Receipt{}
	receipt.Add(env)
	return writeReceipt(o.vsa, receipt)
}
