package attest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

// VerifyInput is everything a verification depends on. Two runs with equal inputs give equal reports.
type VerifyInput struct {
	Artifact Artifact
	Receipt  *Receipt // several receipts are merged into one by Receipt.Merge; nil: empty

	Trust   *Trust         // who may sign what; required
	At      time.Time      // when to judge expiry and revocation; required
	Options quorum.Options // what else trust depends on, such as revocations announced since; zero: nothing. Without Logged
	// Logged is Options.Logged of each statement, by its id: where a ledger has the signatures of that one. The caller has
	// verified the proofs.
	Logged map[digest.SHA256]map[digest.SHA256]quorum.Position

	// Policy adds its attestation rules, if it is not nil. The caller has verified it: see OpenPolicy.
	Policy *manifest.Policy
	// Location is the location of the reference under which the artifact was found, for the policy's patterns; may be empty.
	Location string

	// Role is the role whose quorum must have signed the claim; empty: builder.
	Role string
	// Rebuilds is how many principals, each with its own key, must have made the artifact; zero: as the role says.
	Rebuilds int
	// Operators is how many distinct operators there must be among them; zero: no demand.
	Operators int
	// BuilderIDs are the accepted ids of builders; empty: those that the policy's matching rules name, and if they name
	// none, BuilderHermetic, BuilderNix and BuilderGuix.
	BuilderIDs []string
	// Name is what the claim must call the artifact; empty: any name, and a difference is only told.
	Name string
	// Manifest is the document id of the Build that must have been built; zero: any.
	Manifest digest.SHA256
	// RequireVaried refuses a provenance whose build was not repeated in other surroundings.
	RequireVaried bool
	// AllowNegative accepts an artifact although someone trusted reports another result; the report then tells.
	AllowNegative bool
}

// Limits of VerifyInput.
const maxRebuilds = 256

// validate reports what is missing or contradictory. These are mistakes of the caller, not of the artifact.
func (in VerifyInput) validate() error {
	switch {
	case in.Artifact.Hash == nil:
		return errors.New("verify: no artifact")
	case in.Trust == nil:
		return errors.New("verify: no trust root")
	case in.At.IsZero():
		return errors.New("verify: no time")
	case len(in.Options.Logged) > 0:
		return errors.New("verify: a position in a ledger is that of one statement: set Logged, not Options.Logged")
	case in.Rebuilds < 0 || in.Rebuilds > maxRebuilds || in.Operators < 0 || in.Operators > maxRebuilds:
		return fmt.Errorf("verify: %d rebuilds by %d operators are not between 0 and %d", in.Rebuilds, in.Operators, maxRebuilds)
	case in.Role != "" && !slices.Contains(manifest.Roles(), in.Role):
		return fmt.Errorf("verify: %q is no role; there are %s", in.Role, strings.Join(manifest.Roles(), ", "))
	}
	return nil
}

// withDefaults fills in what zero values mean.
func (in VerifyInput) withDefaults() VerifyInput {
	if in.Receipt == nil {
		in.Receipt = &Receipt{}
	}
	if in.Role == "" {
		in.Role = manifest.RoleBuilder
	}
	if len(in.BuilderIDs) == 0 && in.Policy != nil {
		for _, rule := range in.Policy.Spec.Attestations {
			if in.matches(rule) {
				in.BuilderIDs = append(in.BuilderIDs, rule.BuilderIDs...)
			}
		}
	}
	if len(in.BuilderIDs) == 0 {
		in.BuilderIDs = []string{BuilderHermetic, BuilderNix, BuilderGuix}
	}
	return in
}

