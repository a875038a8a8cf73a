package quorum

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// MaxDepth is how many groups may be inside each other, the role included.
const MaxDepth = 8

// Root is a trust root that was checked and is ready to decide. It is immutable and safe for concurrent use.
type Root struct {
	name        string
	version     int64
	expires     time.Time
	grace       time.Duration
	principals  map[string]*principal
	roles       map[string]*group
	revocations []revocation
}

type principal struct {
	name     string
	operator string // its own name if the document gives none
	keys     []identity.PublicKey
	all      bool // a hybrid
}

// group is a role or a named group.
type group struct {
	name      string
	threshold int
	operators int
	members   []member
}

// member is one of the two.
type member struct {
	principal *principal
	group     *group
}

func (m member) name() string {
	if m.group != nil {
		return m.group.name
	}
	return m.principal.name
}

func (g *group) memberNames() string {
	names := make([]string, len(g.members))
	for i, m := range g.members {
		names[i] = m.name()
	}
	return strings.Join(names, ", ")
}

// keys appends all keys of the group's principals, in the order of the document.
func (g *group) keys(to []identity.PublicKey) []identity.PublicKey {
	for _, p := range g.all(nil) {
		to = append(to, p.keys...)
	}
	return to
}

// all appends the group's principals, in the order of the document.
func (g *group) all(to []*principal) []*principal {
	for _, m := range g.members {
		if m.group != nil {
			to = m.group.all(to)
		} else {
			to = append(to, m.principal)
		}
	}
	return to
}

// RootError says what makes a trust root unusable.
type RootError struct {
	Name string // of the trust root
	Err  error
}

func (e *RootError) Error() string { return fmt.Sprintf("trust root %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *RootError) Unwrap() error { return e.Err }

// Hint returns the way out, or "".
func (e *RootError) Hint() string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](e.Err); ok {
		return h.Hint()
	}
	return ""
}

// hintedError is an error whose cure is known.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Hint() string { return e.hint }

// Compile checks what Validate cannot: that the keys are good ones, that no key, under whatever name, belongs to two principals or twice to one,
// that groups have no cycle and no principal is reached twice from a role (it would count twice), and that every role can be
// satisfied, governance even without anyone who is revoked. It keeps no reference to the document.
func Compile(root *manifest.TrustRoot) (*Root, error) {
	r, err := compile(root)
	if err != nil {
		return nil, &RootError{Name: root.Metadata.Name, Err: err}
	}
	return r, nil
}

func compile(root *manifest.TrustRoot) (*Root, error) {
	if err := root.Validate(); err != nil {
		return nil, err
	}
	expires, err := root.Expiry()
	if err != nil {
		return nil, err
	}
	grace, err := root.Spec.OfflineGrace.Duration()
	if err != nil {
		return nil, err
	}
	r := &Root{
		name: root.Metadata.Name, version: root.Spec.Version, expires: expires, grace: grace,
		principals: map[string]*principal{}, roles: map[string]*group{},
	}
	if err := r.addPrincipals(root.Spec.Principals); err != nil {
		return nil, err
	}
	for _, v := range root.Spec.Revocations {
		r.revocations = append(r.revocations, newRevocation(v))
	}
	return r, r.addRoles(&root.Spec)
}

func (r *Root) addPrincipals(list []manifest.Principal) error {
	owner := map[digest.SHA256]string{} // of each bare key
	for i := range list {
		p, err := newPrincipal(&list[i])
		if err != nil {
			return fmt.Errorf("principal %s: %w", list[i].Name, err)
		}
		for _, k := range p.keys {
			for _, part := range k.Components() {
				if other, ok := owner[part]; ok {
					return &hintedError{
						fmt.Errorf("principal %s: key %s belongs to %s already", p.name, k.Short(), other),
						"a key belongs to one principal only, and is listed once, also when it has two names (a did:key and an OpenPGP key)",
					}
				}
			}
		}
		for _, k := range p.keys {
			for _, part := range k.Components() {
				if owner[part] == p.name {
					return fmt.Errorf("principal %s: key %s is there twice under different names", p.name, k.Short())
				}
				owner[part] = p.name
			}
		}
		r.principals[p.name] = p
	}
	return nil
}

func newPrincipal(doc *manifest.Principal) (*principal, error) {
	p := &principal{name: doc.Name, operator: doc.Operator, all: doc.Require == manifest.RequireAll}
	if p.operator == "" {
		p.operator = p.name
	}
	for _, name := range doc.Keys {
		k, err := parseKey(name, doc.Certificates)
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, k)
	}
	return p, nil
}

func parseKey(name string, certificates map[string]string) (identity.PublicKey, error) {
	cert, ok := certificates[name]
	if !ok {
		return identity.ParsePublicKey(name)
	}
	k, err := identity.ParseOpenPGP([]byte(cert))
	if err == nil && k.String() != name {
		err = fmt.Errorf("the certificate under %s is that of %s", name, k)
	}
	return k, err
}

