package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// TrustRoot says who may sign what: principals and their keys, and for each role how many of them must agree.
// It is the one document a verifier is given by hand; quorum evaluates it. A new version counts only if the governance
// role of the old version and that of the new one both signed it. metadata.expires is required.
type TrustRoot struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   Metadata      `json:"metadata"`
	Spec       TrustRootSpec `json:"spec"`
	Signatures []Signature   `json:"signatures,omitempty"`
}

// TrustRootSpec is the body of a TrustRoot.
type TrustRootSpec struct {
	// Version counts the versions of this trust root: 1 for the first, and exactly one more for each that follows.
	Version int64 `json:"version" schema:"min=1"`
	// OfflineGrace is for how long after metadata.expires a node that cannot fetch a newer root may go on with what its
	// operator allows offline. Empty: not at all. Governance never has a grace.
	OfflineGrace Duration `json:"offlineGrace,omitempty" example:"72h"`
	// Principals are who can sign: people, machines, organisations.
	Principals []Principal `json:"principals"`
	// Groups are named k-of-n sets that roles and other groups may list as members.
	Groups map[string]TrustGroup `json:"groups,omitempty" schema:"keys=name"`
	// Roles say who must agree to what: job, policy, playbook, governance, builder, rebuilder, peer.
	// governance is required; a role that is missing can sign nothing.
	Roles map[string]TrustGroup `json:"roles"`
	// Revocations take keys or principals out, from a moment on.
	Revocations []Revocation `json:"revocations,omitempty"`
}

// Principal is one who can sign. However many keys it has, it counts once.
type Principal struct {
	// Name names the principal in groups and roles. It is unique among principals and groups.
	Name string `json:"name" schema:"pattern=name" example:"alice"`
	// Operator is who runs the principal, such as an organisation or a data centre. Principals of one operator can fail,
	// or be subverted, together, so what asks for independence counts operators. Empty: the principal is its own operator.
	Operator string `json:"operator,omitempty" schema:"pattern=name" example:"example.org"`
	// Keys are the principal's public keys: "did:key:z…" (Ed25519, P-256 or ML-DSA-65) or "openpgp:FINGERPRINT"
	// (40 upper-case hexadecimal digits). No key may belong to two principals.
	Keys []string `json:"keys" schema:"pattern=identity"`
	// Require is how many of the keys must have signed: "any" (one is enough; what empty means) or "all" (every one:
	// a hybrid, such as an Ed25519 key together with an ML-DSA-65 key).
	Require string `json:"require,omitempty" schema:"enum=any|all"`
	// Certificates holds the OpenPGP certificate (ASCII-armoured public key block) of each OpenPGP key, by the key's name.
	Certificates map[string]string `json:"certificates,omitempty"`
}

// TrustGroup is a k-of-n set. Members may be groups again. No principal may be reached twice from one role.
type TrustGroup struct {
	// Threshold is how many members must agree, at least 1.
	Threshold int `json:"threshold" schema:"min=1"`
	// Operators is how many distinct operators there must be among the principals that agreed. Zero: no demand.
	Operators int `json:"operators,omitempty" schema:"min=0"`
	// Of are the members: names of principals or of groups.
	Of []string `json:"of" schema:"pattern=name"`
}

// Revocation takes one key or one principal out. Exactly one of Key and Principal is set. Signatures that a ledger proves
// older than every bound given stay valid; without a bound, none does.
type Revocation struct {
	// Key is the revoked public key, as in a principal's keys.
	Key string `json:"key,omitempty" schema:"pattern=identity"`
	// Principal is the name of the revoked principal: all its keys.
	Principal string `json:"principal,omitempty" schema:"pattern=name"`
	// Since is the time (RFC 3339, UTC) from which signatures no longer count. Empty: no bound by time.
	Since string `json:"since,omitempty" schema:"pattern=time" example:"2026-01-31T12:00:00Z"`
	// SinceIndex is the ledger index of the first entry that no longer counts. Absent: no bound by index.
	SinceIndex *int64 `json:"sinceIndex,omitempty" schema:"min=0"`
	// Reason says why, for people.
	Reason string `json:"reason,omitempty" schema:"maxLen=1024"`
}

