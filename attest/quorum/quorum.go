// Package quorum decides whether enough of the right people signed.
//
// It is given a trust root, the keys whose signatures verified, and the time; it returns a decision with reasons a person
// understands. It is pure: the same input gives the same decision, byte for byte, on every node. It counts principals, each
// at most once however many keys it has, and it knows a key by what it is, never by what a signature calls it. Another signature never
// turns a yes into a no. Update follows the rules of The Update Framework for changing the trust root itself.
//
// It verifies no signature but those under a new trust root, reads no clock, no file and no network.
package quorum

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// Options are what a decision may take into account beside the root. The zero value takes nothing.
type Options struct {
	// Logged tells at which position a ledger has the signature of a key, by the key's ID. The caller has verified the
	// proof. A signature of a revoked key counts only if its own position, not just its document's, is before the revocation.
	Logged map[digest.SHA256]Position
	// Revocations hold beside those in the root: such as the ones announced since it was made. The caller has verified them.
	Revocations []manifest.Revocation
	// Offline lets an expired root go on for its offlineGrace, in every role but governance.
	Offline bool
}

// Position is the place of an entry in a ledger, and the time by when it was there.
type Position struct {
	Index int64
	Time  time.Time
}

// Decision says whether a role agreed, and why.
type Decision struct {
	OK         bool
	Role       string
	Principals []string // who was counted, sorted
	Operators  []string // who runs them, sorted; a principal without operator is its own
	Graced     bool     // the root has expired, and only its offlineGrace let it count
	Reasons    []string // for people: what was found and what is missing, always in the same order
}

// String joins the reasons.
func (d Decision) String() string { return strings.Join(d.Reasons, "; ") }

// Evaluate compiles the root and decides. A root that does not compile agrees to nothing.
func Evaluate(root *manifest.TrustRoot, role string, verified []identity.PublicKey, at time.Time, opts Options) Decision {
	r, err := Compile(root)
	if err != nil {
		return Decision{Role: role, Reasons: []string{fmt.Sprintf("the trust root is unusable: %v", err)}}
	}
	return r.Evaluate(role, verified, at, opts)
}

// Evaluate decides whether the keys that verified satisfy a role at a time. Order and repetition of verified do not matter.
func (r *Root) Evaluate(role string, verified []identity.PublicKey, at time.Time, opts Options) Decision {
	e := newEvaluation(r, verified, at, opts)
	fresh := e.fresh(role)
	d := e.role(role)
	d.OK = d.OK && fresh
	d.Graced = fresh && !at.Before(r.expires)
	return d
}

// Signers returns the principals of a role who signed, each for itself: with any of its keys, or with every one if it is a
// hybrid, and none of them revoked. It does not ask whether they are enough, in the role or in a group of it: one voice may be too
// few to allow something, but it is enough to object. Sorted; the root's expiry does not matter.
func (r *Root) Signers(role string, verified []identity.PublicKey, at time.Time, opts Options) []string {
	g, ok := r.roles[role]
	if !ok {
		return nil
	}
	e := newEvaluation(r, verified, at, opts)
	var out []string
	for _, p := range g.all(nil) {
		if e.principal(p) {
			out = append(out, p.name)
		}
	}
	slices.Sort(out)
	return out
}

// evaluation is the work of one Evaluate.
type evaluation struct {
	root    *Root
	at      time.Time
	opts    Options
	signed  map[digest.SHA256]bool
	reasons []string
}

func newEvaluation(r *Root, verified []identity.PublicKey, at time.Time, opts Options) *evaluation {
	e := &evaluation{root: r, at: at, opts: opts, signed: map[digest.SHA256]bool{}}
	for _, k := range verified {
		if !k.IsZero() {
			e.signed[k.ID()] = true
		}
	}
	return e
}

func (e *evaluation) note(format string, args ...any) {
	e.reasons = append(e.reasons, fmt.Sprintf(format, args...))
}

// fresh reports whether the root may still be used for the role.
func (e *evaluation) fresh(role string) bool {
	if e.at.Before(e.root.expires) {
		return true
	}
	end := e.root.expires.Add(e.root.grace)
	switch {
	case !e.opts.Offline || e.root.grace == 0 || role == manifest.RoleGovernance:
		e.note("the trust root expired on %s", instant(e.root.expires))
	case !e.at.Before(end):
		e.note("the trust root expired on %s, and its offline grace ended on %s", instant(e.root.expires), instant(end))
	default:
		e.note("the trust root expired on %s; its offline grace lasts until %s", instant(e.root.expires), instant(end))
		return true
	}
	return false
}

