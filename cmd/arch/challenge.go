package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/identity"
	"arch.network/builder/binarycache/cacheclient"
	"arch.network/builder/challenge"
	"arch.network/builder/diff"
	"arch.network/builder/store"
)

const challengeHelp = `Challenge asks several binary caches of Nix or substitute servers of Guix for store paths, fetches and hashes what each of them serves, and compares:
the caches with each other, each with its own narinfo, and all with this machine's store, if it has the path. A difference is explained
as by arch diff.

A path agrees if nobody has other bytes and enough operators vouch for them. Who is an operator is what --keys says, a file of lines

  quorum 2
  operator nixos.org    cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=
  operator guix.gnu.org (public-key (ecc (curve Ed25519) (q #8D15…#)))
  operator example.org  did:key:z6Mk…

for the signatures of Nix, of Guix and of receipts that lie beside a cache; --trust adds the builders and rebuilders of a trust root. However many keys
somebody has, it is one voice. Without either each cache counts for itself. This machine's store never counts: it may have the path from one of them.

With --rebuild Nix builds each path again here, in a new store, and that is one more operator, "self". Its derivation must be in the store that --nix-store
names; where it is not, the rebuild says nothing. What Guix built is built again by this machine's guix-daemon.

DRV^OUTPUT is an output of a derivation of Nix that is named by its content, such as /nix/store/…-hello.drv^out. The caches are asked at which path it came
out (their realisations, which Nix believes without looking at a signature), and the path is challenged, too. Operators vouch for it by signatures of Nix on
the realisation. The derivation is read from this machine's store.

With --attest each path that agrees or differs gets a signed verification summary.

EXIT STATUS: 0 all paths agree; 1 error; 2 usage; 3 too few operators vouch for a path; 4 a signature of a known key is wrong; 5 a path differs;
130 interrupted.`

type challengeOptions struct {
	vouchFlags
	signFlags
	substituters []string
	nixFlags
	closure bool
	rebuild bool
	root    string
	attest  string
}

func newChallengeCommand(a *app) *cobra.Command {
	var o challengeOptions
	c := &cobra.Command{
		Use:   "challenge PATH|DRV^OUTPUT...",
		Short: "Compare what several binary caches say and serve of store paths",
		Long:  challengeHelp,
		Example: `  arch challenge /nix/store/…-hello --substituters https://cache.nixos.org,https://cache.example.org --keys operators
  arch challenge -r ./result --substituters https://a.example,https://b.example --attest hello.intoto.jsonl`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("key") && o.attest == "" {
				return hinted(usage("--key has no meaning without --attest"), "add --attest FILE")
			}
			for _, name := range []string{"nix-store", "nix-bin"} {
				if c.Flags().Changed(name) && !o.rebuild {
					return hinted(usage("--%s has no meaning without --rebuild", name), "add --rebuild")
				}
			}
			return runChallenge(c.Context(), a, o, args)
		},
	}
	o.vouchFlags.add(c)
	o.signFlags.add(c)
	o.nixFlags.add(c)
	f := c.Flags()
	f.BoolVar(&o.rebuild, "rebuild", false, "also build the paths again on this machine, with Nix")
	f.StringSliceVar(&o.substituters, "substituters", nil, "caches to ask: URLs of http, https or file, separated by commas")
	f.BoolVarP(&o.closure, "recursive", "r", false, "also challenge everything that the paths refer to")
	f.StringVar(&o.root, "root", "/", "root below which this machine's store lies")
	f.StringVar(&o.attest, "attest", "", "write signed verification summaries to this file")
	return c
}

