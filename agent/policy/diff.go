package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"arch.network/attest/manifest"
)

// Direction says whether a change allows more or less.
type Direction string

// The directions.
const (
	More  Direction = "more"
	Less  Direction = "less"
	Other Direction = "other" // it changes what happens, not what is allowed
)

// Change is one difference between two policies.
type Change struct {
	Direction Direction `json:"direction"`
	Field     string    `json:"field"` // of the document
	Text      string    `json:"text"`  // a sentence without a capital
}

// Diff tells what a policy allows more and less than another, in the order of the document's fields; the same arguments give
// the same sentences. It compares what is written: a pattern that another one covers already is still a change.
func Diff(old, next *manifest.Policy) []Change {
	d := &differ{}
	a, b := &old.Spec, &next.Spec
	d.later("metadata.expires", "it is in force until", old.Metadata.Expires, next.Metadata.Expires)
	if a.TrustRoot != b.TrustRoot {
		d.add(Other, "spec.trustRoot", "it is for trust root %s", orAny(b.TrustRoot.IsZero(), b.TrustRoot.String()))
	}
	d.longer("spec.offlineGrace", "after that, jobs still start for", a.OfflineGrace, b.OfflineGrace, "no time")
	d.set("spec.issuers", More, texts(a.Issuers, issuer), texts(b.Issuers, issuer))
	d.set("spec.runtimes", More, texts(a.Runtimes, prefix[manifest.Runtime]("jobs may use runtime ")), texts(b.Runtimes, prefix[manifest.Runtime]("jobs may use runtime ")))
	d.set("spec.degradations", More, texts(a.Degradations, prefix[string]("jobs run although this guarantee is missing: ")), texts(b.Degradations, prefix[string]("jobs run although this guarantee is missing: ")))
	d.set("spec.capabilities.allow", More, texts(a.Capabilities.Allow, prefix[string]("jobs may ask for ")), texts(b.Capabilities.Allow, prefix[string]("jobs may ask for ")))
	d.resources("spec.resources.job", "each job", a.Resources.Job, b.Resources.Job)
	d.resources("spec.resources.owner", "all jobs of one owner together", a.Resources.Owner, b.Resources.Owner)
	d.resources("spec.resources.node", "all jobs together", a.Resources.Node, b.Resources.Node)
	d.longer("spec.resources.timeout", "an execution may take", a.Resources.Timeout, b.Resources.Timeout, "the default time")
	d.set("spec.conditions", Less, texts(a.Conditions, condition), texts(b.Conditions, condition))
	d.set("spec.attestations", Less, texts(a.Attestations, attestation), texts(b.Attestations, attestation))
	d.set("spec.facts", Other, facts(a.Facts), facts(b.Facts))
	d.set("spec.jurisdictions", Other, texts(a.Jurisdictions, prefix[string]("the node is under the law of ")), texts(b.Jurisdictions, prefix[string]("the node is under the law of ")))
	d.value("spec.validation", a.Validation, b.Validation)
	d.value("spec.queue", fmt.Sprintf("%+v", a.Queue), fmt.Sprintf("%+v", b.Queue))
	d.value("spec.retention", fmt.Sprintf("%+v", a.Retention), fmt.Sprintf("%+v", b.Retention))
	d.set("spec.local.reject", Less, texts(a.Local.Reject, reject), texts(b.Local.Reject, reject))
	d.resources("spec.local.cap", "each job, by the operator's own cap,", a.Local.Cap, b.Local.Cap)
	if a.Local.PreferLocal != b.Local.PreferLocal || a.Local.Owner != b.Local.Owner {
		d.add(Other, "spec.local", "jobs of %q go first: %v", b.Local.Owner, b.Local.PreferLocal)
	}
	return d.out
}

// differ collects changes.
type differ struct{ out []Change }

func (d *differ) add(direction Direction, field, format string, args ...any) {
	d.out = append(d.out, Change{direction, field, fmt.Sprintf(format, args...)})
}

// set tells what is new and what is gone. What is new goes in the given direction.
func (d *differ) set(field string, added Direction, old, next []string) {
	opposite := map[Direction]Direction{More: Less, Less: More, Other: Other}[added]
	for _, text := range next {
		if !slices.Contains(old, text) {
			d.add(added, field, "%s", text)
		}
	}
	for _, text := range old {
		if !slices.Contains(next, text) {
			d.add(opposite, field, "no longer: %s", text)
		}
	}
}

func (d *differ) value(field string, old, next any) {
	if old != next {
		d.add(Other, field, "it is %+v, and was %+v", next, old)
	}
}

func (d *differ) later(field, what, old, next string) {
	if old == next {
		return
	}
	direction := Less
	if next > old && old != "" || next == "" { // RFC 3339 in UTC sorts as text; empty: for ever
		direction = More
	}
	if old == "" && next != "" {
		direction = Less
	}
	d.add(direction, field, "%s %s%s", what, orAny(next == "", next), was(old))
}

func (d *differ) longer(field, what string, old, next manifest.Duration, none string) {
	if old == next {
		return
	}
	a, _ := old.Duration() // valid in a document
	b, _ := next.Duration()
	direction := Other
	switch {
	case a == b:
		return
	case b > a && (a > 0 || field == "spec.offlineGrace"):
		direction = More
	case b < a && (b > 0 || field == "spec.offlineGrace"):
		direction = Less
	}
	text := func(v manifest.Duration, n time.Duration) string {
		if n == 0 {
			return none
		}
		return string(v)
	}
	d.add(direction, field, "%s %s, before %s", what, text(next, b), text(old, a))
}

