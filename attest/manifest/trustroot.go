package manifest

import (
	"fmt"
	"maps"
	"regexp"
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
	Version int64 `json:"version"`
	// OfflineGrace is for how long after metadata.expires a node that cannot fetch a newer root may go on with what its
	// operator allows offline, as a Go duration such as "72h". Empty: not at all. Governance never has a grace.
	OfflineGrace string `json:"offlineGrace,omitempty"`
	// Principals are who can sign: people, machines, organisations.
	Principals []Principal `json:"principals"`
	// Groups are named k-of-n sets that roles and other groups may list as members.
	Groups map[string]TrustGroup `json:"groups,omitempty"`
	// Roles say who must agree to what: job, policy, playbook, governance, builder, rebuilder, peer.
	// governance is required; a role that is missing can sign nothing.
	Roles map[string]TrustGroup `json:"roles"`
	// Revocations take keys or principals out, from a moment on.
	Revocations []Revocation `json:"revocations,omitempty"`
}

// Principal is one who can sign. However many keys it has, it counts once.
type Principal struct {
	// Name names the principal in groups and roles. It is unique among principals and groups.
	Name string `json:"name"`
	// Operator is who runs the principal, such as an organisation or a data centre. Principals of one operator can fail,
	// or be subverted, together, so what asks for independence counts operators. Empty: the principal is its own operator.
	Operator string `json:"operator,omitempty"`
	// Keys are the principal's public keys: "did:key:z…" (Ed25519, P-256 or ML-DSA-65) or "openpgp:FINGERPRINT"
	// (40 upper-case hexadecimal digits). No key may belong to two principals.
	Keys []string `json:"keys"`
	// Require is how many of the keys must have signed: "any" (one is enough; what empty means) or "all" (every one:
	// a hybrid, such as an Ed25519 key together with an ML-DSA-65 key).
	Require string `json:"require,omitempty"`
	// Certificates holds the OpenPGP certificate (ASCII-armoured public key block) of each OpenPGP key, by the key's name.
	Certificates map[string]string `json:"certificates,omitempty"`
}

// TrustGroup is a k-of-n set. Members may be groups again. No principal may be reached twice from one role.
type TrustGroup struct {
	// Threshold is how many members must agree, at least 1.
	Threshold int `json:"threshold"`
	// Operators is how many distinct operators there must be among the principals that agreed. Zero: no demand.
	Operators int `json:"operators,omitempty"`
	// Of are the members: names of principals or of groups.
	Of []string `json:"of"`
}

// Revocation takes one key or one principal out. Exactly one of Key and Principal is set. Signatures that a ledger proves
// older than every bound given stay valid; without a bound, none does.
type Revocation struct {
	// Key is the revoked public key, as in a principal's keys.
	Key string `json:"key,omitempty"`
	// Principal is the name of the revoked principal: all its keys.
	Principal string `json:"principal,omitempty"`
	// Since is the time (RFC 3339, UTC) from which signatures no longer count. Empty: no bound by time.
	Since string `json:"since,omitempty"`
	// SinceIndex is the ledger index of the first entry that no longer counts. Absent: no bound by index.
	SinceIndex *int64 `json:"sinceIndex,omitempty"`
	// Reason says why, for people.
	Reason string `json:"reason,omitempty"`
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

// Expiry returns the time of metadata.expires, after which the root no longer counts.
func (r *TrustRoot) Expiry() (time.Time, error) {
	t, err := parseInstant(r.Metadata.Expires)
	if err != nil {
		return time.Time{}, fmt.Errorf("metadata.expires: %w", err)
	}
	return t, nil
}

// Grace returns the duration of spec.offlineGrace; zero if it is empty.
func (r *TrustRoot) Grace() (time.Duration, error) {
	if r.Spec.OfflineGrace == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(r.Spec.OfflineGrace)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("spec.offlineGrace: %q is no duration; it looks like \"72h\"", r.Spec.OfflineGrace)
	}
	return d, nil
}

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
func (r *TrustRoot) Validate() error {
	switch {
	case r.APIVersion != APIVersion:
		return fmt.Errorf("apiVersion: %q, not %q", r.APIVersion, APIVersion)
	case r.Kind != r.DocumentKind():
		return fmt.Errorf("kind: %q, not %q", r.Kind, r.DocumentKind())
	case r.Metadata.Name == "":
		return fmt.Errorf("metadata.name: missing")
	case r.Spec.Version < 1 || r.Spec.Version > 1<<53-1:
		return fmt.Errorf("spec.version: %d is not between 1 and 2^53-1", r.Spec.Version)
	case r.Metadata.Expires == "":
		return fmt.Errorf("metadata.expires: missing; a trust root that never expires could be frozen for ever")
	}
	if _, err := r.Expiry(); err != nil {
		return err
	}
	if _, err := r.Grace(); err != nil {
		return err
	}
	owner, err := r.validatePrincipals()
	if err != nil {
		return err
	}
	if err := r.validateGroups(); err != nil {
		return err
	}
	return r.validateRevocations(owner)
}

