package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest/ledger"
)

// maxProofFile is more than any proof that is read has, in bytes.
const maxProofFile = 1 << 20

func newLedgerVerifyCommand(a *app) *cobra.Command {
	var f ledgerFlags
	c := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Verify proofs of decisions, offline",
		Long: `Verify checks .tlog-proof files that arch ledger prove wrote: that the ledger's keys signed the checkpoint, that as many witnesses as the
policy asks for cosigned it, that the decision is under it, and that its node signed the decision. Nothing but the file and the keys is needed, and
no network.

EXIT STATUS: 0 every proof holds; 1 error; 2 usage; 3 too few witnesses cosigned; 4 a proof does not hold.`,
		Example: "  arch ledger verify 41.tlog-proof --policy node7.policy --node did:key:z6Mk…",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			policy, err := f.keys(a, nil)
			if err != nil {
				return err
			}
			nodes, err := f.nodeKeys()
			if err != nil {
				return err
			}
			results := []proofResult{}
			for _, file := range args {
				data, err := a.readFile(file, maxProofFile)
				if err != nil {
					return err
				}
				proof, err := ledger.ParseProof(data)
				if err != nil {
					return withStatus(exitVerification, fmt.Errorf("%s: %w", file, err))
				}
				r, err := verifyProof(proof, policy, nodes)
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				r.File = file
				results = append(results, *r)
			}
			if err := a.print(proofList{results}, func(s *screen) {
				for _, r := range results {
					s.paint("32", "PASS")
					by := ""
					if len(r.Witnesses) > 0 {
						by = ", witnessed by " + strings.Join(r.Witnesses, ", ")
					}
					fmt.Fprintf(s, "  %s: entry %d of %s%s\n", r.File, r.Entry.Index, r.Origin, by)
					r.Entry.text(s)
					fmt.Fprintf(s, "        by %s\n", r.Entry.Node)
				}
			}); err != nil {
				return err
			}
			if len(nodes) == 0 {
				a.note("no --node is given: the decisions are signed by the keys shown, whoever they belong to")
			}
			return nil
		},
	}
	f.addKeys(c)
	return c
}