// Verify checks an artifact against receipts. The error is for what keeps it from checking (no trust root, an
// artifact that cannot be read); what it finds is in the Report, whose OK is true only if every required check
// passed: the claim's signature and quorum, the subject, the manifest, the pinned dependencies, a provenance that
// agrees, and whatever in asks for beyond. No receipts are never OK.
func Verify(ctx context.Context, in VerifyInput) (*Report, error) {
	if err := in.validate(); err != nil {
		return nil, err
	}
	in = in.withDefaults()
	v := &verification{
		VerifyInput: in,
		trust:       newTrust(in),
		artifact:    &hashed{Artifact: in.Artifact, sums: map[Form]digest.SHA256{}},
	}
	claims := v.trustedClaims(ctx)
	if v.trust.budget.Exhausted() {
		return v.withoutClaim(claims), nil
	}
	matched, err := v.matched(ctx, claims)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("verify %s: %w", in.Artifact.Name, err)
	}
	if len(matched) == 0 {
		return v.withoutClaim(claims), nil
	}
	v.provenances, v.negatives = v.trustedProvenances(ctx), v.trustedNegatives(ctx)
	var best *Report // of those that are not OK: where most count, and least fails
	v.appraisals = map[*trustedClaim]*appraisal{}
	for _, c := range matched {
		r := v.judge(c, claims, matched)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("verify %s: %w", in.Artifact.Name, err)
		}
		if r.OK {
			return r, nil
		}
		if best == nil || cmp.Or(cmp.Compare(len(r.Builders), len(best.Builders)), cmp.Compare(len(best.failed()), len(r.failed()))) > 0 {
			best = r
		}
	}
	return best, nil
}

// required are the checks without which no report is OK, whatever else passed.
func (v *verification) required() []string {
	list := []string{
		CheckReceipts, CheckTrustRoot, CheckSignature, CheckQuorum, CheckSubject, CheckManifest, CheckDependencies,
		CheckProvenance, CheckAgreement, CheckBuilder,
	}
	if v.Rebuilds > 0 || v.Operators > 0 {
		list = append(list, CheckRebuilds)
	}
	return list
}

// verification is the work of one Verify.
type verification struct {
	VerifyInput
	trust    trust
	artifact *hashed

	provenances []*trustedProvenance
	negatives   []*trustedNegative
	appraisals  map[*trustedClaim]*appraisal // of those claims that name the artifact, so far as they were needed

	form Form // by which the artifact was found
	sum  digest.SHA256
}

// matched returns those claims that name the artifact.
func (v *verification) matched(ctx context.Context, claims []*trustedClaim) ([]*trustedClaim, error) {
	form, sum, ok, err := v.artifact.match(ctx, claims)
	if err != nil || !ok {
		return nil, err
	}
	v.form, v.sum = form, sum
	var out []*trustedClaim
	for _, c := range claims {
		if c.err == nil && slices.ContainsFunc(c.statement.Subject, v.isArtifact) {
			out = append(out, c)
		}
	}
	return out, nil
}

func (v *verification) isArtifact(s ResourceDescriptor) bool { return names(s, v.form, v.sum) }

// report starts a report with the checks that do not depend on a claim.
func (v *verification) report() *Report {
	r := &Report{Artifact: v.Artifact.Name, Digest: v.sum, At: v.At}
	switch {
	case v.trust.budget.Exhausted():
		r.failCostly()
	case v.Receipt.Empty():
		r.fail(ClassNothing, CheckReceipts, "", "give the receipt that came with the artifact, such as FILE.receipt.jsonl",
			"there is no statement to verify: %s", v.Receipt.summary())
	default:
		r.pass(CheckReceipts, "", "%s", v.Receipt.summary())
	}
	v.trust.check(r, v.Role)
	return r
}

// withoutClaim reports on an artifact that no trusted claim names.
func (v *verification) withoutClaim(claims []*trustedClaim) *Report {
	r := v.report()
	switch {
	case v.trust.budget.Exhausted(): // the report says so
	case len(v.Receipt.Claims) == 0:
		if !v.Receipt.Empty() {
			r.fail(ClassNothing, CheckSignature, "", "a receipt of `arch build --attest` has a claim: ask its maker for the complete file",
				"the receipt has no claim")
		}
	case len(claims) == 0:
		r.fail(ClassVerification, CheckSignature, "", "if you trust one of these keys, add it to the trust root as a principal of role "+v.Role,
			"no claim is signed by anyone whom the trust root names; the signatures call themselves %s", hints(v.Receipt.Claims))
	default:
		v.reportMismatch(r, claims)
	}
	r.decide(v.required()...)
	return r
}

