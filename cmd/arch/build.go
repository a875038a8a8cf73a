package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/builder"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner/namespace"
)

const buildHelp = `Build makes the outputs of a Build manifest bit for bit and puts them into the result directory.

TARGET is a manifest, or a directory that holds build.yaml. Inputs are fetched and checked against their pins, then the
steps run with no network in a confinement that holds the listed inputs and nothing else.

Or it is something that Nix builds: a flake's output (.#agent, github:OWNER/REPO#NAME), an expression (FILE.nix, FILE.nix#ATTRIBUTE), a .drv
or another path of a Nix store. The receipt then lists the whole graph of derivations, sources and outputs by their hashes, and the second
build is in a new store. Nix's settings decide from where it gets what it need not build.

With --guix Guix builds: a package (hello, hello@2.12), a file of Scheme that gives one (FILE.scm), each package of a manifest (-m FILE); and always what is
the .drv or another path of its store. Packages are built without grafts, as substitute servers have them. The receipt is as with Nix; the second build
is guix-daemon's check, and the account of this builder names the channels that Guix was made of.

With --attest it builds twice in deliberately different surroundings, names the guilty factor if the bits differ, and
writes a signed receipt NAME.receipt.jsonl beside the outputs: the build claim, which is the same at every honest builder,
and this builder's SLSA provenance. With no key yet, it makes one and says where.

Several targets are built one after the other; the first that fails ends it. What is delivered replaces what was delivered
there before, but never a directory that arch did not make.

EXIT STATUS: 0 built; 1 error; 2 usage; 5 not reproducible; 6 a step failed; 7 inputs are missing; 130 interrupted.`

// defaultResult is where the outputs of builds go, and where jobs look for content, too.
const defaultResult = "result"

// fetchFlags are the flags of every command that fetches.
type fetchFlags struct {
	offline  bool
	archives []string
	mirrors  []string
}

func (f *fetchFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.offline, "offline", false, "open no connection: inputs come from the store and from archives")
	c.Flags().StringArrayVar(&f.archives, "archive", nil, "take inputs from this archive directory (repeatable; see --export)")
	c.Flags().StringArrayVar(&f.mirrors, "mirror", nil, "look here for what is pinned by content before its own place: URL or directory (repeatable)")
}

// signFlags are the flags of every command that signs.
type signFlags struct {
	key string
}

func (f *signFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.key, "key", "", "key to sign with: a file, credential:NAME or exec:COMMAND (default: key in the configuration directory)")
}

type buildOptions struct {
	fetchFlags
	signFlags
	nixFlags
	guixFlags
	attest   bool
	once     bool
	vary     string
	out      string
	force    bool
	export   string
	degraded bool
	dryRun   bool
}

