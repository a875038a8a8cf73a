package attest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
)

// Result is the outcome of one check.
type Result string

// The results. Skip says that a check did not apply or was not asked for; it never helps a report to be OK.
const (
	Pass Result = "PASS"
	Fail Result = "FAIL"
	Skip Result = "SKIP"
)

// Class says what kind of failure a failed check is, and with that the exit status of a command.
type Class string

// The classes, the gravest first. A report that fails has the gravest class of its failed checks.
const (
	ClassNothing      Class = "nothing-to-verify" // there is no statement about the artifact at all
	ClassVerification Class = "verification-failed"
	ClassDiffers      Class = "not-reproducible" // someone trusted got other bytes
	ClassPolicy       Class = "policy-denied"    // everything is genuine, but not enough or not wanted
)

// Check is one line of a Report.
type Check struct {
	Name   string `json:"name"` // one of the Check… constants
	Result Result `json:"result"`
	Detail string `json:"detail"`          // a sentence without a capital: what was found
	Key    string `json:"key,omitempty"`   // the principals whose keys decided it, joined by ", "
	Hint   string `json:"hint,omitempty"`  // the way out, if the check failed and one is known
	Class  Class  `json:"class,omitempty"` // set if and only if the check failed
}

// Names of checks.
const (
	CheckReceipts     = "receipts"
	CheckTrustRoot    = "trust-root"
	CheckSignature    = "claim-signature"
	CheckQuorum       = "role-quorum"
	CheckSubject      = "subject"
	CheckName         = "name"
	CheckManifest     = "manifest"
	CheckDependencies = "dependencies-pinned"
	CheckConflict     = "conflicting-claims"
	CheckProvenance   = "provenance"
	CheckAgreement    = "claim-provenance"
	CheckBuilder      = "builder-id"
	CheckCompleteness = "completeness"
	CheckRebuilds     = "rebuilds"
	CheckNegative     = "negative-results"
	CheckCorroborated = "corroboration"
	CheckPolicy       = "policy"
	CheckLayout       = "layout"
	CheckSummary      = "summary"
)

// Report is what a verification found: every check with its result. The same input gives the same report.
type Report struct {
	OK     bool    `json:"ok"` // every required check passed, a signature among them
	Class  Class   `json:"class,omitempty"`
	Checks []Check `json:"checks"`

	Artifact string               `json:"artifact"`           // its name, as given
	Digest   digest.SHA256        `json:"digest,omitzero"`    // by which it is a subject of the claim, or else what it was found to be; zero: not hashed
	Subjects []ResourceDescriptor `json:"subjects,omitempty"` // the artifact in all its forms, as the claim names them

	Claim    digest.SHA256 `json:"claim,omitzero"` // id of the claim; zero: there is none
	Manifest digest.SHA256 `json:"manifest,omitzero"`
	// Builders are those of the roles builder and rebuilder, and of the role that was asked for, who signed the claim, or one of another
	// manifest that corroborates it, and left a provenance of their own that agrees with it: those of the claim, and then the others,
	// each sorted by principal.
	Builders []BuilderVote `json:"builders,omitempty"`
	// Disputed says that someone trusted reports another result, and the caller allowed it. Nothing that is disputed is
	// SLSA_BUILD_REPRODUCED.
	Disputed bool `json:"disputed,omitempty"`
	// Inputs are the attestations that the verification used, each with its id.
	Inputs []ResourceDescriptor `json:"inputs,omitempty"`
	At     time.Time            `json:"at"` // the time that was given
}

// BuilderVote is one principal that made the artifact.
type BuilderVote struct {
	Principal string `json:"principal"`
	Operator  string `json:"operator"`
	BuilderID string `json:"builderId"`
}

func (r *Report) pass(name, key, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Result: Pass, Detail: fmt.Sprintf(format, args...), Key: key})
}

func (r *Report) skip(name, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Result: Skip, Detail: fmt.Sprintf(format, args...)})
}