// resources compares bounds. None is not less than any: it is the default for a job, and no bound otherwise.
func (d *differ) resources(field, who string, old, next manifest.JobResources) {
	milli := func(q manifest.Quantity) float64 {
		n, _ := q.Milli() // valid in a document
		return float64(n)
	}
	for _, r := range []struct {
		name      string
		old, next string
		a, b      float64
	}{
		{"cpu", string(old.CPU), string(next.CPU), milli(old.CPU), milli(next.CPU)},
		{"memory", string(old.Memory), string(next.Memory), milli(old.Memory), milli(next.Memory)},
		{"gpu", string(old.GPU), string(next.GPU), milli(old.GPU), milli(next.GPU)},
		{"scratch", string(old.Scratch), string(next.Scratch), milli(old.Scratch), milli(next.Scratch)},
		{"output", string(old.Output), string(next.Output), milli(old.Output), milli(next.Output)},
		{"processes", number(float64(old.Processes)), number(float64(next.Processes)), float64(old.Processes), float64(next.Processes)},
		{"gas", number(float64(old.Gas)), number(float64(next.Gas)), float64(old.Gas), float64(next.Gas)},
		{"powerBudgetW", number(old.PowerBudgetW), number(next.PowerBudgetW), old.PowerBudgetW, next.PowerBudgetW},
	} {
		at := field + "." + r.name
		switch {
		case r.old == r.next || r.old != "" && r.next != "" && r.a == r.b:
		case r.next == "":
			d.add(More, at, "%s may use %s without this bound%s", who, r.name, was(r.old))
		case r.old == "":
			d.add(Less, at, "%s may use at most %s %s; there was no such bound", who, r.next, r.name)
		case r.b > r.a:
			d.add(More, at, "%s may use at most %s %s%s", who, r.next, r.name, was(r.old))
		default:
			d.add(Less, at, "%s may use at most %s %s%s", who, r.next, r.name, was(r.old))
		}
	}
}

func number(n float64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.17g", n)
}

func was(old string) string {
	if old == "" {
		return ""
	}
	return ", before " + old
}

func orAny(isNone bool, text string) string {
	if isNone {
		return "any"
	}
	return text
}

func texts[T any](list []T, text func(T) string) []string {
	var out []string
	for _, v := range list {
		out = append(out, text(v))
	}
	return out
}

func prefix[T ~string](p string) func(T) string {
	return func(v T) string { return p + string(v) }
}

func joined[T ~string](list []T) string {
	return strings.Join(texts(list, func(v T) string { return string(v) }), ", ")
}

func issuer(i manifest.PolicyIssuer) string {
	text := "role " + i.Role + " may issue jobs of " + orAny(len(i.Owners) == 0, joined(i.Owners))
	if len(i.Owners) == 0 {
		text += " owner"
	}
	if len(i.Runtimes) > 0 {
		text += " for runtime " + joined(i.Runtimes)
	}
	return text
}

func condition(c manifest.PolicyCondition) string {
	var who []string
	for _, part := range []struct{ name, list string }{
		{"owner ", joined(c.Owners)}, {"runtime ", joined(c.Runtimes)}, {"image ", joined(c.Images)}, {"", joined(c.Capabilities)},
	} {
		if part.list != "" {
			who = append(who, part.name+part.list)
		}
	}
	subject := "every job"
	if len(who) > 0 {
		subject = "a job with " + strings.Join(who, " and ")
	}
	needs := texts(c.Require, func(r manifest.Constraint) string { return fmt.Sprintf("%s %s %s", r.Key, r.Op, r.Value) })
	return fmt.Sprintf("%s needs %s (%q)", subject, strings.Join(needs, " and "), c.Reason)
}

func attestation(a manifest.PolicyAttestation) string {
	what := "everything"
	if a.Match != "" {
		what = a.Match
	}
	var needs []string
	if a.Threshold > 0 {
		needs = append(needs, fmt.Sprintf("%d of role %s", a.Threshold, a.Role))
	} else {
		needs = append(needs, "the quorum of role "+a.Role)
	}
	if a.Operators > 0 {
		needs = append(needs, fmt.Sprintf("%d operators", a.Operators))
	}
	if a.Reproduced {
		needs = append(needs, "equal bits from independent builds")
	}
	if len(a.BuilderIDs) > 0 {
		needs = append(needs, "a builder among "+joined(a.BuilderIDs))
	}
	if a.PredicateType != "" {
		needs = append(needs, "a statement of type "+a.PredicateType)
	}
	return what + " needs proof: " + strings.Join(needs, ", ")
}

func reject(r manifest.PolicyReject) string {
	var who []string
	for _, part := range []struct{ name, value string }{{"owner ", r.Owner}, {"image ", r.Image}, {"runtime ", string(r.Runtime)}} {
		if part.value != "" {
			who = append(who, part.name+part.value)
		}
	}
	return fmt.Sprintf("the operator refuses jobs with %s (%q)", strings.Join(who, " and "), r.Reason)
}

func facts(m map[string]manifest.Raw) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("the fact %s is %s", k, m[k]))
	}
	return out
}
