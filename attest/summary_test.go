package attest_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

const verifierID = "https://verifier.example.org/arch"

func summaryOptions() attest.SummaryOptions {
	return attest.SummaryOptions{
		VerifierID: verifierID, VerifierVersion: map[string]string{"arch": "v1"},
		ResourceURI: "https://example.org/hello", PolicyURI: "https://example.org/policy", PolicyDigest: digest.Of([]byte("policy")),
	}
}

func (w *world) vsa(r *attest.Report, opts attest.SummaryOptions) (*attest.Statement, *attest.VSA) {
	w.t.Helper()
	s, err := r.VSA(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := attest.ParseStatement(data)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := back.VSA()
	if err != nil {
		w.t.Fatal(err)
	}
	return s, v
}

// A summary claims only what was verified: reproduced needs two keys and two operators, each with claim and provenance.
func TestVSALevels(t *testing.T) {
	w := newWorld(t)
	half := w.receipt(w.alice)
	half.Add(w.sign(w.claim, w.bob)) // co-signed without telling how
	negative := w.receipt(w.alice, w.bob)
	negative.Add(w.sign(w.negative(attest.Differs), w.carol))
	tests := []struct {
		name    string
		receipt *attest.Receipt
		level   int
		result  string
		want    []string
		inputs  int
	}{
		{"one builder", w.receipt(w.alice), 0, attest.Passed, []string{attest.LevelBuild1}, 2},
		{"one builder, vouched for", w.receipt(w.alice), 2, attest.Passed, []string{attest.LevelBuild2}, 2},
		{"two operators", w.receipt(w.alice, w.bob), 0, attest.Passed, []string{attest.LevelBuild1, attest.LevelReproduced}, 3},
		{"one operator twice", w.receipt(w.bob, w.carol), 0, attest.Passed, []string{attest.LevelBuild1}, 3},
		{"second without provenance", half, 0, attest.Passed, []string{attest.LevelBuild1}, 2},
		{"second is a stranger", w.receipt(w.alice, w.eve), 0, attest.Passed, []string{attest.LevelBuild1}, 2},
		{"someone got other bytes", negative, 0, attest.Failed, []string{attest.Failed}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := summaryOptions()
			opts.BuilderLevel = tt.level
			_, v := w.vsa(w.verify(w.input(tt.receipt)), opts)
			if diff := cmp.Diff(tt.want, v.VerifiedLevels); diff != "" || v.VerificationResult != tt.result {
				t.Errorf("%s, levels (-want +got):\n%s", v.VerificationResult, diff)
			}
			if len(v.InputAttestations) != tt.inputs {
				t.Errorf("%d input attestations, want %d: %v", len(v.InputAttestations), tt.inputs, v.InputAttestations)
			}
			if v.DependencyLevels != nil {
				t.Errorf("it claims levels of dependencies: %v", v.DependencyLevels)
			}
		})
	}
}

func TestVSARefuses(t *testing.T) {
	w := newWorld(t)
	good := w.verify(w.input(w.receipt(w.alice)))
	for name, try := range map[string]func() (*attest.Statement, error){
		"level that cannot be vouched for": func() (*attest.Statement, error) {
			opts := summaryOptions()
			opts.BuilderLevel = 3
			return good.VSA(opts)
		},
		"no verifier": func() (*attest.Statement, error) { return good.VSA(attest.SummaryOptions{PolicyURI: "x"}) },
		"no policy":   func() (*attest.Statement, error) { return good.VSA(attest.SummaryOptions{VerifierID: "x"}) },
		"nothing was hashed": func() (*attest.Statement, error) {
			return w.verify(w.input(nil)).VSA(summaryOptions())
		},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := try(); err == nil {
				t.Errorf("VSA = %v", s)
			}
		})
	}
}

// An artifact that no claim names gets a summary that says so.
func TestVSAOfMismatch(t *testing.T) {
	w := newWorld(t)
	in := w.input(w.receipt(w.alice))
	in.Artifact = file("hello", []byte("bad"))
	s, v := w.vsa(w.verify(in), summaryOptions())
	if v.VerificationResult != attest.Failed || s.Subject[0].Digest["sha256"] != digest.Of([]byte("bad")).Hex() {
		t.Errorf("%s about %v", v.VerificationResult, s.Subject)
	}
}

