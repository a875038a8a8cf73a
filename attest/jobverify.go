package attest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// Names of the checks of a job's output, beside those of a build's.
const (
	CheckRun         = "job-run"
	CheckConfinement = "confinement"
	CheckAnomalies   = "anomalies"
)

// VerifyJob checks an output of a job against job results and runs, as Verify checks what was built against claims: the
// result's signature and the quorum of in.Role (empty: peer), that the artifact is what the result calls its output, that
// the job is the one that was asked for (in.Manifest), that everything that went in is pinned, that nobody trusted got
// something else from a deterministic job, and that whoever signed the result left an account of a run in full confinement. A
// degraded run counts if in.BuilderIDs holds BuilderDegraded.
func VerifyJob(ctx context.Context, in VerifyInput) (*Report, error) {
	if err := in.validate(); err != nil {
		return nil, err
	}
	if in.Receipt == nil {
		in.Receipt = &Receipt{}
	}
	if in.Role == "" {
		in.Role = manifest.RolePeer
	}
	v := &jobVerification{verification: &verification{
		VerifyInput: in, trust: newTrust(in), artifact: &hashed{Artifact: in.Artifact, sums: map[Form]digest.SHA256{}},
	}}
	v.read(ctx)
	if v.trust.budget.Exhausted() {
		return v.without(), nil
	}
	matched, err := v.matched(ctx, v.claims())
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("verify %s: %w", in.Artifact.Name, err)
	}
	if len(matched) == 0 {
		return v.without(), nil
	}
	var first *Report
	for _, c := range matched {
		r := v.judgeResult(v.resultOf(c))
		if r.OK {
			return r, nil
		}
		if first == nil {
			first = r
		}
	}
	return first, nil
}

// jobVerification is the work of one VerifyJob. A result is matched like a claim: by its subjects.
type jobVerification struct {
	*verification
	results []*trustedResult
	runs    []*trustedRun
}

// trustedResult is a job result that someone in the trust root signed.
type trustedResult struct {
	trustedClaim // its claim is nil
	result       *JobResult
	document     *manifest.Job
}

// trustedRun is an account of a run that someone in the trust root signed.
type trustedRun struct {
	id  digest.SHA256
	by  signers
	run *JobRun
	err error // it is signed, but wrong
}

// read verifies the signatures of all results and runs, and only then parses what was signed.
func (v *jobVerification) read(ctx context.Context) {
	v.eachTrusted(ctx, v.Receipt.Results, func(id digest.SHA256, by signers, payload []byte) {
		r := &trustedResult{trustedClaim: trustedClaim{id: id, by: by}}
		r.err = r.parse(payload)
		v.results = append(v.results, r)
	})
	slices.SortFunc(v.results, func(a, b *trustedResult) int { return bytes.Compare(a.id[:], b.id[:]) })
	v.eachTrusted(ctx, v.Receipt.Runs, func(id digest.SHA256, by signers, payload []byte) {
		r := &trustedRun{id: id, by: by}
		s, err := ParseStatement(payload)
		if err == nil {
			r.run, err = s.JobRun()
		}
		r.err = err
		v.runs = append(v.runs, r)
	})
}

func (r *trustedResult) parse(payload []byte) (err error) {
	r.statement = &Statement{}
	s, err := ParseStatement(payload)
	if err != nil {
		return err
	}
	if r.result, err = s.JobResult(); err != nil {
		return err
	}
	if r.document, err = r.result.Document(); err != nil {
		return err
	}
	r.statement = s
	return nil
}

func (v *jobVerification) claims() []*trustedClaim {
	var list []*trustedClaim
	for _, r := range v.results {
		list = append(list, &r.trustedClaim)
	}
	return list
}

func (v *jobVerification) resultOf(c *trustedClaim) *trustedResult {
	return v.results[slices.IndexFunc(v.results, func(r *trustedResult) bool { return &r.trustedClaim == c })]
}

// requiredOfJob are the checks without which no report on a job's output is OK.
func (v *jobVerification) requiredOfJob() []string {
	list := []string{
		CheckReceipts, CheckTrustRoot, CheckSignature, CheckQuorum, CheckSubject, CheckManifest, CheckDependencies, CheckRun, CheckConfinement,
	}
	if v.Rebuilds > 0 || v.Operators > 0 {
		list = append(list, CheckRebuilds)
	}
	return list
}

