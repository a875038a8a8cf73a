package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
)

type submitOptions struct {
	remoteFlags
	signFlags
	wait     bool
	noSign   bool
	noUpload bool
	dryRun   bool
	timeout  time.Duration
	content  []string
}

func newSubmitCommand(a *app) *cobra.Command {
	var o submitOptions
	c := &cobra.Command{
		Use:   "submit FILE",
		Short: "Hand a job to a node",
		Long: `Submit hands a Job document to a node, which judges it by its policy, runs it and keeps its result. FILE is a YAML document or
a DSSE envelope. A YAML document that nobody signed yet is signed with your key first; FILE stays as it is.

Through the node's socket, an operator also hands over what the job pins and the node does not have: files, trees and store paths (without
what these refer to) that lie in the local store, beside FILE or in a directory of --content, under the name that their reference ends in. The node hashes them while they come. What
is found nowhere, and images, the node fetches by itself. --no-upload sends the document alone.

Submitting the same document again is harmless: it is the same job, whatever became of it.

EXIT STATUS: 0 the node has the job, and with --wait: its result holds; 1 error; 2 usage; 3 the job was refused; 4 its result is held
back or was dropped; 6 the job failed or was cancelled; 8 the node cannot be reached; 9 --timeout is over, and the job goes on; 130
interrupted, and the job goes on.`,
		Example: `  arch submit job.yaml --wait
  arch submit --agent http://192.0.2.1:7340 job.dsse.json
  arch submit --content ./data job.yaml
  arch submit --dry-run job.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case c.Flags().Changed("timeout") && !o.wait:
				return hinted(usage("--timeout says how long to wait, but nothing is waited for"), "add --wait")
			case o.noUpload && len(o.content) > 0:
				return usage("--content says where to find what is handed over, but --no-upload hands nothing over")
			case c.Flags().Changed("timeout") && o.timeout <= 0:
				return usage("--timeout: %s is no time to wait", o.timeout)
			}
			return runSubmit(c.Context(), a, o, args[0])
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.wait, "wait", "w", false, "wait for the job to end")
	f.DurationVar(&o.timeout, "timeout", 0, "wait no longer than this, such as 90s")
	f.BoolVar(&o.noSign, "no-sign", false, "hand a document in as it is, even if nobody signed it")
	f.BoolVar(&o.noUpload, "no-upload", false, "send the document alone, and none of what it pins")
	f.StringArrayVar(&o.content, "content", nil, "look in this directory, too, for what the job pins (repeatable)")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "check the document, and hand nothing in")
	o.remoteFlags.add(c)
	o.signFlags.add(c)
	return c
}

func runSubmit(ctx context.Context, a *app, o submitOptions, path string) error {
	envelope, err := a.readSubmission(ctx, o, path)
	if err != nil {
		return err
	}
	node, err := o.open()
	if err != nil {
		return err
	}
	if o.dryRun {
		_, doc, err := openEnvelope(envelope)
		if err != nil {
			return inFile(err, path)
		}
		return a.written(path, doc, "")
	}
	if !o.noUpload && node.Local() {
		if err := a.upload(ctx, node, envelope, append([]string{filepath.Dir(path)}, o.content...)); err != nil {
			return err
		}
	}
	job, err := node.Submit(ctx, envelope, "")
	if err != nil {
		return inFile(err, path)
	}
	if !o.wait {
		return a.showRemoteJob(job)
	}
	waiting := ctx
	if o.timeout > 0 {
		var stop context.CancelFunc
		waiting, stop = context.WithTimeout(ctx, o.timeout)
		defer stop()
	}
	job, err = a.await(waiting, node, job)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = withStatus(exitTimeout, hinted(fmt.Errorf("job %s is still %s after %s", job.Name, job.State, o.timeout), "it goes on: arch job show "+shortID(job.ID)))
	}
	if err != nil {
		return err
	}
	if err := a.showRemoteJob(job); err != nil {
		return err
	}
	if status := jobStatus(job.State); status != exitOK {
		return withStatus(status, hinted(fmt.Errorf("job %s is %s: %s", job.Name, job.State, job.Summary), "each check and decision: arch why "+shortID(job.ID)))
	}
	return nil
}

// readSubmission returns the envelope of a Job. Nothing is verified: that is the node's.
func (a *app) readSubmission(ctx context.Context, o submitOptions, path string) ([]byte, error) {
	src, err := a.readFile(path, dsse.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(src)
	if err != nil {
		return nil, inFile(err, path)
	}
	if _, ok := doc.(*manifest.Job); !ok {
		return nil, hinted(fmt.Errorf("%s: it is a %s, not a Job", path, doc.DocumentKind()), "arch explain Job tells how a job is written")
	}
	if isEnvelope(src) {
		return src, nil
	}
	env, err := manifest.Wrap(doc)
	if err != nil {
		return nil, inFile(err, path)
	}
	if len(env.Signatures) == 0 && !o.noSign && !o.dryRun {
		signer, err := a.signer(ctx, o.key, true)
		if err != nil {
			return nil, err
		}
		if err := env.Add(ctx, signer); err != nil {
			return nil, err
		}
	}
	return env.Marshal(), nil
}

// A job of which nothing is heard is looked at again: soon at first, since it may have ended before anybody listened, then seldom.
const (
	lookFirst = 20 * time.Millisecond
	lookAgain = 2 * time.Second
	// lookFetching is the pause while something is fetched for it, of which no event tells.
	lookFetching = 500 * time.Millisecond
)

// await follows a job to its end, and shows how it goes.
func (a *app) await(ctx context.Context, node *client.Client, job agent.Job) (agent.Job, error) {
	p := newProgress(a)
	defer p.end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	id, heard := job.ID, make(chan struct{}, 1)
	go func() {
		for e, err := range node.Events(ctx, -1) {
			if err != nil {
				return // looking again is enough
			}
			if e.Job != nil && e.Job.ID == id {
				select {
				case heard <- struct{}{}:
				default:
				}
			}
		}
	}()
	pause := lookFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	shown, fetching := agent.State(""), ""
	for {
		if job.State != shown {
			p.job(job)
			shown = job.State
		}
		if f := job.Fetching; f != nil {
			kind := source.EventProgress
			if f.What != fetching {
				kind, fetching = source.EventStart, f.What
			}
			p.fetch(source.Event{Kind: kind, What: f.What, Bytes: f.Bytes, Total: f.Total})
			pause = min(pause, lookFetching)
			timer.Reset(pause)
		}
		if job.State.Ended() {
			return job, nil
		}
		select {
		case <-heard:
		case <-timer.C:
			pause = min(2*pause, lookAgain)
			timer.Reset(pause)
		case <-ctx.Done():
			return job, ctx.Err()
		}
		next, err := node.Job(ctx, id.String())
		if err != nil {
			return job, err
		}
		job = next
	}
}

// jobProgress is a state that a job has come to.
type jobProgress struct {
	Job      digest.SHA256 `json:"job"`
	State    agent.State   `json:"state"`
	Summary  string        `json:"summary"`
	Position int           `json:"position"` // in the queue, from 1; zero: it does not wait
}

func (jobProgress) kind() string { return "JobProgress" }

// job shows how far a job is.
func (p *progress) job(j agent.Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%s %s: %s", j.Name, j.State, j.Summary)
	switch {
	case p.app.quiet:
	case p.app.json:
		p.app.jsonLine(jobProgress{j.ID, j.State, j.Summary, j.Position})
	case j.State.Ended():
		p.print(text)
	default:
		p.begin(text)
	}
}
