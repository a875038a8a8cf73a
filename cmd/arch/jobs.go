package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
)

func newJobsCommand(a *app) *cobra.Command {
	var f remoteFlags
	var states []string
	var q agent.Query
	c := &cobra.Command{
		Use:   "jobs",
		Short: "List the jobs of a node, newest first",
		Long: `Jobs lists what a node was handed, and how each stands.

The states are ` + joinStates(agent.States()) + `.

EXIT STATUS: 0 done; 1 error; 2 usage; 3 you may not read; 8 the node cannot be reached.`,
		Example: "  arch jobs\n  arch jobs --state running --state verified\n  arch jobs --owner user:alice --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range states {
				if !slices.Contains(agent.States(), agent.State(s)) {
					return hinted(usage("--state: there is no state %q", s), "the states are "+joinStates(agent.States()))
				}
				q.States = append(q.States, agent.State(s))
			}
			if q.Limit < 1 || q.Limit > 1000 {
				return usage("--limit: %d is not from 1 to 1000", q.Limit)
			}
			node, err := f.open()
			if err != nil {
				return err
			}
			jobs, err := node.Jobs(c.Context(), q)
			if err != nil {
				return err
			}
			return a.listJobs(jobs)
		},
	}
	c.Flags().StringArrayVar(&states, "state", nil, "only jobs in this state (repeatable)")
	c.Flags().StringVar(&q.Owner, "owner", "", "only jobs of this owner")
	c.Flags().StringVar(&q.Name, "name", "", "only jobs of this name")
	c.Flags().IntVar(&q.Limit, "limit", 100, "how many")
	f.add(c)
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(strings.Split(joinStates(agent.States()), ", "), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func joinStates(states []agent.State) string {
	var names []string
	for _, s := range states {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// jobList is jobs of a node.
type jobList struct {
	Jobs []jobResult `json:"jobs"`
}

func (jobList) kind() string { return "JobList" }

func (l jobList) items() []result { return itemsOf(l.Jobs) }

func newJobList(jobs []agent.Job) jobList {
	l := jobList{[]jobResult{}}
	for _, j := range jobs {
		l.Jobs = append(l.Jobs, jobResult{j})
	}
	return l
}

// listJobs writes a table.
func (a *app) listJobs(jobs []agent.Job) error {
	return a.print(newJobList(jobs), func(s *screen) { writeJobs(s, jobs, time.Now()) })
}

func writeJobs(s *screen, jobs []agent.Job, now time.Time) {
	if len(jobs) == 0 {
		fmt.Fprintln(s, "no jobs")
		return
	}
	t := tabwriter.NewWriter(s, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tSTATE\tSINCE\tOWNER\tSUMMARY")
	for _, j := range jobs {
		state := string(j.State)
		if j.Position > 0 {
			state += fmt.Sprintf(" #%d", j.Position)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", shortID(j.ID), printableLine(j.Name), state, ago(j.Since, now), printableLine(j.Owner), printableLine(j.Summary))
	}
	t.Flush()
}

// ago writes how long ago something was, in one unit.
func ago(then, now time.Time) string {
	d := now.Sub(then)
	switch {
	case d < 0:
		return then.Local().Format(time.DateTime)
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