func newBuildCommand(a *app) *cobra.Command {
	var o buildOptions
	c := &cobra.Command{
		Use:   "build TARGET...",
		Short: "Build artifacts bit for bit, with receipts",
		Long:  buildHelp,
		Example: `  arch build --attest ./tests/examples/hello
  arch build --attest --once ./tests/examples/age       # skip the second build; the receipt says so
  arch build --attest --vary time,path build.yaml
  arch build --attest .#agent                           # by Nix, from a flake whose inputs are locked
  arch build --attest --guix hello                      # by Guix
  arch build --export inputs/ build.yaml                # keep every input for rebuilds without a network`,
		Args: func(c *cobra.Command, args []string) error {
			if len(o.manifests) > 0 {
				return nil
			}
			return cobra.MinimumNArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			factors, err := o.check(c.Flags())
			if err != nil {
				return err
			}
			targets, err := o.derivations(args)
			if err != nil {
				return err
			}
			if targets.none() {
				return runBuild(c.Context(), a, o, factors, args)
			}
			if err := checkDerivation(c.Flags()); err != nil {
				return err
			}
			return runDerivations(c.Context(), a, o, targets)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.attest, "attest", false, "build twice and sign a receipt")
	f.BoolVar(&o.once, "once", false, "with --attest: build once; the receipt says so")
	f.StringVar(&o.vary, "vary", "all", "factors to vary in the second build: all, or a list of "+factorNames())
	f.StringVarP(&o.out, "out", "o", defaultResult, "result directory")
	f.BoolVar(&o.force, "force", false, "build even if the store has the result")
	f.StringVar(&o.export, "export", "", "also write every input into this archive directory")
	f.BoolVar(&o.degraded, "degraded", false, "let Nix or Guix build in weaker confinement, such as that of this machine's daemon; the receipt names another builder")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be fetched and run, and do nothing")
	o.fetchFlags.add(c)
	o.signFlags.add(c)
	o.nixFlags.add(c)
	o.guixFlags.add(c)
	return c
}

func factorNames() string {
	var names []string
	for _, f := range builder.Factors() {
		names = append(names, string(f))
	}
	return strings.Join(names, ",")
}

// buildResult is what --json shows of one build.
type buildResult struct {
	Name     string         `json:"name"`
	ID       digest.SHA256  `json:"id"`
	Drv      string         `json:"derivation,omitempty"`
	Cached   bool           `json:"cached"`
	Outputs  []outputResult `json:"outputs"`
	Receipt  string         `json:"receipt,omitempty"`
	Claim    *digest.SHA256 `json:"claim,omitempty"`
	Signer   string         `json:"signer,omitempty"`
	Varied   []string       `json:"varied,omitempty"`
	Unvaried []string       `json:"unvaried,omitempty"`
	Degraded []string       `json:"degraded,omitempty"`
}

func (buildResult) kind() string { return "BuildResult" }

type outputResult struct {
	Name string         `json:"name"`
	Path string         `json:"path"`
	URI  string         `json:"storePath,omitempty"`
	File *digest.SHA256 `json:"sha256,omitempty"`
	Tar  *digest.SHA256 `json:"tar,omitempty"`
	OCI  *digest.SHA256 `json:"oci,omitempty"`
	NAR  digest.SHA256  `json:"nar"`
}

// check refuses flags that contradict each other.
func (o *buildOptions) check(f *pflag.FlagSet) ([]builder.Factor, error) {
	for _, name := range []string{"once", "vary", "key"} {
		if f.Changed(name) && !o.attest {
			return nil, hinted(usage("--%s says how to attest, but --attest is not given", name), "add --attest")
		}
	}
	if o.once && f.Changed("vary") {
		return nil, hinted(usage("--once builds once, so --vary cannot vary anything"), "leave out one of them")
	}
	if o.dryRun && o.export != "" {
		return nil, hinted(usage("--dry-run fetches nothing, so --export has nothing to write"), "leave out one of them")
	}
	factors, err := builder.ParseFactors(o.vary)
	if err != nil {
		return nil, hinted(usage("--vary: %v", err), "leave --vary out to vary everything")
	}
	if !o.attest || o.once {
		return nil, nil
	}
	if len(factors) == 0 {
		return nil, hinted(usage("--vary: no factor is left to vary"), "use --once to build once; the receipt says so")
	}
	return factors, nil
}

func runBuild(ctx context.Context, a *app, o buildOptions, factors []builder.Factor, args []string) error {
	targets, err := a.readTargets(args) // all are read before the first is built
	if err != nil {
		return err
	}
	if err := checkNames(targets); err != nil {
		return err
	}
	if err := checkPaths(targets); err != nil {
		return err
	}
	if o.dryRun {
		return showPlans(a, targets)
	}
	if err := checkPlaces(o.out, targets); err != nil {
		return err
	}
	w, err := a.openWorkshop(o.fetchFlags, o.degraded)
	if err != nil {
		return err
	}
	defer w.close()
	for _, t := range targets {
		if err := w.mayReplace(t.doc, o.out); err != nil {
			return err
		}
	}
	var signer identity.Signer
	if o.attest {
		if signer, err = a.signer(ctx, o.key, true); err != nil {
			return err
		}
	}
	for i, t := range targets {
		if err := w.build(ctx, o, t, factors, signer); err != nil {
			return stopped(err, targets, i)
		}
	}
	return nil
}

// runDerivations is runBuild of what Nix or Guix builds.
func runDerivations(ctx context.Context, a *app, o buildOptions, targets derivations) error {
	w, err := a.openWorkshop(o.fetchFlags, o.degraded)
	if err != nil {
		return err
	}
	defer w.close()
	var signer identity.Signer
	if o.attest {
		if signer, err = a.signer(ctx, o.key, true); err != nil {
			return err
		}
	}
	return w.buildDerivations(ctx, o, targets, signer)
}

// stopped adds to the error that ended target i what had been done before it and what was not begun.
func stopped(err error, targets []target, i int) error {
	if len(targets) == 1 {
		return err
	}
	names := func(ts []target) string {
		if len(ts) == 0 {
			return "none"
		}
		var list []string
		for _, t := range ts {
			list = append(list, t.doc.Metadata.Name)
		}
		return strings.Join(list, ", ")
	}
	return fmt.Errorf("%w (done before: %s; not begun: %s)", err, names(targets[:i]), names(targets[i+1:]))
}

// workshop is everything a build needs, opened.
type workshop struct {
	app      *app
	store    *store.Store
	lease    *store.Lease
	fetch    *source.Fetcher
	builder  *builder.Builder
	progress *progress
}

func (a *app) openWorkshop(f fetchFlags, degraded bool) (*workshop, error) {
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	logs, err := a.logDir()
	if err != nil {
		return nil, err
	}
	run, err := namespace.New(namespace.Options{})
	if err != nil {
		return nil, err
	}
	lease, err := s.Lease(context.Background())
	if err != nil {
		return nil, err
	}
	p := newProgress(a)
	fetch := a.newFetcher(s, f, p)
	return &workshop{
		app: a, store: s, lease: lease, fetch: fetch, progress: p,
		builder: &builder.Builder{
			Store: s, Fetch: fetch, Runner: run, Logs: logs, Now: time.Now, Events: p.stage, Degraded: degraded,
		},
	}, nil
}

func (w *workshop) close() {
	w.progress.end()
	w.lease.Release()
	w.store.Close()
}

func programVersion() builder.Version { return builder.Version{Name: "arch", Number: version} }

func (w *workshop) build(ctx context.Context, o buildOptions, t target, factors []builder.Factor, signer identity.Signer) error {
	made, err := w.builder.Build(ctx, builder.Request{Manifest: t.doc, Base: t.base, Force: o.force, Vary: factors})
	if err != nil {
		return err
	}
	if o.export != "" {
		if err := w.fetch.Export(ctx, t.doc.Spec.Inputs, t.base, o.export); err != nil {
			return err
		}
	}
	return w.finish(ctx, o, made, signer)
}

// finish delivers what was made, attests it if there is a signer, and shows it.
func (w *workshop) finish(ctx context.Context, o buildOptions, made *builder.Made, signer identity.Signer) error {
	paths, err := w.deliver(ctx, made, o.out)
	if err != nil {
		return err
	}
	if err := w.root(made, o.out); err != nil {
		return err
	}
	res := describeBuild(made, paths)
	if signer != nil {
		if err := w.attest(ctx, made, signer, o.out, &res); err != nil {
			return err
		}
	}
	w.progress.end()
	return w.app.print(res, res.text)
}

func (w *workshop) attest(ctx context.Context, made *builder.Made, signer identity.Signer, out string, res *buildResult) error {
	r, ok := w.builder.RecallReceipt(made, signer.Public())
	if !ok {
		var err error
		if r, err = w.builder.Attest(ctx, made, signer, programVersion()); err != nil {
			return err
		}
		if err := w.builder.RememberReceipt(ctx, made, signer.Public(), r); err != nil {
			return err
		}
	}
	path := filepath.Join(out, made.Manifest.Metadata.Name+".receipt.jsonl")
	if err := writeReceipt(path, r); err != nil {
		return err
	}
	id := r.Claims[0].ID()
	res.Receipt, res.Claim, res.Signer = path, &id, signer.Public().String()
	return nil
}

func writeReceipt(path string, r *attest.Receipt) error {
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		return err
	}
	if err := builder.WriteFile(path, buf.Bytes()); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return nil
}

