package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRootCommand returns the command tree. Each command has a file of its own; this table is all there is of them.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "arch",
		Short: "Build bit for bit, sign receipts, rebuild and verify them",
		Long: `arch proves where bytes come from.

It builds artifacts bit for bit from pinned inputs and signs a receipt; anyone can rebuild from the receipt and
co-sign it; anyone can verify it, offline. It runs jobs of pinned content in confinement, with a receipt.

Results go to stdout, everything else to stderr; with --json a result is one line of JSON, and so is an error;
--output yaml and jsonl (one line for each item of a list) are other forms of it.`,
		Example: `  arch build --attest ./tests/examples/hello
  arch verify result/hello --receipts result/
  arch rebuild result/hello.receipt.jsonl`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.prepare(c) },
		Version:           version,
	}
	root.SetVersionTemplate("arch {{.Version}}\n")
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.addFlags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: "main", Title: "Artifacts and jobs:"},
		&cobra.Group{ID: "node", Title: "Jobs on a node:"},
		&cobra.Group{ID: "trust", Title: "Documents, keys and trust:"},
		&cobra.Group{ID: "bytes", Title: "Bytes and the store:"},
	)
	for _, g := range []struct {
		id       string
		commands []*cobra.Command
	}{
		{"main", mainCommands(a)},
		{"node", nodeCommands(a)},
		{"trust", trustCommands(a)},
		{"bytes", byteCommands(a)},
	} {
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCommand(a), newManCommand(a), newExitStatusTopic())
	root.SetHelpCommand(newHelpCommand(root))
	root.InitDefaultCompletionCmd()
	finish(a, root)
	return root
}

func (a *app) addFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&a.json, "json", false, "write results, and errors, as JSON")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no notes")
	flags.StringVar(&a.color, "color", "auto", "color: auto, always or never")
	flags.StringVar(&a.configFile, "config", "", "configuration file; see arch config")
	flags.StringVar(&a.storeDir, "store", "", "directory of the store (default $ARCH_STORE, or arch/store in $XDG_DATA_HOME)")
}

// prepare is what comes before every command: its settings. Help works whatever is in the configuration.
func (a *app) prepare(c *cobra.Command) error {
	if c.Name() == "help" || strings.HasPrefix(c.Name(), "__complete") || c.HasParent() && c.Parent().Name() == "completion" {
		return nil
	}
	if err := a.settle(c); err != nil {
		return err
	}
	return a.validate()
}

func mainCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newBuildCommand(a), newVerifyCommand(a), newRebuildCommand(a), newDiffCommand(a), newRunCommand(a), newLogCommand(a), newDoctorCommand(a), newChallengeCommand(a), newVerifySigsCommand(a), newReceiptsCommand(a),
	}
}

func nodeCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newSubmitCommand(a), newJobsCommand(a), newJobCommand(a), newWhyCommand(a, "arch why"), newLogsCommand(a), newCancelCommand(a),
		newQuarantineCommand(a), newArchiveCommand(a), newReplayCommand(a), newNodeCommand(a),
	}
}

func trustCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newKeyCommand(a), newTrustCommand(a), newPolicyCommand(a), newSignCommand(a), newCheckCommand(a), newWrapCommand(a),
		newUnwrapCommand(a), newPinCommand(a), newExplainCommand(a), newSchemaCommand(a), newLedgerCommand(a), newConfigCommand(a),
	}
}

func byteCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newHashCommand(a), newNarCommand(a), newInstrumentCommand(a), newStoreCommand(a), newServeStoreCommand(a)}
}

func newExitStatusTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-status", Aliases: []string{"exit-codes"}, Short: "What the exit statuses mean", Long: strings.TrimSpace(exitHelp())}
}

// newHelpCommand is cobra's, but help for what does not exist is an error.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command, and the topic exit-status",
		Args:  cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if c, _, err := root.Find(args); err == nil {
				for _, sub := range c.Commands() {
					names = append(names, sub.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(c, rest[0])
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// finish gives every command below c what all have in common: a wrong command line is a usage error with a way out, a
// group of commands is no command itself, and the help tells the exit statuses.
func finish(a *app, c *cobra.Command) {
	c.SetFlagErrorFunc(flagError)
	switch {
	case c.Name() == "exit-status": // a help topic: no command
	case c.HasSubCommands():
		c.Args = cobra.ArbitraryArgs
		c.RunE = runGroup
	case c.Args != nil:
		check := c.Args
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return hinted(usage("%s: %v", c.CommandPath(), err), "usage: "+c.UseLine())
			}
			return nil
		}
	}
	if c.Runnable() && !c.HasSubCommands() && !strings.Contains(c.Long, "EXIT STATUS") {
		if c.Long == "" {
			c.Long = c.Short + "."
		}
		c.Long += "\n\nEXIT STATUS: 0 done; 1 error; 2 usage."
	}
	if complete := c.ValidArgsFunction; complete != nil && c.Name() != "help" {
		c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			_ = a.settle(c) // with what is wrong in the configuration, a completion has nowhere to say so
			return complete(c, args, begun)
		}
	}
	a.addOutput(c)
	for _, sub := range c.Commands() {
		finish(a, sub)
	}
}

// addOutput gives a command --output, and -o where that is not the short form of --out.
func (a *app) addOutput(c *cobra.Command) {
	if c.HasSubCommands() || c.Name() == "exit-status" || c.HasParent() && c.Parent().Name() == "completion" {
		return
	}
	short := "o"
	if c.Flags().ShorthandLookup(short) != nil {
		short = ""
	}
	c.Flags().VarP(formatFlag{a}, "output", short, "form of the results: "+strings.Join(formats(), ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// runGroup answers a command line that names a group of commands and none of them.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	names := []string{}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return hinted(usage("%s: a command is missing", c.CommandPath()), fmt.Sprintf("one of %s; %s --help explains them", strings.Join(names, ", "), c.CommandPath()))
}

func unknownCommand(c *cobra.Command, arg string) error {
	names := []string{}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Runnable() || sub.IsAdditionalHelpTopicCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := c.CommandPath() + " --help lists the commands"
	if name, ok := nearest(arg, names); ok {
		hint = fmt.Sprintf("did you mean %s %s?", c.CommandPath(), name)
	}
	return hinted(usage("%s: there is no command %q", c.CommandPath(), arg), hint)
}

// flagError explains what pflag found.
func flagError(c *cobra.Command, err error) error {
	hint := fmt.Sprintf("%s --help lists the flags", c.CommandPath())
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && len(e.GetSpecifiedName()) > 1 {
		names := []string{}
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if name, ok := nearest(e.GetSpecifiedName(), names); ok {
			hint = "did you mean --" + name + "?"
		}
	}
	return hinted(usage("%s: %v", c.CommandPath(), err), hint)
}

// nearest returns the name that got was most likely meant to be: one that begins with it, or one at most two edits away.
func nearest(got string, names []string) (string, bool) {
	slices.Sort(names)
	best, bestDist := "", 3
	for _, name := range names {
		if len(got) > 1 && strings.HasPrefix(name, got) {
			return name, true
		}
		if d := distance(got, name); d < bestDist && d < len(name) {
			best, bestDist = name, d
		}
	}
	return best, best != ""
}

// distance is the number of edits (insert, delete, replace a byte) between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
