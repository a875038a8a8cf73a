package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/attest/digest"
)

func newLogsCommand(a *app) *cobra.Command {
	var f remoteFlags
	var q agent.LogQuery
	var stderr bool
	c := &cobra.Command{
		Use:   "logs ID",
		Short: "Show what a job printed, on a node",
		Long: `Logs shows what an execution of a job printed. On a terminal, what would act on it is escaped; elsewhere the bytes are as the
job wrote them.

With --follow it goes on until the execution has ended. (The logs of builds are those of arch log.)` + remoteExit,
		Example: "  arch logs 3f2c81\n  arch logs -f wordcount\n  arch logs --stderr --attempt 1 3f2c81",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Offset < 0 || q.Attempt < 0 {
				return usage("--offset and --attempt must not be below zero")
			}
			if q.Stream = "stdout"; stderr {
				q.Stream = "stderr"
			}
			return runLogs(c.Context(), a, f, q, args[0])
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until the execution has ended")
	c.Flags().BoolVar(&stderr, "stderr", false, "what it wrote to stderr, instead of stdout")
	c.Flags().IntVar(&q.Attempt, "attempt", 0, "which execution (default: the last)")
	c.Flags().Int64Var(&q.Offset, "offset", 0, "leave out so many bytes at the beginning")
	return f.asks(c)
}

// jobLog is what an execution of a job printed.
type jobLog struct {
	Job    digest.SHA256 `json:"job"`
	Stream string        `json:"stream"` // stdout or stderr
	Log    string        `json:"log"`
}

func (jobLog) kind() string { return "JobLog" }

func runLogs(ctx context.Context, a *app, f remoteFlags, q agent.LogQuery, ref string) error {
	node, err := f.open()
	if err != nil {
		return err
	}
	job, err := node.Job(ctx, ref)
	if err != nil {
		return err
	}
	log, err := node.Log(ctx, job.ID, q)
	if err != nil {
		return err
	}
	defer log.Close()
	if a.json {
		data, err := io.ReadAll(io.LimitReader(log, maxJSONLog+1))
		if err != nil {
			return err
		}
		if len(data) > maxJSONLog {
			return hinted(errors.New("the log is too large to be one line of JSON"), "leave out --json, or begin further on with --offset")
		}
		return a.print(jobLog{job.ID, q.Stream, string(data)}, nil)
	}
	if !isTerminal(a.out) { // the bytes as they were written
		_, err = io.Copy(a.out, log)
		return err
	}
	return copyPrintable(a.out, log)
}

// maxJSONLog is the most bytes of a log that are one line of JSON.
const maxJSONLog = 16 << 20
