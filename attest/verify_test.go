package attest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// Honest receipts: what passes, and what k and operators ask for.
func TestVerify(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name   string
		by     []person
		change func(*attest.VerifyInput)
		failed []string
		class  attest.Class
	}{
		{name: "one builder", by: []person{w.alice}},
		{name: "two builders", by: []person{w.alice, w.bob}},
		{name: "k=2 of two", by: []person{w.alice, w.bob}, change: func(in *attest.VerifyInput) { in.Rebuilds, in.Operators = 2, 2 }},
		{
			name: "k=2 of one", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Rebuilds = 2 },
			failed: []string{attest.CheckRebuilds}, class: attest.ClassPolicy,
		},
		{
			name: "two of one operator", by: []person{w.bob, w.carol}, change: func(in *attest.VerifyInput) { in.Rebuilds, in.Operators = 2, 2 },
			failed: []string{attest.CheckRebuilds}, class: attest.ClassPolicy,
		},
		{name: "nobody we know", by: []person{w.eve}, failed: []string{attest.CheckSignature}, class: attest.ClassVerification},
		{name: "someone unknown beside", by: []person{w.eve, w.alice}},
		{
			name: "role without members", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Role = manifest.RolePeer },
			failed: []string{attest.CheckQuorum}, class: attest.ClassPolicy,
		},
		{
			name: "another name", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Name = "goodbye" },
			failed: []string{attest.CheckName}, class: attest.ClassVerification,
		},
		{name: "another file name, not asked for", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Artifact.Name = "x" }},
		{
			name: "another manifest", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Manifest = digest.Of(nil) },
			failed: []string{attest.CheckManifest}, class: attest.ClassVerification,
		},
		{
			name: "changed artifact", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.Artifact = file("hello", []byte("bad")) },
			failed: []string{attest.CheckSubject}, class: attest.ClassVerification,
		},
		{
			name: "expired trust root", by: []person{w.alice}, change: func(in *attest.VerifyInput) { in.At = now.AddDate(2, 0, 0) },
			failed: []string{attest.CheckTrustRoot, attest.CheckQuorum}, class: attest.ClassVerification,
		},
		{
			name: "no receipt", change: func(in *attest.VerifyInput) { in.Receipt = nil },
			failed: []string{attest.CheckReceipts}, class: attest.ClassNothing,
		},
		{
			name: "empty receipt", change: func(in *attest.VerifyInput) { in.Receipt = &attest.Receipt{} },
			failed: []string{attest.CheckReceipts}, class: attest.ClassNothing,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(w.receipt(tt.by...))
			if tt.change != nil {
				tt.change(&in)
			}
			r := w.verify(in)
			if diff := cmp.Diff(tt.failed, failures(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%s", diff, r.Text())
			}
			if r.OK != (tt.failed == nil) || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want class %q\n%s", r.OK, r.Class, tt.class, r.Text())
			}
			checkErr(t, r)
		})
	}
}

// checkErr holds Err to the report: nil if and only if it is OK, with the class that decides the exit status.
func checkErr(t *testing.T, r *attest.Report) {
	t.Helper()
	err := r.Err()
	if r.OK != (err == nil) {
		t.Fatalf("OK %v, but Err %v", r.OK, err)
	}
	if err == nil {
		return
	}
	failed, ok := errors.AsType[*attest.VerifyError](err)
	if !ok || failed.Class != r.Class || failed.Class == "" {
		t.Fatalf("Err %#v does not carry the class %q", err, r.Class)
	}
}