// The roles of a trust root.
const (
	RoleJob        = "job"        // issues jobs
	RolePolicy     = "policy"     // issues policies
	RolePlaybook   = "playbook"   // issues playbooks
	RoleGovernance = "governance" // changes the trust root itself
	RoleBuilder    = "builder"    // makes artifacts
	RoleRebuilder  = "rebuilder"  // makes them again, independently
	RolePeer       = "peer"       // runs a node
)

// The values of Principal.Require.
const (
	RequireAny = "any"
	RequireAll = "all"
)

// Limits of a trust root, which keep every evaluation cheap.
const (
	MaxPrincipals       = 256
	MaxKeysPerPrincipal = 16
	MaxTrustGroups      = 256
	MaxGroupMembers     = 256
	MaxRevocations      = 1024
)

// Roles lists the roles there are, sorted.
func Roles() []string {
	return []string{RoleBuilder, RoleGovernance, RoleJob, RolePeer, RolePlaybook, RolePolicy, RoleRebuilder}
}

// DocumentKind returns "TrustRoot".
func (*TrustRoot) DocumentKind() string { return "TrustRoot" }

// Head returns the document's metadata.
func (r *TrustRoot) Head() *Metadata { return &r.Metadata }

// Expiry returns the time of metadata.expires, from which on the root no longer counts.
func (r *TrustRoot) Expiry() (time.Time, error) { return parseInstant(r.Metadata.Expires) }

// SinceTime returns the time bound of the revocation; ok is false if it has none.
func (v *Revocation) SinceTime() (t time.Time, ok bool, err error) {
	if v.Since == "" {
		return time.Time{}, false, nil
	}
	t, err = parseInstant(v.Since)
	return t, err == nil, err
}

// Validate checks everything that needs no key to be parsed: names, references, and that no key or member is named twice.
// quorum.Compile parses the keys and checks that every threshold can be reached.
func (r *TrustRoot) Validate() error { return validate(r) }

func (r *TrustRoot) related(p *problems) {
	if r.Metadata.Expires == "" {
		p.add("metadata.expires", "such as expires: 2027-01-31T12:00:00Z", "missing; a trust root that never expires could be kept back for ever")
	}
	tooMany(p, "spec.principals", len(r.Spec.Principals), MaxPrincipals)
	tooMany(p, "spec.groups", len(r.Spec.Groups), MaxTrustGroups)
	owner := map[string]string{} // of each key, its principal
	kind := map[string]string{}  // of each name, what it names
	for i := range r.Spec.Principals {
		r.Spec.Principals[i].relate(p, fmt.Sprintf("spec.principals[%d]", i), owner, kind)
	}
	r.relateGroups(p, kind)
	for i, v := range r.Spec.Revocations {
		v.relate(p, fmt.Sprintf("spec.revocations[%d]", i), owner, kind)
	}
}

func tooMany(p *problems, path string, n, most int) {
	if n > most {
		p.add(path, "", "%d; at most %d are allowed", n, most)
	}
}

// relate checks one principal, and enters its keys into owner and its name into kind.
func (pr *Principal) relate(p *problems, at string, owner, kind map[string]string) {
	if kind[pr.Name] != "" {
		p.add(at+".name", "", "two principals are named %q", pr.Name)
	}
	kind[pr.Name] = "principal"
	tooMany(p, at+".keys", len(pr.Keys), MaxKeysPerPrincipal)
	for i, key := range pr.Keys {
		field := fmt.Sprintf("%s.keys[%d]", at, i)
		switch other, taken := owner[key]; {
		case strings.HasPrefix(key, "sha256:"):
			p.add(field, "write the key itself, as did:key:z…", "%s is a hash of a key", key)
		case taken && other == pr.Name:
			p.add(field, "", "%s is listed twice", shortKey(key))
		case taken:
			p.add(field, "a key belongs to one principal only, or one signer could count twice", "%s belongs to %s already", shortKey(key), other)
		case openPGPName().MatchString(key) && pr.Certificates[key] == "":
			p.add(field, "put the output of gpg --armor --export FINGERPRINT under certificates", "%s has no certificate", key)
		}
		owner[key] = pr.Name
	}
	for _, key := range slices.Sorted(maps.Keys(pr.Certificates)) {
		if !openPGPName().MatchString(key) || !slices.Contains(pr.Keys, key) {
			p.add(join(at+".certificates", key), "", "%q is not one of the principal's OpenPGP keys", shortKey(key))
		}
	}
}

