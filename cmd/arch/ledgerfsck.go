package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/attest/ledger"
)

// fsckResult is what ledger fsck found.
type fsckResult struct {
	OK        bool           `json:"ok"`
	Origin    string         `json:"origin,omitempty"`
	Entries   int64          `json:"entries"`
	Signed    int64          `json:"signed"` // entries under the checkpoint
	Root      string         `json:"root,omitempty"`
	Witnesses []string       `json:"witnesses,omitempty"`
	Faults    []ledger.Fault `json:"faults"`
	Damaged   []ledger.Fault `json:"damaged,omitempty"` // files that no state of the ledger needs
	Spare     int            `json:"spare"`
}

func (fsckResult) kind() string { return "LedgerCheck" }

func newLedgerFsckCommand(a *app) *cobra.Command {
	var f ledgerFlags
	c := &cobra.Command{
		Use:   "fsck",
		Short: "Compute a ledger anew from its entries and compare everything",
		Long: `Fsck reads every entry, verifies its signature and its place in the chain of decisions, computes the tree anew, and compares it with every
tile and with the signed checkpoint. In a directory it also compares what is not signed yet, and every other file. It changes nothing.

EXIT STATUS: 0 everything is right; 1 error; 2 usage; 3 too few witnesses cosigned the checkpoint; 4 something is wrong.`,
		Example: "  arch ledger fsck --ledger /var/lib/arch/ledger",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
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
			_, report, err := readLedger(c.Context(), source, policy, nodes)
			if err != nil {
				return err
			}
			res := fsckResult{
				OK: report.OK(), Origin: report.Tree.Origin, Entries: report.Tree.Size, Faults: append([]ledger.Fault{}, report.Faults...),
				Damaged: report.Damaged(), Spare: len(report.Spare),
			}
			if report.Signed != nil {
				res.Signed, res.Root, res.Witnesses = report.Signed.Size, report.Signed.Root.String(), report.Signed.Witnesses
			}
			if err := a.print(res, res.text); err != nil {
				return err
			}
			return faulty("check ledger", report)
		},
	}
	f.add(c)
	return c
}

func (r fsckResult) text(s *screen) {
	for _, f := range r.Faults {
		s.paint("31", "FAIL")
		fmt.Fprintf(s, "  %s: %s\n", f.Path, f.What)
	}
	for _, f := range r.Damaged {
		s.paint("33", "note")
		fmt.Fprintf(s, "  %s: %s; nothing needs it\n", f.Path, f.What)
	}
	if r.OK {
		s.paint("32", "PASS")
		fmt.Fprintf(s, "  %s: %d entries, %d of them under the checkpoint, root %s\n", r.Origin, r.Entries, r.Signed, r.Root)
	}
}
