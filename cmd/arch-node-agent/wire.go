package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/control/logview"
	"arch.network/agent/control/wire"
	"arch.network/agent/executor"
	"arch.network/agent/inventory"
	realnode "arch.network/agent/node"
	"arch.network/agent/policy"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/tilehttp"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/cmd/release"
)

// node is everything that the program serves. Its parts are made by connect.
type node struct {
	agent.Node
	known   func(env *dsse.Envelope) error            // of the trust root
	policy  func(ctx context.Context) ([]byte, error) // the envelope of the policy in force
	ledger  *logview.Log
	tiles   http.Handler // of the ledger
	witness http.Handler // of the ledgers of others; nil: it is none
	content control.Content
	archive func(ctx context.Context, id digest.SHA256, w io.Writer) error
	ready   func(ctx context.Context) error
	reload  func(ctx context.Context) error // reads the policy and the trust root again
	alive   func() bool                     // the node answers
	run     func(ctx context.Context) error // works until ctx ends, then stops what it must
	close   func() error                    // when run has returned
}

// wiring makes a node.
type wiring func(ctx context.Context, o options, log *slog.Logger) (*node, error)

// connect is the one place where the parts of a real node meet what is different on each machine.
func connect(ctx context.Context, o options, log *slog.Logger) (*node, error) {
	if err := durable.MakeDir(o.state, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	signer, made, err := nodeKey(ctx, o, os.Stderr)
	if err != nil {
		return nil, err
	}
	if made {
		log.InfoContext(ctx, "the node has a new key", "identity", dsse.KeyID(signer.Public()))
	}
	keys, err := ledgerKeys(o, signer)
	if err != nil {
		return nil, err
	}
	witnesses, err := ledgerPolicy(o.ledgerPolicy)
	if err != nil {
		return nil, err
	}
	others, err := ledgerPolicy(o.witnessFor)
	if err != nil {
		return nil, err
	}
	d := chooseDriver(o)
	log.InfoContext(ctx, "jobs are confined", "driver", d.name)
	facts, err := inventory.Measure(inventory.Options{CDI: o.cdi, Driver: d.name})
	if err != nil {
		log.WarnContext(ctx, "no job that asks for these facts is placed here", "error", err)
	}
	closeDriver := func() error { return nil }
	n, err := realnode.Open(ctx, realnode.Options{
		State: o.state, Policy: o.policy, TrustRoot: o.trust, Signer: signer, LedgerKeys: keys, Names: o.names, CDI: o.cdi, Slots: o.slots, Drain: o.drain,
		AdoptLedger: o.adopt, Version: release.Version, Log: log, Witnesses: witnesses, WitnessFor: others,
		Driver: func(s *store.Store) (executor.Driver, error) {
			r, closer, err := d.open(ctx, o, s)
			if err == nil {
				closeDriver = closer
			}
			return r, err
		},
		Fetch:   func(f *source.Fetcher) { f.Offline = o.offline },
		Facts:   func() map[string]manifest.Raw { return facts },
		Content: o.content, Blobs: d.name == driverBroker,
	})
	if err != nil {
		return nil, errors.Join(err, closeDriver())
	}
	for _, name := range []string{nodeKeyFile, ledgerKeyFile} { // the state is ours now
		if err := durable.Sweep(filepath.Join(o.state, name)); err != nil {
			log.WarnContext(ctx, "what a killed agent left is not removed", "error", err)
		}
	}
	if refused := n.Keeper.Refused(); refused != nil && !exists(o.trust) && !exists(o.policy) {
		log.WarnContext(ctx, "no jobs are taken before there are a trust root and a policy", "trust", o.trust, "policy", o.policy,
			"hint", "arch trust --help and arch policy --help say how they are made")
	} else if refused != nil {
		log.WarnContext(ctx, "no jobs are taken: the policy in the file is not in force", "error", refused.Error(), "hint", refused.Hint())
	}
	dir := n.Ledger.Log().Dir()
	return &node{
		Node: n, known: n.Known, ledger: logview.New(tiles{dir}, n.Ledger.Log().Policy()), tiles: tilehttp.NewServer(dir), witness: n.Witness(),
		content: uploads{n}, archive: n.Export,
		ready:  func(context.Context) error { _, err := n.Keeper.Current(time.Now()); return err },
		reload: func(context.Context) error { return n.Keeper.Reload() },
		alive:  func() bool { return answers(ctx, n) },
		run:    n.Run,
		close:  func() error { return errors.Join(n.Close(), closeDriver()) },
	}, nil
}

// ledgerPolicy reads a policy of ledgers; without a file there is none.
func ledgerPolicy(file string) (*ledger.Policy, error) {
	if file == "" {
		return nil, nil
	}
	data, err := durable.ReadFile(file, ledger.MaxPolicy)
	if err != nil {
		return nil, usage("arch ledger keys prints the lines that such a file is made of", "read ledger policy: %w", err)
	}
	p, err := ledger.ParsePolicy(data)
	if err != nil {
		return nil, usage("", "%s: %w", file, err)
	}
	return p, nil
}

// uploads takes content for the node.
type uploads struct{ node *realnode.Node }

// HasContent implements control.Content.
func (u uploads) HasContent(kind wire.ContentKind, d digest.SHA256) (bool, error) {
	return u.node.HasContent(store.Kind(kind), d)
}

// PutContent implements control.Content.
func (u uploads) PutContent(ctx context.Context, kind wire.ContentKind, d digest.SHA256, r io.Reader) error {
	err := u.node.PutContent(ctx, store.Kind(kind), d, r)
	if mismatch, ok := errors.AsType[*store.MismatchError](err); ok {
		return &wire.MismatchError{Want: d, Why: mismatch.Error()}
	}
	if syntax, ok := errors.AsType[*nar.SyntaxError](err); ok {
		return &wire.MismatchError{Want: d, Why: syntax.Error()}
	}
	return err
}

// answers reports whether the node still does its work: the watchdog bites if it does not.
func answers(ctx context.Context, n agent.Node) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := n.Status(ctx)
	return err == nil
}

// tiles reads the ledger for those who look at it.
type tiles struct{ ledger.Dir }

// ReadTile implements ledger.TileReader, for the checkpoint and bundles, too.
func (t tiles) ReadTile(ctx context.Context, path string) ([]byte, error) {
	if path == ledger.CheckpointPath {
		return t.ReadCheckpoint(ctx)
	}
	if _, b, err := ledger.ParsePath(path); err == nil && b != nil {
		return t.ReadBundle(ctx, path)
	}
	return t.Dir.ReadTile(ctx, path)
}

// check is --check-config: it judges both files as a node without a past would.
func check(c *cobra.Command, o options) error {
	dir, err := os.MkdirTemp("", "arch-node-agent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	k, err := policy.Open(policy.Options{TrustRoot: o.trust, Policy: o.policy, State: dir})
	if err != nil {
		return err
	}
	if refused := k.Refused(); refused != nil {
		return &statusError{refused, exitTrust, refused.Hint()}
	}
	active, err := k.Current(time.Now())
	if err != nil {
		return &statusError{err, exitTrust, ""}
	}
	p := active.Policy()
	fmt.Fprintf(c.OutOrStdout(), "policy %s version %d is good until %s\n", p.Metadata.Name, p.Spec.Version, active.Ends().UTC().Format(time.RFC3339))
	return nil
}
