package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/attest/dsse"
)

func newPolicySignCommand(a *app) *cobra.Command {
	var o signFlags
	var out string
	var dry bool
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Add your signature to a policy",
		Long: `Sign does what arch sign does, for a policy and nothing else. arch policy diff says what you sign; arch policy check, whether
enough have signed.`,
		Example: "  arch policy sign policy.yaml\n  arch policy sign --key board.key policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "-" {
				return hinted(usage("a policy is not signed from stdin"), "name a file")
			}
			if dry && out != "" {
				return hinted(usage("--dry-run writes nothing, so --out has no meaning"), "leave out one of them")
			}
			if _, _, err := a.readPolicy(args[0]); err != nil {
				return err
			}
			return runSign(c.Context(), a, o.key, args[0], out, dry)
		},
	}
	o.add(c)
	c.Flags().StringVarP(&out, "out", "o", "", "write here instead of in place; - for stdout")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only show what would be signed, and by which key")
	return c
}

// envelopeFile is what lies in a file that holds an envelope.
func envelopeFile(env *dsse.Envelope) []byte { return fmt.Appendf(nil, "%s\n", env.Marshal()) }
