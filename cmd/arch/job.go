package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/builder/source"
)

const remoteExit = "\n\nEXIT STATUS: 0 done; 1 error; 2 usage; 3 you may not do this; 8 the node cannot be reached."

func newJobCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "job",
		Short: "Tell of one job of a node",
		Long:  `A job is named by its id, by at least 6 of the first digits of it, or by its name if it is the newest that has it.`,
	}
	c.AddCommand(newJobShowCommand(a), newWhyCommand(a, "arch job why"))
	return c
}

func newJobShowCommand(a *app) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show how a job stands, its executions and its outputs",
		Long:    "Show tells of a job: its state, its life so far, its executions with what they used, and its outputs." + remoteExit,
		Example: "  arch job show 3f2c81\n  arch job show wordcount --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := f.open()
			if err != nil {
				return err
			}
			job, err := node.Job(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showRemoteJob(job)
		},
	}
	return f.asks(c)
}

// jobResult is everything that a node tells of a job.
type jobResult struct{ agent.Job }

func (jobResult) kind() string { return "JobStatus" }

// showRemoteJob writes everything that a node tells of a job.
func (a *app) showRemoteJob(job agent.Job) error {
	return a.print(jobResult{job}, func(s *screen) { writeJob(s, job) })
}

func writeJob(s *screen, j agent.Job) {
	fmt.Fprintf(s, "%s: ", printableLine(j.Name))
	s.paint(stateColor(j.State), string(j.State))
	fmt.Fprintf(s, "\n  %s\n  id       %s\n", j.Summary, j.ID)
	for _, line := range []struct{ name, value string }{
		{"owner", j.Owner}, {"runtime", j.Runtime}, {"by", j.By}, {"policy", j.Policy.String()}, {"result", j.Result.String()},
	} {
		if line.value != "" && line.value != zeroID {
			fmt.Fprintf(s, "  %-8s %s\n", line.name, printableLine(line.value))
		}
	}
	if f := j.Fetching; f != nil {
		fmt.Fprintf(s, "  now      %s\n", printableLine(transferred(source.Event{What: f.What, Bytes: f.Bytes, Total: f.Total})))
	}
	if j.Position > 0 {
		fmt.Fprintf(s, "  queue    place %d\n", j.Position)
	}
	for _, by := range j.Signers {
		fmt.Fprintf(s, "  signed   by %s\n", printableLine(by))
	}
	writeReasons(s, j.Reasons)
	for _, p := range j.Steps {
		entry := ""
		if p.Entry != nil {
			entry = fmt.Sprintf("  (ledger entry %d)", p.Entry.Index)
		}
		fmt.Fprintf(s, "  %s  %s%s\n", p.At.Local().Format(time.DateTime), p.State, entry)
	}
	for _, at := range j.Attempts {
		writeAttempt(s, at)
	}
	for _, o := range j.Outputs {
		fmt.Fprintf(s, "  output   %s  %s\n           %s\n", printableLine(o.Name), size(o.Size), o.NAR)
	}
}

// zeroID is how no id is written.
const zeroID = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func writeReasons(s *screen, reasons []agent.Reason) {
	for _, r := range reasons {
		fmt.Fprintf(s, "  - ")
		if r.Field != "" {
			fmt.Fprintf(s, "%s: ", printableLine(r.Field))
		}
		fmt.Fprintf(s, "%s\n", printableLine(r.Msg))
		if r.Cure != "" {
			fmt.Fprintf(s, "    to change it: %s\n", printableLine(r.Cure))
		}
	}
}

