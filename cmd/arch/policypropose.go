package main

import (
	"bytes"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent/policy"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

const policyProposeHelp = `Propose makes of an edited policy the next version: numbered one higher than the one in force (--current), or than it is itself,
written for the trust root in use, without the signatures of the old one. In a YAML file comments and layout stay. It says what the
new version allows more and less.

EXIT STATUS: 0 written; 1 error, or it is no valid policy; 2 usage; 3 nothing would change, or it has expired.`

func newPolicyProposeCommand(a *app) *cobra.Command {
	var current, trust, out string
	var dry bool
	c := &cobra.Command{
		Use:     "propose FILE",
		Short:   "Number an edited policy as the next version",
		Long:    policyProposeHelp,
		Example: "  arch policy propose policy.yaml --current /etc/arch/policy.yaml\n  arch policy propose policy.yaml --out next.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if dry && out != "" {
				return hinted(usage("--dry-run writes nothing, so --out has no meaning"), "leave out one of them")
			}
			return runPolicyPropose(a, args[0], current, trust, out, dry)
		},
	}
	c.Flags().StringVar(&current, "current", "", "policy in force (default: none, and FILE's own version counts)")
	c.Flags().StringVar(&trust, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	c.Flags().StringVarP(&out, "out", "o", "", "write here instead of in place; - for stdout")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only show what the next version would allow more and less")
	return c
}

func runPolicyPropose(a *app, path, current, trustPath, out string, dry bool) error {
	src, err := a.readFile(path, manifest.MaxSize)
	if err != nil {
		return err
	}
	if isEnvelope(src) {
		return hinted(fmt.Errorf("propose %s: an envelope cannot be edited", path), "arch unwrap makes a YAML document of it")
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		return inFile(err, path)
	}
	p, ok := doc.(*manifest.Policy)
	if !ok {
		return hinted(fmt.Errorf("%s is a %s, not a Policy", path, doc.DocumentKind()), "arch policy takes documents of kind Policy")
	}
	_, trust, err := a.openTrust(trustPath)
	if err != nil {
		return err
	}
	next := *p
	next.Signatures, next.Spec.TrustRoot = nil, trust.ID()
	old := p
	var changes []policy.Change
	if current != "" {
		if _, old, err = a.readPolicy(current); err != nil {
			return err
		}
		if changes = policy.Diff(old, &next); len(changes) == 0 {
			return hinted(withStatus(exitDenied, fmt.Errorf("propose %s: it allows what %s allows", path, current)), "edit it first")
		}
		if old.Metadata.Name != next.Metadata.Name {
			return hinted(withStatus(exitDenied, fmt.Errorf("propose %s: its name is %q, and %q is in force", path, next.Metadata.Name, old.Metadata.Name)), "one name is one line of versions: keep it")
		}
	}
	next.Spec.Version = old.Spec.Version + 1
	if expires, err := time.Parse(time.RFC3339, next.Metadata.Expires); err != nil || !time.Now().Before(expires) {
		return hinted(withStatus(exitDenied, fmt.Errorf("propose %s: it expired on %s", path, next.Metadata.Expires)), "give metadata.expires a later time")
	}
	text, err := renumber(src, p, &next)
	if err != nil {
		return err
	}
	if out == "" {
		out = path
	}
	if !dry {
		if err := a.writeOut(out, text); err != nil || out == "-" {
			return err
		}
	}
	id, err := manifest.ID(&next)
	if err != nil {
		return err
	}
	res := policyProposal{out, next.Metadata.Name, next.Spec.Version, id, append([]policy.Change{}, changes...), dry}
	return a.print(res, func(s *screen) {
		fmt.Fprintf(s, "%s: %s version %d\n  id %s\n", res.File, res.Name, res.Version, res.ID)
		showChanges(s, res.Changes)
	})
}

// policyProposal is a policy that was made the next version of another.
type policyProposal struct {
	File    string          `json:"file"`
	Name    string          `json:"name"`
	Version int64           `json:"version"`
	ID      digest.SHA256   `json:"id"`
	Changes []policy.Change `json:"changes"`
	DryRun  bool            `json:"dryRun,omitempty"` // nothing was written
}

func (policyProposal) kind() string { return "PolicyProposal" }

// renumber writes next in the layout of src, which says what old does. Where that cannot be done by changing two lines, such as in
// a document that carries signatures, it is written anew.
func renumber(src []byte, old, next *manifest.Policy) ([]byte, error) {
	versionLine := regexp.MustCompile(`(?m)^( +)version:[ ]+[0-9]+[ ]*$`)
	rootLine := regexp.MustCompile(`(?m)^ +trustRoot:[ ]+[^\n]*\n`)
	text := rootLine.ReplaceAll(src, nil)
	if len(old.Signatures) == 0 && len(versionLine.FindAll(text, -1)) == 1 {
		text = versionLine.ReplaceAll(text, fmt.Appendf(nil, "${1}version: %d\n${1}trustRoot: %s", next.Spec.Version, next.Spec.TrustRoot))
		if again, err := manifest.ReadYAML(text); err == nil {
			have, errHave := manifest.Canonical(again)
			want, errWant := manifest.Canonical(next)
			if errHave == nil && errWant == nil && bytes.Equal(have, want) {
				return text, nil
			}
		}
	}
	return manifest.WriteYAML(next)
}
