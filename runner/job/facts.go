package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/manifest"
)

// Facts are what placement constraints and a policy's conditions are compared with.
//
// A fact is a JSON number, string or boolean, or a list of those: then == and in hold if they hold for any of them, and
// != and not-in if they hold for all.
type Facts struct {
	Known []map[string]manifest.Raw // the first one that has a key wins
	// Partial says that somebody else knows more facts: what depends on one that is not here is left to them. Without it, what
	// is not known does not hold.
	Partial bool
}

// get returns a fact.
func (f Facts) get(key string) (manifest.Raw, bool) {
	for _, m := range f.Known {
		if v, ok := m[key]; ok {
			return v, true
		}
	}
	return nil, false
}

// Own returns the facts about a job itself, by the names that conditions use for them:
//
//	job.owner, job.runtime, job.image (its location), job.priority, job.replicas
//	job.capabilities     a list, as patterns of a policy spell them
//	job.cpu              cores that it may use; 0: no limit
//	job.memory           bytes, and so job.gpu (devices), job.timeout_s
//	time.hour            0 to 23, UTC
//	time.weekday         1 (Monday) to 7
//
// They are what the job will get, so policy's bounds are applied.
func Own(doc *manifest.Job, policy *manifest.Policy, at time.Time) (map[string]manifest.Raw, error) {
	limits, err := Limits(doc, policy)
	if err != nil {
		return nil, err
	}
	capabilities := []string{}
	for _, c := range Capabilities(doc) {
		capabilities = append(capabilities, c.Text)
	}
	at = at.UTC()
	out := map[string]manifest.Raw{}
	for key, v := range map[string]any{
		"job.owner": doc.Metadata.Owner, "job.runtime": doc.Spec.Runtime, "job.image": doc.Spec.Image.Location,
		"job.priority": doc.Spec.Priority, "job.replicas": Replicas(doc, policy), "job.capabilities": capabilities,
		"job.cpu": float64(limits.CPU) / 1000, "job.memory": limits.Memory, "job.gpu": len(doc.Spec.Capabilities.Devices),
		"job.timeout_s": limits.Wall.Seconds(), "time.hour": at.Hour(), "time.weekday": (int(at.Weekday())+6)%7 + 1,
	} {
		if out[key], err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("fact %s: %w", key, err)
		}
	}
	return out, nil
}

// Replicas is how many executions of doc must agree, at least 1: what it asks for, and what the policy demands of every job.
func Replicas(doc *manifest.Job, policy *manifest.Policy) int {
	return max(doc.Spec.Replicas, policy.Spec.Validation.MinReplicas, 1)
}

// Placed returns what the placement constraints of doc have against a node with these facts, in the order of the document.
func Placed(doc *manifest.Job, facts Facts) []Reason {
	var out []Reason
	for i, c := range doc.Spec.Placement.Constraints {
		if r, ok := facts.unmet(c); ok {
			r.Field = fmt.Sprintf("spec.placement.constraints[%d]", i)
			out = append(out, r)
		}
	}
	return out
}

// Conditions returns which of the policy's conditions that concern doc do not hold at a time, with the facts about the job itself
// (Own), those of the policy, and then the given ones.
func Conditions(policy *manifest.Policy, doc *manifest.Job, at time.Time, facts Facts) []Reason {
	var out []Reason
	var all *Facts // made when a condition concerns the job
	for i, c := range policy.Spec.Conditions {
		if !concerns(&c, doc) {
			continue
		}
		if all == nil {
			own, err := Own(doc, policy, at)
			if err != nil {
				return []Reason{{"spec.resources", err.Error(), "mend the quantity"}}
			}
			all = &Facts{append([]map[string]manifest.Raw{own, policy.Spec.Facts}, facts.Known...), facts.Partial}
		}
		for k, require := range c.Require {
			r, unmet := all.unmet(require)
			if !unmet {
				continue
			}
			r.Field = "metadata"
			r.Msg = fmt.Sprintf("condition %d of policy %s (%q): %s", i+1, policy.Metadata.Name, c.Reason, r.Msg)
			r.Cure = fmt.Sprintf("%s, or change spec.conditions[%d].require[%d] of the policy", r.Cure, i, k)
			out = append(out, r)
		}
	}
	return out
}