func (r *Report) fail(class Class, name, key, hint, format string, args ...any) {
	r.Checks = append(r.Checks, Check{
		Name: name, Result: Fail, Detail: fmt.Sprintf(format, args...), Key: key, Hint: hint, Class: class,
	})
}

// failCostly says that not all signatures were checked, so that nothing can be said.
func (r *Report) failCostly() {
	r.fail(ClassVerification, CheckReceipts, "", "leave out the receipts of people whom you do not trust",
		"there are more signatures, or signatures over longer statements, than are checked at once; so not all were checked")
}

// Add appends checks that were made elsewhere, such as those of VerifyLayout, and decides again. A check that
// passed cannot make a report OK that was not.
func (r *Report) Add(checks ...Check) {
	r.Checks = append(r.Checks, checks...)
	if r.OK {
		r.decide(CheckSignature)
	}
	r.Class = r.gravest()
}

// decide sets OK and Class: nothing failed, and each of required passed at least once.
func (r *Report) decide(required ...string) {
	r.Class = r.gravest()
	r.OK = r.Class == ""
	for _, name := range required {
		if !r.passed(name) {
			r.OK = false
			r.Class = r.gravest()
			if r.Class == "" {
				r.Class = ClassVerification
			}
		}
	}
}

// addInput notes an attestation that was used: its predicate type, and its id as fragment and digest.
func (r *Report) addInput(predicateType string, id digest.SHA256) {
	input := ResourceDescriptor{URI: predicateType + "#" + id.String(), Digest: map[string]string{"sha256": id.Hex()}}
	if !slices.ContainsFunc(r.Inputs, func(o ResourceDescriptor) bool { return o.URI == input.URI }) {
		r.Inputs = append(r.Inputs, input)
	}
}

func (r *Report) passed(name string) bool {
	for _, c := range r.Checks {
		if c.Name == name && c.Result == Pass {
			return true
		}
	}
	return false
}

// gravest returns the class of the gravest failure; "" if nothing failed.
func (r *Report) gravest() Class {
	for _, class := range []Class{ClassNothing, ClassVerification, ClassDiffers, ClassPolicy} {
		for _, c := range r.Checks {
			if c.Class == class {
				return class
			}
		}
	}
	return ""
}

// Err returns nil if the report is OK, and otherwise a *VerifyError.
func (r *Report) Err() error {
	if r.OK {
		return nil
	}
	return &VerifyError{Artifact: r.Artifact, Class: r.Class, Failed: r.failed()}
}

func (r *Report) failed() []Check {
	var out []Check
	for _, c := range r.Checks {
		if c.Result == Fail {
			out = append(out, c)
		}
	}
	return out
}

// VerifyError says that a verification did not come out OK. Its Class decides the exit status.
type VerifyError struct {
	Artifact string
	Class    Class
	Failed   []Check // may be empty: then a required check was not made
}

func (e *VerifyError) Error() string {
	if len(e.Failed) == 0 {
		return fmt.Sprintf("verify %s: %s", e.Artifact, e.Class)
	}
	first := e.Failed[0]
	for _, c := range e.Failed {
		if c.Class == e.Class {
			first = c
			break
		}
	}
	more := ""
	if n := len(e.Failed) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Sprintf("verify %s: %s: %s%s", e.Artifact, first.Name, first.Detail, more)
}

// Hint returns the way out of the first failure that has one.
func (e *VerifyError) Hint() string {
	for _, c := range e.Failed {
		if c.Hint != "" {
			return c.Hint
		}
	}
	return ""
}

// Text writes the report for people, one line a check.
func (r *Report) Text() string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s  %-20s %s", c.Result, c.Name, c.Detail)
		if c.Key != "" {
			fmt.Fprintf(&b, " [%s]", c.Key)
		}
		b.WriteByte('\n')
		if c.Hint != "" {
			fmt.Fprintf(&b, "      %-20s hint: %s\n", "", c.Hint)
		}
	}
	return b.String()
}
