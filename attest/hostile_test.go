package attest_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"

	"github.com/google/go-cmp/cmp"
)

// Two who sign the account of one build have not built twice, whatever else they sign.
func TestOneProvenanceCountsForOne(t *testing.T) {
	w := newWorld(t)
	claim := w.sign(w.claim, w.alice, w.bob)
	shared := w.sign(w.provenance(w.claim), w.alice, w.bob)
	own := w.sign(w.provenance(w.claim, func(r *attest.Run) { r.InvocationID = "alice" }), w.alice)
	tests := []struct {
		name        string
		provenances []*dsse.Envelope
		builders    []string
		reproduced  bool
	}{
		{"one account by both", []*dsse.Envelope{shared}, []string{"alice"}, false},
		{"and one of alice's own", []*dsse.Envelope{shared, own}, []string{"alice", "bob"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(receiptOf(append([]*dsse.Envelope{claim}, tt.provenances...)...))
			r := w.verify(in)
			var builders []string
			for _, b := range r.Builders {
				builders = append(builders, b.Principal)
			}
			if diff := cmp.Diff(tt.builders, builders); diff != "" || !r.OK || r.Reproduced() != tt.reproduced {
				t.Errorf("OK %v, reproduced %v, builders (-want +got):\n%s\n%s", r.OK, r.Reproduced(), diff, r.Text())
			}
			in.Rebuilds, in.Operators = 2, 2
			if r := w.verify(in); r.OK != tt.reproduced {
				t.Errorf("with two asked for: OK %v\n%s", r.OK, r.Text())
			}
			in.Rebuilds, in.Operators = 0, 0
			in.Policy = w.policy([]manifest.PolicyAttestation{{Role: "builder", Reproduced: true}})
			if r := w.verify(in); r.OK != tt.reproduced {
				t.Errorf("with a policy that asks for it: OK %v\n%s", r.OK, r.Text())
			}
		})
	}
}

// What someone trusted disputes is not called reproduced, even by those who go on regardless.
func TestDisputedIsNotReproduced(t *testing.T) {
	w := newWorld(t)
	other := w.newClaim(w.document, w.dependencies, outputs("hello", []byte("other")))
	for name, objection := range map[string]*dsse.Envelope{
		"negative result": w.sign(w.negative(attest.Differs), w.carol),
		"other claim":     w.sign(other, w.carol),
	} {
		t.Run(name, func(t *testing.T) {
			in := w.input(w.receipt(w.alice, w.bob))
			if r := w.verify(in); !r.Reproduced() || r.Disputed {
				t.Fatalf("not reproduced without the objection:\n%s", r.Text())
			}
			in.Receipt.Add(objection)
			in.AllowNegative = true
			r := w.verify(in)
			if !r.OK || !r.Disputed || r.Reproduced() {
				t.Errorf("OK %v, disputed %v, reproduced %v", r.OK, r.Disputed, r.Reproduced())
			}
			if _, vsa := w.vsa(r, summaryOptions()); slices.Contains(vsa.VerifiedLevels, attest.LevelReproduced) {
				t.Errorf("the summary claims %q", vsa.VerifiedLevels)
			}
			in.Policy = w.policy([]manifest.PolicyAttestation{{Role: "builder", Reproduced: true}})
			if r := w.verify(in); r.OK {
				t.Errorf("a policy that asks for reproduction is content:\n%s", r.Text())
			}
		})
	}
}

// One who signs alone objects with effect, although it would take more of the group to allow anything.
func TestOneOfAGroupObjects(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Groups = map[string]manifest.TrustGroup{"pair": {Threshold: 2, Of: []string{"bob", "carol"}}}
	root.Spec.Roles[manifest.RoleBuilder] = manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	root.Spec.Roles[manifest.RoleRebuilder] = manifest.TrustGroup{Threshold: 1, Of: []string{"pair"}}
	w.setRoot(root)
	for name, objection := range map[string]*dsse.Envelope{
		"negative result": w.sign(w.negative(attest.Differs), w.bob),
		"other claim":     w.sign(w.newClaim(w.document, w.dependencies, outputs("hello", []byte("other"))), w.bob),
	} {
		r := w.receipt(w.alice)
		r.Add(objection)
		if got := w.verify(w.input(r)); got.OK || got.Class != attest.ClassDiffers {
			t.Errorf("%s: OK %v, class %q:\n%s", name, got.OK, got.Class, got.Text())
		}
	}
}

