package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"
)

// remoteFlags say which node is asked.
type remoteFlags struct{ address string }

func (f *remoteFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.address, "agent", "", "the node to ask: the path of its socket, or http://HOST:PORT (default $ARCH_AGENT, or "+client.DefaultSocket+")")
}

// open returns the node. It connects when it is asked something.
func (f *remoteFlags) open() (*client.Client, error) {
	c, err := client.New(f.address)
	if err != nil {
		return nil, withStatus(exitUsage, err)
	}
	return c, nil
}

// asks gives a command the flags of a node, and its completion with the ids of jobs in those states; none: of any.
func (f *remoteFlags) asks(c *cobra.Command, states ...agent.State) *cobra.Command {
	f.add(c)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f.complete(c.Context(), begun, states), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// completionTime is how long a shell may be kept waiting.
const completionTime = time.Second

func (f *remoteFlags) complete(ctx context.Context, begun string, states []agent.State) []string {
	node, err := f.open()
	if err != nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, completionTime)
	defer stop()
	jobs, err := node.Jobs(ctx, agent.Query{States: states})
	if err != nil {
		return nil
	}
	var out []string
	for _, j := range jobs {
		if id := shortID(j.ID); strings.HasPrefix(id, begun) {
			out = append(out, printableLine(fmt.Sprintf("%s\t%s %s", id, j.Name, j.State)))
		}
	}
	return out
}

// shortID is enough of an id to find a job by, usually.
func shortID(id digest.SHA256) string { return id.Hex()[:12] }

// directiveTime is for how long a directive may be obeyed after it was signed.
const directiveTime = time.Hour

// act has a node do something. Through the socket it is the user's own wish; from afar it is a directive that the user signs.
func (a *app) act(ctx context.Context, node *client.Client, why reasonFlags, act agent.Act) error {
	if why.dry {
		a.note("nothing was done: without --dry-run the node would be asked to %s", act.Verb)
		return nil
	}
	if node.Local() {
		return node.Act(ctx, act)
	}
	signer, err := a.signer(ctx, why.key, false)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	doc := &manifest.Directive{
		APIVersion: manifest.APIVersion, Kind: "Directive",
		Metadata: manifest.Metadata{Name: string(act.Verb), Created: now.Format(time.RFC3339), Expires: now.Add(directiveTime).Format(time.RFC3339)},
		Spec:     manifest.DirectiveSpec{Class: manifest.ClassC, Action: string(act.Verb), Reason: act.Reason, Nonce: rand.Text()},
	}
	if doc.Spec.Target = act.Job.String(); act.Job.IsZero() { // the node itself: no other must obey
		status, err := node.Status(ctx)
		if err != nil {
			return err
		}
		doc.Spec.Target = status.Node
	}
	if err := doc.Validate(); err != nil {
		return err
	}
	form, err := manifest.Canonical(doc)
	if err != nil {
		return err
	}
	env, err := dsse.Sign(ctx, manifest.PayloadType("Directive"), form, signer)
	if err != nil {
		return fmt.Errorf("sign directive: %w", err)
	}
	return node.Direct(ctx, env.Marshal(), "")
}

// reasonFlags say why something is wanted; it goes into the node's ledger.
type reasonFlags struct {
	signFlags
	reason string
	dry    bool
}

func (f *reasonFlags) add(c *cobra.Command, fallback string) {
	f.signFlags.add(c)
	c.Flags().StringVarP(&f.reason, "reason", "m", fallback, "why, in one sentence; it is written into the node's ledger")
	c.Flags().BoolVarP(&f.dry, "dry-run", "n", false, "only show what it is about, as it stands")
}

func (f *reasonFlags) check() error {
	if strings.TrimSpace(f.reason) == "" {
		return hinted(usage("a reason is missing"), "say why in one sentence: --reason '…'")
	}
	return nil
}

// jobStatus is what a job's end means for a command that waited for it.
func jobStatus(s agent.State) int {
	switch s {
	case agent.Archived, agent.Anchored:
		return exitOK
	case agent.Refused:
		return exitDenied
	case agent.Quarantined, agent.Discarded:
		return exitVerification
	}
	return exitExecution
}