// without reports on an artifact that no trusted result names.
func (v *jobVerification) without() *Report {
	r := v.report()
	switch {
	case v.trust.budget.Exhausted(): // the report says so
	case len(v.Receipt.Results) == 0:
		r.fail(ClassNothing, CheckSignature, "", "`arch run --attest` writes one", "there is no job result")
	case len(v.results) == 0:
		r.fail(ClassVerification, CheckSignature, "", "if you trust one of these keys, add it to the trust root as a principal of role "+v.Role,
			"no job result is signed by anyone whom the trust root names; the signatures call themselves %s", hints(v.Receipt.Results))
	default:
		v.reportMismatch(r, v.claims())
	}
	r.decide(v.requiredOfJob()...)
	return r
}

// judgeResult makes every check that concerns one result.
func (v *jobVerification) judgeResult(res *trustedResult) *Report {
	r := v.report()
	r.Claim, r.Manifest = res.id, res.result.JobID
	r.addInput(JobResultType, res.id)
	r.pass(CheckSignature, res.by.String(), "job result %s is signed by %d of the trust root", res.id, len(res.by.principals))
	v.checkJobQuorum(r, res)
	v.checkSubject(r, &res.trustedClaim)
	switch {
	case !v.Manifest.IsZero() && v.Manifest != res.result.JobID:
		r.fail(ClassVerification, CheckManifest, "", "compare the document with the one you expected", "the job is %s, not %s", res.result.JobID, v.Manifest)
	default:
		r.pass(CheckManifest, "", "left by job %s (%s), which ended with %d", res.result.JobID, res.document.Metadata.Name, res.result.Exit)
	}
	r.pass(CheckDependencies, "", "all %d inputs are pinned by digest", len(res.result.ResolvedInputs))
	v.checkOtherResults(r, res)
	v.checkExecutions(r, res, v.executions(r, res))
	if v.Policy != nil {
		r.skip(CheckPolicy, "its attestation rules are about what was built")
	}
	r.decide(v.requiredOfJob()...)
	return r
}

func (v *jobVerification) checkJobQuorum(r *Report, res *trustedResult) {
	d := v.trust.decide(v.Role, res.id, res.by.keys)
	key := strings.Join(d.Principals, ", ")
	if !d.OK {
		r.fail(ClassPolicy, CheckQuorum, key, "have more members of role "+v.Role+" run the job and sign: `arch run --attest`",
			"the quorum of role %s has not signed: %s", v.Role, strings.Join(d.Reasons, "; "))
		return
	}
	r.pass(CheckQuorum, key, "the quorum of role %s has signed", v.Role)
}

// checkOtherResults looks for a trusted result of the same job that is another one. Of a job that is not deterministic there
// may be many.
func (v *jobVerification) checkOtherResults(r *Report, res *trustedResult) {
	found := false
	for _, other := range v.results {
		if other == res || other.err != nil || other.result.JobID != res.result.JobID {
			continue
		}
		found = true
		r.addInput(JobResultType, other.id)
		detail := fmt.Sprintf("job result %s says of the same job: exit status %d, %s", other.id, other.result.Exit, describeSubjects(other.statement.Subject))
		switch {
		case !Deterministic(res.document):
			r.skip(CheckConflict, "the job is not deterministic: %s", detail)
		case v.AllowNegative:
			r.Disputed = true
			r.skip(CheckConflict, "allowed: %s", detail)
		default:
			r.fail(ClassDiffers, CheckConflict, other.by.String(), "run the job yourself: `arch run`", "%s", detail)
		}
	}
	if !found {
		r.pass(CheckConflict, "", "no one trusted claims anything else of this job")
	}
}

// executions returns the runs of those who signed the result, by principal.
func (v *jobVerification) executions(r *Report, res *trustedResult) map[string]*JobRun {
	out := map[string]*JobRun{}
	for _, run := range v.runs {
		switch {
		case run.err != nil:
			r.fail(ClassVerification, CheckRun, run.by.String(), "", "job run %s is signed, but wrong: %v", run.id, run.err)
			continue
		case run.run.Result != res.id:
			continue
		}
		r.addInput(JobRunType, run.id)
		if err := agree(run.run, res.result); err != nil {
			r.fail(ClassVerification, CheckRun, run.by.String(), "", "job run %s: %v", run.id, err)
			continue
		}
		for _, p := range run.by.principals {
			if slices.Contains(res.by.principals, p) {
				out[p] = run.run
			}
		}
	}
	return out
}

