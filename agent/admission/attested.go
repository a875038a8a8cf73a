package admission

import (
	"fmt"

	"arch.network/attest"
	"arch.network/attest/digest"
)

// Attested returns what is missing of what was demanded, given what attest.Verify found with the policy in force and the
// demand's location; nothing: the demand is met. A nil report is one of no evidence at all.
func Attested(d Demand, report *attest.Report) []Reason {
	missing := func(cure, format string, args ...any) []Reason {
		return []Reason{{Check: CheckAttestation, Field: d.Field, Msg: fmt.Sprintf(format, args...), Cure: cure}}
	}
	const rebuild = "have it built and rebuilt with `arch build --attest` and `arch rebuild`, and lay the receipts beside it"
	if report == nil {
		return missing(rebuild, "the policy demands proof of %s, and there is none", d.Ref)
	}
	if !about(report, d.Ref.Digest) {
		return missing(rebuild, "the policy demands proof of %s, but what was found is about %s", d.Ref, report.Digest)
	}
	var out []Reason
	holds := 0
	for _, c := range report.Checks {
		switch {
		case c.Result == attest.Fail:
			out = append(out, Reason{CheckAttestation, d.Field, c.Name + ": " + c.Detail, c.Hint})
		case c.Result == attest.Pass && c.Name == attest.CheckPolicy:
			holds++
		}
	}
	switch {
	case len(out) > 0:
		return out
	case holds < len(d.Rules):
		return missing("verify it with the policy in force", "%d of the policy's rules concern %s, but only %d were checked", len(d.Rules), d.Ref, holds)
	case !report.OK:
		return missing(rebuild, "what was found of %s is not enough: %s", d.Ref, report.Class)
	}
	return nil
}

// about reports whether a report is one about the bytes with this digest.
func about(r *attest.Report, want digest.SHA256) bool {
	if want.IsZero() {
		return false
	}
	if r.Digest == want {
		return true
	}
	for _, s := range r.Subjects {
		if have, ok := s.SHA256(); ok && have == want {
			return true
		}
	}
	return false
}
