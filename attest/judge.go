package attest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// vote is a principal that signed the claim and a provenance that agrees with it.
type vote struct {
	BuilderVote
	roles []string // that the principal has in the trust root
}

// account is a provenance that a principal signed, as far as a verifier needs it.
type account struct {
	BuildDefinition rawDefinition `json:"buildDefinition"`
	RunDetails      RunDetails    `json:"runDetails"`
}

// checkProvenances checks every provenance of someone trusted that speaks of the claim's manifest, and returns those who
// signed both it and the claim, each principal once and each provenance for one principal only, sorted.
func (v *verification) checkProvenances(r *Report, c *trustedClaim) []vote {
	var agreeing []*trustedProvenance
	found := 0
	for _, p := range v.provenances {
		key := p.by.String()
		if p.err != nil {
			r.fail(ClassVerification, CheckProvenance, key, "", "provenance %s is signed, but wrong: %v", p.id, p.err)
			continue
		}
		if p.account.manifestID() != c.claim.ExternalParameters.ManifestID {
			continue // of another build: says nothing here
		}
		found++
		r.addInput(ProvenanceType, p.id)
		r.pass(CheckProvenance, key, "provenance %s is signed", p.id)
		if v.checkAccount(r, c, p.statement, p.account, key) {
			agreeing = append(agreeing, p)
		}
	}
	votes := v.count(r, c, agreeing)
	makers := v.makers(votes)
	switch {
	case found == 0:
		r.fail(ClassVerification, CheckProvenance, "", "ask for the receipt with the builder's provenance",
			"no one trusted tells how the claim came about (%s by others)", count(len(v.Receipt.Provenances)-len(v.provenances), "provenance"))
	case len(agreeing) > 0 && len(makers) == 0:
		r.fail(ClassVerification, CheckAgreement, "", "ask for the receipt with the builder's provenance",
			"no builder who signed the claim tells how it came about")
	}
	for _, m := range makers {
		r.Builders = append(r.Builders, m.BuilderVote)
	}
	return votes
}

// count gives each provenance to one of its signers who signed the claim, too, and has none yet: two who sign the account of
// one build have not built twice. Provenances with fewer signers come first.
func (v *verification) count(r *Report, c *trustedClaim, agreeing []*trustedProvenance) []vote {
	slices.SortFunc(agreeing, func(a, b *trustedProvenance) int {
		return cmp.Or(cmp.Compare(len(a.by.principals), len(b.by.principals)), bytes.Compare(a.id[:], b.id[:]))
	})
	votes := map[string]vote{}
	var rest []string
	for _, p := range agreeing {
		given := false
		for _, name := range p.by.principals {
			_, has := votes[name]
			switch {
			case !slices.Contains(c.by.principals, name):
				r.skip(CheckAgreement, "%s signed a provenance that agrees, but not the claim: it does not count", name)
			case given || has:
				rest = append(rest, name)
			default:
				given = true
				votes[name] = vote{
					BuilderVote: BuilderVote{Principal: name, Operator: v.trust.operators[name], BuilderID: p.account.RunDetails.Builder.ID},
					roles:       c.by.roles[name],
				}
			}
		}
	}
	slices.Sort(rest)
	for _, name := range slices.Compact(rest) {
		if _, has := votes[name]; !has {
			r.skip(CheckAgreement, "%s signed only another's provenance: it does not count", name)
		}
	}
	out := make([]vote, 0, len(votes))
	for _, name := range slices.Sorted(maps.Keys(votes)) {
		out = append(out, votes[name])
	}
	return out
}

// makers returns the votes of those who are trusted to make artifacts. A policy's rules may count others, for themselves.
func (v *verification) makers(votes []vote) []vote {
	makes := func(role string) bool {
		return role == manifest.RoleBuilder || role == manifest.RoleRebuilder || role == v.Role
	}
	var out []vote
	for _, vote := range votes {
		if slices.ContainsFunc(vote.roles, makes) {
			out = append(out, vote)
		}
	}
	return out
}

func readAccount(payload []byte) (*Statement, *account, error) {
	s, err := ParseStatement(payload)
	if err != nil {
		return nil, nil, err
	}
	a := &account{}
	if s.PredicateType != ProvenanceType {
		return nil, nil, fmt.Errorf("its type is %q", s.PredicateType)
	}
	if err := decodeExact(s.Predicate, a); err != nil {
		return nil, nil, err
	}
	lean := Provenance{
		BuildDefinition: BuildDefinition{BuildType: a.BuildDefinition.BuildType, ExternalParameters: a.BuildDefinition.ExternalParameters},
		RunDetails:      a.RunDetails,
	}
	return s, a, lean.Validate()
}

// manifestID returns the id of the manifest that was built; zero if the provenance is of another build type.
func (a *account) manifestID() digest.SHA256 {
	var parameters struct {
		ManifestID string `json:"manifestId"`
	}
	if decodeExact(a.BuildDefinition.ExternalParameters, &parameters) != nil {
		return digest.SHA256{}
	}
	id, err := digest.Parse(parameters.ManifestID)
	if err != nil {
		return digest.SHA256{}
	}
	return id
}