// relateGroups checks groups and roles, and enters the groups' names into kind.
func (r *TrustRoot) relateGroups(p *problems, kind map[string]string) {
	groups := slices.Sorted(maps.Keys(r.Spec.Groups))
	for _, name := range groups {
		if kind[name] != "" {
			p.add(join("spec.groups", name), "", "a principal is named %q, too", name)
		}
		kind[name] = "group"
	}
	for _, name := range groups {
		r.Spec.Groups[name].relate(p, join("spec.groups", name), kind)
	}
	for _, role := range slices.Sorted(maps.Keys(r.Spec.Roles)) {
		at := join("spec.roles", role)
		if !slices.Contains(Roles(), role) {
			p.add(at, didYouMean(role, Roles()), "%q is no role", role)
			continue
		}
		r.Spec.Roles[role].relate(p, at, kind)
	}
	if _, ok := r.Spec.Roles[RoleGovernance]; !ok {
		p.add("spec.roles", "name who may change the trust root: governance: {threshold: 1, of: [NAME]}", "the role governance is missing")
	}
}

func (g TrustGroup) relate(p *problems, at string, kind map[string]string) {
	tooMany(p, at+".of", len(g.Of), MaxGroupMembers)
	if n := len(g.Of); g.Threshold > n {
		p.add(at+".threshold", "", "%d of %d members can never agree", g.Threshold, n)
	}
	for i, m := range g.Of {
		field := fmt.Sprintf("%s.of[%d]", at, i)
		if kind[m] == "" {
			p.add(field, didYouMean(m, slices.Collect(maps.Keys(kind))), "%q is neither a principal nor a group", m)
		}
		if slices.Contains(g.Of[:i], m) {
			p.add(field, "", "%s is listed twice", m)
		}
	}
}

func (v *Revocation) relate(p *problems, at string, owner, kind map[string]string) {
	switch {
	case (v.Key == "") == (v.Principal == ""):
		p.add(at, "", "exactly one of key and principal is set")
	case v.Key != "" && owner[v.Key] == "":
		p.add(at+".key", "check the spelling: a revocation that matches nothing protects nobody", "no principal has %q", shortKey(v.Key))
	case v.Principal != "" && kind[v.Principal] != "principal":
		p.add(at+".principal", "check the spelling: a revocation that matches nothing protects nobody", "there is no principal %q", v.Principal)
	}
	if _, _, err := v.SinceTime(); err != nil {
		p.add(at+".since", "", "%q is no time of the calendar", v.Since)
	}
}

var openPGPName = compiled(`^openpgp:[0-9A-F]{40}$`)

// parseInstant reads RFC 3339 in UTC to the second, in the one spelling there is for each instant.
func parseInstant(s string) (time.Time, error) {
	t, err := time.Parse("2006-01-02T15:04:05Z", s)
	if err != nil || t.Format(time.RFC3339) != s {
		return time.Time{}, fmt.Errorf("%q is no time; it looks like 2026-01-31T12:00:00Z", s)
	}
	return t, nil
}

// shortKey keeps a key readable: an ML-DSA-65 did:key has 2,678 characters.
func shortKey(key string) string {
	if len(key) <= 64 {
		return key
	}
	return key[:24] + "…" + key[len(key)-8:]
}
