package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/agent/policy"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

func newPolicyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a policy allows, in sentences",
		Long: `Show tells everything that a policy allows (+), demands or bounds (-) beside one that allows nothing. It verifies nothing: that
is check's.`,
		Example: "  arch policy show policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			env, p, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			res := policyRules{p.Metadata.Name, p.Spec.Version, env.ID(), p.Metadata.Expires, len(env.Signatures), policy.Diff(&manifest.Policy{Metadata: manifest.Metadata{Expires: p.Metadata.Expires}}, p)}
			return a.print(res, func(s *screen) {
				fmt.Fprintf(s, "%s, version %d, expires %s, %s\n  id %s\n", res.Name, res.Version, res.Expires, count(res.Signatures, "signature", "signatures"), res.ID)
				showChanges(s, res.Rules)
			})
		},
	}
}

// policyRules is what a policy allows.
type policyRules struct {
	Name       string          `json:"name"`
	Version    int64           `json:"version"`
	ID         digest.SHA256   `json:"id"`
	Expires    string          `json:"expires"`
	Signatures int             `json:"signatures"` // how many it carries; none is verified
	Rules      []policy.Change `json:"rules"`
}

func (policyRules) kind() string { return "PolicyRules" }
