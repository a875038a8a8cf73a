package attest

import (
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// appraisal is what one claim is worth by itself.
type appraisal struct {
	report  *Report // of the checks that concern it alone
	votes   []vote
	sources []digest.SHA256 // that its manifest names
	went    map[digest.SHA256]bool
}

// checkCorroboration looks for claims of other manifests that give the same bytes, such as those of one program that was built by our own
// builder, by Nix and by Guix. It returns the votes of those who vouch for them and have none yet.
//
// SLSA asks for build provenance of the artifact from two or more builders, whatever each was told to do
// (slsa.dev/spec/v1.2/verified-properties). More is asked here: each such claim must pass every check by itself, and both must have been made
// from the same sources.
func (v *verification) checkCorroboration(r *Report, c *trustedClaim, claims, matched []*trustedClaim, votes []vote) []vote {
	var out []vote
	for _, other := range matched {
		if other.claim.ExternalParameters.ManifestID == c.claim.ExternalParameters.ManifestID {
			continue // c itself, or what checkConflicts tells of
		}
		a := v.appraise(other, claims)
		name := "claim " + other.id.String() + " of manifest " + other.claim.ExternalParameters.ManifestID.String()
		switch failed := a.report.failed(); {
		case len(failed) > 0:
			r.skip(CheckCorroborated, "%s names it, too, but does not count: %s: %s", name, failed[0].Name, failed[0].Detail)
			continue
		case a.report.Disputed:
			r.skip(CheckCorroborated, "%s names it, too, but is disputed: it does not count", name)
			continue
		case a.went[v.sum]:
			r.skip(CheckCorroborated, "%s names it, too, as something that it was made from: it does not count", name)
			continue
		case !sameSources(v.appraise(c, claims), a):
			r.skip(CheckCorroborated, "%s names it, too, but not as made from the same sources: it does not count", name)
			continue
		}
		for _, input := range a.report.Inputs {
			if !slices.ContainsFunc(r.Inputs, func(o ResourceDescriptor) bool { return o.URI == input.URI }) {
				r.Inputs = append(r.Inputs, input)
			}
		}
		r.pass(CheckCorroborated, principalsOf(a.votes), "%s gives the same bytes from the same sources", name)
		for _, one := range a.votes {
			has := func(o vote) bool { return o.Principal == one.Principal }
			if !slices.ContainsFunc(votes, has) && !slices.ContainsFunc(out, has) {
				out = append(out, one)
			}
		}
	}
	for _, m := range v.makers(out) {
		r.Builders = append(r.Builders, m.BuilderVote)
	}
	return out
}

// appraise makes the checks that decide whether a claim counts beside another one.
func (v *verification) appraise(c *trustedClaim, claims []*trustedClaim) *appraisal {
	if a := v.appraisals[c]; a != nil {
		return a
	}
	a := &appraisal{report: &Report{}, went: map[digest.SHA256]bool{}}
	v.appraisals[c] = a
	a.report.addInput(ClaimType, c.id)
	v.checkManifest(a.report, c)
	v.checkConflicts(a.report, c, claims)
	a.votes = v.checkProvenances(a.report, c)
	v.checkNegatives(a.report, c)
	for _, d := range c.claim.ResolvedDependencies {
		if sum, ok := d.SHA256(); ok {
			a.went[sum] = true
		}
	}
	if doc, err := c.claim.Document(); err == nil { // else checkManifest has said so
		a.sources = sourcesOf(doc)
	}
	return a
}

// sourcesOf returns what a manifest names as sources by their content: trees, files by URL, and what is in Git. Toolchains (go:), images and
// store paths are surroundings, in which independent builders may differ.
func sourcesOf(doc *manifest.Build) []digest.SHA256 {
	var list []digest.SHA256
	for _, in := range doc.Spec.Inputs {
		switch in.Ref.Scheme {
		case manifest.RefTree, manifest.RefURL, manifest.RefGit:
			list = append(list, in.Ref.Digest)
		}
	}
	return list
}

// sameSources reports whether everything that the manifest of one claim names as a source went into what the other one tells of. The manifest
// of a derivation names none, so that of the two at least one must be another.
func sameSources(a, b *appraisal) bool {
	in := func(sources []digest.SHA256, went map[digest.SHA256]bool) bool {
		return len(sources) > 0 && !slices.ContainsFunc(sources, func(s digest.SHA256) bool { return !went[s] })
	}
	return in(a.sources, b.went) || in(b.sources, a.went)
}
