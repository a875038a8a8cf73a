package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/agent/policy"
)

func newPolicyDiffCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what one policy allows more and less than another",
		Long: `Diff tells in sentences what NEW allows more (+), allows less (-), or does otherwise (~) than OLD. It compares what is
written and verifies nothing.`,
		Example: "  arch policy diff /etc/arch/policy.yaml policy.yaml",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			_, old, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			_, next, err := a.readPolicy(args[1])
			if err != nil {
				return err
			}
			changes := append([]policy.Change{}, policy.Diff(old, next)...)
			return a.print(policyChanges{changes}, func(s *screen) {
				if len(changes) == 0 {
					fmt.Fprintln(s, "both allow the same")
				}
				showChanges(s, changes)
			})
		},
	}
}

// policyChanges is how two policies differ.
type policyChanges struct {
	Changes []policy.Change `json:"changes"`
}

func (policyChanges) kind() string { return "PolicyChanges" }