func (r *Root) addRoles(spec *manifest.TrustRootSpec) error {
	for _, role := range manifest.Roles() {
		doc, ok := spec.Roles[role]
		if !ok {
			continue
		}
		b := builder{root: r, groups: spec.Groups, reached: map[string]bool{}}
		g, err := b.build(role, doc, nil)
		if err != nil {
			return fmt.Errorf("role %s: %w", role, err)
		}
		if err := g.satisfiable(nil); err != nil {
			return fmt.Errorf("role %s: %w", role, err)
		}
		r.roles[role] = g
	}
	if err := r.roles[manifest.RoleGovernance].satisfiable(r.canSign); err != nil {
		return &hintedError{
			fmt.Errorf("role %s: without those who are revoked, %w", manifest.RoleGovernance, err),
			"such a root could never be replaced: name others for governance before revoking these",
		}
	}
	return nil
}

// builder resolves the groups of one role.
type builder struct {
	root    *Root
	groups  map[string]manifest.TrustGroup
	reached map[string]bool // principals and groups that are in the role already
}

// build resolves doc; above are the names of the groups around it, outermost first.
func (b *builder) build(name string, doc manifest.TrustGroup, above []string) (*group, error) {
	above = append(slices.Clip(above), name)
	if len(above) > MaxDepth {
		return nil, fmt.Errorf("groups are nested more than %d deep: %s", MaxDepth, strings.Join(above, " > "))
	}
	g := &group{name: name, threshold: doc.Threshold, operators: doc.Operators}
	for _, of := range doc.Of {
		if slices.Contains(above[1:], of) {
			return nil, fmt.Errorf("group %s contains itself: %s > %s", of, strings.Join(above, " > "), of)
		}
		if b.reached[of] {
			return nil, &hintedError{
				fmt.Errorf("%s is in it twice, the second time through %s", of, strings.Join(above, " > ")),
				"whoever is in a role twice would count twice; make the groups of a role disjoint",
			}
		}
		b.reached[of] = true
		if p, ok := b.root.principals[of]; ok {
			g.members = append(g.members, member{principal: p})
			continue
		}
		sub, err := b.build(of, b.groups[of], above)
		if err != nil {
			return nil, err
		}
		g.members = append(g.members, member{group: sub})
	}
	return g, nil
}

// satisfiable returns an error unless the group can be reached by those who can sign. Without canSign everyone can, and
// every group inside must be satisfiable, too.
func (g *group) satisfiable(canSign func(*principal) bool) error {
	n := 0
	operators := map[string]bool{}
	for _, m := range g.members {
		who := []*principal{m.principal}
		if m.group != nil {
			if err := m.group.satisfiable(canSign); err != nil {
				if canSign == nil {
					return err
				}
				continue
			}
			who = m.group.all(nil)
		}
		who = slices.DeleteFunc(who, func(p *principal) bool { return canSign != nil && !canSign(p) })
		if len(who) > 0 {
			n++
		}
		for _, p := range who {
			operators[p.operator] = true
		}
	}
	switch {
	case n < g.threshold:
		return fmt.Errorf("%s can never reach its threshold: only %d of the %d members it needs can agree", g.name, n, g.threshold)
	case len(operators) < g.operators:
		return fmt.Errorf("%s can never have %d distinct operators: its members have %d", g.name, g.operators, len(operators))
	}
	return nil
}

// canSign reports whether p is able to sign something new that counts, now and later.
func (r *Root) canSign(p *principal) bool {
	good := 0
	for _, k := range p.keys {
		if !slices.ContainsFunc(r.revocations, func(v revocation) bool { return v.matches(p, k) }) {
			good++
		}
	}
	return good == len(p.keys) || good > 0 && !p.all
}

// Name returns the name of the trust root.
func (r *Root) Name() string { return r.name }

// Version returns the version of the trust root.
func (r *Root) Version() int64 { return r.version }

// Expires returns the time from which on the root no longer counts.
func (r *Root) Expires() time.Time { return r.expires }

// Keys returns the keys that may sign for a role, each once, in the order of the document: for dsse.Envelope.Verified.
// OpenPGP certificates are judged now; KeysAt gives another time.
func (r *Root) Keys(role string) []identity.PublicKey { return r.KeysAt(role, time.Time{}) }

// KeysAt returns the keys that may sign for a role, set to judge at a time whether an OpenPGP certificate has expired.
func (r *Root) KeysAt(role string, at time.Time) []identity.PublicKey {
	g, ok := r.roles[role]
	if !ok {
		return nil
	}
	keys := g.keys(nil)
	for i, k := range keys {
		keys[i] = k.At(at)
	}
	return keys
}
