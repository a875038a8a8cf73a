package quorum

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"github.com/google/go-cmp/cmp"
)

// version returns version n of the test root, changed.
func version(t testing.TB, n int64, changes ...func(*manifest.TrustRoot)) *manifest.TrustRoot {
	root := rootFor(t, of(1, "dave"))
	root.Spec.Version = n
	for _, change := range changes {
		change(root)
	}
	return root
}

// governedBy makes others the governance.
func governedBy(threshold int, names ...string) func(*manifest.TrustRoot) {
	return func(r *manifest.TrustRoot) { r.Spec.Roles["governance"] = of(threshold, names...) }
}

func expires(at string) func(*manifest.TrustRoot) {
	return func(r *manifest.TrustRoot) { r.Metadata.Expires = at }
}

func without(names ...string) func(*manifest.TrustRoot) {
	return func(r *manifest.TrustRoot) {
		for _, n := range names {
			r.Spec.Revocations = append(r.Spec.Revocations, manifest.Revocation{Principal: n})
		}
	}
}

func signed(t testing.TB, root *manifest.TrustRoot, names ...string) *dsse.Envelope {
	t.Helper()
	env, err := manifest.Wrap(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := env.Add(t.Context(), ed(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

func TestUpdate(t *testing.T) {
	v1 := version(t, 1)
	moved := governedBy(2, "dave", "erin")
	retyped := signed(t, version(t, 2), "alice", "bob")
	retyped.PayloadType = manifest.PayloadType("Policy")
	forged := signed(t, version(t, 2), "alice", "bob")
	forged.Payload = []byte(strings.Replace(string(forged.Payload), `"version":2`, `"version":3`, 1))
	crowded := signed(t, version(t, 2), "alice", "bob")
	for len(crowded.Signatures) <= maxSignatures {
		crowded.Signatures = append(crowded.Signatures, dsse.Signature{KeyID: "x", Sig: []byte("bad")})
	}
	full := signed(t, version(t, 2), "alice", "bob")
	for len(full.Signatures) < maxSignatures {
		full.Signatures = append([]dsse.Signature{{KeyID: full.Signatures[0].KeyID, Sig: []byte("bad")}}, full.Signatures...)
	}
	other, err := manifest.Wrap(&manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "other", Expires: "2026-02-01T00:00:00Z"}, Spec: version(t, 2).Spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"alice", "bob"} {
		if err := other.Add(t.Context(), ed(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		old  *manifest.TrustRoot
		env  *dsse.Envelope
		at   time.Time
		want Rule // empty: accepted
	}{
		{"next version", v1, signed(t, version(t, 2), "alice", "bob"), day(10), ""},
		{"bad signatures beside good ones", v1, full, day(10), ""},
		{"rollback", version(t, 3), signed(t, version(t, 2), "alice", "bob"), day(10), RuleVersion},
		{"the same version", v1, signed(t, version(t, 1), "alice", "bob"), day(10), RuleVersion},
		{"two versions on", v1, signed(t, version(t, 3), "alice", "bob"), day(10), RuleVersion},
		{"fast-forward to the last number", v1, signed(t, version(t, 1<<53-1), "alice", "bob"), day(10), RuleVersion},
		{"new root expired", v1, signed(t, version(t, 2, expires("2026-01-09T00:00:00Z")), "alice", "bob"), day(10), RuleExpired},
		{"old root expired", version(t, 1, expires("2026-01-09T00:00:00Z")), signed(t, version(t, 2), "alice", "bob"), day(10), ""},
		{"one signature of two", v1, signed(t, version(t, 2), "alice"), day(10), RuleOldQuorum},
		{"one signature twice", v1, signed(t, version(t, 2), "alice", "alice"), day(10), RuleOldQuorum},
		{"no signature", v1, signed(t, version(t, 2)), day(10), RuleOldQuorum},
		{"strangers", v1, signed(t, version(t, 2), "dave", "erin"), day(10), RuleOldQuorum},
		{"new governance, both agree", v1, signed(t, version(t, 2, moved), "alice", "bob", "dave", "erin"), day(10), ""},
		{"new governance, only the old agrees", v1, signed(t, version(t, 2, moved), "alice", "bob"), day(10), RuleNewQuorum},
		{"new governance, only the new agrees", v1, signed(t, version(t, 2, moved), "dave", "erin"), day(10), RuleOldQuorum},
		{"new threshold not reached", v1, signed(t, version(t, 2, governedBy(3, "alice", "bob", "carol")), "alice", "bob"), day(10), RuleNewQuorum},
		{"signer revoked in the old root", version(t, 1, without("carol")), signed(t, version(t, 2), "alice", "carol"), day(10), RuleOldQuorum},
		{"signer revoked in the new root", v1, signed(t, version(t, 2, without("carol")), "alice", "carol"), day(10), RuleNewQuorum},
		{"revoking with those who stay", v1, signed(t, version(t, 2, without("carol")), "alice", "bob"), day(10), ""},
		{"type of another kind", v1, retyped, day(10), RuleForm},
		{"payload changed", v1, forged, day(10), RuleOldQuorum},
		{"too many signatures", v1, crowded, day(10), RuleForm},
		{"root of something else", v1, other, day(10), RuleOtherChain},
		{"unusable root", v1, signed(t, version(t, 2, func(r *manifest.TrustRoot) {
			r.Spec.Roles["job"] = manifest.TrustGroup{Threshold: 1, Operators: 9, Of: []string{"dave"}}
		}), "alice", "bob"), day(10), RuleForm},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Update(c.old, c.env, c.at)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got.Spec.Version != c.old.Spec.Version+1 {
					t.Errorf("version %d", got.Spec.Version)
				}
				return
			}
			e, ok := err.(*UpdateError)
			if !ok || got != nil {
				t.Fatalf("%v, error %v", got, err)
			}
			if e.Rule != c.want {
				t.Errorf("rule %s, not %s: %v", e.Rule, c.want, err)
			}
			if quorum := e.Rule == RuleOldQuorum || e.Rule == RuleNewQuorum; quorum != (len(e.Reasons) > 0) {
				t.Errorf("reasons %q", e.Reasons)
			}
			if e.Rule != RuleForm && e.Rule != RuleOtherChain && e.Hint() == "" {
				t.Errorf("no hint for %s", e.Rule)
			}
		})
	}
}

// TestUpdateError shows what a person sees.
func TestUpdateError(t *testing.T) {
	_, err := Update(version(t, 1), signed(t, version(t, 2), "alice", "dave"), day(10))
	want := `update trust root "test" version 1: the governance in force did not agree: governance needs 2 of alice, bob, carol: 1 agreed (alice)`
	if err == nil || err.Error() != want {
		t.Errorf("error (-want +got):\n%s", cmp.Diff(want, fmt.Sprint(err)))
	}
}

func TestUpdateChain(t *testing.T) {
	v1 := version(t, 1, expires("2026-01-02T00:00:00Z"))
	v2 := signed(t, version(t, 2, expires("2026-01-03T00:00:00Z"), governedBy(1, "dave")), "alice", "bob", "dave")
	v3 := signed(t, version(t, 3), "dave", "alice", "carol")
	v4 := signed(t, version(t, 4, expires("2026-01-05T00:00:00Z")), "alice", "carol")
	for _, c := range []struct {
		name string
		envs []*dsse.Envelope
		want int64
		rule Rule
	}{
		{"over expired ones", []*dsse.Envelope{v2, v3}, 3, ""},
		{"ending in an expired one", []*dsse.Envelope{v2, v3, v4}, 0, RuleExpired},
		{"one left out", []*dsse.Envelope{v3}, 0, RuleVersion},
		{"one twice", []*dsse.Envelope{v2, v2}, 0, RuleVersion},
		{"wrong order", []*dsse.Envelope{v3, v2}, 0, RuleVersion},
		{"nothing new, and the old one expired", nil, 0, RuleExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := UpdateChain(v1, c.envs, day(10))
			if c.rule == "" {
				if err != nil || got.Spec.Version != c.want {
					t.Fatalf("%v, error %v", got, err)
				}
				return
			}
			if e, ok := err.(*UpdateError); !ok || e.Rule != c.rule {
				t.Errorf("error %v, not rule %s", err, c.rule)
			}
		})
	}
}

func TestVerifyFirstRoot(t *testing.T) {
	crowded := signed(t, version(t, 1), "alice", "bob")
	for i := range 15 {
		crowded.Signatures = append(crowded.Signatures, dsse.Signature{Sig: []byte{byte(i), 1}})
	}
	doc := &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "p", Expires: "2026-02-01T00:00:00Z"},
		Spec: manifest.PolicySpec{Version: 1},
	}
	if err := doc.Validate(); err != nil {
		t.Fatal(err)
	}
	policy, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		env  *dsse.Envelope
		ok   bool
	}{
		{"signed by its governance", signed(t, version(t, 1), "alice", "bob"), true},
		{"one short", signed(t, version(t, 1), "alice"), false},
		{"expired", signed(t, version(t, 1, expires("2026-01-10T00:00:00Z")), "alice", "bob"), false},
		{"over 16 signatures", crowded, false},
		{"a policy", &dsse.Envelope{PayloadType: manifest.PayloadType("Policy"), Payload: policy}, false},
		{"a policy that says it is a root", &dsse.Envelope{PayloadType: manifest.PayloadType("TrustRoot"), Payload: policy}, false},
	} {
		if root, err := Verify(c.env, day(10)); (err == nil) != c.ok || (root != nil) != c.ok {
			t.Errorf("%s: %v, error %v", c.name, root, err)
		}
	}
}

// TestHybridGovernance strips each half of a hybrid from an update.
func TestHybridGovernance(t *testing.T) {
	hybrid := governedBy(1, "hybrid")
	v1 := version(t, 1, hybrid)
	halves := []*identity.Key{ed(t, "hybrid"), key(t, identity.MLDSA65, "hybrid")}
	for mask := range 4 {
		env := signed(t, version(t, 2, hybrid))
		for i, k := range halves {
			if mask&(1<<i) == 0 {
				continue
			}
			if err := env.Add(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Update(v1, env, day(10)); (err == nil) != (mask == 3) {
			t.Errorf("halves %02b: %v", mask, err)
		}
	}
}