// checkAccount compares a provenance with the claim, and checks who built it how.
func (v *verification) checkAccount(r *Report, c *trustedClaim, s *Statement, a *account, key string) bool {
	if class, difference := disagreement(c, s, a); difference != "" {
		r.fail(class, CheckAgreement, key, "", "the provenance does not agree with the claim: %s", difference)
		return false
	}
	r.pass(CheckAgreement, key, "subjects, manifest and all %d dependencies are those of the claim", len(c.claim.ResolvedDependencies))
	id := a.RunDetails.Builder.ID
	if !slices.Contains(v.BuilderIDs, id) {
		r.fail(ClassPolicy, CheckBuilder, key, "to accept it, name it in builderIDs of the policy, or with --builder-id",
			"builder id %q is not accepted", id)
		return false
	}
	r.pass(CheckBuilder, key, "built by %s", id)
	return v.checkCompleteness(r, a, key)
}

// disagreement returns the first thing in which a provenance is not what the claim says; "" if there is none.
func disagreement(c *trustedClaim, s *Statement, a *account) (Class, string) {
	d := a.BuildDefinition
	switch {
	case d.BuildType != c.raw.BuildType:
		return ClassVerification, fmt.Sprintf("build type %q, not %q", d.BuildType, c.raw.BuildType)
	case !bytes.Equal(d.ExternalParameters, c.raw.ExternalParameters):
		return ClassVerification, "other external parameters"
	case !bytes.Equal(d.ResolvedDependencies, c.raw.ResolvedDependencies):
		return ClassVerification, differingDependency(c.claim.ResolvedDependencies, d.ResolvedDependencies)
	case !normalizerIs(d.InternalParameters, c.raw.Normalizer):
		return ClassVerification, "another normalizer"
	case !equalSubjects(c.statement.Subject, s.Subject):
		return ClassDiffers, "other subjects, " + describeSubjects(s.Subject)
	}
	return "", ""
}

// normalizerIs compares the normalizer of a provenance's internal parameters with the claim's, both canonical.
func normalizerIs(internal, normalizer raw) bool {
	var p struct {
		Normalizer raw `json:"normalizer"`
	}
	return len(internal) > 0 && decodeExact(internal, &p) == nil && bytes.Equal(p.Normalizer, normalizer)
}

// differingDependency names the first dependency that is not in both lists.
func differingDependency(claimed []ResourceDescriptor, text raw) string {
	var wrapped struct {
		List []ResourceDescriptor `json:"list"`
	}
	if len(text) == 0 || decodeExact(slices.Concat([]byte(`{"list":`), text, []byte(`}`)), &wrapped) != nil {
		return "it has no list of dependencies"
	}
	contains := func(list []ResourceDescriptor, d ResourceDescriptor) bool {
		return slices.ContainsFunc(list, func(o ResourceDescriptor) bool { return sameThing(d, o) && maps.Equal(d.Digest, o.Digest) })
	}
	for _, d := range claimed {
		if !contains(wrapped.List, d) {
			return fmt.Sprintf("dependency %q of the claim is missing or another", d)
		}
	}
	for _, d := range wrapped.List {
		if !contains(claimed, d) {
			return fmt.Sprintf("dependency %q is not in the claim", d)
		}
	}
	return "the dependencies are described otherwise"
}

func equalSubjects(a, b []ResourceDescriptor) bool {
	return slices.EqualFunc(a, b, func(x, y ResourceDescriptor) bool {
		return x.Name == y.Name && x.URI == y.URI && x.MediaType == y.MediaType && maps.Equal(x.Digest, y.Digest)
	})
}

func describeSubjects(list []ResourceDescriptor) string {
	const shown = 3
	var parts []string
	for _, s := range list[:min(len(list), shown)] {
		sum, _ := s.SHA256()
		parts = append(parts, fmt.Sprintf("%q %s", s.Name, sum))
	}
	if n := len(list) - shown; n > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(parts, ", ")
}

// confinement is what we read of a runner.Confinement.
type confinement struct {
	Driver   string   `json:"driver"`
	Enforced []string `json:"enforced"`
	Missing  []string `json:"missing"`
}

