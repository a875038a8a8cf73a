package quorum

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"github.com/google/go-cmp/cmp"
)

// made remembers the keys of key: making them is what costs most here.
var made sync.Map

// key returns a key that is always the same for a name and algorithm.
func key(t testing.TB, alg identity.Algorithm, name string) *identity.Key {
	t.Helper()
	if k, ok := made.Load(string(alg) + name); ok {
		return k.(*identity.Key)
	}
	seed := digest.Of([]byte(name))
	k, err := identity.Generate(alg, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	made.Store(string(alg)+name, k)
	return k
}

func ed(t testing.TB, name string) *identity.Key { return key(t, identity.Ed25519, name) }

func pub(t testing.TB, names ...string) []identity.PublicKey {
	var out []identity.PublicKey
	for _, n := range names {
		out = append(out, ed(t, n).Public())
	}
	return out
}

// day returns a day of January 2026.
func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }

func person(t testing.TB, name, operator string) manifest.Principal {
	return manifest.Principal{Name: name, Operator: operator, Keys: []string{ed(t, name).Public().String()}}
}

func of(threshold int, names ...string) manifest.TrustGroup {
	return manifest.TrustGroup{Threshold: threshold, Of: names}
}

// rootFor returns a root with seven principals; role job is what the test is about.
func rootFor(t testing.TB, job manifest.TrustGroup) *manifest.TrustRoot {
	return &manifest.TrustRoot{
		APIVersion: manifest.APIVersion,
		Kind:       "TrustRoot",
		Metadata:   manifest.Metadata{Name: "test", Expires: "2026-02-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{
			Version:      1,
			OfflineGrace: "72h",
			Principals: []manifest.Principal{
				person(t, "alice", "north"), person(t, "bob", "north"), person(t, "carol", "south"),
				person(t, "dave", ""), person(t, "erin", "west"),
				{Name: "hybrid", Require: manifest.RequireAll, Keys: []string{
					ed(t, "hybrid").Public().String(), key(t, identity.MLDSA65, "hybrid").Public().String(),
				}},
				{Name: "many", Keys: []string{
					ed(t, "many1").Public().String(), ed(t, "many2").Public().String(), key(t, identity.ECDSAP256, "many3").Public().String(),
				}},
			},
			Groups: map[string]manifest.TrustGroup{
				"left":  of(2, "alice", "bob", "carol"),
				"right": of(1, "dave", "erin"),
				"both":  of(2, "left", "right"),
			},
			Roles: map[string]manifest.TrustGroup{
				manifest.RoleGovernance: of(2, "alice", "bob", "carol"),
				manifest.RoleJob:        job,
			},
		},
	}
}