// Members of a group that must agree each leave a provenance of their own.
func TestGroupOfBuilders(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Groups = map[string]manifest.TrustGroup{"pair": {Threshold: 2, Of: []string{"alice", "bob"}}}
	root.Spec.Roles[manifest.RoleBuilder] = manifest.TrustGroup{Threshold: 1, Of: []string{"pair"}}
	delete(root.Spec.Roles, manifest.RoleRebuilder)
	w.setRoot(root)
	if r := w.verify(w.input(w.receipt(w.alice, w.bob))); !r.OK || !r.Reproduced() {
		t.Errorf("two who agree are not enough:\n%s", r.Text())
	}
	if r := w.verify(w.input(w.receipt(w.alice))); r.OK {
		t.Errorf("one of two is enough:\n%s", r.Text())
	}
}

// A rule of the policy for another artifact, with another role, makes nobody of that role a builder.
func TestRolesOfRulesAreNoBuilders(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	for role, of := range map[string][]string{"builder": {"alice"}, "rebuilder": {"alice"}, "job": {"bob", "carol"}} {
		root.Spec.Roles[role] = manifest.TrustGroup{Threshold: 1, Of: of}
	}
	w.setRoot(root)
	rules := []manifest.PolicyAttestation{{Role: "builder"}, {Match: "elsewhere/*", Role: "job", Threshold: 2}}
	in := w.input(w.receipt(w.alice, w.bob))
	in.Policy = w.policy(rules)
	if r := w.verify(in); !r.OK || r.Reproduced() || len(r.Builders) != 1 {
		t.Errorf("OK %v, reproduced %v, builders %v\n%s", r.OK, r.Reproduced(), r.Builders, r.Text())
	}
	in.Rebuilds = 2
	if r := w.verify(in); r.OK {
		t.Errorf("a job's signer counts as a builder:\n%s", r.Text())
	}
	in = w.input(receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim), w.bob)))
	in.Policy = w.policy(rules)
	if r := w.verify(in); r.OK {
		t.Errorf("the provenance of one who is no builder is enough:\n%s", r.Text())
	}
}

// The provenance of one who did not sign the claim does not stand in for the builder's own.
func TestProvenanceOfAnotherIsNotEnough(t *testing.T) {
	w := newWorld(t)
	r := w.verify(w.input(receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim), w.bob))))
	if diff := cmp.Diff([]string{attest.CheckAgreement}, failures(r)); r.OK || diff != "" {
		t.Errorf("OK %v, failed checks (-want +got):\n%s\n%s", r.OK, diff, r.Text())
	}
}

// A new name does not rid an artifact of a policy's rule.
func TestPolicyRuleFollowsTheClaimsName(t *testing.T) {
	w := newWorld(t)
	in := w.input(w.receipt(w.alice))
	in.Policy = w.policy([]manifest.PolicyAttestation{{Match: "hello", Role: "builder", Threshold: 2}, {Match: "x", Role: "builder"}})
	for _, name := range []string{"hello", "x"} {
		in.Artifact.Name = name
		if r := w.verify(in); r.OK || r.Class != attest.ClassPolicy {
			t.Errorf("named %s: OK %v, class %q\n%s", name, r.OK, r.Class, r.Text())
		}
	}
}