// agree compares a run with the result that it names.
func agree(run *JobRun, result *JobResult) error {
	switch {
	case run.JobID != result.JobID:
		return fmt.Errorf("it is of job %s, but names a result of job %s", run.JobID, result.JobID)
	case run.End.Exit != result.Exit:
		return fmt.Errorf("it ended with %d, but names a result that ended with %d", run.End.Exit, result.Exit)
	case result.Gas.Schedule != "" && run.Usage.Gas != result.Gas.Used:
		return fmt.Errorf("it used %d gas, but names a result that used %d", run.Usage.Gas, result.Gas.Used)
	case !bytes.Equal(encodeList(run.ResolvedInputs), encodeList(result.ResolvedInputs)):
		return errors.New("it lists other inputs than the result that it names")
	case len(run.Published) == 0:
		return nil
	}
	doc, err := result.Document()
	if err != nil {
		return err
	}
	for _, p := range run.Published {
		if doc.Spec.Outputs[p.Name].Destination != p.URI {
			return fmt.Errorf("it published output %q to %q, which the job does not declare", shorten(p.Name, 100), shorten(p.URI, 300))
		}
	}
	return nil
}

// checkExecutions judges the runs, and counts who made them.
func (v *jobVerification) checkExecutions(r *Report, res *trustedResult, runs map[string]*JobRun) {
	if len(runs) == 0 {
		r.fail(ClassVerification, CheckRun, res.by.String(), "ask whoever signed the result for the complete receipt", "nobody who signed the result left an account of a run")
		return
	}
	names := slices.Sorted(maps.Keys(runs))
	r.pass(CheckRun, strings.Join(names, ", "), "run by %s", count(len(names), "principal"))
	full := 0
	for _, name := range names {
		run := runs[name]
		switch {
		case len(Weaknesses(run.Confinement.Missing)) == 0 || slices.Contains(v.BuilderIDs, BuilderDegraded):
			full++
			r.pass(CheckConfinement, name, "%s enforced %d guarantees; missing: %d", run.Confinement.Driver, len(run.Confinement.Enforced), len(run.Confinement.Missing))
		default:
			r.skip(CheckConfinement, "%s of %s left out: %s", run.Confinement.Driver, name, shorten(strings.Join(run.Confinement.Missing, "; "), 300))
		}
		v.checkAnomalies(r, name, run)
	}
	if full == 0 {
		r.fail(ClassPolicy, CheckConfinement, strings.Join(names, ", "), "accept it by --allow-degraded, or have the job run where every guarantee holds: arch doctor",
			"no run was in full confinement")
	}
	v.checkRunners(r, runs)
}

func (v *jobVerification) checkAnomalies(r *Report, name string, run *JobRun) {
	for _, a := range run.Anomalies {
		detail := fmt.Sprintf("%s: %s", a.Kind, shorten(fmt.Sprintf("%q", a.Evidence), 300))
		if v.Policy != nil && v.Policy.Spec.Validation.QuarantineOnAnomaly {
			r.fail(ClassPolicy, CheckAnomalies, name, "", "the policy holds back results with anomalies: %s", detail)
			continue
		}
		r.skip(CheckAnomalies, "%s [%s]", detail, name)
	}
}

// checkRunners counts who ran the job, by principal and by operator.
func (v *jobVerification) checkRunners(r *Report, runs map[string]*JobRun) {
	names := slices.Sorted(maps.Keys(runs))
	operators := map[string]bool{}
	for _, name := range names {
		operators[v.trust.operators[name]] = true
		r.Builders = append(r.Builders, BuilderVote{Principal: name, Operator: v.trust.operators[name], BuilderID: runs[name].Runner.ID})
	}
	found := fmt.Sprintf("%s by %s", count(len(names), "principal"), count(len(operators), "operator"))
	switch {
	case v.Rebuilds == 0 && v.Operators == 0:
		r.skip(CheckRebuilds, "run by %s; no number was asked for", found)
	case len(names) < v.Rebuilds || len(operators) < v.Operators:
		r.fail(ClassPolicy, CheckRebuilds, strings.Join(names, ", "), "have others run the job and sign: `arch run --attest`",
			"run by %s; needed: %s", found, v.asked())
	default:
		r.pass(CheckRebuilds, strings.Join(names, ", "), "run by %s; needed: %s", found, v.asked())
	}
}