// role evaluates the role without regard to expiry.
func (e *evaluation) role(role string) Decision {
	d := Decision{Role: role}
	g, ok := e.root.roles[role]
	if !ok {
		e.note("the trust root gives the role %s to no one", role)
		d.Reasons = e.reasons
		return d
	}
	t := e.group(g)
	e.strangers(g)
	d.OK = t.ok
	for _, p := range t.principals {
		d.Principals = append(d.Principals, p.name)
		d.Operators = append(d.Operators, p.operator)
	}
	slices.Sort(d.Principals)
	slices.Sort(d.Operators)
	d.Operators = slices.Compact(d.Operators)
	d.Reasons = e.reasons
	return d
}

// tally is what became of a group.
type tally struct {
	ok         bool
	principals []*principal // that count in it
}

// group asks each member, and notes the outcome after theirs.
func (e *evaluation) group(g *group) tally {
	var t tally
	var agreed []string
	operators := map[string]bool{}
	for _, m := range g.members {
		sub := e.member(m)
		if !sub.ok {
			continue
		}
		agreed = append(agreed, m.name())
		for _, p := range sub.principals {
			operators[p.operator] = true
		}
		t.principals = append(t.principals, sub.principals...)
	}
	t.ok = len(agreed) >= g.threshold && len(operators) >= g.operators
	who := "no one"
	if len(agreed) > 0 {
		who = strings.Join(agreed, ", ")
	}
	e.note("%s needs %d of %s: %d agreed (%s)", g.name, g.threshold, g.memberNames(), len(agreed), who)
	if g.operators > 0 {
		e.note("%s needs %d distinct operators: %d agreed", g.name, g.operators, len(operators))
	}
	return t
}

func (e *evaluation) member(m member) tally {
	if m.group != nil {
		return e.group(m.group)
	}
	return tally{ok: e.principal(m.principal), principals: []*principal{m.principal}}
}

// principal reports whether one agreed: with any of its keys, or with every one if it is a hybrid.
func (e *evaluation) principal(p *principal) bool {
	var missing []string
	n := 0
	for _, k := range p.keys {
		switch {
		case !e.signed[k.ID()]:
			missing = append(missing, k.Short())
		case !e.revoked(p, k):
			n++
		}
	}
	switch {
	case !p.all:
		return n > 0
	case n > 0 && len(missing) > 0:
		e.note("%s does not count: all its keys must sign, and %s did not", p.name, strings.Join(missing, ", "))
	case n > 0 && n < len(p.keys):
		e.note("%s does not count: all its keys must sign, and some are revoked", p.name)
	}
	return n == len(p.keys)
}

// revoked reports whether the signature of p's key k falls under a revocation, and notes why or why not.
func (e *evaluation) revoked(p *principal, k identity.PublicKey) bool {
	pos, logged := e.opts.Logged[k.ID()]
	for _, v := range slices.Concat(e.root.revocations, e.extra()) {
		if !v.matches(p, k) || !v.begun(e.at) {
			continue
		}
		if logged && v.spares(pos) {
			e.note("%s: %s is revoked%s, but a ledger has this signature from before", p.name, k.Short(), v.why())
			continue
		}
		e.note("%s: the signature of %s does not count: it is revoked%s", p.name, k.Short(), v.why())
		return true
	}
	return false
}

// extra returns the revocations of the options; one that cannot be read revokes without bound, as the safer reading.
func (e *evaluation) extra() []revocation {
	out := make([]revocation, 0, len(e.opts.Revocations))
	for _, v := range e.opts.Revocations {
		out = append(out, newRevocation(v))
	}
	return out
}

// strangers notes the signatures that count for nothing because their keys are not in the role.
func (e *evaluation) strangers(g *group) {
	known := map[digest.SHA256]bool{}
	for _, k := range g.keys(nil) {
		known[k.ID()] = true
	}
	n := 0
	for id := range e.signed {
		if !known[id] {
			n++
		}
	}
	if n > 0 {
		e.note("%d more signed who are not in the role %s", n, g.name)
	}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
