package job

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"arch.network/attest/manifest"
)

// Reason is one thing that a policy, or the calendar, has against a job.
type Reason struct {
	Field string `json:"field"` // of the document, such as "spec.capabilities.net[0]"
	Msg   string `json:"msg"`   // a sentence without a capital
	Cure  string `json:"cure"`  // what would have to change
}

// DeniedError says that a job is not allowed.
type DeniedError struct {
	Job     string // metadata.name
	Policy  string // metadata.name
	Reasons []Reason
}

func (e *DeniedError) Error() string {
	var list []string
	for _, r := range e.Reasons {
		list = append(list, r.Field+": "+r.Msg)
	}
	return fmt.Sprintf("job %s is not allowed: %s", e.Job, strings.Join(list, "; "))
}

// Hint tells the way out for the first reason.
func (e *DeniedError) Hint() string {
	if len(e.Reasons) == 0 {
		return ""
	}
	return e.Reasons[0].Cure
}

// LocalPolicy is what holds where nobody made a policy: one's own machine. Every runtime may be used, clock and
// randomness may be real, modules may have been prepared for checkpoints, the defaults bound what a job uses; the network, the machine's files and its devices are reached
// only as allow says, in the patterns of capabilities.allow. It is not signed, and Validate would refuse it: it never expires.
func LocalPolicy(allow []string) *manifest.Policy {
	p := &manifest.Policy{APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "local"}}
	p.Spec.Version = 1
	p.Spec.Runtimes = []manifest.Runtime{manifest.RuntimeWasm, manifest.RuntimeOCI, manifest.RuntimeNix, manifest.RuntimeGuix}
	p.Spec.Capabilities.Allow = append([]string{"clock:real", "randomness:real", "checkpoint"}, allow...)
	return p
}

// Allowed returns what policy has against doc, in the order of the document's fields; nothing: it is allowed. It looks at
// the runtime, the capabilities, the resources and the operator's own overrides. Who signed is for Roles and the
// quorum, when for Due.
func Allowed(policy *manifest.Policy, doc *manifest.Job) []Reason {
	var out []Reason
	add := func(field, cure, format string, args ...any) {
		out = append(out, Reason{Field: field, Msg: fmt.Sprintf(format, args...), Cure: cure})
	}
	s, p := &doc.Spec, &policy.Spec
	for _, r := range p.Local.Reject {
		if rejects(r, doc) {
			add("metadata", "ask the node's operator", "the node's operator refuses it: %q", r.Reason)
		}
	}
	if !slices.Contains(p.Runtimes, s.Runtime) {
		add("spec.runtime", fmt.Sprintf("add %s to runtimes in the policy", s.Runtime), "runtime %s is not allowed by policy %s", s.Runtime, policy.Metadata.Name)
	}
	for _, c := range Capabilities(doc) {
		if !slices.ContainsFunc(p.Capabilities.Allow, func(pattern string) bool { return covers(pattern, c.Text) }) {
			add(c.Field, fmt.Sprintf("to allow it, add %q to capabilities.allow in the policy, or give --allow %s where there is none", c.Text, c.Text),
				"capability %q is not allowed by policy %s", c.Text, policy.Metadata.Name)
		}
	}
	for _, e := range exceeded(doc, policy) {
		add(e.field, "ask for less, or raise it in the policy", "%s is over the policy's %s", e.asked, e.limit)
	}
	return out
}

// Capability is one thing that a job asks for.
type Capability struct {
	Field string // of the document
	Text  string // as patterns of a policy spell it: egress:443, read:/PATH, device:NAME, clock:real, checkpoint, …
}

// Capabilities lists everything that doc asks for beside its inputs and outputs, in the order of its fields.
func Capabilities(doc *manifest.Job) []Capability {
	var out []Capability
	c := &doc.Spec.Capabilities
	for i, text := range c.Net {
		out = append(out, Capability{fmt.Sprintf("spec.capabilities.net[%d]", i), text})
	}
	for i, text := range c.FS {
		out = append(out, Capability{fmt.Sprintf("spec.capabilities.fs[%d]", i), text})
	}
	for i, text := range c.Devices {
		out = append(out, Capability{fmt.Sprintf("spec.capabilities.devices[%d]", i), "device:" + text})
	}
	if doc.Spec.Determinism.Clock == manifest.ClockReal {
		out = append(out, Capability{"spec.determinism.clock", "clock:real"})
	}
	if doc.Spec.Determinism.Randomness == manifest.RandomReal {
		out = append(out, Capability{"spec.determinism.randomness", "randomness:real"})
	}
	if doc.Spec.Checkpointable {
		out = append(out, Capability{"spec.checkpointable", "checkpoint"})
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Spec.Outputs)) {
		if p, ok := strings.CutPrefix(doc.Spec.Outputs[name].Destination, "file://"); ok {
			out = append(out, Capability{"spec.outputs." + name, "write:" + p})
		}
	}
	return out
}

