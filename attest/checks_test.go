package attest_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// Each check fails for its own reason: everything else about these receipts is right and signed by alice.
func TestEachCheckFailsAlone(t *testing.T) {
	w := newWorld(t)
	two := document("hello")
	two.Spec.Outputs = append(two.Spec.Outputs, manifest.BuildOutput{Name: "more", Path: "/build/more", Type: manifest.OutputFile})
	both := func(claim *attest.Statement) *attest.Receipt {
		return receiptOf(w.sign(claim, w.alice), w.sign(w.provenance(claim), w.alice))
	}
	account := func(old, new string) func() *attest.Receipt {
		return func() *attest.Receipt {
			return receiptOf(w.sign(w.claim, w.alice), w.signBytes(w.rewrite(w.provenance(w.claim), old, new), w.alice))
		}
	}
	told := func(change func(*attest.Run)) func() *attest.Receipt {
		return func() *attest.Receipt {
			return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim, change), w.alice))
		}
	}
	tests := []struct {
		name    string
		receipt func() *attest.Receipt
		failed  string
		detail  string
	}{
		{"unknown build type", func() *attest.Receipt {
			claim, err := attest.ParseStatement(w.rewrite(w.claim, attest.BuildType, "https://example.org/other"))
			if err != nil {
				t.Fatal(err)
			}
			return both(claim)
		}, attest.CheckManifest, "build type"},
		{"output of another manifest", func() *attest.Receipt {
			return both(w.newClaim(w.document, w.dependencies, slices.Concat(outputs("hello", artifact), outputs("more", nil))))
		}, attest.CheckManifest, "no output"},
		{"output that is not claimed", func() *attest.Receipt {
			return both(w.newClaim(two, w.dependencies, outputs("hello", artifact)))
		}, attest.CheckManifest, "no subject"},
		{"input that did not go in", func() *attest.Receipt {
			return both(w.newClaim(w.document, dependencies(3)[:2], outputs("hello", artifact)))
		}, attest.CheckDependencies, `input "source"`},
		{"provenance of another build type", account(attest.BuildType, "https://example.org/other"), attest.CheckAgreement, "build type"},
		{"provenance of another manifest under the same id", account(`"sourceDateEpoch":1700000000`, `"sourceDateEpoch":1`), attest.CheckAgreement, "external parameters"},
		{"provenance of another normalizer", account(`"normalizer":{"name":"arch","version":"1"}`, `"normalizer":{"name":"arch","version":"2"}`), attest.CheckAgreement, "normalizer"},
		{"provenance without normalizer", account(`"internalParameters":{"normalizer":{"name":"arch","version":"1"}},`, ``), attest.CheckAgreement, "normalizer"},
		{"provenance of one dependency more", func() *attest.Receipt {
			more := w.newClaim(w.document, dependencies(4), outputs("hello", artifact))
			return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(more), w.alice))
		}, attest.CheckAgreement, "not in the claim"},
		{"malformed provenance", account(`"runDetails":`, `"runDetails":{},"runDetails":`), attest.CheckProvenance, "signed, but wrong"},
		{"provenance without builder", account(`"id":"`+attest.BuilderHermetic+`"`, `"id":""`), attest.CheckProvenance, "signed, but wrong"},
		{"something else among the provenances", func() *attest.Receipt {
			fake := w.signBytes(w.rewrite(w.provenance(w.claim), attest.ProvenanceType, attest.VSAType), w.alice)
			return &attest.Receipt{Claims: []*dsse.Envelope{w.sign(w.claim, w.alice)}, Provenances: []*dsse.Envelope{fake}}
		}, attest.CheckProvenance, "signed, but wrong"},
		{"no start", told(func(r *attest.Run) { r.Started = time.Time{} }), attest.CheckCompleteness, "when"},
		{"no end", told(func(r *attest.Run) { r.Finished = time.Time{} }), attest.CheckCompleteness, "when"},
		{"no confinement", told(func(r *attest.Run) { r.Confinement = nil }), attest.CheckCompleteness, "confinement"},
		{"confinement that is no object", told(func(r *attest.Run) { r.Confinement = []byte(`"all"`) }), attest.CheckCompleteness, "confinement"},
		{"confinement told in another case, too", told(func(r *attest.Run) {
			r.Confinement = []byte("{\"driver\":\"x\",\"missing\":[\"network\"],\"mi\u017f\u017fing\":[]}")
		}), attest.CheckCompleteness, "did not enforce"},
		{"confinement told twice", told(func(r *attest.Run) {
			r.Byproducts = []attest.ResourceDescriptor{{
				Name: attest.ByproductConfinement, Content: []byte("{}"), Digest: map[string]string{"sha256": digest.Of([]byte("{}")).Hex()},
			}}
		}), attest.CheckCompleteness, "2 byproducts"},
		{"byproduct of another digest", account(digest.Of([]byte(`{"driver":"namespace","enforced":["network-none"]}`)).Hex(), digest.Of(nil).Hex()), attest.CheckCompleteness, "digest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := w.verify(w.input(tt.receipt()))
			if diff := cmp.Diff([]string{tt.failed}, slices.DeleteFunc(failures(r), func(name string) bool { return name == attest.CheckProvenance && name != tt.failed })); r.OK || diff != "" {
				t.Errorf("OK %v, failed checks (-want +got):\n%s\n%s", r.OK, diff, r.Text())
			}
			if !slices.ContainsFunc(r.Checks, func(c attest.Check) bool {
				return c.Result == attest.Fail && c.Name == tt.failed && strings.Contains(c.Detail, tt.detail)
			}) {
				t.Errorf("no failure tells %q:\n%s", tt.detail, r.Text())
			}
		})
	}
}

