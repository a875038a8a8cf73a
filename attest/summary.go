package attest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

// SLSAVersion is the version of the specification that our summaries follow.
const SLSAVersion = "1.2"

// SummaryOptions are what a verification summary says beyond the report.
type SummaryOptions struct {
	VerifierID      string            // URI of who verifies; required. Consumers accept pairs of key and id
	VerifierVersion map[string]string // such as "arch" to "v1.2.3"; may be nil
	ResourceURI     string            // where consumers get the artifact; empty: pkg:generic/NAME?checksum=sha256:HEX
	PolicyURI       string            // names the policy; required
	PolicyDigest    digest.SHA256     // its document id; zero: not told
	// BuilderLevel is the SLSA build level that the policy's owner vouches for the builders to have. What they are
	// is outside of every document, so zero means 1, and more than 2 is refused.
	BuilderLevel int
}

// VSA makes the SLSA Verification Summary of the report, for whoever trusts the verifier. Of a report that is OK it
// claims SLSA_BUILD_LEVEL_1, or 2 if the options vouch for it, and SLSA_BUILD_REPRODUCED if and only if at least two
// principals of at least two operators each signed the claim, or one that corroborates it, and an agreeing provenance of their own, and nobody
// trusted says otherwise. Of any other report it says FAILED.
func (r *Report) VSA(opts SummaryOptions) (*Statement, error) {
	switch {
	case opts.VerifierID == "" || opts.PolicyURI == "":
		return nil, errors.New("make verification summary: it needs the id of the verifier and the URI of the policy")
	case opts.BuilderLevel < 0 || opts.BuilderLevel > 2:
		return nil, fmt.Errorf("make verification summary: build level %d cannot be vouched for here; at most 2", opts.BuilderLevel)
	case r.Digest.IsZero():
		return nil, errors.New("make verification summary: the artifact was not hashed, because there was nothing to compare it with")
	}
	uri := opts.ResourceURI
	if uri == "" {
		uri = fmt.Sprintf("pkg:generic/%s?checksum=%s", uriEscape(r.Artifact), r.Digest)
	}
	policy := ResourceDescriptor{URI: opts.PolicyURI}
	if !opts.PolicyDigest.IsZero() {
		policy.Digest = map[string]string{"sha256": opts.PolicyDigest.Hex()}
	}
	result, levels := r.levels(opts.BuilderLevel)
	return NewStatement(r.summarySubjects(), &VSA{
		Verifier:           Verifier{ID: opts.VerifierID, Version: opts.VerifierVersion},
		TimeVerified:       formatTime(r.At),
		ResourceURI:        uri,
		Policy:             policy,
		InputAttestations:  r.Inputs,
		VerificationResult: result,
		VerifiedLevels:     levels,
		SLSAVersion:        SLSAVersion,
	})
}

// levels returns the result and what is claimed of the artifact.
func (r *Report) levels(vouched int) (string, []string) {
	if !r.OK {
		return Failed, []string{Failed} // SlsaResult of a failed verification
	}
	levels := []string{LevelBuild0}
	switch {
	case len(r.Builders) > 0 && vouched == 2:
		levels = []string{LevelBuild2}
	case len(r.Builders) > 0:
		levels = []string{LevelBuild1}
	}
	if r.Reproduced() {
		levels = append(levels, LevelReproduced)
	}
	return Passed, levels
}

// Reproduced reports whether at least two principals of at least two operators made the artifact, each with its own
// key, signature on the claim and provenance, and no one trusted disputes it (slsa.dev/spec/v1.2/verified-properties).
func (r *Report) Reproduced() bool {
	principals, operators := map[string]bool{}, map[string]bool{}
	for _, b := range r.Builders {
		principals[b.Principal] = true
		operators[b.Operator] = true
	}
	return r.OK && !r.Disputed && len(principals) >= 2 && len(operators) >= 2
}

// summarySubjects returns every digest of the artifact that the claim gives, or the one that was computed.
func (r *Report) summarySubjects() []ResourceDescriptor {
	if len(r.Subjects) > 0 {
		return r.Subjects
	}
	return []ResourceDescriptor{{Name: r.Artifact, Digest: map[string]string{"sha256": r.Digest.Hex()}}}
}