func TestEvaluate(t *testing.T) {
	hybridEd := ed(t, "hybrid").Public()
	hybridPQ := key(t, identity.MLDSA65, "hybrid").Public()
	for _, c := range []struct {
		name     string
		job      manifest.TrustGroup
		verified []identity.PublicKey
		want     Decision
	}{
		{"nobody", of(1, "alice"), nil, Decision{
			Reasons: []string{"job needs 1 of alice: 0 agreed (no one)"},
		}},
		{"enough", of(2, "alice", "bob", "carol"), pub(t, "carol", "alice"), Decision{
			OK: true, Principals: []string{"alice", "carol"}, Operators: []string{"north", "south"},
			Reasons: []string{"job needs 2 of alice, bob, carol: 2 agreed (alice, carol)"},
		}},
		{"one key twice", of(2, "alice", "bob"), pub(t, "alice", "alice"), Decision{
			Principals: []string{"alice"}, Operators: []string{"north"},
			Reasons: []string{"job needs 2 of alice, bob: 1 agreed (alice)"},
		}},
		{"two keys of one principal", of(2, "many", "alice"), pub(t, "many1", "many2"), Decision{
			Principals: []string{"many"}, Operators: []string{"many"},
			Reasons: []string{"job needs 2 of many, alice: 1 agreed (many)"},
		}},
		{"strangers", of(1, "alice"), pub(t, "mallory", "bob"), Decision{
			Reasons: []string{"job needs 1 of alice: 0 agreed (no one)", "2 more signed who are not in the role job"},
		}},
		{"hybrid", of(1, "hybrid"), []identity.PublicKey{hybridPQ, hybridEd}, Decision{
			OK: true, Principals: []string{"hybrid"}, Operators: []string{"hybrid"},
			Reasons: []string{"job needs 1 of hybrid: 1 agreed (hybrid)"},
		}},
		{"hybrid stripped to its classical half", of(1, "hybrid"), []identity.PublicKey{hybridEd}, Decision{
			Reasons: []string{
				"hybrid does not count: all its keys must sign, and " + hybridPQ.Short() + " did not",
				"job needs 1 of hybrid: 0 agreed (no one)",
			},
		}},
		{"hybrid stripped to its other half", of(1, "hybrid"), []identity.PublicKey{hybridPQ, hybridPQ}, Decision{
			Reasons: []string{
				"hybrid does not count: all its keys must sign, and " + hybridEd.Short() + " did not",
				"job needs 1 of hybrid: 0 agreed (no one)",
			},
		}},
		{"nested", of(1, "both"), pub(t, "alice", "carol", "dave"), Decision{
			OK: true, Principals: []string{"alice", "carol", "dave"}, Operators: []string{"dave", "north", "south"},
			Reasons: []string{
				"left needs 2 of alice, bob, carol: 2 agreed (alice, carol)",
				"right needs 1 of dave, erin: 1 agreed (dave)",
				"both needs 2 of left, right: 2 agreed (left, right)",
				"job needs 1 of both: 1 agreed (both)",
			},
		}},
		{"nested, one group short", of(1, "both"), pub(t, "alice", "dave", "erin"), Decision{
			Reasons: []string{
				"left needs 2 of alice, bob, carol: 1 agreed (alice)",
				"right needs 1 of dave, erin: 2 agreed (dave, erin)",
				"both needs 2 of left, right: 1 agreed (right)",
				"job needs 1 of both: 0 agreed (no one)",
			},
		}},
		{"operators", manifest.TrustGroup{Threshold: 2, Operators: 2, Of: []string{"alice", "bob", "carol"}}, pub(t, "alice", "bob"), Decision{
			Principals: []string{"alice", "bob"}, Operators: []string{"north"},
			Reasons: []string{
				"job needs 2 of alice, bob, carol: 2 agreed (alice, bob)",
				"job needs 2 distinct operators: 1 agreed",
			},
		}},
		{"operators enough", manifest.TrustGroup{Threshold: 2, Operators: 2, Of: []string{"alice", "bob", "carol"}}, pub(t, "alice", "bob", "carol"), Decision{
			OK: true, Principals: []string{"alice", "bob", "carol"}, Operators: []string{"north", "south"},
			Reasons: []string{
				"job needs 2 of alice, bob, carol: 3 agreed (alice, bob, carol)",
				"job needs 2 distinct operators: 2 agreed",
			},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Role = manifest.RoleJob
			root := rootFor(t, c.job)
			got := Evaluate(root, manifest.RoleJob, c.verified, day(10), Options{})
			if !c.want.OK && strings.HasPrefix(c.name, "nested") {
				c.want.Principals = got.Principals // who counted in a group that failed is of no interest
				c.want.Operators = got.Operators
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
			slices.Reverse(c.verified)
			again := Evaluate(root, manifest.RoleJob, append(c.verified, identity.PublicKey{}), day(10), Options{})
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("the order of signatures matters (-first +reversed):\n%s", diff)
			}
		})
	}
}

func TestRolesAndTime(t *testing.T) {
	everyone := pub(t, "alice", "bob", "carol")
	for _, c := range []struct {
		name    string
		role    string
		at      time.Time
		offline bool
		ok      bool
		graced  bool
		want    string
	}{
		{"in time", "job", day(31), false, true, false, "job needs 1 of alice"},
		{"role given to no one", "builder", day(10), false, false, false, "the trust root gives the role builder to no one"},
		{"unknown role", "king", day(10), false, false, false, "the trust root gives the role king to no one"},
		{"a second before expiry", "job", day(32).Add(-time.Second), false, true, false, "job needs"},
		{"at expiry", "job", day(32), false, false, false, "the trust root expired on 2026-02-01T00:00:00Z"},
		{"offline grace", "job", day(34), true, true, true, "its offline grace lasts until 2026-02-04T00:00:00Z"},
		{"offline grace over", "job", day(35), true, false, false, "its offline grace ended on 2026-02-04T00:00:00Z"},
		{"no grace online", "job", day(33), false, false, false, "the trust root expired"},
		{"no grace for governance", "governance", day(33), true, false, false, "the trust root expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Evaluate(rootFor(t, of(1, "alice")), c.role, everyone, c.at, Options{Offline: c.offline})
			if d.OK != c.ok || d.Graced != c.graced || !strings.Contains(d.String(), c.want) {
				t.Errorf("decision %+v", d)
			}
		})
	}
}