// Roles returns the roles of the trust root of which one's quorum must have signed doc, as the policy's issuers say. None:
// nobody may issue it.
func Roles(policy *manifest.Policy, doc *manifest.Job) []string {
	var out []string
	for _, i := range policy.Spec.Issuers {
		if issues(&i, doc) && !slices.Contains(out, i.Role) {
			out = append(out, i.Role)
		}
	}
	return out
}

// Due returns what the calendar has against running doc at a time.
func Due(doc *manifest.Job, at time.Time) []Reason {
	var out []Reason
	if t, err := time.Parse(time.RFC3339, doc.Spec.NotBefore); doc.Spec.NotBefore != "" && (err != nil || at.Before(t)) {
		out = append(out, Reason{"spec.notBefore", "it must not run before " + doc.Spec.NotBefore, "wait until then"})
	}
	if t, err := time.Parse(time.RFC3339, doc.Metadata.Expires); doc.Metadata.Expires != "" && (err != nil || !at.Before(t)) {
		out = append(out, Reason{"metadata.expires", "it expired on " + doc.Metadata.Expires, "have it signed anew with a later end"})
	}
	return out
}

// rejects reports whether all fields of an override match.
func rejects(r manifest.PolicyReject, doc *manifest.Job) bool {
	return (r.Owner != "" || r.Image != "" || r.Runtime != "") &&
		(r.Owner == "" || glob(r.Owner, doc.Metadata.Owner)) &&
		(r.Image == "" || glob(r.Image, doc.Spec.Image.Location)) &&
		(r.Runtime == "" || r.Runtime == doc.Spec.Runtime)
}

// excess is one resource that is asked for above a bound.
type excess struct{ field, asked, limit string }

// exceeded compares what is asked for with the policy's bounds for one job.
func exceeded(doc *manifest.Job, policy *manifest.Policy) []excess {
	var out []excess
	asked := &doc.Spec.Resources
	for _, bound := range []*manifest.JobResources{&policy.Spec.Resources.Job, &policy.Spec.Local.Cap} {
		for _, q := range []struct {
			name         string
			asked, limit manifest.Quantity
		}{
			{"cpu", asked.CPU, bound.CPU},
			{"memory", asked.Memory, bound.Memory},
			{"gpu", asked.GPU, bound.GPU},
			{"scratch", asked.Scratch, bound.Scratch},
			{"output", asked.Output, bound.Output},
		} {
			a, errA := q.asked.Milli()
			l, errL := q.limit.Milli()
			if errA != nil || errL != nil || q.limit != "" && a > l {
				out = append(out, excess{"spec.resources." + q.name, string(q.asked), string(q.limit)})
			}
		}
		for _, n := range []struct {
			name         string
			asked, limit float64
		}{
			{"processes", float64(asked.Processes), float64(bound.Processes)},
			{"gas", float64(asked.Gas), float64(bound.Gas)},
			{"powerBudgetW", asked.PowerBudgetW, bound.PowerBudgetW},
		} {
			if n.limit > 0 && n.asked > n.limit {
				out = append(out, excess{"spec.resources." + n.name, fmt.Sprint(n.asked), fmt.Sprint(n.limit)})
			}
		}
	}
	if a, l := doc.Spec.Timeout, policy.Spec.Resources.Timeout; longer(a, l) {
		out = append(out, excess{"spec.timeout", string(a), string(l)})
	}
	return out
}

// longer reports whether a is longer than a limit that is given; what cannot be read is.
func longer(a, limit manifest.Duration) bool {
	x, errX := a.Duration()
	y, errY := limit.Duration()
	return errX != nil || errY != nil || y > 0 && x > y
}