// concerns reports whether a condition speaks of doc: all its lists that are not empty have something that matches.
func concerns(c *manifest.PolicyCondition, doc *manifest.Job) bool {
	matches := func(patterns []string, text string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return glob(p, text) })
	}
	return matches(c.Owners, doc.Metadata.Owner) && matchesLocation(c.Images, doc.Spec.Image.Location) &&
		(len(c.Runtimes) == 0 || slices.Contains(c.Runtimes, doc.Spec.Runtime)) &&
		(len(c.Capabilities) == 0 || slices.ContainsFunc(Capabilities(doc), func(asked Capability) bool {
			return slices.ContainsFunc(c.Capabilities, func(p string) bool { return covers(p, asked.Text) })
		}))
}

func matchesLocation(patterns []string, location string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return manifest.Matches(p, location) })
}

// unmet compares one fact; true: the constraint does not hold, for that reason.
func (f Facts) unmet(c manifest.Constraint) (Reason, bool) {
	raw, ok := f.get(c.Key)
	if !ok {
		if f.Partial {
			return Reason{}, false
		}
		return Reason{
			Msg:  fmt.Sprintf("this node does not know %q", c.Key),
			Cure: "send it to a node that knows this fact, or add it to facts in the policy",
		}, true
	}
	fact, errFact := decodeFact(raw)
	value, errValue := decodeFact(c.Value)
	if errFact != nil || errValue != nil {
		return Reason{Msg: fmt.Sprintf("%q cannot be compared", c.Key), Cure: "compare numbers, strings and booleans"}, true
	}
	holds, typed := compare(c.Op, fact, value)
	switch {
	case !typed:
		return Reason{
			Msg:  fmt.Sprintf("%s is %s, which cannot be compared by %s with %s", c.Key, show(raw), c.Op, show(c.Value)),
			Cure: "compare it with a value of its own type",
		}, true
	case !holds:
		return Reason{
			Msg:  fmt.Sprintf("%s is %s, but must be %s %s", c.Key, show(raw), c.Op, show(c.Value)),
			Cure: fmt.Sprintf("send it to a node where %s %s %s, or ask again when that holds here", c.Key, c.Op, show(c.Value)),
		}, true
	}
	return Reason{}, false
}

// decodeFact returns a float64, string, bool, or a []any of those.
func decodeFact(raw manifest.Raw) (any, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	for _, e := range list {
		switch e.(type) {
		case float64, string, bool:
		default:
			return nil, fmt.Errorf("a value of type %T", e)
		}
	}
	return v, nil
}

// compare tells whether fact op value holds. typed is false if values of these types cannot be compared so.
func compare(op manifest.Operator, fact, value any) (holds, typed bool) {
	facts, many := fact.([]any)
	if !many {
		facts = []any{fact}
	}
	switch op {
	case manifest.OpEqual, manifest.OpNotEqual:
		value = []any{value}
	case manifest.OpIn, manifest.OpNotIn:
	default:
		a, okA := fact.(float64)
		b, okB := value.(float64)
		return okA && okB && ordered(op, a, b), okA && okB
	}
	among, ok := value.([]any)
	if !ok || !alike(facts, among) {
		return false, false
	}
	found := slices.ContainsFunc(facts, func(f any) bool { return slices.Contains(among, f) })
	return found == (op == manifest.OpEqual || op == manifest.OpIn), true
}

func ordered(op manifest.Operator, a, b float64) bool {
	switch op {
	case manifest.OpLess:
		return a < b
	case manifest.OpLessEqual:
		return a <= b
	case manifest.OpGreater:
		return a > b
	case manifest.OpGreaterEqual:
		return a >= b
	}
	return false
}

// alike reports whether every fact has the type of some value: else it is compared with what it can never be.
func alike(facts, among []any) bool {
	for _, f := range facts {
		if !slices.ContainsFunc(among, func(v any) bool { return sameType(f, v) }) {
			return false
		}
	}
	return true
}

func sameType(a, b any) bool {
	switch a.(type) {
	case float64:
		_, ok := b.(float64)
		return ok
	case string:
		_, ok := b.(string)
		return ok
	case bool:
		_, ok := b.(bool)
		return ok
	}
	return false
}

// show keeps a value of a document, which is JSON and so quotes its strings itself, to a readable length.
func show(raw manifest.Raw) string {
	const most = 100
	if len(raw) <= most {
		return string(raw)
	}
	return strings.ToValidUTF8(string(raw[:most]), "") + "…"
}