func TestRevocation(t *testing.T) {
	alice := ed(t, "alice").Public()
	index := func(n int64) *int64 { return &n }
	logged := func(i int64, at time.Time) map[digest.SHA256]Position {
		return map[digest.SHA256]Position{alice.ID(): {Index: i, Time: at}}
	}
	byTime := manifest.Revocation{Key: alice.String(), Since: "2026-01-10T00:00:00Z", Reason: "stolen"}
	byIndex := manifest.Revocation{Principal: "alice", SinceIndex: index(100)}
	byBoth := manifest.Revocation{Key: alice.String(), Since: "2026-01-10T00:00:00Z", SinceIndex: index(100)}
	always := manifest.Revocation{Key: alice.String()}
	for _, c := range []struct {
		name string
		rev  manifest.Revocation
		at   time.Time
		log  map[digest.SHA256]Position
		want bool
	}{
		{"before its time", byTime, day(9), nil, true},
		{"at its time, not logged", byTime, day(10), nil, false},
		{"logged before", byTime, day(20), logged(5, day(9)), true},
		{"logged at its time", byTime, day(20), logged(5, day(10)), false},
		{"logged, time unknown", byTime, day(20), logged(5, time.Time{}), false},
		{"index before", byIndex, day(20), logged(99, time.Time{}), true},
		{"index at", byIndex, day(20), logged(100, time.Time{}), false},
		{"index negative", byIndex, day(20), logged(-1, day(1)), false},
		{"index, not logged", byIndex, day(1), nil, false},
		{"both before", byBoth, day(20), logged(99, day(9)), true},
		{"both, index late", byBoth, day(20), logged(100, day(9)), false},
		{"both, time late", byBoth, day(20), logged(99, day(11)), false},
		{"both, early but not logged", byBoth, day(1), nil, false},
		{"without bound", always, day(1), logged(0, day(1)), false},
		{"the log has another's signature", byTime, day(20), map[digest.SHA256]Position{ed(t, "bob").Public().ID(): {Index: 1, Time: day(1)}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRoot := rootFor(t, of(1, "alice"))
			inRoot.Spec.Revocations = []manifest.Revocation{c.rev}
			a := Evaluate(inRoot, "job", pub(t, "alice"), c.at, Options{Logged: c.log})
			b := Evaluate(rootFor(t, of(1, "alice")), "job", pub(t, "alice"), c.at, Options{Logged: c.log, Revocations: []manifest.Revocation{c.rev}})
			if a.OK != c.want {
				t.Errorf("%v: %v", a.OK, a)
			}
			if diff := cmp.Diff(a, b); diff != "" {
				t.Errorf("a revocation from elsewhere counts differently (-root +elsewhere):\n%s", diff)
			}
			if !a.OK && !strings.Contains(a.String(), "alice: the signature of did:key:") {
				t.Errorf("no reason: %v", a)
			}
		})
	}
}

func TestRevokingOneKeyOfSeveral(t *testing.T) {
	root := rootFor(t, of(1, "many"))
	root.Spec.Revocations = []manifest.Revocation{{Key: ed(t, "many1").Public().String()}}
	if d := Evaluate(root, "job", pub(t, "many1"), day(10), Options{}); d.OK {
		t.Errorf("the revoked key counts: %v", d)
	}
	if d := Evaluate(root, "job", pub(t, "many1", "many2"), day(10), Options{}); !d.OK {
		t.Errorf("the good key does not count: %v", d)
	}
	root = rootFor(t, of(1, "hybrid"))
	root.Spec.Revocations = []manifest.Revocation{{Key: ed(t, "hybrid").Public().String()}}
	both := []identity.PublicKey{ed(t, "hybrid").Public(), key(t, identity.MLDSA65, "hybrid").Public()}
	if d := Evaluate(root, "job", both, day(10), Options{}); d.OK {
		t.Errorf("a hybrid with a revoked half counts: %v", d)
	}
}