// Where a ledger has one statement says nothing of another by the same revoked key.
func TestLoggedStatementSparesNoOther(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Revocations = []manifest.Revocation{{Principal: "alice", Since: "2026-01-01T00:00:00Z"}}
	root.Spec.Roles[manifest.RoleGovernance] = manifest.TrustGroup{Threshold: 1, Of: []string{"bob"}}
	w.setRoot(root)
	in := w.input(w.receipt(w.alice))
	early := map[digest.SHA256]quorum.Position{w.alice.key.Public().ID(): {Index: 1, Time: now.AddDate(-1, 0, 0)}}
	claim, provenance := in.Receipt.Claims[0].ID(), in.Receipt.Provenances[0].ID()
	for _, tt := range []struct {
		name   string
		logged map[digest.SHA256]map[digest.SHA256]quorum.Position
		ok     bool
	}{
		{"nothing", nil, false},
		{"both", map[digest.SHA256]map[digest.SHA256]quorum.Position{claim: early, provenance: early}, true},
		{"the claim alone", map[digest.SHA256]map[digest.SHA256]quorum.Position{claim: early}, false},
		{"the provenance alone", map[digest.SHA256]map[digest.SHA256]quorum.Position{provenance: early}, false},
	} {
		in.Logged = tt.logged
		if r := w.verify(in); r.OK != tt.ok {
			t.Errorf("%s: OK %v\n%s", tt.name, r.OK, r.Text())
		}
	}
	in.Options.Logged = early
	if r, err := attest.Verify(t.Context(), in); err == nil {
		t.Errorf("a position for whatever statement was accepted: %v", r)
	}
}

