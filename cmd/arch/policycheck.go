package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent/admission"
	"arch.network/agent/evidence"
	"arch.network/agent/policy"
	"arch.network/attest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner/job"
)

const policyCheckHelp = `Check tells whether a policy could be in force: valid, not expired, for this trust root, and signed by the quorum of its policy
role. One that nobody has signed yet is judged as far as it can be.

With --job it judges a job, as a node would before it fetches anything: whether it is admitted, and if not every reason, and
what would have to change. --fact tells what the node would have measured, --as what the node is called. With --receipts it also
looks whether what the policy demands of the job's image and inputs is proven.

EXIT STATUS: 0 every check passed and the job is admitted; 1 error, or it is no valid policy or job; 2 usage; 3 the policy
could not be in force, or the job is refused.`

// policyCheckFlags are the flags of policy check.
type policyCheckFlags struct {
	trust, job, at string
	facts, names   []string
	receipts       []string
}

func newPolicyCheckCommand(a *app) *cobra.Command {
	var o policyCheckFlags
	c := &cobra.Command{
		Use:     "check FILE",
		Short:   "Check a policy, and what it says to a job",
		Long:    policyCheckHelp,
		Example: "  arch policy check policy.yaml\n  arch policy check policy.yaml --job job.yaml --fact energy.price_eur_kwh=0.12",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicyCheck(c.Context(), a, args[0], o)
		},
	}
	c.Flags().StringVar(&o.trust, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	c.Flags().StringVar(&o.job, "job", "", "job to judge: a YAML document or an envelope")
	c.Flags().StringVar(&o.at, "at", "", "judge as of this time, RFC 3339 (default: now)")
	c.Flags().StringArrayVar(&o.facts, "fact", nil, "a fact about the node, KEY=JSON; may be repeated")
	c.Flags().StringArrayVar(&o.names, "as", nil, "a name of the node or of a pool that it is in, for jobs with an audience; may be repeated")
	c.Flags().StringArrayVar(&o.receipts, "receipts", nil, "file or directory of receipts about the job's image and inputs; may be repeated")
	return c
}

// policyCheckResult is what --json shows.
type policyCheckResult struct {
	File    string             `json:"file"`
	OK      bool               `json:"ok"`
	Checks  []trustCheck       `json:"checks"`
	Verdict *admission.Verdict `json:"verdict,omitempty"`
}

func (policyCheckResult) kind() string { return "PolicyCheck" }

func runPolicyCheck(ctx context.Context, a *app, path string, o policyCheckFlags) error {
	at, err := parseTime("--at", o.at)
	if err != nil {
		return err
	}
	facts, err := parseFacts(o.facts)
	if err != nil {
		return err
	}
	env, doc, err := a.readPolicy(path)
	if err != nil {
		return err
	}
	_, trust, err := a.openTrust(o.trust)
	if err != nil {
		return err
	}
	active, err := policy.Draft(trust, doc)
	if err != nil {
		return policyStatus(err)
	}
	res := policyCheckResult{File: path, OK: true, Checks: checkPolicyDocument(env, doc, trust, at)}
	var failure error
	for _, c := range res.Checks {
		if c.Result == attest.Fail && failure == nil {
			failure = hinted(withStatus(c.status, fmt.Errorf("check %s: %s: %s", path, c.Name, c.Detail)), c.Hint)
		}
	}
	if o.job != "" {
		p, err := a.readProposal(o.job, active, at)
		if err != nil {
			return err
		}
		res.Verdict = admission.Judge(admission.Input{Proposal: p, Active: active, Names: o.names, Facts: facts, At: at})
		if len(o.receipts) > 0 && res.Verdict.Admitted {
			missing, err := missingProof(ctx, res.Verdict.Demands, o.receipts, active, at)
			if err != nil {
				return err
			}
			res.Verdict = res.Verdict.Refuse(missing)
		}
		if !res.Verdict.Admitted && failure == nil {
			failure = hinted(withStatus(exitDenied, errors.New(res.Verdict.Summary())), res.Verdict.Reasons[0].Cure)
		}
	}
	res.OK = failure == nil
	if err := a.print(res, func(s *screen) {
		showChecks(s, res.Checks)
		showVerdict(s, res.Verdict)
	}); err != nil {
		return err
	}
	return failure
}

// missingProof returns what is missing of what was demanded.
func missingProof(ctx context.Context, demands []admission.Demand, receipts []string, active *policy.Active, at time.Time) ([]admission.Reason, error) {
	var out []admission.Reason
	finder := &evidence.Finder{Dirs: receipts}
	for _, d := range demands {
		found, err := finder.Find(ctx, d.Ref)
		if err != nil {
			return nil, err
		}
		missing, err := evidence.Check(ctx, d, found, active, at)
		if err != nil {
			return nil, err
		}
		out = append(out, missing...)
	}
	return out, nil
}