func TestVerifySummary(t *testing.T) {
	w := newWorld(t)
	verifier := person{"verifier", "", newKey(t, 20)}
	report := w.verify(w.input(w.receipt(w.alice, w.bob)))
	passed, _ := w.vsa(report, summaryOptions())
	failing := w.input(w.receipt(w.alice))
	failing.Rebuilds = 3
	failing.At = now.Add(time.Hour)
	failed, _ := w.vsa(w.verify(failing), summaryOptions())
	otherID := summaryOptions()
	otherID.VerifierID = "https://verifier.example.org/other"
	other, _ := w.vsa(report, otherID)

	good := func() attest.SummaryInput {
		return attest.SummaryInput{
			Artifact:  file("hello", artifact),
			Receipt:   receiptOf(w.sign(passed, verifier)),
			Verifiers: map[string][]identity.PublicKey{verifierID: {verifier.key.Public()}},
			At:        now.Add(3 * time.Hour), ResourceURI: "https://example.org/hello", Levels: []string{attest.LevelBuild1, attest.LevelReproduced},
		}
	}
	tests := []struct {
		name   string
		change func(*attest.SummaryInput)
		class  attest.Class
	}{
		{"honest", func(*attest.SummaryInput) {}, ""},
		{"with the policy asked for", func(in *attest.SummaryInput) { in.PolicyDigest = digest.Of([]byte("policy")) }, ""},
		{"found by NAR", func(in *attest.SummaryInput) {
			in.Artifact.Hash = func(_ context.Context, form attest.Form) (digest.SHA256, error) {
				if form != attest.FormNAR {
					return digest.SHA256{}, attest.ErrNoForm
				}
				return digest.Of(append([]byte("nar"), artifact...)), nil
			}
		}, ""},
		{"a passed one after a failed one", func(in *attest.SummaryInput) {
			later := *report
			later.At = now.Add(2 * time.Hour)
			s, _ := w.vsa(&later, summaryOptions())
			in.Receipt = receiptOf(w.sign(failed, verifier), w.sign(s, verifier))
		}, ""},
		{"no summary", func(in *attest.SummaryInput) { in.Receipt = nil }, attest.ClassNothing},
		{"signed by a stranger", func(in *attest.SummaryInput) { in.Receipt = receiptOf(w.sign(passed, w.eve)) }, attest.ClassVerification},
		{"unsigned", func(in *attest.SummaryInput) { in.Receipt = receiptOf(w.sign(passed)) }, attest.ClassVerification},
		{"another verifier's id", func(in *attest.SummaryInput) { in.Receipt = receiptOf(w.sign(other, verifier)) }, attest.ClassVerification},
		{"another artifact", func(in *attest.SummaryInput) { in.Artifact = file("hello", []byte("bad")) }, attest.ClassVerification},
		{"another resource", func(in *attest.SummaryInput) { in.ResourceURI = "https://example.org/bye" }, attest.ClassVerification},
		{"a level that was not verified", func(in *attest.SummaryInput) { in.Levels = []string{attest.LevelBuild2} }, attest.ClassPolicy},
		{"another policy", func(in *attest.SummaryInput) { in.PolicyDigest = digest.Of(nil) }, attest.ClassPolicy},
		{"too old", func(in *attest.SummaryInput) { in.At, in.MaxAge = now.Add(48*time.Hour), 24*time.Hour }, attest.ClassPolicy},
		{"one that says FAILED beside levels", func(in *attest.SummaryInput) {
			in.Receipt = receiptOf(w.signBytes(w.rewrite(passed, `"PASSED"`, `"FAILED"`), verifier))
		}, attest.ClassPolicy},
		{"from the future", func(in *attest.SummaryInput) { in.At, in.MaxAge = now.Add(-time.Hour), 24*time.Hour }, attest.ClassVerification},
		{"a failed one", func(in *attest.SummaryInput) { in.Receipt = receiptOf(w.sign(failed, verifier)) }, attest.ClassPolicy},
		{"a failed one after a passed one", func(in *attest.SummaryInput) {
			in.Receipt = receiptOf(w.sign(passed, verifier), w.sign(failed, verifier))
		}, attest.ClassPolicy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := good()
			tt.change(&in)
			r, err := attest.VerifySummary(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if r.OK != (tt.class == "") || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want %q\n%s", r.OK, r.Class, tt.class, r.Text())
			}
			checkErr(t, r)
		})
	}
}

