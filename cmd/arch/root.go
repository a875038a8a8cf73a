package main

import (
	"github.com/spf13/cobra"
)

// newRootCommand returns the command tree. Each command has a file of its own; this table is all there is of them.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "arch",
		Short: "Build bit for bit, sign receipts, rebuild and verify them",
		Long: `arch proves where bytes come from.

It builds artifacts bit for bit from pinned inputs and signs a receipt; anyone can rebuild from the receipt and
co-sign it; anyone can verify it, offline.`,
		Example: `  arch build --attest ./tests/examples/hello
  arch verify result/hello --receipts result/
  arch rebuild result/hello.receipt.jsonl`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "write results, and errors, as JSON")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no notes")
	flags.StringVar(&a.color, "color", "auto", "color: auto, always or never")
	flags.StringVar(&a.storeDir, "store", "", "directory of the store (default $ARCH_STORE, or arch/store in $XDG_DATA_HOME)")
	root.AddGroup(
		&cobra.Group{ID: "main", Title: "Artifacts:"},
		&cobra.Group{ID: "trust", Title: "Documents, keys and trust:"},
		&cobra.Group{ID: "bytes", Title: "Bytes and the store:"},
	)
	for _, g := range []struct {
		id       string
		commands []*cobra.Command
	}{
		{"main", mainCommands(a)},
		{"trust", trustCommands(a)},
		{"bytes", byteCommands(a)},
	} {
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCommand(a), &cobra.Command{
		Use: "exit-status", Short: "What the exit statuses mean", Long: exitHelp,
	})
	return root
}

func mainCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newBuildCommand(a), newVerifyCommand(a), newRebuildCommand(a), newDiffCommand(a), newLogCommand(a),
	}
}

func trustCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newKeyCommand(a), newTrustCommand(a), newSignCommand(a), newCheckCommand(a), newWrapCommand(a),
		newUnwrapCommand(a), newPinCommand(a), newExplainCommand(a), newSchemaCommand(a),
	}
}

func byteCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newHashCommand(a), newNarCommand(a), newStoreCommand(a)}
}
