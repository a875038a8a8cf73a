package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"arch.network/agent/content"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/job"
)

const runHelp = `Run executes a Job document in confinement: a WebAssembly module, the program of a container image, or one of a Nix or
Guix store path. The job sees its inputs at /inputs/NAME, must leave its outputs at /outputs/NAME, and has nothing else: no
network, no files of this machine, no environment, but what the document asks for and somebody allows.

FILE is a YAML document or a DSSE envelope. Every reference in it is a pin: what is fetched is checked against it. Content
that lies beside FILE, or in ./result, under the name that its reference ends in is taken from there, if it is what the
pin says.

Who allows: with --policy that policy, which the trust root's policy role must have signed and whose issuers must have
signed the job; with --trust alone the quorum of the role job. With neither, FILE runs as your own, whether it is signed or
not, and --allow says what it may reach. An envelope has come from somebody: it needs the quorum of your trust root, unless
--unverified says that you do not care who made it. The broker arch-runnerd judges by its own trust root and policy. A signature that is there, and does not verify, is always an error.

With --checkpoint, the first interrupt stops a job of runtime wasm where it is, and the same command goes on from there, in
another process or on another machine, with the same result and gas. A module that ` + "`arch instrument`" + ` prepared (checkpointable:
true) goes on at once; any other repeats its work up to that place, and is checked to be there. The broker stops only those that are
checkpointable, where its policy allows checkpoint, and keeps the checkpoint itself.

What the job prints goes to stdout and stderr. Its outputs appear in the directory of --out, each complete or not at all, and
in the store. An output that the document pins must be what the pin says. One that it sends to a registry is pushed there with
--publish: an image layout as that image, anything else as an artifact; without it, or where arch run cannot publish, the job is
refused before it runs, unless --unpublished leaves the output here. With --attest, a signed account of the run is beside them: NAME.run.intoto.jsonl;
it says as what outputs were pushed, too.

EXIT STATUS: 0 the job ended with 0 and left what it had to; 1 error; 2 usage; 3 denied by the policy, the quorum or the
calendar; 4 a signature or pin does not verify; 5 the outputs are not the expected ones; 6 the job failed, or was stopped by a
limit; 7 content is missing; 130 interrupted, and the job is gone.`

type runOptions struct {
	fetchFlags
	signFlags
	trust      string
	policy     string
	unverified bool
	allow      []string
	driver     string
	out        string
	content    []string
	cdi        []string
	timeout    time.Duration
	attest     bool
	dryRun     bool
	explain    bool
	interpret  bool
	degraded   bool
	checkpoint string
	stopAt     uint64

	publish     bool
	unpublished bool
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run FILE [-- ARGS...]",
		Short: "Run a job in confinement, with a receipt",
		Long:  runHelp,
		Example: `  arch run tests/examples/jobs/wordcount.yaml
  arch run --attest --out results job.yaml
  arch run --allow egress:443 job.yaml -- --verbose     # arguments for an unsigned job of your own
  arch run --policy policy.yaml job.dsse.json           # somebody else's job, under a policy
  arch run --checkpoint state job.yaml                  # Ctrl-C stops it; the same command goes on
  arch run --explain job.yaml                           # the exact confinement, without running it`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); len(args) > 1 && at != 1 {
				return hinted(usage("one FILE is run, but %d arguments are given", len(args)), "arguments of the job stand after --")
			}
			if err := o.check(c.Flags()); err != nil {
				return err
			}
			return runRun(c.Context(), a, o, args[0], args[1:])
		},
	}
	f := c.Flags()
	f.StringVar(&o.trust, "trust", "", "trust root whose quorum must have signed the job (default: trust.yaml in the configuration directory, where one is needed)")
	f.StringVar(&o.policy, "policy", "", "policy that must allow the job, signed by the policy role")
	f.BoolVar(&o.unverified, "unverified", false, "run an envelope although nobody whom you trust signed it")
	f.StringArrayVar(&o.allow, "allow", nil, "capability that the job may have if it asks for it, such as egress:443 or read:/data (repeatable)")
	f.StringVar(&o.driver, "driver", driverAuto, "what confines the job: "+strings.Join(driverNames(), ", "))
	f.StringVarP(&o.out, "out", "o", "outputs", "directory of the outputs")
	f.StringArrayVar(&o.content, "content", nil, "also look here for content by the name that its reference ends in (repeatable)")
	f.StringArrayVar(&o.cdi, "cdi", nil, "directory of Container Device Interface specifications (repeatable; default: the host's)")
	f.DurationVar(&o.timeout, "timeout", 0, "stop the job after this time, such as 90s, if the document allows more")
	f.BoolVar(&o.attest, "attest", false, "sign an account of the run")
	f.BoolVar(&o.publish, "publish", false, "push outputs to the registries that the document names (oci:HOST/REPOSITORY[:TAG]), with your credentials")
	f.BoolVar(&o.unpublished, "unpublished", false, "run the job although its outputs are to be published, and leave them here")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "check the job, show what would be fetched and run, and do nothing")
	f.BoolVar(&o.explain, "explain", false, "fetch the content and show the exact confinement, and run nothing")
	f.BoolVar(&o.interpret, "interpret", false, "run a module without compiling it: many times slower, the same result")
	f.BoolVar(&o.degraded, "degraded", false, "where the host refuses namespaces, run in weaker confinement; the receipt says so")
	f.StringVar(&o.checkpoint, "checkpoint", "", "directory to stop a module's job into, on the first interrupt, and to go on from")
	f.Uint64Var(&o.stopAt, "stop-at", 0, "stop into --checkpoint at the first place after this much gas")
	o.fetchFlags.add(c)
	o.signFlags.add(c)
	return c
}

