package main

import (
	"slices"

	"github.com/spf13/cobra"

	"arch.network/attest"
)

func newLedgerShowCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var kinds []string
	var last int
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "Show the decisions in a ledger, in their order",
		Long: `Show checks the whole ledger and prints its decisions in the order in which they were taken: when, about what, and why. ID is the
document id of a job, a policy or another document, or its first 8 digits or more: only decisions about it are printed.

EXIT STATUS: 0 shown, and nothing is wrong with the ledger; 1 error; 2 usage; 3 too few witnesses cosigned it; 4 something is wrong with the ledger.`,
		Example: "  arch ledger show --ledger /var/lib/arch/ledger\n  arch ledger show 4bc31035 --ledger https://node7.example.org/ledger --policy node7.policy",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			if len(args) == 1 {
				var err error
				if id, err = subjectID(args[0]); err != nil {
					return err
				}
			}
			for _, k := range kinds {
				if !slices.Contains(attest.DecisionKinds(), k) {
					return usage("--kind: %q is not one of %v", k, attest.DecisionKinds())
				}
			}
			if last < 0 {
				return usage("--last: %d is negative", last)
			}
			source, err := f.open()
			if err != nil {
				return err
			}
			policy, err := f.keys(a, source)
			if err != nil {
				return err
			}
			nodes, err := f.nodeKeys()
			if err != nil {
				return err
			}
			entries, report, err := readLedger(c.Context(), source, policy, nodes)
			if err != nil {
				return err
			}
			if err := faulty("show ledger", report); err != nil {
				return err // what cannot be believed is not shown
			}
			shown := slices.DeleteFunc(entries, func(e ledgerEntry) bool {
				return id != "" && !e.about(id) || len(kinds) > 0 && !slices.Contains(kinds, e.Kind)
			})
			if last > 0 && len(shown) > last {
				shown = shown[len(shown)-last:]
			}
			if err := a.print(ledgerEntryList{append([]ledgerEntry{}, shown...)}, func(s *screen) {
				for _, e := range shown {
					e.text(s)
				}
			}); err != nil {
				return err
			}
			if len(shown) == 0 && id != "" {
				a.note("no decision of this ledger is about %s", id)
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&kinds, "kind", nil, "show only decisions of this kind (repeatable)")
	c.Flags().IntVar(&last, "last", 0, "show only so many of the last ones (default: all)")
	return c
}
