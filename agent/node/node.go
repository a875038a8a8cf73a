package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"arch.network/agent"
	"arch.network/agent/content"
	"arch.network/agent/evidence"
	"arch.network/agent/executor"
	"arch.network/agent/policy"
	"arch.network/agent/replay"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"
	"arch.network/attest/ledger/witness"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
)

// Options say what a node is made of. All but those that say so are required.
type Options struct {
	State     string // directory, made if it is not there; nobody else may read or write it
	Policy    string // file that holds the signed policy, or will
	TrustRoot string // file that holds the trust root

	Signer     identity.Signer // signs decisions and receipts; its name is the node's identity
	LedgerKeys *notekey.Keys   // sign the ledger's checkpoints
	Names      []string        // what the node is called in spec.audience of a job, beside its identity: pools, host names; may be empty

	// Driver makes what runs jobs.
	Driver func(s *store.Store) (executor.Driver, error)
	// Fetch changes how content is fetched, such as proxies and mirrors. Nil: the defaults.
	Fetch func(f *source.Fetcher)
	// Content are directories that may hold what jobs pin under the name that its reference ends in, beside being archives of it.
	Content []string
	// Blobs leaves images among the inputs as the blobs that they are: for a driver that makes the trees itself, such as the broker.
	Blobs bool
	Facts func() map[string]manifest.Raw // measured facts about the node, for placement constraints; nil: there are none
	CDI   []string                       // directories of the host's Container Device Interface specifications; empty: the usual ones

	Slots    int             // see executor.Options
	Capacity agent.Resources // see executor.Options
	Drain    time.Duration   // see executor.Options
	Version  string          // of the program; may be empty
	// AdoptLedger begins the record of what was signed with the ledger as it stands. See sequencer.Options.
	AdoptLedger bool

	// Witnesses is how others verify the ledger: the witnesses that it names are asked to cosign it. Nil: nobody is asked.
	Witnesses *ledger.Policy
	// WitnessEvery is the time between two looks at the ledger for that. Zero: witness.DefaultEvery.
	WitnessEvery time.Duration
	// WitnessFor names the ledgers of others that this node cosigns, with the keys of its own. Nil: it cosigns none.
	WitnessFor *ledger.Policy

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: nothing is logged
}

// Node is one node, put together. It is an agent.Node.
type Node struct {
	*executor.Engine
	Keeper   *policy.Keeper
	Ledger   *sequencer.Recorder
	Store    *store.Store
	uploads  *uploads
	gatherer *content.Gatherer
	judge    *judge
	asker    *witness.Asker  // nil: nobody is asked
	witness  *witness.Server // nil: the node is none

	o      Options
	events chan policy.Event // what happened to the policy and is not in the ledger yet
	close  []func() error    // in the order of opening
}

// Open opens, or makes, everything that the node has on disk. It starts nothing but the signing of checkpoints: Run does. The caller
// calls Close.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Facts == nil {
		o.Facts = func() map[string]manifest.Raw { return nil }
	}
	// A policy changes rarely; one that comes while the ledger is slow waits here.
	n := &Node{o: o, events: make(chan policy.Event, 64)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, dir := range []string{".", "signed", "policy"} {
		if err := durable.MakeDir(filepath.Join(o.State, dir), 0o700); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	for _, open := range []func(context.Context) error{n.openStore, n.openLedger, n.openWitnesses, n.openPolicy, n.openEngine} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) in(name string) string { return filepath.Join(n.o.State, name) }

func (n *Node) openStore(ctx context.Context) error {
	s, err := store.Open(n.in("store"))
	if err != nil {
		return err
	}
	n.Store, n.close = s, append(n.close, s.Close)
	if n.uploads, err = newUploads(ctx, s, n.o.Now); err != nil {
		return err
	}
	fetch := &source.Fetcher{Store: s, Archives: n.o.Content}
	if n.o.Fetch != nil {
		n.o.Fetch(fetch)
	}
	n.gatherer = &content.Gatherer{Store: s, Fetch: fetch, Images: n.in("images"), CDI: n.o.CDI}
	n.close = append(n.close, n.gatherer.Close)
	return nil
}

func (n *Node) openLedger(ctx context.Context) error {
	log, err := sequencer.Open(ctx, sequencer.Options{
		Dir: n.in("ledger"), Signed: n.in("signed/ledger"), Keys: n.o.LedgerKeys, Adopt: n.o.AdoptLedger,
	})
	if err != nil {
		return err
	}
	n.close = append(n.close, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return log.Close(ctx)
	})
	n.Ledger, err = sequencer.NewRecorder(ctx, log, sequencer.RecorderOptions{Signer: n.o.Signer, Now: n.o.Now})
	return err
}

func (n *Node) openPolicy(context.Context) error {
	var err error
	n.Keeper, err = policy.Open(policy.Options{
		TrustRoot: n.o.TrustRoot, Policy: n.o.Policy, State: n.in("policy"), Now: n.o.Now,
		Report: func(e policy.Event) { n.events <- e },
	})
	return err
}