// The attacker's tries: each takes an honest receipt and changes what an attacker can change.
func TestVerifyAttacks(t *testing.T) {
	w := newWorld(t)
	evil := []byte("evil")
	tests := []struct {
		name    string
		receipt func() *attest.Receipt
		change  func(*attest.VerifyInput)
		failed  []string
		class   attest.Class
	}{
		{
			name: "claim of evil bytes signed by eve under alice's key id",
			receipt: func() *attest.Receipt {
				env := w.sign(w.newClaim(w.document, w.dependencies, outputs("hello", evil)), w.eve)
				env.Signatures[0].KeyID = w.alice.key.Public().String()
				return receiptOf(env, w.sign(w.provenance(w.claim), w.alice))
			},
			change: func(in *attest.VerifyInput) { in.Artifact = file("hello", evil) },
			failed: []string{attest.CheckSignature}, class: attest.ClassVerification,
		},
		{
			name: "signature of another statement",
			receipt: func() *attest.Receipt {
				env := w.sign(w.newClaim(w.document, w.dependencies, outputs("hello", evil)))
				env.Signatures = w.sign(w.claim, w.alice).Signatures
				return receiptOf(env, w.sign(w.provenance(w.claim), w.alice))
			},
			change: func(in *attest.VerifyInput) { in.Artifact = file("hello", evil) },
			failed: []string{attest.CheckSignature}, class: attest.ClassVerification,
		},
		{
			name:    "unsigned claim",
			receipt: func() *attest.Receipt { return receiptOf(w.sign(w.claim), w.sign(w.provenance(w.claim), w.alice)) },
			failed:  []string{attest.CheckSignature}, class: attest.ClassVerification,
		},
		{
			name:    "missing claim",
			receipt: func() *attest.Receipt { return receiptOf(w.sign(w.provenance(w.claim), w.alice)) },
			failed:  []string{attest.CheckSignature}, class: attest.ClassNothing,
		},
		{
			name:    "missing provenance",
			receipt: func() *attest.Receipt { return receiptOf(w.sign(w.claim, w.alice)) },
			failed:  []string{attest.CheckProvenance}, class: attest.ClassVerification,
		},
		{
			name:    "unsigned provenance",
			receipt: func() *attest.Receipt { return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim))) },
			failed:  []string{attest.CheckProvenance}, class: attest.ClassVerification,
		},
		{
			name: "provenance for other subjects",
			receipt: func() *attest.Receipt {
				other := w.newClaim(w.document, w.dependencies, outputs("hello", evil))
				return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(other), w.alice))
			},
			failed: []string{attest.CheckAgreement}, class: attest.ClassDiffers,
		},
		{
			name: "provenance of another manifest",
			receipt: func() *attest.Receipt {
				other := w.newClaim(document("other"), w.dependencies, outputs("other", artifact))
				return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(other), w.alice))
			},
			failed: []string{attest.CheckProvenance}, class: attest.ClassVerification,
		},
		{
			name: "claim with an extra dependency",
			receipt: func() *attest.Receipt {
				more := w.newClaim(w.document, dependencies(4), outputs("hello", artifact))
				return receiptOf(w.sign(more, w.alice), w.sign(w.provenance(w.claim), w.alice))
			},
			failed: []string{attest.CheckAgreement}, class: attest.ClassVerification,
		},
		{
			name: "claim with a dependency less",
			receipt: func() *attest.Receipt {
				less := w.newClaim(w.document, dependencies(2), outputs("hello", artifact))
				return receiptOf(w.sign(less, w.alice), w.sign(w.provenance(w.claim), w.alice))
			},
			failed: []string{attest.CheckAgreement}, class: attest.ClassVerification,
		},
		{
			name: "downgraded builder id",
			receipt: func() *attest.Receipt {
				degraded := w.provenance(w.claim, func(r *attest.Run) { r.Builder.ID = attest.BuilderDegraded })
				return receiptOf(w.sign(w.claim, w.alice), w.sign(degraded, w.alice))
			},
			failed: []string{attest.CheckBuilder}, class: attest.ClassPolicy,
		},
		{
			name: "hermetic in name only",
			receipt: func() *attest.Receipt {
				weak := w.provenance(w.claim, func(r *attest.Run) {
					r.Confinement = []byte(`{"driver":"namespace","enforced":[],"missing":["network-none: refused"]}`)
				})
				return receiptOf(w.sign(w.claim, w.alice), w.sign(weak, w.alice))
			},
			failed: []string{attest.CheckCompleteness}, class: attest.ClassVerification,
		},
		{
			name: "no confinement record",
			receipt: func() *attest.Receipt {
				silent := w.provenance(w.claim, func(r *attest.Run) { r.Confinement = nil })
				return receiptOf(w.sign(w.claim, w.alice), w.sign(silent, w.alice))
			},
			failed: []string{attest.CheckCompleteness}, class: attest.ClassVerification,
		},
		{
			name: "the builder's own builds differed",
			receipt: func() *attest.Receipt {
				differing := w.provenance(w.claim, func(r *attest.Run) { r.Variations.Equal = false })
				return receiptOf(w.sign(w.claim, w.alice), w.sign(differing, w.alice))
			},
			failed: []string{attest.CheckCompleteness}, class: attest.ClassDiffers,
		},
		{
			name: "built once where twice is asked for",
			receipt: func() *attest.Receipt {
				once := w.provenance(w.claim, func(r *attest.Run) { r.Variations = attest.Variations{Builds: 1, Once: true} })
				return receiptOf(w.sign(w.claim, w.alice), w.sign(once, w.alice))
			},
			change: func(in *attest.VerifyInput) { in.RequireVaried = true },
			failed: []string{attest.CheckCompleteness}, class: attest.ClassPolicy,
		},
		{
			name: "one builder's provenances twice count once",
			receipt: func() *attest.Receipt {
				again := w.provenance(w.claim, func(r *attest.Run) { r.InvocationID = "again" })
				return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim), w.alice), w.sign(again, w.alice))
			},
			change: func(in *attest.VerifyInput) { in.Rebuilds = 2 },
			failed: []string{attest.CheckRebuilds}, class: attest.ClassPolicy,
		},
		{
			name: "duplicate signatures count once",
			receipt: func() *attest.Receipt {
				env := w.sign(w.claim, w.alice)
				env.Signatures = append(env.Signatures, env.Signatures[0])
				env.Signatures[1].KeyID = w.bob.key.Public().String()
				return receiptOf(env, w.sign(w.provenance(w.claim), w.alice))
			},
			change: func(in *attest.VerifyInput) { in.Rebuilds = 2 },
			failed: []string{attest.CheckRebuilds}, class: attest.ClassPolicy,
		},
		{
			name: "provenance by one who did not sign the claim",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.provenance(w.claim), w.bob))
				return r
			},
			change: func(in *attest.VerifyInput) { in.Rebuilds = 2 },
			failed: []string{attest.CheckRebuilds}, class: attest.ClassPolicy,
		},
		{
			name: "a trusted builder claims other bytes",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.newClaim(w.document, w.dependencies, outputs("hello", evil)), w.bob))
				return r
			},
			failed: []string{attest.CheckConflict}, class: attest.ClassDiffers,
		},
		{
			name: "a stranger claims other bytes",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.newClaim(w.document, w.dependencies, outputs("hello", evil)), w.eve))
				return r
			},
		},
		{
			name: "a trusted negative result",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.negative(attest.Differs), w.bob))
				return r
			},
			failed: []string{attest.CheckNegative}, class: attest.ClassDiffers,
		},
		{
			name: "a trusted negative result, allowed",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.negative(attest.Differs), w.bob))
				return r
			},
			change: func(in *attest.VerifyInput) { in.AllowNegative = true },
		},
		{
			name: "a stranger's negative result",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.negative(attest.Differs), w.eve))
				return r
			},
		},
		{
			name: "one who could not build it",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice)
				r.Add(w.sign(w.negative(attest.FailedToBuild), w.bob))
				return r
			},
			failed: []string{attest.CheckNegative}, class: attest.ClassPolicy,
		},
		{
			name: "one who could not build it at first",
			receipt: func() *attest.Receipt {
				r := w.receipt(w.alice, w.bob)
				r.Add(w.sign(w.negative(attest.FailedToBuild), w.bob))
				return r
			},
		},
		{
			name: "sixteen useless signatures before the good one",
			receipt: func() *attest.Receipt {
				junk := w.sign(w.claim)
				for i := range dsse.MaxSignatures {
					junk.Signatures = append(junk.Signatures, dsse.Signature{KeyID: w.alice.key.Public().String(), Sig: []byte{byte(i), 1}})
				}
				return receiptOf(junk, w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim), w.alice))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(tt.receipt())
			if tt.change != nil {
				tt.change(&in)
			}
			r := w.verify(in)
			if diff := cmp.Diff(tt.failed, failures(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%s", diff, r.Text())
			}
			if r.OK != (tt.failed == nil) || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want class %q\n%s", r.OK, r.Class, tt.class, r.Text())
			}
			checkErr(t, r)
		})
	}
}