// TestMoreSignaturesNeverHurt adds keys one by one, in random order, to random roots.
func TestMoreSignaturesNeverHurt(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := append(pub(t, "alice", "bob", "carol", "dave", "erin", "hybrid", "many1", "many2", "mallory"),
		key(t, identity.MLDSA65, "hybrid").Public(), key(t, identity.ECDSAP256, "many3").Public())
	jobs := []manifest.TrustGroup{
		of(1, "both"), of(2, "both", "hybrid"), of(2, "left", "many", "hybrid"), of(3, "alice", "carol", "right", "hybrid"),
		{Threshold: 2, Operators: 3, Of: []string{"left", "right", "hybrid"}},
	}
	for range 100 {
		root := rootFor(t, jobs[rng.IntN(len(jobs))])
		if rng.IntN(2) == 0 {
			root.Spec.Revocations = []manifest.Revocation{{Principal: []string{"dave", "erin", "many"}[rng.IntN(3)]}}
		}
		r, err := Compile(root)
		if err != nil {
			t.Fatal(err)
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		was := Decision{}
		for n := range len(all) + 1 {
			d := r.Evaluate("job", all[:n], day(10), Options{})
			if was.OK && !d.OK {
				t.Fatalf("signature %d turned yes into no:\n%v\n%v", n, was, d)
			}
			for _, p := range was.Principals {
				if !slices.Contains(d.Principals, p) {
					t.Fatalf("signature %d took %s away", n, p)
				}
			}
			was = d
		}
	}
}

func TestKeys(t *testing.T) {
	r, err := Compile(rootFor(t, of(2, "right", "alice")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pub(t, "dave", "erin", "alice"), r.Keys("job")); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if k := r.Keys("peer"); k != nil {
		t.Errorf("keys of a missing role: %v", k)
	}
	if r.Name() != "test" || r.Version() != 1 || !r.Expires().Equal(day(32)) {
		t.Errorf("root %s, version %d, expires %v", r.Name(), r.Version(), r.Expires())
	}
}

// Who signed is told one by one, whether or not they are enough in any group; halves of hybrids and revoked keys are no one.
func TestSigners(t *testing.T) {
	doc := rootFor(t, of(2, "both", "hybrid", "many"))
	doc.Metadata.Expires = "2026-01-02T00:00:00Z" // which does not matter
	root, err := Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	hybrid := []identity.PublicKey{ed(t, "hybrid").Public(), key(t, identity.MLDSA65, "hybrid").Public()}
	for _, c := range []struct {
		name string
		role string
		keys []identity.PublicKey
		opts Options
		want []string
	}{
		{name: "no one", role: "job"},
		{name: "a role that no one has", role: "peer", keys: pub(t, "alice")},
		{name: "one of a group of two", role: "job", keys: pub(t, "bob"), want: []string{"bob"}},
		{name: "sorted", role: "job", keys: pub(t, "erin", "bob", "alice"), want: []string{"alice", "bob", "erin"}},
		{name: "several keys of one", role: "job", keys: pub(t, "many1", "many2"), want: []string{"many"}},
		{name: "half a hybrid", role: "job", keys: hybrid[:1]},
		{name: "the other half", role: "job", keys: hybrid[1:]},
		{name: "a hybrid", role: "job", keys: hybrid, want: []string{"hybrid"}},
		{name: "strangers", role: "job", keys: pub(t, "zoe", "bob"), want: []string{"bob"}},
		{name: "not of the role", role: "governance", keys: pub(t, "erin", "bob"), want: []string{"bob"}},
		{
			name: "revoked", role: "job", keys: pub(t, "alice", "bob"), want: []string{"bob"},
			opts: Options{Revocations: []manifest.Revocation{{Principal: "alice"}}},
		},
		{
			name: "revoked by the name of a key", role: "job", keys: pub(t, "alice", "bob"), want: []string{"alice"},
			opts: Options{Revocations: []manifest.Revocation{{Key: pub(t, "bob")[0].String()}}},
		},
		{
			name: "revoked by the ID of a key", role: "job", keys: append(pub(t, "bob"), hybrid...), want: []string{"bob"},
			opts: Options{Revocations: []manifest.Revocation{{Key: hybrid[1].ID().String()}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, root.Signers(c.role, c.keys, day(10), c.opts)); diff != "" {
				t.Errorf("signers (-want +got):\n%s", diff)
			}
		})
	}
}