// An artifact may be named by several claims; one that passes is enough, and what is said of the others does not matter.
func TestOneOfSeveralClaimsPasses(t *testing.T) {
	w := newWorld(t)
	good, err := w.claim.ID()
	if err != nil {
		t.Fatal(err)
	}
	before := map[bool]bool{}
	for i := 0; len(before) < 2; i++ { // claims are judged in the order of their ids
		name := fmt.Sprintf("half%d", i)
		half := w.newClaim(document(name), w.dependencies, outputs(name, artifact))
		id, err := half.ID()
		if err != nil {
			t.Fatal(err)
		}
		first := bytes.Compare(id[:], good[:]) < 0
		if before[first] {
			continue
		}
		before[first] = true
		r := w.receipt(w.alice)
		r.Add(w.sign(half, w.alice))
		n, err := attest.NewNegative(half, attest.Negative{
			State: attest.FailedToBuild, Cause: "no", Tried: "2026-04-30T00:00:00Z", By: attest.Builder{ID: attest.BuilderHermetic},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Add(w.sign(n, w.bob))
		if got := w.verify(w.input(r)); !got.OK {
			t.Errorf("not OK:\n%s", got.Text())
		}
	}
}

// Of outputs with equal bytes the one is meant whose name was asked for, or that the artifact has.
func TestSubjectByName(t *testing.T) {
	w := newWorld(t)
	doc := document("a")
	doc.Spec.Outputs = append(doc.Spec.Outputs, manifest.BuildOutput{Name: "b", Path: "/build/b", Type: manifest.OutputFile})
	doc.Spec.Outputs = append(doc.Spec.Outputs, manifest.BuildOutput{Name: "c", Path: "/build/c", Type: manifest.OutputFile})
	w.claim = w.newClaim(doc, w.dependencies, slices.Concat(outputs("a", []byte("else")), outputs("b", artifact), outputs("c", artifact)))
	for _, tt := range []struct{ file, asked, subject string }{
		{"b", "", "b"},
		{"c", "", "c"},
		{"x", "", "b"},
		{"b", "c", "c"},
		{"a", "", "b"},
	} {
		in := w.input(w.receipt(w.alice))
		in.Artifact.Name, in.Name = tt.file, tt.asked
		r := w.verify(in)
		if !r.OK || len(r.Subjects) == 0 || r.Subjects[0].Name != tt.subject {
			t.Errorf("file %q, asked for %q: OK %v, subjects %v", tt.file, tt.asked, r.OK, r.Subjects)
		}
	}
}

// Signed claims that are wrong are told apart from claims of something else.
func TestWrongClaimIsTold(t *testing.T) {
	w := newWorld(t)
	payload := w.rewrite(w.claim, `"predicateType"`, `"note":"x","predicateType"`)
	r := w.verify(w.input(&attest.Receipt{Claims: []*dsse.Envelope{w.signBytes(payload, w.alice)}}))
	if r.OK || !strings.Contains(r.Text(), "is signed, but wrong") {
		t.Errorf("OK %v:\n%s", r.OK, r.Text())
	}
}

// A root that has expired goes on for its grace, offline only.
func TestVerifyOfflineGrace(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.OfflineGrace = "72h"
	w.setRoot(root)
	in := w.input(w.receipt(w.alice))
	for _, tt := range []struct {
		after   time.Duration
		offline bool
		ok      bool
	}{
		{-time.Second, false, true},
		{0, false, false},
		{0, true, true},
		{72*time.Hour - time.Second, true, true},
		{72 * time.Hour, true, false},
	} {
		in.At, in.Options.Offline = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Add(tt.after), tt.offline
		if r := w.verify(in); r.OK != tt.ok {
			t.Errorf("%s after, offline %v: OK %v\n%s", tt.after, tt.offline, r.OK, r.Text())
		}
	}
}

// What a policy's rule counts: its role, its predicate, and only where it matches.
func TestPolicyRules(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Roles[manifest.RoleBuilder] = manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	root.Spec.Roles[manifest.RoleRebuilder] = manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	root.Spec.Roles[manifest.RolePeer] = manifest.TrustGroup{Threshold: 1, Of: []string{"bob", "carol"}}
	w.setRoot(root)
	signed := receiptOf(w.sign(w.claim, w.alice, w.bob), w.sign(w.provenance(w.claim), w.alice))
	tests := []struct {
		name     string
		rule     manifest.PolicyAttestation
		location string
		receipt  *attest.Receipt
		ok       bool
	}{
		{"the role of the rule", manifest.PolicyAttestation{Role: "peer"}, "", w.receipt(w.alice, w.bob), true},
		{"nobody of the role", manifest.PolicyAttestation{Role: "peer"}, "", w.receipt(w.alice), false},
		{"the claim alone", manifest.PolicyAttestation{Role: "peer", PredicateType: attest.ClaimType}, "", signed, true},
		{"the claim alone is no provenance", manifest.PolicyAttestation{Role: "peer"}, "", signed, false},
		{"the claim alone is no rebuild", manifest.PolicyAttestation{Role: "peer", PredicateType: attest.ClaimType, Reproduced: true}, "", signed, false},
		{"by location", manifest.PolicyAttestation{Match: "ghcr.io/**", Role: "builder"}, "ghcr.io/arch/os/hello", signed, true},
		{"* stops at a slash", manifest.PolicyAttestation{Match: "ghcr.io/*", Role: "builder"}, "ghcr.io/arch/os/hello", signed, false},
		{"by the name's end", manifest.PolicyAttestation{Match: "hell", Role: "builder"}, "", signed, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(tt.receipt)
			in.Policy, in.Location = w.policy([]manifest.PolicyAttestation{tt.rule}), tt.location
			if r := w.verify(in); r.OK != tt.ok {
				t.Errorf("OK %v\n%s", r.OK, r.Text())
			}
		})
	}
}