func describeBuild(made *builder.Made, paths []string) buildResult {
	res := buildResult{
		Name: made.Manifest.Metadata.Name, ID: made.ID, Cached: made.Cached,
		Degraded: made.Record.Confinement.Missing,
	}
	if d := made.Manifest.Spec.Derivation; d != nil {
		res.Drv = d.Ref.Location
	}
	optional := func(d digest.SHA256) *digest.SHA256 {
		if d.IsZero() {
			return nil
		}
		return &d
	}
	for i, out := range made.Record.Outputs {
		res.Outputs = append(res.Outputs, outputResult{
			Name: out.Name, Path: paths[i], URI: out.URI, File: optional(out.File), Tar: optional(out.Tar), OCI: optional(out.OCI), NAR: out.NAR,
		})
	}
	if v := made.Record.Variation; v != nil {
		for _, f := range v.Factors {
			if !slices.Contains(v.Missing, f) {
				res.Varied = append(res.Varied, string(f))
			}
		}
		for _, f := range v.Missing {
			res.Unvaried = append(res.Unvaried, string(f))
		}
	}
	return res
}

func (res buildResult) text(w *screen) {
	how := "built"
	if res.Cached {
		how = "unchanged"
	}
	fmt.Fprintf(w, "%s: %s\n", res.Name, how)
	for _, o := range res.Outputs {
		d := o.NAR
		switch {
		case o.File != nil:
			d = *o.File
		case o.Tar != nil:
			d = *o.Tar
		}
		fmt.Fprintf(w, "  %-24s %s\n", o.Path, d)
		if o.URI != "" {
			fmt.Fprintf(w, "  %-24s %s\n", "", o.URI)
		}
	}
	if res.Receipt != "" {
		fmt.Fprintf(w, "  %-24s claim %s\n", res.Receipt, res.Claim)
		fmt.Fprintf(w, "  signed by %s\n", res.Signer)
	}
	if len(res.Varied) > 0 {
		fmt.Fprintf(w, "  built twice, same bits; varied: %s\n", strings.Join(res.Varied, ", "))
	}
	if len(res.Unvaried) > 0 {
		fmt.Fprintf(w, "  could not be varied here: %s\n", strings.Join(res.Unvaried, ", "))
	}
	for _, m := range res.Degraded {
		fmt.Fprintf(w, "  not enforced: %s\n", m)
	}
}

// showPlans is the dry run.
func showPlans(a *app, docs []target) error {
	for _, t := range docs {
		if err := a.print(shown{t.doc}, func(w *screen) {
			fmt.Fprintf(w, "%s (%s)\n", t.doc.Metadata.Name, t.doc.Spec.Platform)
			if d := t.doc.Spec.Derivation; d != nil {
				fmt.Fprintf(w, "  derivation %s\n", d.Ref)
				for _, f := range d.Flakes {
					fmt.Fprintf(w, "  flake      %s %s\n", f.Ref, f.URL)
				}
			}
			for _, in := range t.doc.Spec.Inputs {
				fmt.Fprintf(w, "  input  %s at %s\n         %s\n", in.Name, in.Mount, inputSource(in, t.base))
			}
			for _, s := range t.doc.Spec.Steps {
				fmt.Fprintf(w, "  step   %q\n", s.Argv)
			}
			for _, out := range t.doc.Spec.Outputs {
				fmt.Fprintf(w, "  output %s (%s) from %s\n", out.Name, out.Type, cmp.Or(out.Path, out.Of))
			}
		}); err != nil {
			return err
		}
	}
	return nil
}
