package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/control/client"
)

func newNodeCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Show how a node is, and stop and start its work",
	}
	c.AddCommand(newNodeStatusCommand(a), newNodeTopCommand(a),
		newNodeActCommand(a, agent.VerbDrain, "", &cobra.Command{
			Use:   "drain",
			Short: "Start nothing new",
			Long: "Drain lets running jobs end and starts no others; jobs are still taken, and wait, until somebody has the node resume: it drains also after " +
				"it was started again. --reason is needed: it is written into the node's ledger." + remoteExit,
			Example: "  arch node drain --reason 'the kernel is replaced'",
		}),
		newNodeActCommand(a, agent.VerbResume, "no reason was given", &cobra.Command{
			Use:     "resume",
			Short:   "Start jobs again after a drain",
			Long:    "Resume has a node start jobs again." + remoteExit,
			Example: "  arch node resume",
		}))
	return c
}

func newNodeActCommand(a *app, verb agent.Verb, fallback string, c *cobra.Command) *cobra.Command {
	var f remoteFlags
	var why reasonFlags
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := why.check(); err != nil {
			return err
		}
		node, err := f.open()
		if err != nil {
			return err
		}
		if err := a.act(c.Context(), node, why, agent.Act{Verb: verb, Reason: why.reason}); err != nil {
			return err
		}
		return a.showNode(c.Context(), node)
	}
	why.add(c, fallback)
	f.add(c)
	return c
}

func newNodeStatusCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show how a node is",
		Long:    "Status shows a node's policy, ledger, jobs and resources, and what its operator should know." + remoteExit,
		Example: "  arch node status\n  arch node status --agent http://192.0.2.1:7340 --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := f.open()
			if err != nil {
				return err
			}
			return a.showNode(c.Context(), node)
		},
	}
	f.add(c)
	return c
}

// nodeStatus is how a node is.
type nodeStatus struct{ agent.Status }

func (nodeStatus) kind() string { return "NodeStatus" }

func (a *app) showNode(ctx context.Context, node *client.Client) error {
	status, err := node.Status(ctx)
	if err != nil {
		return err
	}
	return a.print(nodeStatus{status}, func(s *screen) { writeStatus(s, status, time.Now()) })
}

func writeStatus(s *screen, st agent.Status, now time.Time) {
	fmt.Fprintf(s, "%s: ", printableLine(st.Node))
	if st.Draining {
		s.paint("33", "draining")
	} else {
		s.paint("32", "running")
	}
	fmt.Fprintf(s, " since %s, version %s\n", ago(st.Started, now), printableLine(st.Version))
	if d := st.Drain; d != nil {
		fmt.Fprintf(s, "  drained  %s by %s: %s\n", ago(d.At, now), printableLine(d.By), printableLine(d.Reason))
	}
	switch {
	case st.Policy.ID.IsZero() && st.Policy.Name == "":
		fmt.Fprintf(s, "  policy   none is in force, and nothing new runs\n")
	default:
		fmt.Fprintf(s, "  policy   %s version %d", printableLine(st.Policy.Name), st.Policy.Version)
		if !st.Policy.Expires.IsZero() {
			fmt.Fprintf(s, ", until %s", st.Policy.Expires.Local().Format(time.DateTime))
		}
		fmt.Fprintln(s)
	}
	if st.Policy.Refused != "" {
		fmt.Fprintf(s, "           what lies in its file is not in force: %s\n", printableLine(st.Policy.Refused))
	}
	fmt.Fprintf(s, "  ledger   %s", count(int(st.Ledger.Size), "entry", "entries"))
	if st.Ledger.Origin != "" {
		fmt.Fprintf(s, " in %s", printableLine(st.Ledger.Origin))
	}
	if st.Ledger.Cosigned != nil {
		fmt.Fprintf(s, ", %d cosigned by a quorum of witnesses", *st.Ledger.Cosigned)
	}
	for _, w := range st.Ledger.Witnesses {
		fmt.Fprintf(s, "\n           %s", printableLine(w.Name))
		if w.At.IsZero() {
			fmt.Fprint(s, " has cosigned nothing")
		} else {
			fmt.Fprintf(s, " cosigned %d, %s", w.Size, ago(w.At, now))
		}
		if w.Error != "" {
			s.paint("33", fmt.Sprintf("; %s in vain since", count(w.Failures, "request", "requests")))
			fmt.Fprintf(s, ": %s", printableLine(w.Error))
		}
	}
	fmt.Fprintf(s, "\n  cpu      %.1f of %.1f cores promised\n  memory   %s of %s promised\n",
		float64(st.Committed.CPU)/1000, float64(st.Capacity.CPU)/1000, size(st.Committed.Memory), size(st.Capacity.Memory))
	fmt.Fprintf(s, "  jobs    ")
	some := false
	for _, state := range agent.States() {
		if n := st.Jobs[state]; n > 0 {
			fmt.Fprintf(s, " %d %s", n, state)
			some = true
		}
	}
	if !some {
		fmt.Fprintf(s, " none")
	}
	fmt.Fprintln(s)
	for _, p := range st.Problems {
		fmt.Fprint(s, "  ")
		s.paint("31", p.Code)
		fmt.Fprintf(s, ": %s\n", printableLine(p.Text))
		if p.Cure != "" {
			fmt.Fprintf(s, "    to mend it: %s\n", printableLine(p.Cure))
		}
	}
}

// topFrame is how often `node top` draws.
const topFrame = 2 * time.Second

func newNodeTopCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:     "top",
		Short:   "Watch a node: how it is, what runs and what waits",
		Long:    "Top shows a node's status and the jobs that run and wait, again and again on a terminal until you interrupt it; elsewhere once." + remoteExit,
		Example: "  arch node top",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := f.open()
			if err != nil {
				return err
			}
			return runTop(c.Context(), a, node)
		},
	}
	f.add(c)
	return c
}

// nodeTop is how a node is, and what runs and waits on it.
type nodeTop struct {
	Status agent.Status `json:"status"`
	Jobs   []jobResult  `json:"jobs"`
}

func (nodeTop) kind() string { return "NodeTop" }

func runTop(ctx context.Context, a *app, node *client.Client) error {
	tick := time.NewTicker(topFrame)
	defer tick.Stop()
	for {
		status, err := node.Status(ctx)
		if err != nil {
			return err
		}
		jobs, err := node.Jobs(ctx, agent.Query{States: []agent.State{agent.Placed, agent.Running, agent.Validating, agent.Verified, agent.Proposed}, Limit: 20})
		if err != nil {
			return err
		}
		live := animated(a.out) && !a.json
		if live {
			fmt.Fprint(a.out, "\x1b[H\x1b[J")
		}
		if err := a.print(nodeTop{status, newJobList(jobs).Jobs}, func(s *screen) {
			writeStatus(s, status, time.Now())
			fmt.Fprintln(s)
			writeJobs(s, jobs, time.Now())
		}); err != nil {
			return err
		}
		if !live {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