// uriEscape percent-encodes a name for a package URL.
func uriEscape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// SummaryInput is everything that checking somebody else's verification summary depends on
// (slsa.dev/spec/v1.2/verification_summary, "How to verify").
type SummaryInput struct {
	Artifact Artifact
	Receipt  *Receipt
	// Verifiers are the accepted pairs: the id of a verifier and the keys that may speak for it.
	Verifiers    map[string][]identity.PublicKey
	ResourceURI  string        // that the summary must be about; required, or a summary of another place would do
	Levels       []string      // that must have been verified; at least one. A build level is satisfied by a higher one
	PolicyDigest digest.SHA256 // of the policy that must have been used; zero: any
	At           time.Time     // now; required
	MaxAge       time.Duration // of the summary; zero: any
}

// VerifySummary checks an artifact against verification summaries instead of against the attestations themselves. Of
// each accepted verifier only its newest summary of the artifact counts; each must have passed.
func VerifySummary(ctx context.Context, in SummaryInput) (*Report, error) {
	if in.Artifact.Hash == nil || in.At.IsZero() || in.ResourceURI == "" || len(in.Levels) == 0 {
		return nil, errors.New("verify summary: artifact, time, resource URI and levels are required")
	}
	if in.Receipt == nil {
		in.Receipt = &Receipt{}
	}
	r := &Report{Artifact: in.Artifact.Name, At: in.At}
	if len(in.Receipt.Summaries) == 0 {
		r.fail(ClassNothing, CheckReceipts, "", "give the receipt that came with the artifact", "there is no verification summary")
		r.decide()
		return r, nil
	}
	summaries := in.signed(r)
	h := &hashed{Artifact: in.Artifact, sums: map[Form]digest.SHA256{}}
	about, err := in.about(ctx, h, summaries)
	if err != nil {
		return nil, err
	}
	switch {
	case len(summaries) == 0:
		r.fail(ClassVerification, CheckSignature, "", "", "no summary is signed by an accepted verifier; the signatures call themselves %s", hints(in.Receipt.Summaries))
	case len(about) == 0:
		r.fail(ClassVerification, CheckSubject, "", "the artifact was changed, or the summary belongs to another one", "no summary is about it: %s", h.describe())
	}
	for _, s := range about {
		in.judge(r, s)
	}
	r.decide(CheckSignature, CheckSubject, CheckSummary)
	return r, nil
}

// summary is a verification summary that an accepted verifier signed.
type summary struct {
	id        digest.SHA256
	statement *Statement
	vsa       *VSA
	at        time.Time
	sum       digest.SHA256 // of the artifact, as the summary names it
}

// signed returns the summaries whose verifier id and key are an accepted pair.
func (in SummaryInput) signed(r *Report) []*summary {
	var keys []identity.PublicKey
	for _, id := range slices.Sorted(maps.Keys(in.Verifiers)) {
		for _, key := range in.Verifiers[id] {
			keys = append(keys, key.At(in.At))
		}
	}
	var out []*summary
	budget := dsse.NewBudget(signatureBudget)
	for _, group := range byStatement(in.Receipt.Summaries) {
		by := verifiedKeys(group.envelopes, keys, budget)
		if len(by) == 0 {
			continue
		}
		s, err := ParseStatement(group.payload())
		var vsa *VSA
		if err == nil {
			vsa, err = s.VSA()
		}
		if err != nil {
			r.fail(ClassVerification, CheckSummary, by[0].Short(), "", "summary %s is signed, but wrong: %v", group.id, err)
			continue
		}
		pair := func(k identity.PublicKey) bool { return slices.ContainsFunc(in.Verifiers[vsa.Verifier.ID], k.Equal) }
		i := slices.IndexFunc(by, pair)
		if i < 0 {
			r.skip(CheckSignature, "summary %s says it is by %q, for whom its key does not speak", group.id, vsa.Verifier.ID)
			continue
		}
		r.pass(CheckSignature, by[i].Short(), "summary %s is signed for %q", group.id, vsa.Verifier.ID)
		at, _ := parseTime("timeVerified", vsa.TimeVerified) // checked by Validate; absent is the zero time
		out = append(out, &summary{id: group.id, statement: s, vsa: vsa, at: at})
	}
	if budget.Exhausted() {
		r.failCostly()
	}
	return out
}

