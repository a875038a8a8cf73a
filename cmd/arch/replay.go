package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/archive"
	"arch.network/agent/content"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/runner/job"
)

type replayOptions struct {
	remoteFlags
	signFlags
	out      string
	unsigned bool
}

func newReplayCommand(a *app) *cobra.Command {
	var o replayOptions
	c := &cobra.Command{
		Use:   "replay ID|FILE",
		Short: "Run an archived job again, and say whether the same comes out",
		Long: `Replay runs a job again from nothing but its archive: that of a node's job, or an archive file (arch archive export). Everything in it is
hashed first; nothing is fetched. It runs on this machine, confined as arch run confines, and what comes out is compared to the last byte of
output and the last unit of gas. A job that reads real time or randomness cannot be replayed.

If something else comes out, a signed negative receipt says what differs.

EXIT STATUS: 0 the same; 1 error; 2 usage; 5 something else came out; 6 the job did not end by itself; 8 the node cannot be reached; 130
interrupted.`,
		Example: "  arch replay wordcount\n  arch replay wordcount.arch.tar --out difference.intoto.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runReplay(c.Context(), a, o, args[0])
		},
	}
	c.Flags().StringVarP(&o.out, "out", "o", "", "negative receipt to write, if one is due (default: NAME.replay.intoto.jsonl)")
	c.Flags().BoolVar(&o.unsigned, "unsigned", false, "only compare: sign and write nothing")
	o.signFlags.add(c)
	return o.asks(c, agent.Archived)
}

// replayed is what --json shows.
type replayed struct {
	Job     digest.SHA256    `json:"job"`
	Name    string           `json:"name"`
	Node    string           `json:"node"` // that archived it
	Same    bool             `json:"same"`
	Result  digest.SHA256    `json:"result"`       // that was archived
	Got     digest.SHA256    `json:"got,omitzero"` // that came out
	Outputs []agent.Output   `json:"outputs"`      // that were archived
	Gas     uint64           `json:"gas"`          // that was used now
	Differs *attest.Negative `json:"differs,omitempty"`
	Receipt string           `json:"receipt,omitempty"` // file
}

func (replayed) kind() string { return "ReplayResult" }

func runReplay(ctx context.Context, a *app, o replayOptions, ref string) error {
	r, err := a.openArchive(ctx, &o.remoteFlags, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	lease, err := s.Lease(ctx) // what was imported must stay until it has run
	if err != nil {
		return err
	}
	defer lease.Release()
	b, err := archive.Import(ctx, r, s, archive.ImportOptions{})
	if err != nil {
		return err
	}
	w := &runshop{app: a, store: s, progress: newProgress(a), driver: chooseDriver(driverAuto, false)}
	defer w.close()
	w.fetch = a.newFetcher(s, fetchFlags{offline: true}, w.progress)
	t, err := replayTarget(b)
	if err != nil {
		return err
	}
	if err := w.openRunner(ctx, t, runOptions{}); err != nil {
		return err
	}
	images, err := a.cacheDir("images")
	if err != nil {
		return err
	}
	g := &content.Gatherer{Store: s, Fetch: w.fetch, Images: images}
	w.closers = append(w.closers, g.Close)
	p := &archive.Replayer{Store: s, Gatherer: g, Runner: w.runner, Version: version}
	if !o.unsigned { // before the work: a missing key should not cost it
		if p.Signer, err = a.signer(ctx, o.key, true); err != nil {
			return err
		}
	}
	got, err := p.Replay(ctx, b)
	w.progress.end()
	if err != nil {
		return err
	}
	return a.tellReplay(o, b.Entry, got)
}

// replayTarget is the archived document, to run as one's own.
func replayTarget(b *archive.Bundle) (*jobTarget, error) {
	env, doc, err := openEnvelope(b.Envelope)
	if err != nil {
		return nil, err
	}
	j, ok := doc.(*manifest.Job)
	if !ok {
		return nil, fmt.Errorf("the archived document is a %s, not a Job", doc.DocumentKind())
	}
	return &jobTarget{env: env, doc: j, id: b.Entry.Job, policy: job.LocalPolicy(nil)}, nil
}

// tellReplay shows what came out, and keeps the receipt.
func (a *app) tellReplay(o replayOptions, e *archive.Entry, got *archive.Replay) error {
	out := replayed{
		Job: e.Job, Name: e.Name, Node: e.Node, Same: got.Same, Result: e.Result, Got: got.Result, Outputs: e.Outputs, Gas: got.Gas, Differs: got.Negative,
	}
	if got.Receipt != nil {
		if out.Receipt = o.out; out.Receipt == "" {
			out.Receipt = fileName(e.Name, e.Job) + ".replay.intoto.jsonl"
		}
		if err := builder.WriteFile(out.Receipt, append(got.Receipt.Marshal(), '\n')); err != nil {
			return fmt.Errorf("write receipt: %w", err)
		}
	}
	err := a.print(out, func(s *screen) {
		fmt.Fprintf(s, "%s: ", printableLine(e.Name))
		if got.Same {
			s.paint("32", "the same")
		} else {
			s.paint("31", "not the same")
		}
		fmt.Fprintf(s, "\n  archived by %s\n  result   %s\n  gas      %d\n", printableLine(e.Node), e.Result, got.Gas)
		for _, x := range e.Outputs {
			fmt.Fprintf(s, "  output   %s %s\n", printableLine(x.Name), x.NAR)
		}
		if out.Receipt != "" {
			fmt.Fprintf(s, "  receipt  %s\n", printableLine(out.Receipt))
		}
	})
	if err != nil || got.Same {
		return err
	}
	status := exitNotReproducible
	if got.Negative.State != attest.Differs {
		status = exitExecution
	}
	return hinted(withStatus(status, fmt.Errorf("replay of job %s: %s", e.Name, got.Sentence)),
		"replay it on a third machine: then two agree, and the one that does not is known")
}
