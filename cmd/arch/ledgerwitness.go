package main

import (
	"github.com/spf13/cobra"

	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/witness"
)

func newLedgerWitnessCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var dir, key, listen string
	c := &cobra.Command{
		Use:   "witness",
		Short: "Cosign the checkpoints of other ledgers, as long as each tells one history",
		Long: `Witness answers add-checkpoint (C2SP tlog-witness) for the logs that --policy names. What it cosigned last of each is kept in --state, on the disk
before the answer leaves; two checkpoints that contradict each other are kept there as evidence.

EXIT STATUS: 0 stopped; 1 error; 2 usage.`,
		Example: "  arch ledger witness --key w.key --policy known.policy --state /var/lib/arch/witness --listen 127.0.0.1:7342",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if key == "" || dir == "" {
				return hinted(usage("--key and --state are needed"), "arch ledger keys --new --name NAME FILE makes a key")
			}
			policy, err := f.keys(a, nil)
			if err != nil {
				return err
			}
			keys, err := notekey.Load(key)
			if err != nil {
				return err
			}
			s, err := witness.NewServer(witness.Options{Dir: dir, Keys: keys, Policy: policy})
			if err != nil {
				return err
			}
			defer s.Close()
			return a.serve(c.Context(), listen, s, "witness "+keys.Name()+" answers")
		},
	}
	c.Flags().StringVar(&f.policy, "policy", "", "file with the logs to cosign for, in the form of C2SP tlog-policy")
	c.Flags().StringArrayVar(&f.vkeys, "vkey", nil, "key of a log to cosign for, NAME+HASH+KEY (repeatable)")
	c.Flags().StringVar(&key, "key", "", "key file of the witness; see arch ledger keys")
	c.Flags().StringVar(&dir, "state", "", "directory of what was cosigned last")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:7342", "address to listen at")
	return c
}