// verifiedKeys returns those of keys that signed a statement, each once.
func verifiedKeys(group []*dsse.Envelope, keys []identity.PublicKey, budget *dsse.Budget) []identity.PublicKey {
	var out []identity.PublicKey
	for _, env := range group {
		if env.PayloadType != PayloadType {
			continue // signed as something else: see Receipt.Add, which keeps such envelopes out
		}
		for _, key := range env.VerifiedWithin(keys, budget) {
			if !slices.ContainsFunc(out, key.Equal) {
				out = append(out, key)
			}
		}
	}
	return out
}

// clockSkew is how far in the future a summary may be: clocks differ.
const clockSkew = 5 * time.Minute

// about returns each verifier's newest summary of the artifact and the resource, sorted by id.
func (in SummaryInput) about(ctx context.Context, h *hashed, list []*summary) ([]*summary, error) {
	newest := map[string]*summary{}
	for _, s := range list {
		if s.vsa.ResourceURI != in.ResourceURI {
			continue
		}
		ok, err := s.names(ctx, h)
		if err != nil {
			return nil, err
		}
		if old := newest[s.vsa.Verifier.ID]; ok && (old == nil || s.at.After(old.at) || s.at.Equal(old.at) && s.vsa.VerificationResult == Failed) {
			newest[s.vsa.Verifier.ID] = s
		}
	}
	out := slices.Collect(maps.Values(newest))
	slices.SortFunc(out, func(a, b *summary) int { return bytes.Compare(a.id[:], b.id[:]) })
	return out, nil
}

// names reports whether the artifact, in any form, is a subject. Other verifiers do not know our names of forms, so
// the digest alone decides, as the specification says.
func (s *summary) names(ctx context.Context, h *hashed) (bool, error) {
	for _, form := range []Form{FormFile, FormNAR, FormTar, FormOCI} {
		sum, ok, err := h.sum(ctx, form)
		if err != nil {
			return false, err
		}
		match := func(d ResourceDescriptor) bool { have, has := d.SHA256(); return has && have == sum }
		if ok && slices.ContainsFunc(s.statement.Subject, match) {
			s.sum = sum
			return true, nil
		}
	}
	return false, nil
}

// judge checks what one summary says.
func (in SummaryInput) judge(r *Report, s *summary) {
	v := s.vsa
	r.Digest, r.Subjects = s.sum, s.statement.Subject
	r.addInput(VSAType, s.id)
	r.pass(CheckSubject, "", "summary %s is about %s of %s", s.id, s.sum, v.ResourceURI)
	age := in.At.Sub(s.at)
	switch {
	case v.VerificationResult != Passed:
		r.fail(ClassPolicy, CheckSummary, "", "", "%q says %s", v.Verifier.ID, v.VerificationResult)
	case !in.PolicyDigest.IsZero() && v.Policy.Digest["sha256"] != in.PolicyDigest.Hex():
		r.fail(ClassPolicy, CheckSummary, "", "", "%q used the policy %q, not %s", v.Verifier.ID, v.Policy, in.PolicyDigest)
	case age < -clockSkew:
		r.fail(ClassVerification, CheckSummary, "", "compare the clocks", "the summary of %q is from the future: %s", v.Verifier.ID, v.TimeVerified)
	case in.MaxAge > 0 && (s.at.IsZero() || age > in.MaxAge):
		r.fail(ClassPolicy, CheckSummary, "", "ask the verifier for a newer one", "the summary of %q is older than %s", v.Verifier.ID, in.MaxAge)
	case missingLevel(in.Levels, v.VerifiedLevels) != "":
		r.fail(ClassPolicy, CheckSummary, "", "", "%q has not verified %s, but %q", v.Verifier.ID, missingLevel(in.Levels, v.VerifiedLevels), v.VerifiedLevels)
	default:
		r.pass(CheckSummary, "", "%q verified %s on %s", v.Verifier.ID, strings.Join(v.VerifiedLevels, ", "), v.TimeVerified)
	}
}

// missingLevel returns the first wanted level that is not among the verified ones; "" if there is none.
func missingLevel(wanted, verified []string) string {
	build := []string{LevelBuild0, LevelBuild1, LevelBuild2, LevelBuild3}
	for _, level := range wanted {
		enough := func(have string) bool {
			w, h := slices.Index(build, level), slices.Index(build, have)
			return have == level || w >= 0 && h >= w
		}
		if !slices.ContainsFunc(verified, enough) {
			return level
		}
	}
	return ""
}