func receiptOf(envelopes ...*dsse.Envelope) *attest.Receipt {
	r := &attest.Receipt{}
	for _, env := range envelopes {
		r.Add(env)
	}
	return r
}

func (w *world) negative(state attest.NegativeState) *attest.Statement {
	w.t.Helper()
	n := attest.Negative{State: state, Cause: "it did not work", Tried: "2026-04-30T00:00:00Z", By: attest.Builder{ID: attest.BuilderHermetic}}
	switch state {
	case attest.Differs:
		n.Found = []attest.Mismatch{{Name: "hello", Expected: digest.Of(artifact), Found: digest.Of([]byte("other"))}}
	case attest.InputsMissing:
		n.Missing = []string{"https://example.org/input-000.tar.gz"}
	}
	s, err := attest.NewNegative(w.claim, n)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// A key under two principals would let one person be two; such a trust root cannot be used at all.
func TestTrustRefusesSharedKey(t *testing.T) {
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Principals[1].Keys = root.Spec.Principals[0].Keys
	if _, err := attest.NewTrust(root); err == nil {
		t.Fatal("a trust root with one key under two principals was accepted")
	}
}

// A hybrid principal counts only with every one of its keys.
func TestVerifyHybrid(t *testing.T) {
	w := newWorld(t)
	second := person{"alice", "acme", newKey(t, 9)}
	root := w.newRoot()
	root.Spec.Principals[0].Keys = append(root.Spec.Principals[0].Keys, second.key.Public().String())
	root.Spec.Principals[0].Require = manifest.RequireAll
	w.setRoot(root)
	if r := w.verify(w.input(w.receipt(w.alice))); r.OK {
		t.Errorf("one half of a hybrid was enough:\n%s", r.Text())
	}
	r := receiptOf(w.sign(w.claim, w.alice, second), w.sign(w.provenance(w.claim), w.alice, second))
	if got := w.verify(w.input(r)); !got.OK || len(got.Builders) != 1 {
		t.Errorf("a complete hybrid does not count as one:\n%s", got.Text())
	}
}

// A revoked key does not count.
func TestVerifyRevoked(t *testing.T) {
	w := newWorld(t)
	in := w.input(w.receipt(w.alice, w.bob))
	in.Options.Revocations = []manifest.Revocation{{Principal: "alice", Since: "2026-01-01T00:00:00Z", Reason: "lost"}}
	r := w.verify(in)
	if !r.OK || len(r.Builders) != 1 || r.Builders[0].Principal != "bob" {
		t.Errorf("builders %v, want bob alone\n%s", r.Builders, r.Text())
	}
	in.Receipt = w.receipt(w.alice)
	if r := w.verify(in); r.OK {
		t.Errorf("a revoked key was enough:\n%s", r.Text())
	}
}

// Every member of the statements is bound: swapping any one between two valid bundles never verifies.
func TestVerifySwappedParts(t *testing.T) {
	w := newWorld(t)
	other := []byte("other artifact")
	a := w.receipt(w.alice)
	claimB := w.newClaim(document("other"), dependencies(5), outputs("other", other))
	b := receiptOf(w.sign(claimB, w.bob), w.sign(w.provenance(claimB), w.bob))
	swaps := map[string]func() *attest.Receipt{
		"claim":              func() *attest.Receipt { return receiptOf(b.Claims[0], a.Provenances[0]) },
		"provenance":         func() *attest.Receipt { return receiptOf(a.Claims[0], b.Provenances[0]) },
		"claim payload":      func() *attest.Receipt { return receiptOf(mix(a.Claims[0], b.Claims[0]), a.Provenances[0]) },
		"claim signature":    func() *attest.Receipt { return receiptOf(mix(b.Claims[0], a.Claims[0]), b.Provenances[0]) },
		"provenance payload": func() *attest.Receipt { return receiptOf(a.Claims[0], mix(a.Provenances[0], b.Provenances[0])) },
		"roles of statements": func() *attest.Receipt {
			return &attest.Receipt{Claims: a.Provenances, Provenances: a.Claims}
		},
	}
	for name, swap := range swaps {
		t.Run(name, func(t *testing.T) {
			for _, art := range []attest.Artifact{file("hello", artifact), file("other", other)} {
				in := w.input(swap())
				in.Artifact = art
				if r := w.verify(in); r.OK {
					t.Errorf("%s verified:\n%s", art.Name, r.Text())
				}
			}
		})
	}
}

// mix returns an envelope with the signatures of one and the payload of the other.
func mix(signatures, payload *dsse.Envelope) *dsse.Envelope {
	return &dsse.Envelope{PayloadType: payload.PayloadType, Payload: payload.Payload, Signatures: signatures.Signatures}
}

// Every byte of every statement is covered: no single flipped byte verifies.
func TestVerifyFlippedBytes(t *testing.T) {
	w := newWorld(t)
	honest := w.receipt(w.alice)
	for which, env := range []*dsse.Envelope{honest.Claims[0], honest.Provenances[0]} {
		for i := range env.Payload {
			changed := slices.Clone(env.Payload)
			changed[i] ^= 1
			r := &attest.Receipt{Claims: honest.Claims, Provenances: honest.Provenances}
			bad := []*dsse.Envelope{{PayloadType: env.PayloadType, Payload: changed, Signatures: env.Signatures}}
			if which == 0 {
				r.Claims = bad
			} else {
				r.Provenances = bad
			}
			if got := w.verify(w.input(r)); got.OK {
				t.Fatalf("statement %d with byte %d changed verified:\n%s", which, i, got.Text())
			}
		}
	}
}

// Claims that are signed, but are not what a claim must be, are refused although the signature is good.
func TestVerifySignedNonsense(t *testing.T) {
	w := newWorld(t)
	tests := []struct{ name, old, new string }{
		{"unknown member", `"predicateType"`, `"note":"x","predicateType"`},
		{"white space", `"predicateType":`, `"predicateType": `},
		{"another build type", attest.BuildType, "https://example.org/other"},
		{"another manifest", `"name":"hello","path":"/build/hello"`, `"name":"hello","path":"/build/hellO"`},
		{"unpinned dependency", `"digest":{"sha256":"` + w.dependencies[0].Digest["sha256"] + `"},`, ``},
		{"subject of another output", `"name":"hello#nar"`, `"name":"hellp#nar"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			payload := w.rewrite(w.claim, tt.old, tt.new)
			r := &attest.Receipt{
				Claims:      []*dsse.Envelope{w.signBytes(payload, w.alice)},
				Provenances: []*dsse.Envelope{w.sign(w.provenance(w.claim), w.alice)},
			}
			got := w.verify(w.input(r))
			if got.OK || got.Class == attest.ClassPolicy {
				t.Errorf("OK %v, class %q:\n%s", got.OK, got.Class, got.Text())
			}
		})
	}
}

// A tree is found by its NAR hash, which is the only one computed.
func TestVerifyTree(t *testing.T) {
	w := newWorld(t)
	doc := document("site")
	doc.Spec.Outputs[0].Type = manifest.OutputTree
	nar, tar := digest.Of([]byte("nar")), digest.Of([]byte("tar"))
	w.claim = w.newClaim(doc, w.dependencies, []attest.Output{{Name: "site", NAR: nar, Tar: tar}})
	var asked []attest.Form
	in := w.input(w.receipt(w.alice))
	in.Artifact = attest.Artifact{Name: "site", Hash: func(_ context.Context, form attest.Form) (digest.SHA256, error) {
		asked = append(asked, form)
		if form == attest.FormNAR {
			return nar, nil
		}
		return digest.SHA256{}, attest.ErrNoForm
	}}
	r := w.verify(in)
	if !r.OK || r.Digest != nar || len(r.Subjects) != 3 {
		t.Errorf("digest %s, subjects %v\n%s", r.Digest, r.Subjects, r.Text())
	}
	if diff := cmp.Diff([]attest.Form{attest.FormFile, attest.FormNAR}, asked); diff != "" {
		t.Errorf("forms asked for (-want +got):\n%s", diff)
	}
}

// An artifact that cannot be read is an error, not a verdict.
func TestVerifyUnreadable(t *testing.T) {
	w := newWorld(t)
	in := w.input(w.receipt(w.alice))
	broken := errors.New("disk on fire")
	in.Artifact.Hash = func(context.Context, attest.Form) (digest.SHA256, error) { return digest.SHA256{}, broken }
	if r, err := attest.Verify(t.Context(), in); r != nil || !errors.Is(err, broken) {
		t.Errorf("Verify = %v, %v", r, err)
	}
}

// A verification that was cut short gives no verdict.
func TestVerifyCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	in := w.input(w.receipt(w.alice))
	in.Artifact.Hash = func(context.Context, attest.Form) (digest.SHA256, error) {
		cancel()
		return digest.Of(artifact), nil
	}
	for range 2 { // cancelled while hashing, then before anything
		if r, err := attest.Verify(ctx, in); r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Verify = %v, %v", r, err)
		}
	}
}

// Without trusted claims the artifact is not even read.
func TestVerifyReadsNothingForStrangers(t *testing.T) {
	w := newWorld(t)
	in := w.input(w.receipt(w.eve))
	in.Artifact.Hash = func(context.Context, attest.Form) (digest.SHA256, error) {
		t.Error("the artifact was hashed for a claim that no one trusted signed")
		return digest.SHA256{}, attest.ErrNoForm
	}
	w.verify(in)
}

func TestVerifyMistakes(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*attest.VerifyInput){
		"no trust root":     func(in *attest.VerifyInput) { in.Trust = nil },
		"no time":           func(in *attest.VerifyInput) { in.At = time.Time{} },
		"no artifact":       func(in *attest.VerifyInput) { in.Artifact.Hash = nil },
		"negative rebuilds": func(in *attest.VerifyInput) { in.Rebuilds = -1 },
		"unknown role":      func(in *attest.VerifyInput) { in.Role = "king" },
	} {
		t.Run(name, func(t *testing.T) {
			in := w.input(w.receipt(w.alice))
			change(&in)
			if r, err := attest.Verify(t.Context(), in); err == nil || r != nil {
				t.Errorf("Verify = %v, %v; want an error", r, err)
			}
		})
	}
}

// The same input gives the same report.
func TestVerifyIsDeterministic(t *testing.T) {
	w := newWorld(t)
	first := w.verify(w.input(w.receipt(w.alice, w.bob, w.carol)))
	for range 20 {
		r := w.receipt(w.alice, w.bob, w.carol)
		if diff := cmp.Diff(first, w.verify(w.input(r))); diff != "" {
			t.Fatalf("reports differ (-first +other):\n%s", diff)
		}
	}
}