// An envelope signed as something else is no statement, even if it gets into the list of a receipt that was not read.
func TestPayloadTypeIsPartOfTheStatement(t *testing.T) {
	w := newWorld(t)
	honest := w.receipt(w.alice)
	as := func(env *dsse.Envelope, payloadType string) *dsse.Envelope {
		out := &dsse.Envelope{PayloadType: payloadType, Payload: env.Payload}
		if err := out.Add(t.Context(), w.alice.key); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, payloadType := range []string{manifest.PayloadType("Build"), "application/json", attest.PayloadType + "; charset=utf-8"} {
		for name, r := range map[string]*attest.Receipt{
			"claim":      {Claims: []*dsse.Envelope{as(honest.Claims[0], payloadType)}, Provenances: honest.Provenances},
			"provenance": {Claims: honest.Claims, Provenances: []*dsse.Envelope{as(honest.Provenances[0], payloadType)}},
		} {
			if got := w.verify(w.input(r)); got.OK {
				t.Errorf("%s of payload type %q verified:\n%s", name, payloadType, got.Text())
			}
		}
	}
}

// Nothing within a statement hides what it is: a claim whose subject has members that look like the statement's own does not
// hide the negative result about it, which repeats them.
func TestStatementsAreSortedByTheirOwnMembers(t *testing.T) {
	w := newWorld(t)
	annotation := `"annotations":{"a":"b","predicateType":"TYPE","subject":[{}]},"digest"`
	for _, fake := range []string{attest.ClaimType, attest.VSAType, "https://example.org/unknown"} {
		lure := strings.ReplaceAll(annotation, "TYPE", fake)
		for name, s := range map[string]*attest.Statement{"negative": w.negative(attest.Differs), "provenance": w.provenance(w.claim)} {
			env := w.signBytes(w.rewrite(s, `"digest"`, lure))
			env.Payload = bytes.Replace(env.Payload, []byte(`"predicateType":"`), []byte(`"predicateType":"`), 1)
			r := &attest.Receipt{}
			r.Add(env)
			if got := len(r.Negatives) + len(r.Provenances); got != 1 {
				t.Errorf("%s with the lure %s went elsewhere: %d claims, %d summaries", name, fake, len(r.Claims), len(r.Summaries))
			}
		}
	}
	// Names are compared byte for byte, and white space does not matter.
	payload, err := w.negative(attest.Differs).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{
		strings.Replace(string(payload), `"predicateType":`, `"PredicateType":"https://example.org/x","predicateType":`, 1),
		strings.Replace(string(payload), `,"subject":`, `,"PredicateType":"https://example.org/x","subject":`, 1),
		strings.Replace(string(payload), `,"subject":`, ` , "subject" : `, 1),
		strings.Replace(strings.TrimSuffix(string(payload), "}]}"), `,"predicateType":`, `, "predicateType": `, 1) +
			`,"zz":{"a":1,"predicateType":"` + attest.ClaimType + `","subject":[{}]}}]}`,
		strings.Replace(string(payload), "https://arch.network/attestation/build-negative", `https:\/\/arch.network\/attestation\/build-negative`, 1),
	} {
		r := w.receipt(w.alice)
		r.Add(w.signBytes([]byte(odd), w.bob))
		if got := w.verify(w.input(r)); len(r.Negatives) != 1 || got.OK {
			t.Errorf("a signed negative result in an odd spelling does not count: %s\n%s", odd, got.Text())
		}
	}
}

// bombs returns n envelopes, each full of signatures that no key verifies, with statements that say they are of the type.
func bombs(w *world, n int, predicateType string) *attest.Receipt {
	payload, err := w.claim.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	payload = bytes.ReplaceAll(payload, []byte(attest.ClaimType), []byte(predicateType))
	var b bytes.Buffer
	for i := range n {
		env := &dsse.Envelope{PayloadType: attest.PayloadType, Payload: bytes.ReplaceAll(payload, []byte("input-000"), fmt.Appendf(nil, "x%08d", i))}
		for k := range attest.MaxSignatures {
			sig := make([]byte, 64)
			sig[0], sig[1] = byte(k), byte(i)
			env.Signatures = append(env.Signatures, dsse.Signature{Sig: sig})
		}
		b.Write(env.Marshal())
		b.WriteByte('\n')
	}
	return read(w.t, b.Bytes())
}

// A receipt that asks for more work than there is a budget for is refused as a whole: what was not checked could be the
// objection.
func TestReceiptOverBudget(t *testing.T) {
	const enough = 400 // envelopes of 16 signatures, each tried with 3 keys
	w := newWorld(t)
	for _, predicateType := range []string{attest.ClaimType, attest.NegativeType} {
		r := bombs(w, enough, predicateType)
		r.Merge(w.receipt(w.alice))
		got := w.verify(w.input(r))
		if got.OK || got.Class != attest.ClassVerification || !slices.Contains(failures(got), attest.CheckReceipts) {
			t.Errorf("%s: OK %v, class %q, failed %q", predicateType, got.OK, got.Class, failures(got))
		}
	}
	passed, _ := w.vsa(w.verify(w.input(w.receipt(w.alice))), summaryOptions())
	r := bombs(w, enough, attest.VSAType)
	r.Add(w.sign(passed, w.alice))
	in := attest.SummaryInput{
		Artifact: file("hello", artifact), Receipt: r, At: now, ResourceURI: "https://example.org/hello", Levels: []string{attest.LevelBuild1},
		Verifiers: map[string][]identity.PublicKey{verifierID: {w.alice.key.Public(), w.bob.key.Public(), w.carol.key.Public()}},
	}
	got, err := attest.VerifySummary(t.Context(), in)
	if err != nil || got.OK || !slices.Contains(failures(got), attest.CheckReceipts) {
		t.Errorf("summaries: %+v, %v", got, err)
	}
	in.Receipt = receiptOf(w.sign(passed, w.alice))
	if got, err := attest.VerifySummary(t.Context(), in); err != nil || !got.OK {
		t.Errorf("within the budget: %+v, %v", got, err)
	}
}

// Merging takes time in proportion to what is merged, also when every envelope holds the same statement.
func TestReceiptOfOneStatementManyTimes(t *testing.T) {
	w := newWorld(t)
	payload, err := w.claim.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for i := range attest.MaxReceiptLines / 2 {
		env := &dsse.Envelope{PayloadType: attest.PayloadType, Payload: payload}
		for n := range attest.MaxSignatures {
			env.Signatures = append(env.Signatures, dsse.Signature{Sig: fmt.Appendf(nil, "%d.%d", i, n)})
		}
		line := append(env.Marshal(), '\n')
		lines.Write(line)
		lines.Write(line)
	}
	r := read(t, lines.Bytes())
	if len(r.Claims) != attest.MaxReceiptLines/2 {
		t.Errorf("%d envelopes, want each once", len(r.Claims))
	}
}