func runChallenge(ctx context.Context, a *app, o challengeOptions, args []string) error {
	outputs, named, err := parseOutputs(args, o.root)
	if err != nil {
		return err
	}
	paths, err := parseStorePaths(named)
	if err != nil {
		return err
	}
	if len(o.substituters) == 0 {
		return hinted(usage("--substituters is missing: whom shall it ask?"), "add --substituters https://cache.nixos.org,https://…")
	}
	rules, err := o.open(a)
	if err != nil {
		return err
	}
	opts := challenge.Options{Keys: rules.keys, Quorum: rules.quorum, At: time.Now(), Closure: o.closure}
	seen := map[string]bool{}
	for _, location := range o.substituters {
		cache, err := cacheclient.Open(location)
		if err != nil {
			return withStatus(exitUsage, err)
		}
		if id := strings.TrimRight(location, "/"); seen[id] { // asked twice, one cache would be two voices
			return usage("--substituters: %q is there twice", location)
		} else {
			seen[id] = true
		}
		opts.Voters = append(opts.Voters, challenge.Cache{Cache: cache})
	}
	opts.Voters = append(opts.Voters, challenge.Local{Root: o.root})
	var signer identity.Signer
	if o.attest != "" { // before the work: a missing key should not cost it
		if signer, err = a.signer(ctx, o.key, false); err != nil {
			return err
		}
	}
	show := newProgress(a)
	defer show.end()
	if o.rebuild {
		w, err := a.openWorkshop(fetchFlags{}, true)
		if err != nil {
			return err
		}
		defer w.close()
		n, err := w.openNix(o.nixFlags)
		if err != nil {
			return err
		}
		opts.Voters = append(opts.Voters, &rebuilder{shop: w, nix: n})
	}
	opts.Progress = show.challenge
	told, err := challenge.Outputs(ctx, outputs, opts)
	if err != nil {
		return err
	}
	for _, t := range told {
		paths = append(paths, t.Paths...)
	}
	results, err := challenge.Run(ctx, paths, opts)
	if err != nil {
		return err
	}
	res, err := a.describeChallenge(ctx, results)
	if err != nil {
		return err
	}
	res.add(describeOutputs(told))
	show.end()
	if signer != nil {
		if err := o.writeSummaries(ctx, signer, rules, opts.At, results); err != nil {
			return err
		}
	}
	if err := a.print(res, res.text); err != nil {
		return err
	}
	return res.err()
}