// reportMismatch says why signed claims do not help.
func (v *verification) reportMismatch(r *Report, claims []*trustedClaim) {
	r.Digest = v.artifact.first()
	for _, c := range claims {
		r.pass(CheckSignature, c.by.String(), "claim %s is signed by %d of the trust root", c.id, len(c.by.principals))
		if c.err != nil {
			r.fail(ClassVerification, CheckSubject, c.by.String(), "", "claim %s is signed, but wrong: %v", c.id, c.err)
			continue
		}
		r.fail(ClassVerification, CheckSubject, "", "the artifact was changed, or the receipt belongs to another one",
			"%s is not what claim %s names: %s, which names %s", v.Artifact.Name, c.id, v.artifact.describe(), describeSubjects(c.statement.Subject))
	}
}

// judge makes every check that concerns one claim. matched are those of claims that name the artifact.
func (v *verification) judge(c *trustedClaim, claims, matched []*trustedClaim) *Report {
	r := v.report()
	r.Claim, r.Manifest = c.id, c.claim.ExternalParameters.ManifestID
	r.addInput(ClaimType, c.id)
	r.pass(CheckSignature, c.by.String(), "claim %s is signed by %d of the trust root", c.id, len(c.by.principals))
	v.checkQuorum(r, c)
	v.checkSubject(r, c)
	v.checkManifest(r, c)
	v.checkConflicts(r, c, claims)
	votes := v.checkProvenances(r, c)
	votes = append(votes, v.checkCorroboration(r, c, claims, matched, votes)...)
	v.checkRebuilds(r, v.makers(votes))
	v.checkNegatives(r, c)
	v.checkPolicy(r, c, votes)
	r.decide(v.required()...)
	return r
}

func (v *verification) checkQuorum(r *Report, c *trustedClaim) {
	d := v.trust.decide(v.Role, c.id, c.by.keys)
	key := strings.Join(d.Principals, ", ")
	if !d.OK {
		r.fail(ClassPolicy, CheckQuorum, key, "have more members of role "+v.Role+" rebuild and sign: `arch rebuild RECEIPT`",
			"the quorum of role %s has not signed: %s", v.Role, strings.Join(d.Reasons, "; "))
		return
	}
	r.pass(CheckQuorum, key, "the quorum of role %s has signed", v.Role)
}

func (v *verification) checkSubject(r *Report, c *trustedClaim) {
	subject := v.subjectOf(c)
	for _, s := range c.statement.Subject {
		if thing(s) == thing(subject) {
			r.Subjects = append(r.Subjects, s)
		}
	}
	r.pass(CheckSubject, "", "%s is %s by its %s digest %s", v.Artifact.Name, subject.Name, v.form, v.sum)
	switch {
	case v.Name != "" && calledName(subject) == v.Name:
		r.pass(CheckName, "", "the claim calls it %s, as asked", v.Name)
	case v.Name != "":
		r.fail(ClassVerification, CheckName, "", "someone may have given you another of the builder's artifacts",
			"the claim calls it %q, not %q", calledName(subject), v.Name)
	case calledName(subject) == v.Artifact.Name:
		r.pass(CheckName, "", "the claim calls it %s, too", v.Artifact.Name)
	default:
		r.skip(CheckName, "the claim calls it %q; no name was asked for", calledName(subject))
	}
}

// subjectOf returns the subject that the artifact is: of several with the same bytes the one with the name that was asked
// for, or that the artifact has, or else the first.
func (v *verification) subjectOf(c *trustedClaim) ResourceDescriptor {
	var first *ResourceDescriptor
	for _, s := range c.statement.Subject {
		if !v.isArtifact(s) {
			continue
		}
		if calledName(s) == cmp.Or(v.Name, v.Artifact.Name) {
			return s
		}
		if first == nil {
			first = &s
		}
	}
	return *first // a claim is judged only if it names the artifact
}

