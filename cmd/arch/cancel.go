package main

import (
	"context"

	"github.com/spf13/cobra"

	"arch.network/agent"
)

func newCancelCommand(a *app) *cobra.Command {
	return newJobActCommand(a, agent.VerbCancel, "no reason was given", &cobra.Command{
		Use:   "cancel ID",
		Short: "End a job of a node",
		Long: `Cancel ends a job, wherever it is in its life. Through the node's socket operators may do so; from afar it is a directive that
you sign, if the node's trust root lets you.` + remoteExit,
		Example: "  arch cancel 3f2c81\n  arch cancel wordcount --reason 'it was a mistake'",
	}, agent.Proposed, agent.Verified, agent.Placed, agent.Running, agent.Validating)
}

// newJobActCommand completes a command that acts on one job.
func newJobActCommand(a *app, verb agent.Verb, fallback string, c *cobra.Command, states ...agent.State) *cobra.Command {
	var f remoteFlags
	var why reasonFlags
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := why.check(); err != nil {
			return err
		}
		return runJobAct(c.Context(), a, f, why, verb, args[0])
	}
	why.add(c, fallback)
	return f.asks(c, states...)
}

func runJobAct(ctx context.Context, a *app, f remoteFlags, why reasonFlags, verb agent.Verb, ref string) error {
	node, err := f.open()
	if err != nil {
		return err
	}
	job, err := node.Job(ctx, ref)
	if err != nil {
		return err
	}
	if err := a.act(ctx, node, why, agent.Act{Verb: verb, Job: job.ID, Reason: why.reason}); err != nil {
		return err
	}
	if job, err = node.Job(ctx, job.ID.String()); err != nil {
		return err
	}
	return a.showRemoteJob(job)
}
