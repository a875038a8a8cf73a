package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
)

// ledgerKeys are the public halves of a pair of keys.
type ledgerKeys struct {
	Name    string   `json:"name"`
	Log     []string `json:"log"`     // vkeys, if it signs a ledger of its own
	Witness []string `json:"witness"` // vkeys, if it cosigns others
	File    string   `json:"file,omitempty"`
}

func (ledgerKeys) kind() string { return "LedgerKeys" }

func newLedgerKeysCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var name string
	var create bool
	c := &cobra.Command{
		Use:   "keys [FILE]",
		Short: "Print the keys of a ledger or a witness, so that others can make a policy of them",
		Long: `Keys prints, in the form of C2SP tlog-policy, the lines by which others know a ledger and a witness. With --ledger it prints the policy that lies
in a ledger's directory. FILE is a key file: a pair of keys, Ed25519 and ML-DSA-44, with which a node signs its ledger's checkpoints and cosigns
those of others; --new makes one, for the name --name, such as node7.example.org/ledger.

EXIT STATUS: 0 printed; 1 error; 2 usage.`,
		Example: "  arch ledger keys --ledger /var/lib/arch/ledger > node7.policy\n  arch ledger keys --new --name node7.example.org/ledger node7.key\n  arch ledger keys node7.key",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if create || name != "" {
					return hinted(usage("--new and --name need a FILE"), "arch ledger keys --new --name NAME FILE")
				}
				return a.printLedgerPolicy(&f)
			}
			if c.Flags().Changed("ledger") {
				return usage("--ledger and FILE are two things to print the keys of")
			}
			if create != (name != "") {
				return usage("--new and --name go together")
			}
			if create {
				keys, err := notekey.Generate(name, rand.Reader)
				if err != nil {
					return usage("--name: %w", err)
				}
				if err := keys.WriteFile(args[0]); err != nil {
					return err
				}
			}
			file, err := openRegular(args[0]) // it never waits for a FIFO
			if err != nil {
				return err
			}
			file.Close()
			keys, err := notekey.Load(args[0])
			if err != nil {
				return err
			}
			res := ledgerKeys{Name: keys.Name(), Log: keys.LogVKeys(), Witness: keys.WitnessVKeys(), File: args[0]}
			return a.print(res, res.text)
		},
	}
	c.Flags().StringVar(&f.ledger, "ledger", "", "directory of a ledger (default $ARCH_LEDGER)")
	c.Flags().BoolVar(&create, "new", false, "make the keys and write them to FILE")
	c.Flags().StringVar(&name, "name", "", "name of the new keys: the ledger's origin, or the witness's name")
	return c
}

func (k ledgerKeys) text(s *screen) {
	fmt.Fprintf(s, "# %s signs its ledger with both of these; they are its name to others\n", k.Name)
	for _, v := range k.Log {
		fmt.Fprintf(s, "log %s\n", v)
	}
	fmt.Fprintf(s, "# and, as a witness, cosigns with these:\n")
	for i, v := range k.Witness {
		fmt.Fprintf(s, "# witness NAME%d %s URL\n", i+1, v)
	}
	fmt.Fprintln(s, "quorum none")
}

// ledgerPolicy is the policy of a ledger, in the form of C2SP tlog-policy.
type ledgerPolicy struct {
	Policy string `json:"policy"`
}

func (ledgerPolicy) kind() string { return "LedgerPolicy" }

// printLedgerPolicy prints the policy in a ledger's directory, after checking that it is one.
func (a *app) printLedgerPolicy(f *ledgerFlags) error {
	source, err := f.open()
	if err != nil {
		return err
	}
	dir, ok := source.(ledger.Dir)
	if !ok {
		return hinted(usage("the keys of a ledger are not published with it"), "run this where the ledger is, and hand the keys on by a way that is trusted")
	}
	if _, err := dir.ReadPolicy(); err != nil {
		return err
	}
	text, err := a.readFile(filepath.Join(string(dir), ledger.PolicyPath), ledger.MaxPolicy)
	if err != nil {
		return errors.Join(err)
	}
	return a.print(ledgerPolicy{string(text)}, func(s *screen) { s.Write(text) })
}
