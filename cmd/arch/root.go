package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// command is one of arch's commands: what it is called, and what makes it.
type command struct {
	name string
	make func(*app) *cobra.Command
}

// commandGroup is commands that help lists together.
type commandGroup struct {
	id, title string
	commands  []command
}

// commandGroups is all there is of commands below the root, each in a file of its own.
func commandGroups() []commandGroup {
	return []commandGroup{
		{"main", "Artifacts and jobs:", []command{
			{"build", newBuildCommand},
			{"verify", newVerifyCommand},
			{"rebuild", newRebuildCommand},
			{"diff", newDiffCommand},
			{"run", newRunCommand},
			{"log", newLogCommand},
			{"doctor", newDoctorCommand},
			{"challenge", newChallengeCommand},
			{"verify-sigs", newVerifySigsCommand},
			{"receipts", newReceiptsCommand},
		}},
		{"node", "Jobs on a node:", []command{
			{"submit", newSubmitCommand},
			{"jobs", newJobsCommand},
			{"job", newJobCommand},
			{"why", func(a *app) *cobra.Command { return newWhyCommand(a, "arch why") }},
			{"logs", newLogsCommand},
			{"cancel", newCancelCommand},
			{"quarantine", newQuarantineCommand},
			{"archive", newArchiveCommand},
			{"replay", newReplayCommand},
			{"node", newNodeCommand},
		}},
		{"trust", "Documents, keys and trust:", []command{
			{"key", newKeyCommand},
			{"trust", newTrustCommand},
			{"policy", newPolicyCommand},
			{"sign", newSignCommand},
			{"check", newCheckCommand},
			{"wrap", newWrapCommand},
			{"unwrap", newUnwrapCommand},
			{"pin", newPinCommand},
			{"explain", newExplainCommand},
			{"schema", newSchemaCommand},
			{"ledger", newLedgerCommand},
			{"config", newConfigCommand},
		}},
		{"bytes", "Bytes and the store:", []command{
			{"hash", newHashCommand},
			{"nar", newNarCommand},
			{"instrument", newInstrumentCommand},
			{"store", newStoreCommand},
			{"serve-store", newServeStoreCommand},
		}},
		{"", "", []command{
			{"version", newVersionCommand}, {"man", newManCommand}, {"exit-status", func(*app) *cobra.Command { return newExitStatusTopic() }}, {"json", func(*app) *cobra.Command { return newJSONTopic() }},
		}},
	}
}

// newRootCommand returns the tree of commands that the command line args can mean: those that it names anywhere, since the
// first may be the value of a flag, or all if it names none. Making all of them would be a third of what starting the program costs.
func newRootCommand(a *app, args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "arch",
		Short: "Build bit for bit, sign receipts, rebuild and verify them",
		Long: `arch proves where bytes come from.

It builds artifacts bit for bit from pinned inputs and signs a receipt; anyone can rebuild from the receipt and
co-sign it; anyone can verify it, offline. It runs jobs of pinned content in confinement, with a receipt.

Results go to stdout, everything else to stderr; with --json a result is one line of JSON, and so is an error;
--output yaml and jsonl (one line for each item of a list) are other forms of it. arch help json tells what programs
may rely on.`,
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
	if !addCommands(root, a, func(name string) bool { return slices.Contains(args, name) }) {
		addCommands(root, a, func(string) bool { return true })
	}
	root.SetHelpCommand(newHelpCommand(root))
	root.InitDefaultCompletionCmd()
	finish(a, root)
	return root
}

// addCommands makes the wanted commands and reports whether there are any.
func addCommands(root *cobra.Command, a *app, wanted func(name string) bool) bool {
	for _, g := range commandGroups() {
		if g.id != "" && !root.ContainsGroup(g.id) {
			root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		}
		for _, c := range g.commands {
			if wanted(c.name) {
				made := c.make(a)
				made.GroupID = g.id
				root.AddCommand(made)
			}
		}
	}
	return root.HasSubCommands()
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

func newExitStatusTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-status", Aliases: []string{"exit-codes"}, Short: "What the exit statuses mean", Long: strings.TrimSpace(exitHelp())}
}

// newHelpCommand is cobra's, but help for what does not exist is an error.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command, and the topics exit-status and json",
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

// isTopic reports whether c is something that help tells about, and no command.
func isTopic(c *cobra.Command) bool { return !c.Runnable() && !c.HasSubCommands() }

// finish gives every command below c what all have in common: a wrong command line is a usage error with a way out, a
// group of commands is no command itself, and the help tells the exit statuses.
func finish(a *app, c *cobra.Command) {
	c.SetFlagErrorFunc(flagError)
	switch {
	case isTopic(c):
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
	if c.HasSubCommands() || isTopic(c) || c.HasParent() && c.Parent().Name() == "completion" {
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
	if !c.HasParent() { // which may have been made without most of its commands
		for _, g := range commandGroups() {
			for _, sub := range g.commands {
				names = append(names, sub.name)
			}
		}
	}
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
