package admission_test

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"arch.network/agent/admission"
	"arch.network/agent/policy"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// now is when tests happen: a Monday.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// key makes a key that is the same for the same name.
func key(t testing.TB, name string) *identity.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newRoot is a trust root in which two of alice, bob and carol must sign jobs; dave signs policies, and mallory has no role.
func newRoot(t testing.TB) *manifest.TrustRoot {
	t.Helper()
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "net", Expires: "2027-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"dave"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"dave"}},
			manifest.RoleJob:        {Threshold: 2, Of: []string{"alice", "bob", "carol"}},
		}},
	}
	for _, name := range []string{"alice", "bob", "carol", "dave", "mallory"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Operator: name + ".example", Keys: []string{key(t, name).Public().String()}})
	}
	return root
}

func newPolicy() *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy",
		Metadata: manifest.Metadata{Name: "house", Expires: "2026-12-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 3, OfflineGrace: "24h",
			Issuers:      []manifest.PolicyIssuer{{Role: manifest.RoleJob, Owners: []string{"user:*"}}},
			Runtimes:     []manifest.Runtime{manifest.RuntimeWasm},
			Capabilities: manifest.PolicyCapabilities{Allow: []string{"egress:443"}},
			Resources: manifest.PolicyResources{
				Job: manifest.JobResources{CPU: "4", Memory: "2Gi"}, Node: manifest.JobResources{Memory: "8Gi"}, Timeout: "1h",
			},
			Facts: map[string]manifest.Raw{"locality.country": manifest.Raw(`"ch"`)},
		},
	}
}

func newJob() *manifest.Job {
	return &manifest.Job{
		APIVersion: manifest.APIVersion, Kind: "Job",
		Metadata: manifest.Metadata{Name: "count", Owner: "user:alice", Expires: "2026-07-01T00:00:00Z"},
		Spec: manifest.JobSpec{
			Image:   manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/count.wasm", Digest: digest.Of([]byte("count"))},
			Runtime: manifest.RuntimeWasm, Nonce: "n-00000001",
		},
	}
}

// sign makes an envelope.
func sign(t testing.TB, doc manifest.Document, names ...string) []byte {
	t.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	for _, name := range names {
		if err := env.Add(t.Context(), key(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return env.Marshal()
}

// activate puts a policy in force.
func activate(t testing.TB, doc *manifest.Policy) *policy.Active {
	t.Helper()
	trust, err := attest.NewTrust(newRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	env, err := dsse.Parse(sign(t, doc, "dave"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := policy.New(trust, env, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// judge is what a node does with an envelope.
func judge(envelope []byte, a *policy.Active, change func(*admission.Input)) *admission.Verdict {
	in := admission.Input{
		Active: a, Names: []string{"node-1", "pool-a"}, At: now,
		Facts: map[string]manifest.Raw{"energy.price_eur_kwh": manifest.Raw(`0.12`), "locality.country": manifest.Raw(`"xx"`)},
	}
	if change != nil {
		change(&in)
	}
	in.Proposal = admission.Open(envelope, a, in.At)
	return admission.Judge(in)
}
