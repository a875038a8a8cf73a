package attest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
)

type raw = json.RawMessage

// Trust is a trust root, checked and ready to be asked who signed something. It is immutable and safe for
// concurrent use.
type Trust struct {
	root   *quorum.Root
	id     digest.SHA256    // document id
	owners map[string]owner // by the name of each key
}

// owner is who owns a key.
type owner struct{ principal, operator string }

// NewTrust compiles a trust root, which the caller has verified: see quorum.Update and quorum.Verify.
func NewTrust(root *manifest.TrustRoot) (*Trust, error) {
	compiled, err := quorum.Compile(root)
	if err != nil {
		return nil, err
	}
	id, err := manifest.ID(root)
	if err != nil {
		return nil, err
	}
	t := &Trust{root: compiled, id: id, owners: map[string]owner{}}
	for _, p := range root.Spec.Principals {
		for _, key := range p.Keys {
			t.owners[key] = owner{p.Name, cmp.Or(p.Operator, p.Name)}
		}
	}
	return t, nil
}

// Root returns the compiled trust root.
func (t *Trust) Root() *quorum.Root { return t.root }

// ID returns the document id of the trust root.
func (t *Trust) ID() digest.SHA256 { return t.id }

// trust asks a Trust at one time, about the roles of one verification.
type trust struct {
	*Trust
	at        time.Time
	options   quorum.Options
	roles     []string             // whose members count at all, sorted
	keys      []identity.PublicKey // of the members of those roles
	operators map[string]string    // by principal
	logged    map[digest.SHA256]map[digest.SHA256]quorum.Position
	budget    *dsse.Budget // of all signatures together
}

// signatureBudget is what the signatures of one receipt may cost together, in units of dsse.Budget: about one second.
// Ten thousand honest signatures over short statements fit, or 256 builders of 5,000 dependencies.
const signatureBudget = 16384

// newTrust prepares the keys of every role that in counts.
func newTrust(in VerifyInput) trust {
	t := trust{Trust: in.Trust, at: in.At, options: in.Options, operators: map[string]string{}, logged: in.Logged, budget: dsse.NewBudget(signatureBudget)}
	for _, o := range t.owners {
		t.operators[o.principal] = o.operator
	}
	t.roles = []string{manifest.RoleBuilder, manifest.RoleRebuilder, in.Role}
	if in.Policy != nil {
		for _, rule := range in.Policy.Spec.Attestations {
			t.roles = append(t.roles, rule.Role)
		}
	}
	slices.Sort(t.roles)
	t.roles = slices.Compact(t.roles)
	for _, role := range t.roles {
		for _, key := range t.root.KeysAt(role, t.at) {
			if !slices.ContainsFunc(t.keys, key.Equal) {
				t.keys = append(t.keys, key)
			}
		}
	}
	return t
}

// decide asks whether keys that signed the statement with that id satisfy a role.
func (t trust) decide(role string, id digest.SHA256, keys []identity.PublicKey) quorum.Decision {
	return t.root.Evaluate(role, keys, t.at, t.optionsOf(id))
}

// optionsOf returns the options for one statement: where a ledger has the signatures of one says nothing of another.
func (t trust) optionsOf(id digest.SHA256) quorum.Options {
	options := t.options
	options.Logged = t.logged[id]
	return options
}

// check reports on the trust root itself.
func (t trust) check(r *Report, role string) {
	expires := formatTime(t.root.Expires())
	switch {
	case t.at.Before(t.root.Expires()):
		r.pass(CheckTrustRoot, "", "trust root %s, version %d, valid until %s", t.root.Name(), t.root.Version(), expires)
	case t.decide(role, digest.SHA256{}, nil).Graced:
		r.pass(CheckTrustRoot, "", "trust root %s, version %d, expired on %s, within its offline grace", t.root.Name(), t.root.Version(), expires)
	default:
		r.fail(ClassVerification, CheckTrustRoot, "", "install a newer trust root, signed by the governance of this one",
			"trust root %s, version %d, expired on %s", t.root.Name(), t.root.Version(), expires)
	}
}

// signers are those of the trust root who signed a statement.
type signers struct {
	id         digest.SHA256 // of the statement; zero if no key of the trust root signed it
	keys       []identity.PublicKey
	principals []string // sorted, each once, whatever number of keys it has
	roles      map[string][]string
	keysOf     map[string][]identity.PublicKey
}

func (s signers) String() string { return strings.Join(s.principals, ", ") }

// signed returns who signed a statement.
func (t trust) signed(g group) signers {
	s := signers{
		keys:   verifiedKeys(g.envelopes, t.keys, t.budget),
		roles:  map[string][]string{},
		keysOf: map[string][]identity.PublicKey{},
	}
	if len(s.keys) == 0 {
		return s
	}
	s.id = g.id
	options := t.optionsOf(s.id)
	for _, role := range t.roles {
		for _, p := range t.root.Signers(role, s.keys, t.at, options) {
			s.roles[p] = append(s.roles[p], role)
		}
	}
	s.principals = slices.Sorted(maps.Keys(s.roles))
	for _, p := range s.principals {
		for _, key := range s.keys {
			if t.owners[key.String()].principal == p {
				s.keysOf[p] = append(s.keysOf[p], key)
			}
		}
	}
	return s
}

// hints lists what the signatures of untrusted envelopes call themselves. It is unverified and for people only.
func hints(list []*dsse.Envelope) string {
	var ids []string
	for _, env := range list {
		for _, s := range env.Signatures {
			text := fmt.Sprintf("%q", shorten(s.KeyID, 100))
			if !slices.Contains(ids, text) && len(ids) < 5 {
				ids = append(ids, text)
			}
		}
	}
	if len(ids) == 0 {
		return "nothing: there are none"
	}
	return strings.Join(ids, ", ")
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