// validatePrincipals returns the owner of each key.
func (r *TrustRoot) validatePrincipals() (owner map[string]string, err error) {
	if n := len(r.Spec.Principals); n == 0 || n > MaxPrincipals {
		return nil, fmt.Errorf("spec.principals: %d; there are 1 to %d", n, MaxPrincipals)
	}
	owner = map[string]string{}
	names := map[string]bool{}
	for i, p := range r.Spec.Principals {
		at := fmt.Sprintf("spec.principals[%d]", i)
		if err := validTrustName(p.Name); err != nil {
			return nil, fmt.Errorf("%s.name: %w", at, err)
		}
		if names[p.Name] {
			return nil, fmt.Errorf("%s.name: two principals are named %q", at, p.Name)
		}
		names[p.Name] = true
		if err := p.validate(owner); err != nil {
			return nil, fmt.Errorf("%s (%s)%w", at, p.Name, err)
		}
	}
	return owner, nil
}

// validate checks one principal and enters its keys into owner. Its errors begin with the field, such as ".keys[0]: ".
func (p *Principal) validate(owner map[string]string) error {
	if p.Operator != "" {
		if err := validTrustName(p.Operator); err != nil {
			return fmt.Errorf(".operator: %w", err)
		}
	}
	switch p.Require {
	case "", RequireAny, RequireAll:
	default:
		return fmt.Errorf(".require: %q is neither %q nor %q", p.Require, RequireAny, RequireAll)
	}
	if n := len(p.Keys); n == 0 || n > MaxKeysPerPrincipal {
		return fmt.Errorf(".keys: %d; there are 1 to %d", n, MaxKeysPerPrincipal)
	}
	for i, key := range p.Keys {
		if !strings.HasPrefix(key, "did:key:z") && !openPGPName.MatchString(key) {
			return fmt.Errorf(".keys[%d]: %q is neither did:key:z… nor openpgp: and 40 upper-case hexadecimal digits", i, key)
		}
		if o, ok := owner[key]; ok {
			if o == p.Name {
				return fmt.Errorf(".keys[%d]: %s is listed twice", i, shortKey(key))
			}
			return fmt.Errorf(".keys[%d]: %s belongs to %s already; a key belongs to one principal only", i, shortKey(key), o)
		}
		owner[key] = p.Name
		if _, ok := p.Certificates[key]; !ok && openPGPName.MatchString(key) {
			return fmt.Errorf(".keys[%d]: the certificate of %s is missing from certificates", i, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Certificates)) {
		if !openPGPName.MatchString(key) || !slices.Contains(p.Keys, key) {
			return fmt.Errorf(".certificates: %q is not one of the principal's OpenPGP keys", key)
		}
	}
	return nil
}

func (r *TrustRoot) validateGroups() error {
	if n := len(r.Spec.Groups); n > MaxTrustGroups {
		return fmt.Errorf("spec.groups: %d; there are at most %d", n, MaxTrustGroups)
	}
	known := map[string]bool{}
	for _, p := range r.Spec.Principals {
		known[p.Name] = true
	}
	groups := slices.Sorted(maps.Keys(r.Spec.Groups))
	for _, name := range groups {
		if err := validTrustName(name); err != nil {
			return fmt.Errorf("spec.groups: %w", err)
		}
		if known[name] {
			return fmt.Errorf("spec.groups.%s: a principal has that name, too", name)
		}
	}
	for _, name := range groups {
		known[name] = true
	}
	for _, name := range groups {
		if err := r.Spec.Groups[name].validate(known); err != nil {
			return fmt.Errorf("spec.groups.%s%w", name, err)
		}
	}
	for _, role := range slices.Sorted(maps.Keys(r.Spec.Roles)) {
		if !slices.Contains(Roles(), role) {
			return fmt.Errorf("spec.roles: %q is no role; there are %s", role, strings.Join(Roles(), ", "))
		}
		if err := r.Spec.Roles[role].validate(known); err != nil {
			return fmt.Errorf("spec.roles.%s%w", role, err)
		}
	}
	if _, ok := r.Spec.Roles[RoleGovernance]; !ok {
		return fmt.Errorf("spec.roles.%s: missing; without it the trust root could never be changed", RoleGovernance)
	}
	return nil
}

func (g TrustGroup) validate(known map[string]bool) error {
	n := len(g.Of)
	switch {
	case n == 0 || n > MaxGroupMembers:
		return fmt.Errorf(".of: %d members; there are 1 to %d", n, MaxGroupMembers)
	case g.Threshold < 1 || g.Threshold > n:
		return fmt.Errorf(".threshold: %d is not between 1 and the %d members there are", g.Threshold, n)
	case g.Operators < 0:
		return fmt.Errorf(".operators: %d is negative", g.Operators)
	}
	for i, m := range g.Of {
		if !known[m] {
			return fmt.Errorf(".of[%d]: %q is neither a principal nor a group", i, m)
		}
		if slices.Contains(g.Of[:i], m) {
			return fmt.Errorf(".of[%d]: %s is listed twice", i, m)
		}
	}
	return nil
}

func (r *TrustRoot) validateRevocations(owner map[string]string) error {
	if n := len(r.Spec.Revocations); n > MaxRevocations {
		return fmt.Errorf("spec.revocations: %d; there are at most %d", n, MaxRevocations)
	}
	for i, v := range r.Spec.Revocations {
		at := fmt.Sprintf("spec.revocations[%d]", i)
		isPrincipal := slices.ContainsFunc(r.Spec.Principals, func(p Principal) bool { return p.Name == v.Principal })
		switch {
		case (v.Key == "") == (v.Principal == ""):
			return fmt.Errorf("%s: exactly one of key and principal is set", at)
		case v.Key != "" && owner[v.Key] == "":
			return fmt.Errorf("%s.key: no principal has %q; check the spelling", at, v.Key)
		case v.Principal != "" && !isPrincipal:
			return fmt.Errorf("%s.principal: there is no %q; check the spelling", at, v.Principal)
		case v.SinceIndex != nil && *v.SinceIndex < 0:
			return fmt.Errorf("%s.sinceIndex: %d is negative", at, *v.SinceIndex)
		}
		if _, _, err := v.SinceTime(); err != nil {
			return fmt.Errorf("%s.since: %w", at, err)
		}
	}
	return nil
}

var (
	openPGPName = regexp.MustCompile(`^openpgp:[0-9A-F]{40}$`)
	trustName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
)

func validTrustName(s string) error {
	if !trustName.MatchString(s) {
		return fmt.Errorf("%q is not made of 1 to 63 lower-case letters, digits, '.', '_' and '-'", s)
	}
	return nil
}

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