// parseStorePaths reads store paths, and links that lead to one, such as ./result. What lies below a store path stands for it.
func parseStorePaths(args []string) ([]storepath.Path, error) {
	var paths []storepath.Path
	for _, arg := range args {
		p, err := storepath.Parse(arg)
		if err != nil {
			if real, linkErr := filepath.EvalSymlinks(arg); linkErr == nil {
				p, err = storePathOf(real)
			}
		}
		if err != nil {
			return nil, hinted(usage("%v", err), "name a path like /nix/store/HASH-NAME or /gnu/store/HASH-NAME, or a link to one")
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// storePathOf returns the store path that path is or lies in.
func storePathOf(path string) (p storepath.Path, err error) {
	for at := path; ; at = filepath.Dir(at) {
		if p, err = storepath.Parse(at); err == nil {
			return p, nil
		}
		if at == filepath.Dir(at) {
			return p, fmt.Errorf("%q is no store path", path)
		}
	}
}

// challengeResult is what the command found.
type challengeResult struct {
	Outcome challenge.Outcome     `json:"outcome"`           // of all paths and outputs: the worst
	Outputs []challengeOutput     `json:"outputs,omitempty"` // of derivations
	Paths   []challengePathResult `json:"paths"`
}

func (challengeResult) kind() string { return "ChallengeResult" }

type challengePathResult struct {
	Path       string            `json:"path"`
	Outcome    challenge.Outcome `json:"outcome"`
	NAR        string            `json:"nar,omitempty"` // SRI, if all have the same
	Operators  []string          `json:"operators"`     // who vouches for it
	Wrong      []string          `json:"wrongSignatures,omitempty"`
	Reason     string            `json:"reason"`
	Votes      []challengeVote   `json:"votes"`
	Difference *diff.Report      `json:"difference,omitempty"`
}

type challengeVote struct {
	Voter  string          `json:"voter"`
	State  challenge.State `json:"state"`
	NAR    string          `json:"nar,omitempty"` // SRI
	Size   int64           `json:"size,omitempty"`
	Detail string          `json:"detail,omitempty"`
}

// maxExplained bounds how many paths that differ are explained: each costs two downloads.
const maxExplained = 16

func (a *app) describeChallenge(ctx context.Context, results []challenge.Result) (challengeResult, error) {
	res := challengeResult{Outcome: challenge.Agree, Paths: []challengePathResult{}}
	explained := 0
	for _, r := range results {
		p := challengePathResult{Path: r.Path.String(), Outcome: r.Outcome, Operators: append([]string{}, r.Operators...), Wrong: r.Wrong, Reason: r.Reason}
		if !r.NAR.IsZero() {
			p.NAR = r.NAR.SRI()
		}
		for _, v := range r.Votes {
			vote := challengeVote{Voter: v.Voter, State: v.State, Size: v.Answer.Size, Detail: v.Detail}
			if v.State == challenge.Has {
				vote.NAR = v.Answer.NAR.SRI()
			}
			p.Votes = append(p.Votes, vote)
		}
		if r.Outcome == challenge.Differ && explained < maxExplained {
			explained++
			err := a.withStore(func(s *store.Store) (err error) {
				p.Difference, err = challenge.Explain(ctx, s, r, diff.Options{Differences: 20})
				return err
			})
			if err != nil {
				return res, err
			}
		}
		res.Outcome = worse(res.Outcome, r.Outcome)
		res.Paths = append(res.Paths, p)
	}
	return res, nil
}

// add adds outputs.
func (res *challengeResult) add(outputs []challengeOutput) {
	res.Outputs = outputs
	for _, o := range outputs {
		res.Outcome = worse(res.Outcome, o.Outcome)
	}
}

// worse returns the worse one of two outcomes.
func worse(a, b challenge.Outcome) challenge.Outcome {
	for _, o := range []challenge.Outcome{challenge.Differ, challenge.Unknown} {
		if a == o || b == o {
			return o
		}
	}
	return challenge.Agree
}

func (res challengeResult) text(s *screen) {
	for _, o := range res.Outputs {
		o.text(s)
	}
	for _, p := range res.Paths {
		showOutcome(s, p.Outcome, p.Path, p.Reason, p.Wrong)
		for _, v := range p.Votes {
			if v.State != challenge.Missing || v.Voter != (challenge.Local{}).Name() {
				fmt.Fprintf(s, "  %-7s %s %s\n", v.State, v.Voter, cmp.Or(v.NAR, v.Detail))
			}
		}
		if p.Difference != nil {
			p.Difference.Text(s)
		}
	}
	if n := len(res.Paths); n > 1 {
		fmt.Fprintf(s, "%d paths: %s\n", n, res.Outcome)
	}
}

// err says what the exit status says. An output comes before the paths that it is said to have come out at.
func (res challengeResult) err() error {
	bad := map[challenge.Outcome]int{}
	outputs := map[challenge.Outcome]error{}
	wrong := 0
	for _, o := range res.Outputs {
		wrong += len(o.Wrong)
		outputs[o.Outcome] = fmt.Errorf("%s: %s", o.Output, o.Reason)
	}
	for _, p := range res.Paths {
		bad[p.Outcome]++
		wrong += len(p.Wrong)
	}
	switch {
	case outputs[challenge.Differ] != nil:
		return withStatus(exitNotReproducible, outputs[challenge.Differ])
	case bad[challenge.Differ] > 0:
		return withStatus(exitNotReproducible, fmt.Errorf("%s of %d differ", count(bad[challenge.Differ], "path", "paths"), len(res.Paths)))
	case wrong > 0:
		return withStatus(exitVerification, fmt.Errorf("%s of known keys wrong", count(wrong, "signature is", "signatures are")))
	case outputs[challenge.Unknown] != nil:
		return hinted(withStatus(exitDenied, outputs[challenge.Unknown]), moreVoices)
	case bad[challenge.Unknown] > 0:
		return hinted(withStatus(exitDenied, fmt.Errorf("%s of %d: too few operators vouch", count(bad[challenge.Unknown], "path", "paths"), len(res.Paths))), moreVoices)
	}
	return nil
}

const moreVoices = "ask more caches, or name whose keys are whose with --keys"

// writeSummaries signs what was found of each path that was found out about.
func (o challengeOptions) writeSummaries(ctx context.Context, signer identity.Signer, r rules, at time.Time, results []challenge.Result) error {
	receipt := &attest.Receipt{}
	for _, res := range results {
		stmt, err := challenge.Summary(res, challenge.SummaryOptions{
			Verifier: attest.Verifier{ID: "https://arch.network/verifiers/arch-challenge/v1", Version: map[string]string{"arch": version}},
			Quorum:   r.quorum, Keys: r.digest, At: at,
		})
		if errors.Is(err, challenge.ErrNothing) {
			continue
		}
		if err != nil {
			return err
		}
		env, err := stmt.Sign(ctx, signer)
		if err != nil {
			return fmt.Errorf("sign verification summary: %w", err)
		}
		receipt.Add(env)
	}
	return writeReceipt(o.attest, receipt)
}

// challengeProgress is a path that has been challenged.
type challengeProgress struct {
	Path    string            `json:"challenge"`
	Outcome challenge.Outcome `json:"outcome"`
	Done    int               `json:"done"`
	Total   int               `json:"total"`
}

func (challengeProgress) kind() string { return "ChallengeProgress" }

// challenge is a challenge's Progress.
func (p *progress) challenge(e challenge.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.app.quiet:
	case p.app.json && e.Result != nil:
		p.app.jsonLine(challengeProgress{e.Path.String(), e.Result.Outcome, e.Done, e.Total})
	case p.app.json:
	case e.Result != nil && p.live:
		p.text = fmt.Sprintf("challenge: %d of %d done", e.Done, e.Total)
	case e.Result == nil && p.live:
		p.begin(fmt.Sprintf("challenge %s (%d of %d done)", e.Path.Name, e.Done, e.Total))
	}
}