// checkManifest checks that the manifest is a valid Build whose outputs are the claim's subjects. That it has its id was
// checked when the claim was parsed.
func (v *verification) checkManifest(r *Report, c *trustedClaim) {
	id := c.claim.ExternalParameters.ManifestID
	if !v.Manifest.IsZero() && v.Manifest != id {
		r.fail(ClassVerification, CheckManifest, "", "compare the manifest with the one you expected", "the manifest is %s, not %s", id, v.Manifest)
		return
	}
	doc, err := c.claim.Document()
	if err != nil {
		r.fail(ClassVerification, CheckManifest, "", "", "%v", err)
		return
	}
	if want := buildTypeOf(doc); c.claim.BuildType != want {
		r.fail(ClassVerification, CheckManifest, "", "", "the claim is of build type %q, and its manifest of %q", c.claim.BuildType, want)
		return
	}
	declared := map[string]bool{}
	for _, o := range doc.Spec.Outputs {
		declared[o.Name] = false
	}
	for _, s := range c.statement.Subject {
		if _, ok := declared[baseName(s)]; !ok {
			r.fail(ClassVerification, CheckManifest, "", "", "subject %q is no output of manifest %s", s.Name, id)
			return
		}
		declared[baseName(s)] = true
	}
	for _, o := range doc.Spec.Outputs {
		if !declared[o.Name] {
			r.fail(ClassVerification, CheckManifest, "", "", "output %q of manifest %s is no subject", o.Name, id)
			return
		}
	}
	from := count(len(doc.Spec.Inputs), "input")
	if d := doc.Spec.Derivation; d != nil {
		from = d.Ref.Location
	}
	r.pass(CheckManifest, "", "built from manifest %s (%s) with %s", id, doc.Metadata.Name, from)
	checkDependencies(r, doc, c.claim.ResolvedDependencies)
}

// checkDependencies checks that what the manifest pins is among what is said to have gone in. That every dependency is pinned
// was checked when the claim was parsed.
func checkDependencies(r *Report, doc *manifest.Build, deps []ResourceDescriptor) {
	pins := map[string]bool{}
	for _, d := range deps {
		for _, alg := range strong {
			if text, ok := d.Digest[alg]; ok {
				pins[text] = true
			}
		}
	}
	inputs := doc.Spec.Inputs
	if d := doc.Spec.Derivation; d != nil {
		inputs = []manifest.BuildInput{{Name: "derivation", Ref: d.Ref}}
		for _, f := range d.Flakes {
			inputs = append(inputs, manifest.BuildInput{Name: f.Ref.Location, Ref: f.Ref})
		}
	}
	for _, in := range inputs {
		if !in.Ref.IsZero() && !pins[in.Ref.Digest.Hex()] {
			r.fail(ClassVerification, CheckDependencies, "", "", "input %q, %s, is not among the %s", in.Name, in.Ref,
				count(len(deps), "dependency"))
			return
		}
	}
	r.pass(CheckDependencies, "", "%s, each pinned by digest, every input of the manifest among them", count(len(deps), "dependency"))
}

// checkConflicts looks for a trusted claim of the same manifest with another result.
func (v *verification) checkConflicts(r *Report, c *trustedClaim, claims []*trustedClaim) {
	found := false
	for _, other := range claims {
		if other == c || other.err != nil || other.claim.ExternalParameters.ManifestID != c.claim.ExternalParameters.ManifestID {
			continue
		}
		found = true
		r.addInput(ClaimType, other.id)
		detail := fmt.Sprintf("claim %s says of the same manifest: %s", other.id, contrast(c, other))
		if v.AllowNegative {
			r.Disputed = true
			r.skip(CheckConflict, "allowed: %s", detail)
			continue
		}
		r.fail(ClassDiffers, CheckConflict, other.by.String(), "compare the two artifacts with `arch diff A B`", "%s", detail)
	}
	if !found {
		r.pass(CheckConflict, "", "no one trusted claims anything else of this manifest")
	}
}

// contrast tells in what two claims differ.
func contrast(c, other *trustedClaim) string {
	if !equalSubjects(c.statement.Subject, other.statement.Subject) {
		return "other bytes, " + describeSubjects(other.statement.Subject)
	}
	return "the same bytes from other dependencies or with another normalizer"
}