func (n *Node) openEngine(context.Context) error {
	window, err := replay.Open(replay.Options{Path: n.in("replay")})
	if err != nil {
		return err
	}
	n.close = append(n.close, window.Close)
	driver, err := n.o.Driver(n.Store)
	if err != nil {
		return err
	}
	n.judge = &judge{
		keeper: n.Keeper, window: window, names: names(dsse.KeyID(n.o.Signer.Public()), n.o.Names), facts: n.o.Facts, now: n.o.Now,
		receipts: &evidence.Finder{Dirs: n.o.Content, Store: n.Store, Fetcher: n.gatherer.Fetch},
	}
	n.Engine, err = executor.Open(executor.Options{
		Dir: n.in("executor"), Store: n.Store, Recorder: recorder{n.Ledger}, Judge: n.judge, Source: fetcher{n.gatherer, n.o}, Driver: driver, Signer: n.o.Signer,
		Now: n.o.Now, Log: n.o.Log, Version: n.o.Version, Slots: n.o.Slots, Capacity: n.o.Capacity, Drain: n.o.Drain, Ledger: n.ledgerStatus, Facts: n.o.Facts,
		Directive: n.direct,
	})
	if err == nil {
		n.close = append(n.close, n.Engine.Close)
	}
	return err
}

// fetcher gets content the way that this node wants it.
type fetcher struct {
	gatherer *content.Gatherer
	o        Options
}

// Gather implements executor.Source.
func (f fetcher) Gather(ctx context.Context, doc *manifest.Job, o content.Options) (*content.Content, error) {
	o.Beside, o.Blobs = append(o.Beside, f.o.Content...), f.o.Blobs
	return f.gatherer.Gather(ctx, doc, o)
}

// AtHand implements executor.LocalSource.
func (f fetcher) AtHand(doc *manifest.Job) bool { return f.gatherer.AtHand(doc) }

func (n *Node) ledgerStatus() agent.LedgerStatus {
	s := agent.LedgerStatus{Origin: n.o.LedgerKeys.Name()}
	if tree, err := n.Ledger.Log().Tree(); err == nil {
		s.Size, s.Root = tree.Size, digest.SHA256(tree.Root)
	}
	n.cosigned(&s)
	return s
}

// Known returns an error unless somebody signed env whose signature counts for anything under the policy in force: what strangers
// hand in costs no more than that.
func (n *Node) Known(env *dsse.Envelope) error {
	at := n.o.Now()
	active, err := n.Keeper.Current(at)
	if err != nil {
		return err
	}
	root := active.Trust().Root()
	for _, role := range []string{manifest.RoleJob, manifest.RoleGovernance, manifest.RolePolicy} {
		if len(env.Verified(root.KeysAt(role, at))) > 0 {
			return nil
		}
	}
	return errors.New("nobody whom this node knows has signed it")
}

// Run takes jobs through their life, watches the policy, has the ledger cosigned, and writes what becomes of it into the ledger, until ctx ends; then it lets
// running jobs end as executor.Engine.Run says.
func (n *Node) Run(ctx context.Context) error {
	g, watching := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Engine.Run(watching) })
	g.Go(func() error { return n.Keeper.Run(watching) })
	g.Go(func() error { return n.recordPolicies(watching) })
	if n.asker != nil {
		g.Go(func() error { return n.asker.Run(watching) })
	}
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// recordPolicies writes each change of the policy into the ledger, also those that happened before ctx ended.
func (n *Node) recordPolicies(ctx context.Context) error {
	for {
		select {
		case e := <-n.events:
			n.recordPolicy(context.WithoutCancel(ctx), e)
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-n.events:
			n.recordPolicy(context.WithoutCancel(ctx), e)
		}
	}
}

func (n *Node) recordPolicy(ctx context.Context, e policy.Event) {
	d := decisionOf(e, n.o.Now())
	if _, err := (recorder{n.Ledger}).Record(ctx, d); err != nil {
		n.o.Log.ErrorContext(ctx, "policy change is not in the ledger", "error", err)
		return
	}
	n.o.Log.InfoContext(ctx, "policy changed", "verdict", d.Verdict, "summary", d.Summary)
}

// decisionOf tells of a change of the policy.
func decisionOf(e policy.Event, at time.Time) agent.Decision {
	if r := e.Refused; r != nil {
		return agent.Decision{
			Kind: agent.KindPolicy, Verdict: "refused", Subject: r.ID, Name: r.Kind, At: at,
			Summary: "what was in force stays in force: " + r.Error(),
			Reasons: []agent.Reason{{Field: string(r.Rule), Msg: r.Error(), Cure: r.Hint()}},
		}
	}
	doc := e.InForce.Policy()
	return agent.Decision{
		Kind: agent.KindPolicy, Verdict: "accepted", Subject: e.InForce.ID(), Name: doc.Metadata.Name, At: at, Policy: e.InForce.ID(),
		Summary: fmt.Sprintf("policy %s version %d is in force until %s", doc.Metadata.Name, doc.Spec.Version, e.InForce.Ends().UTC().Format(time.RFC3339)),
	}
}

// Close gives everything back, last opened first, when Run has returned.
func (n *Node) Close() error {
	var errs []error
	for i := len(n.close) - 1; i >= 0; i-- {
		errs = append(errs, n.close[i]())
	}
	n.close = nil
	return errors.Join(errs...)
}