func writeAttempt(s *screen, at agent.Attempt) {
	fmt.Fprintf(s, "  run %d    ", at.Number)
	switch {
	case at.Finished.IsZero():
		fmt.Fprintf(s, "since %s", at.Started.Local().Format(time.DateTime))
	case at.Signal != "":
		fmt.Fprintf(s, "%s, signal %s", printableLine(at.Reason), printableLine(at.Signal))
	default:
		fmt.Fprintf(s, "%s, status %d", printableLine(at.Reason), at.Exit)
	}
	if at.WallMicros > 0 {
		fmt.Fprintf(s, ", %s", took(time.Duration(at.WallMicros)*time.Microsecond))
	}
	if at.CPUMicros > 0 {
		fmt.Fprintf(s, ", cpu %s", took(time.Duration(at.CPUMicros)*time.Microsecond))
	}
	if at.MemoryPeak > 0 {
		fmt.Fprintf(s, ", memory %s", size(at.MemoryPeak))
	}
	if at.Gas > 0 {
		fmt.Fprintf(s, ", gas %d", at.Gas)
	}
	if at.Driver != "" {
		fmt.Fprintf(s, ", by %s", printableLine(at.Driver))
	}
	fmt.Fprintln(s)
	for _, text := range at.Missing {
		fmt.Fprintf(s, "           not enforced: %s\n", printableLine(text))
	}
	for _, text := range at.Anomalies {
		fmt.Fprintf(s, "           anomaly: %s\n", printableLine(text))
	}
}

// stateColor is the SGR code of a state.
func stateColor(s agent.State) string {
	switch s {
	case agent.Anchored, agent.Archived:
		return "32"
	case agent.Refused, agent.Failed, agent.Discarded:
		return "31"
	case agent.Quarantined, agent.Cancelled:
		return "33"
	}
	return "36"
}

// newWhyCommand is both `arch why` and `arch job why`.
func newWhyCommand(a *app, path string) *cobra.Command {
	var f remoteFlags
	c := &cobra.Command{
		Use:   "why ID",
		Short: "Tell each check and decision about a job",
		Long: `Why tells every check and decision about a job, in order, with its reasons and its place in the ledger; for a refusal it tells
what would have to change.` + remoteExit,
		Example: "  " + path + " 3f2c81\n  " + path + " wordcount --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runWhy(c.Context(), a, f, args[0])
		},
	}
	return f.asks(c)
}

// findingList is why a job stands as it does.
type findingList struct {
	Findings []jobFinding `json:"findings"`
}

func (findingList) kind() string { return "JobFindingList" }

func (l findingList) items() []result { return itemsOf(l.Findings) }

// jobFinding is an agent.Finding whose kind does not take the place of a result's kind.
type jobFinding struct {
	At      time.Time      `json:"at"`
	Kind    agent.Kind     `json:"decision"` // its kind; empty: an execution
	Verdict string         `json:"verdict"`
	Summary string         `json:"summary"`
	Reasons []agent.Reason `json:"reasons,omitempty"`
	Entry   *agent.Entry   `json:"entry,omitempty"`
}

func (jobFinding) kind() string { return "JobFinding" }

func explainFindings(findings []agent.Finding) findingList {
	l := findingList{[]jobFinding{}}
	for _, f := range findings {
		l.Findings = append(l.Findings, jobFinding(f))
	}
	return l
}

func runWhy(ctx context.Context, a *app, f remoteFlags, ref string) error {
	node, err := f.open()
	if err != nil {
		return err
	}
	job, err := node.Job(ctx, ref)
	if err != nil {
		return err
	}
	findings, err := node.Why(ctx, job.ID)
	if err != nil {
		return err
	}
	return a.print(explainFindings(findings), func(s *screen) {
		fmt.Fprintf(s, "%s is ", printableLine(job.Name))
		s.paint(stateColor(job.State), string(job.State))
		fmt.Fprintf(s, ": %s\n", job.Summary)
		for _, f := range findings {
			fmt.Fprintf(s, "%s  %s: %s", f.At.Local().Format(time.DateTime), cmp.Or(f.Kind, "execution"), printableLine(f.Verdict))
			if f.Entry != nil {
				fmt.Fprintf(s, "  (ledger entry %d)", f.Entry.Index)
			}
			fmt.Fprintf(s, "\n  %s\n", printableLine(f.Summary))
			writeReasons(s, f.Reasons)
		}
	})
}
