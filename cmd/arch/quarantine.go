package main

import (
	"github.com/spf13/cobra"

	"arch.network/agent"
)

func newQuarantineCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "quarantine",
		Short: "Review results that a node holds back",
		Long: `A result is held back when executions disagree, an output is not the expected one, or an anomaly was seen. Nobody gets it
before a person has looked. What that person decides is in the node's ledger, with the reason.`,
	}
	c.AddCommand(newQuarantineListCommand(a), newQuarantineShowCommand(a),
		newJobActCommand(a, agent.VerbRelease, "", &cobra.Command{
			Use:     "release ID",
			Short:   "Let a held back result count",
			Long:    "Release lets a result count that was held back. --reason is needed: it is written into the node's ledger." + remoteExit,
			Example: "  arch quarantine release 3f2c81 --reason 'the anomaly was our own backup'",
		}, agent.Quarantined),
		newJobActCommand(a, agent.VerbDiscard, "", &cobra.Command{
			Use:     "discard ID",
			Short:   "Drop a held back result",
			Long:    "Discard drops a result that was held back. --reason is needed: it is written into the node's ledger." + remoteExit,
			Example: "  arch quarantine discard 3f2c81 --reason 'the outputs differ'",
		}, agent.Quarantined))
	return c
}

func newQuarantineListCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the jobs whose results are held back",
		Long:    "List the jobs whose results a node holds back." + remoteExit,
		Example: "  arch quarantine list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := f.open()
			if err != nil {
				return err
			}
			jobs, err := node.Jobs(c.Context(), agent.Query{States: []agent.State{agent.Quarantined}, Limit: 1000})
			if err != nil {
				return err
			}
			return a.listJobs(jobs)
		},
	}
	f.add(c)
	return c
}

func newQuarantineShowCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show what speaks against a held back result",
		Long:    "Show tells each check and decision about a job whose result is held back." + remoteExit,
		Example: "  arch quarantine show 3f2c81",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runWhy(c.Context(), a, f, args[0])
		},
	}
	return f.asks(c, agent.Quarantined)
}