// checkPolicyDocument makes the checks that a node makes, each for itself.
func checkPolicyDocument(env *dsse.Envelope, doc *manifest.Policy, trust *attest.Trust, at time.Time) []trustCheck {
	form := trustCheck{Name: "form", Result: attest.Pass, Detail: fmt.Sprintf("%s version %d, %s", doc.Metadata.Name, doc.Spec.Version, env.ID())}
	root := trustCheck{Name: "trust-root", Result: attest.Pass, Detail: "written for the trust root in use", status: exitDenied}
	switch {
	case doc.Spec.TrustRoot.IsZero():
		root.Result, root.Detail = attest.Skip, "it names none, and holds under any"
	case doc.Spec.TrustRoot != trust.ID():
		root.Result, root.Detail = attest.Fail, fmt.Sprintf("written for %s, not for %s", doc.Spec.TrustRoot, trust.ID())
		root.Hint = "arch policy propose fills in the id"
	}
	expiry := trustCheck{Name: "expiry", Result: attest.Pass, Detail: "until " + doc.Metadata.Expires, status: exitDenied}
	if expires, err := time.Parse(time.RFC3339, doc.Metadata.Expires); err != nil || !at.Before(expires) {
		expiry.Result, expiry.Detail, expiry.Hint = attest.Fail, "expired on "+doc.Metadata.Expires, "write the next version: arch policy propose FILE"
	}
	quorum := trustCheck{Name: "quorum", status: exitDenied}
	d := trust.Root().Evaluate(manifest.RolePolicy, env.Verified(trust.Root().KeysAt(manifest.RolePolicy, at)), at, policy.QuorumOptions())
	quorum.Detail = d.String()
	switch {
	case d.OK:
		quorum.Result = attest.Pass
	case len(env.Signatures) == 0:
		quorum.Result, quorum.Detail = attest.Skip, "nobody has signed it yet; "+quorum.Detail
	default:
		quorum.Result, quorum.Hint = attest.Fail, "have enough members of role policy sign it: arch policy sign FILE"
	}
	return []trustCheck{form, root, expiry, quorum}
}

// readProposal reads a job, signed or not: of one that nobody has signed yet, everything else can be judged.
func (a *app) readProposal(path string, active *policy.Active, at time.Time) (*admission.Proposal, error) {
	env, doc, err := a.readSigned(path)
	if err != nil {
		return nil, err
	}
	j, ok := doc.(*manifest.Job)
	if !ok {
		return nil, hinted(fmt.Errorf("%s is a %s, not a Job", path, doc.DocumentKind()), "--job names a document of kind Job")
	}
	var verified []identity.PublicKey
	if len(env.Signatures) > 0 {
		verified = env.Verified(job.IssuerKeys(active.Policy(), active.Trust().Root(), at))
	}
	return &admission.Proposal{ID: env.ID(), Job: j, Verified: verified}, nil
}

// parseFacts reads KEY=JSON; what is no JSON is a string.
func parseFacts(list []string) (map[string]manifest.Raw, error) {
	facts := map[string]manifest.Raw{}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, hinted(usage("--fact: %q is not KEY=VALUE", text), "such as --fact energy.price_eur_kwh=0.12")
		}
		raw := manifest.Raw(value)
		if !json.Valid(raw) {
			raw, _ = json.Marshal(value) // a string always can be
		}
		facts[key] = raw
	}
	return facts, nil
}

// showVerdict shows a verdict, if there is one.
func showVerdict(s *screen, v *admission.Verdict) {
	if v == nil {
		return
	}
	if !v.Admitted {
		for _, r := range v.Reasons {
			s.paint("31", "DENY")
			fmt.Fprintf(s, "  %-12s ", r.Check)
			if r.Field != "" {
				fmt.Fprintf(s, "%s: ", r.Field)
			}
			fmt.Fprintf(s, "%s\n", r.Msg)
			if r.Cure != "" {
				fmt.Fprintf(s, "      %-12s hint: %s\n", "", r.Cure)
			}
		}
		return
	}
	s.paint("32", "ALLOW")
	fmt.Fprintf(s, " issued by rule %d, role %s: %s\n", v.Issued.Rule, v.Issued.Role, strings.Join(v.Issued.Principals, ", "))
	fmt.Fprintf(s, "      limits  cpu %dm, memory %d, scratch %d, output %d, processes %d, timeout %v; executions that must agree: %d\n",
		v.Limits.CPU, v.Limits.Memory, v.Limits.Scratch, v.Limits.Output, v.Limits.Processes, time.Duration(v.Limits.Timeout)*time.Millisecond, v.Replicas)
	for _, d := range v.Demands {
		fmt.Fprintf(s, "      proof   %s %s: by %d rules of spec.attestations\n", d.Field, d.Ref, len(d.Rules))
	}
}