// A policy's rules decide beside the roles' quorum; what it has no rule for is refused.
func TestVerifyPolicy(t *testing.T) {
	w := newWorld(t)
	degraded := func(w *world) *attest.Receipt {
		return receiptOf(w.sign(w.claim, w.alice), w.sign(w.provenance(w.claim, func(r *attest.Run) { r.Builder.ID = attest.BuilderDegraded }), w.alice))
	}
	tests := []struct {
		name    string
		rules   []manifest.PolicyAttestation
		receipt *attest.Receipt
		class   attest.Class
	}{
		{"one of role builder", []manifest.PolicyAttestation{{Role: "builder"}}, w.receipt(w.alice), ""},
		{"two", []manifest.PolicyAttestation{{Role: "builder", Threshold: 2}}, w.receipt(w.alice, w.bob), ""},
		{"two, but one", []manifest.PolicyAttestation{{Role: "builder", Threshold: 2}}, w.receipt(w.alice), attest.ClassPolicy},
		{"reproduced", []manifest.PolicyAttestation{{Role: "rebuilder", Reproduced: true}}, w.receipt(w.alice, w.bob), ""},
		{"reproduced by one operator", []manifest.PolicyAttestation{{Role: "rebuilder", Reproduced: true}}, w.receipt(w.bob, w.carol), attest.ClassPolicy},
		{"a role nobody has", []manifest.PolicyAttestation{{Role: "peer"}}, w.receipt(w.alice), attest.ClassPolicy},
		{"no rule", nil, w.receipt(w.alice), attest.ClassPolicy},
		{"no rule that matches", []manifest.PolicyAttestation{{Match: "ghcr.io/**", Role: "builder"}}, w.receipt(w.alice), attest.ClassPolicy},
		{"one rule of two holds", []manifest.PolicyAttestation{{Role: "builder"}, {Match: "h*", Role: "builder", Threshold: 2}}, w.receipt(w.alice), attest.ClassPolicy},
		{"claims", []manifest.PolicyAttestation{{Role: "builder", PredicateType: attest.ClaimType}}, w.receipt(w.alice), ""},
		{"a predicate nobody can check", []manifest.PolicyAttestation{{Role: "builder", PredicateType: "https://spdx.dev/Document"}}, w.receipt(w.alice), attest.ClassPolicy},
		{"degraded, allowed by name", []manifest.PolicyAttestation{{Role: "builder", BuilderIDs: []string{attest.BuilderDegraded}}}, degraded(w), ""},
		{"degraded, not allowed", []manifest.PolicyAttestation{{Role: "builder"}}, degraded(w), attest.ClassPolicy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(tt.receipt)
			in.Policy = w.policy(tt.rules)
			r := w.verify(in)
			if r.OK != (tt.class == "") || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want %q\n%s", r.OK, r.Class, tt.class, r.Text())
			}
		})
	}
}

func (w *world) policy(rules []manifest.PolicyAttestation) *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy",
		Metadata: manifest.Metadata{Name: "strict", Expires: "2026-12-31T00:00:00Z"},
		Spec:     manifest.PolicySpec{Version: 1, Attestations: rules},
	}
}

// A policy is verified before it is read.
func TestOpenPolicy(t *testing.T) {
	w := newWorld(t)
	sign := func(p *manifest.Policy, by person) *dsse.Envelope {
		payload, err := manifest.Canonical(p)
		if err != nil {
			t.Fatal(err)
		}
		env, err := dsse.Sign(t.Context(), manifest.PayloadType("Policy"), payload, by.key)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	good := w.policy([]manifest.PolicyAttestation{{Role: "builder"}})
	policy, id, err := attest.OpenPolicy(sign(good, w.alice), w.trust, now, w.input(nil).Options)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, policy); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	if want, err := manifest.ID(good); err != nil || id != want {
		t.Errorf("id %s, want %s (%v)", id, want, err)
	}
	otherRoot := w.policy(good.Spec.Attestations)
	otherRoot.Spec.TrustRoot = digest.Of(nil)
	typed := sign(good, w.alice)
	typed.PayloadType = attest.PayloadType
	for name, try := range map[string]struct {
		env *dsse.Envelope
		at  time.Time
	}{
		"by a stranger":      {sign(good, w.eve), now},
		"expired":            {sign(good, w.alice), time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)},
		"another trust root": {sign(otherRoot, w.alice), now},
		"another type":       {typed, now},
	} {
		t.Run(name, func(t *testing.T) {
			if p, _, err := attest.OpenPolicy(try.env, w.trust, try.at, w.input(nil).Options); err == nil {
				t.Errorf("OpenPolicy = %v", p)
			}
		})
	}
}

// A report is JSON for scripts.
func TestReportJSON(t *testing.T) {
	w := newWorld(t)
	data, err := json.Marshal(w.verify(w.input(w.receipt(w.alice))))
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		OK     bool   `json:"ok"`
		Digest string `json:"digest"`
		Checks []struct{ Name, Result string }
	}
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !back.OK || back.Digest != digest.Of(artifact).String() || len(back.Checks) < 10 {
		t.Errorf("report %+v", back)
	}
}

// Checks made elsewhere can only make a report worse.
func TestReportAdd(t *testing.T) {
	w := newWorld(t)
	r := w.verify(w.input(w.receipt(w.alice)))
	r.Add(attest.Check{Name: attest.CheckLayout, Result: attest.Pass})
	if !r.OK {
		t.Error("a check that passed failed the report")
	}
	r.Add(attest.Check{Name: attest.CheckLayout, Result: attest.Fail, Class: attest.ClassVerification})
	if r.OK || r.Class != attest.ClassVerification {
		t.Error("a check that failed left the report OK")
	}
	r.Add(attest.Check{Name: attest.CheckLayout, Result: attest.Pass})
	empty := w.verify(w.input(nil))
	empty.Add(attest.Check{Name: attest.CheckSignature, Result: attest.Pass})
	if r.OK || empty.OK {
		t.Error("a check that passed made a failed report OK")
	}
}