// check refuses flags that contradict each other.
func (o *runOptions) check(f *pflag.FlagSet) error {
	switch {
	case f.Changed("key") && !o.attest:
		return hinted(usage("--key says how to attest, but --attest is not given"), "add --attest")
	case o.policy != "" && len(o.allow) > 0:
		return hinted(usage("--allow is for where there is no policy"), "add the capability to capabilities.allow in the policy")
	case o.unverified && (o.policy != "" || o.trust != ""):
		return hinted(usage("--unverified contradicts --policy and --trust"), "leave out one of them")
	case o.publish && o.unpublished:
		return hinted(usage("--publish contradicts --unpublished"), "leave out one of them")
	case o.dryRun && o.explain:
		return hinted(usage("--dry-run fetches nothing, so --explain has nothing to explain"), "leave out one of them")
	case (o.dryRun || o.explain) && o.attest:
		return hinted(usage("nothing is run, so there is nothing to attest"), "leave out --attest")
	case f.Changed("stop-at") && o.checkpoint == "":
		return hinted(usage("--stop-at says when to stop, but not where to"), "add --checkpoint DIR")
	case f.Changed("timeout") && o.timeout <= 0:
		return usage("--timeout: %s is no time to run in", o.timeout)
	}
	for _, c := range o.allow {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return checkDriver(o.driver)
}

// checkCapability refuses what no job could ask for, since it allows nothing.
func checkCapability(text string) error {
	policy := job.LocalPolicy([]string{text})
	policy.Metadata.Expires = "9999-12-31T00:00:00Z"
	if err := policy.Validate(); err != nil {
		return hinted(usage("--allow: %q is no capability", text),
			"write egress:PORT, egress:HOST:PORT, read:/PATH, write:/PATH, device:VENDOR/CLASS=NAME, clock:real, randomness:real or checkpoint")
	}
	return nil
}

func runRun(ctx context.Context, a *app, o runOptions, path string, args []string) error {
	t, err := a.readJob(path, args)
	if err != nil {
		return err
	}
	if err := a.admit(t, o, time.Now()); err != nil {
		return err
	}
	if o.dryRun {
		return a.showJob(t, o)
	}
	if o.explain && t.byBroker {
		return hinted(usage("the broker derives the confinement by its own policy, which is not known here"), "explain it with --driver systemd and that --policy")
	}
	if o.checkpoint != "" && !o.checkpoints(t) {
		return hinted(usage("--checkpoint: only jobs of runtime wasm can be stopped and go on, by the broker only those that are checkpointable"), "leave out --checkpoint")
	}
	if err := o.checkPlace(t); err != nil {
		return err
	}
	if !o.explain {
		if err := t.planTargets(ctx, o); err != nil {
			return err
		}
	}
	w, err := a.openRunshop(t, o)
	if err != nil {
		return err
	}
	defer w.close()
	got, err := w.fetchJob(ctx, t, o)
	if err != nil {
		return err
	}
	spec, err := t.derive(got, o)
	if err != nil {
		return denied(err)
	}
	if o.explain {
		return a.explainSpec(ctx, w.driver, t, spec)
	}
	var signer identity.Signer
	if o.attest { // before the work: a missing key should not cost it
		if signer, err = a.signer(ctx, o.key, true); err != nil {
			return err
		}
	}
	return w.execute(ctx, t, o, spec, got, signer)
}

// derive makes the Spec. For the broker, which derives by itself, it is empty.
func (t *jobTarget) derive(c *content.Content, o runOptions) (runner.Spec, error) {
	if t.byBroker {
		return runner.Spec{}, nil
	}
	return job.Derive(t.doc, c.Content, job.Options{
		ID: t.id, Policy: t.policy, Instance: newInstance(), Timeout: o.timeout, Interpret: o.interpret, Degraded: o.degraded || t.degraded(),
	})
}

// showJob is the dry run.
func (a *app) showJob(t *jobTarget, o runOptions) error {
	return a.print(t.describe(), func(s *screen) {
		m, j := t.doc.Metadata, &t.doc.Spec
		fmt.Fprintf(s, "%s (%s)\n  id      %s\n", m.Name, j.Runtime, t.id)
		for _, by := range t.signers {
			fmt.Fprintf(s, "  signed  by %s\n", by)
		}
		fmt.Fprintf(s, "  allowed %s\n  image   %s\n", t.allowedBy, j.Image)
		for _, name := range sortedKeys(j.Inputs) {
			fmt.Fprintf(s, "  input   /inputs/%s\n          %s\n", name, j.Inputs[name])
		}
		if len(j.Args) > 0 {
			fmt.Fprintf(s, "  args    %q\n", j.Args)
		}
		for _, c := range job.Capabilities(t.doc) {
			fmt.Fprintf(s, "  may     %s\n", c.Text)
		}
		for _, name := range sortedKeys(j.Outputs) {
			fmt.Fprintf(s, "  output  %s\n", jobOutputPlace(o.out, name, j.Outputs[name]))
		}
	})
}

// jobOutputPlace says where an output goes.
func jobOutputPlace(dir, name string, to manifest.Target) string {
	place := dir + "/" + name
	if p, ok := strings.CutPrefix(to.Destination, "file://"); ok {
		return place + " and " + p
	}
	if to.Destination == "" {
		return place + ", which must be " + to.Ref.String()
	}
	return place
}