// checkCompleteness checks that a provenance tells everything that our builder always tells: times, the confinement and the
// double build; and that a builder that calls itself hermetic enforced everything.
func (v *verification) checkCompleteness(r *Report, a *account, key string) bool {
	m := a.RunDetails.Metadata
	if m.StartedOn == "" || m.FinishedOn == "" {
		r.fail(ClassVerification, CheckCompleteness, key, "", "the provenance does not say when it was built")
		return false
	}
	p := &Provenance{RunDetails: a.RunDetails}
	var c confinement
	content, err := p.Byproduct(ByproductConfinement)
	if err == nil {
		err = canonical.Check(content)
	}
	if err == nil {
		err = decodeExact(content, &c)
	}
	if err != nil {
		r.fail(ClassVerification, CheckCompleteness, key, "", "the provenance does not tell the confinement: %v", err)
		return false
	}
	degraded := map[string]string{BuilderHermetic: BuilderDegraded, BuilderNix: BuilderNixDegraded, BuilderGuix: BuilderGuixDegraded}
	if id, ok := degraded[a.RunDetails.Builder.ID]; ok && len(c.Missing) > 0 {
		r.fail(ClassVerification, CheckCompleteness, key, "such a build must have the id "+id,
			"the builder calls itself confined, but did not enforce %q", c.Missing[0])
		return false
	}
	variations, err := p.Variations()
	switch {
	case err != nil:
		r.fail(ClassVerification, CheckCompleteness, key, "", "the provenance does not tell of the double build: %v", err)
		return false
	case !variations.Once && !variations.Equal:
		r.fail(ClassDiffers, CheckCompleteness, key, "", "the builder's own second build gave other bytes, varying %s", strings.Join(variations.Factors, ", "))
		return false
	case variations.Once && v.RequireVaried:
		r.fail(ClassPolicy, CheckCompleteness, key, "build it again without --once", "the build was not repeated in other surroundings")
		return false
	case variations.Once:
		r.pass(CheckCompleteness, key, "confined by %s; built once, not repeated in other surroundings", c.Driver)
	default:
		r.pass(CheckCompleteness, key, "confined by %s; built %d times with equal bits, varying %s",
			c.Driver, variations.Builds, count(len(variations.Factors), "factor"))
	}
	return true
}

// operators returns the distinct operators among votes, sorted.
func operators(votes []vote) []string {
	var out []string
	for _, v := range votes {
		out = append(out, v.Operator)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func principalsOf(votes []vote) string {
	var out []string
	for _, v := range votes {
		out = append(out, v.Principal)
	}
	return strings.Join(out, ", ")
}

// checkRebuilds counts who made the artifact, by principal and by operator.
func (v *verification) checkRebuilds(r *Report, votes []vote) {
	by := operators(votes)
	found := fmt.Sprintf("%s by %s", count(len(votes), "principal"), count(len(by), "operator"))
	switch {
	case v.Rebuilds == 0 && v.Operators == 0:
		r.skip(CheckRebuilds, "made by %s; no number was asked for", found)
	case len(votes) < v.Rebuilds || len(by) < v.Operators:
		r.fail(ClassPolicy, CheckRebuilds, principalsOf(votes), "have others rebuild and sign: `arch rebuild RECEIPT`",
			"made by %s; needed: %s", found, v.asked())
	default:
		r.pass(CheckRebuilds, principalsOf(votes), "made by %s; needed: %s", found, v.asked())
	}
}

// asked says for people how many must have made the artifact.
func (in VerifyInput) asked() string {
	var parts []string
	if in.Rebuilds > 0 {
		parts = append(parts, count(in.Rebuilds, "principal"))
	}
	if in.Operators > 0 {
		parts = append(parts, count(in.Operators, "operator"))
	}
	return strings.Join(parts, " by ")
}

// checkNegatives looks for results of someone trusted that contradict the claim. Whoever could not build it (but did so
// later, and signed the claim) contradicts nothing.
func (v *verification) checkNegatives(r *Report, c *trustedClaim) {
	found := false
	for _, n := range v.negatives {
		if n.err != nil {
			found = true
			r.fail(ClassVerification, CheckNegative, n.by.String(), "", "negative result %s is signed, but wrong: %v", n.id, n.err)
			continue
		}
		if n.negative.Claim != c.id {
			continue
		}
		found = true
		r.addInput(NegativeType, n.id)
		v.judgeNegative(r, c, n.negative, n.by)
	}
	if !found {
		r.pass(CheckNegative, "", "no one trusted reports a negative result")
	}
}

func (v *verification) judgeNegative(r *Report, c *trustedClaim, n *Negative, by signers) {
	key := by.String()
	later := n.State != Differs && !slices.ContainsFunc(by.principals, func(p string) bool { return !slices.Contains(c.by.principals, p) })
	detail := fmt.Sprintf("%s on %s: %s", n.State, n.Tried, shorten(fmt.Sprintf("%q", n.Cause), 300))
	switch {
	case later:
		r.skip(CheckNegative, "%s, but %s has signed the claim since", detail, key)
	case v.AllowNegative:
		r.Disputed = true
		r.skip(CheckNegative, "allowed: %s [%s]", detail, key)
	case n.State == Differs:
		r.fail(ClassDiffers, CheckNegative, key, "compare the two artifacts with `arch diff A B`", "%s", detail)
	default:
		r.fail(ClassPolicy, CheckNegative, key, "rebuild it yourself with `arch rebuild RECEIPT`", "%s", detail)
	}
}
