package admission_test

import (
	"testing"

	"arch.network/agent/admission"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// TestAttested judges reports. That real receipts give such reports is shown in cmd/arch, policy_proof.
func TestAttested(t *testing.T) {
	pin, other := digest.Of([]byte("image")), digest.Of([]byte("other"))
	demand := admission.Demand{
		Field: "spec.image", Ref: manifest.Ref{Scheme: manifest.RefOCI, Location: "ghcr.io/arch/x", Digest: pin},
		Rules: []int{1, 4},
	}
	holds := attest.Check{Name: attest.CheckPolicy, Result: attest.Pass}
	fails := attest.Check{Name: attest.CheckPolicy, Result: attest.Fail, Detail: "there are 1 principal by 1 operator", Hint: "have more rebuild", Class: attest.ClassPolicy}
	tests := []struct {
		name   string
		report *attest.Report
		want   []string // "message | cure"
	}{
		{"both rules hold", &attest.Report{OK: true, Digest: pin, Checks: []attest.Check{holds, holds}}, nil},
		{"no evidence", nil, []string{"the policy demands proof of ghcr.io/arch/x@" + pin.String() + ", and there is none"}},
		{"one rule fails", &attest.Report{Digest: pin, Checks: []attest.Check{holds, fails}}, []string{"policy: there are 1 principal by 1 operator"}},
		{"about other bytes", &attest.Report{OK: true, Digest: other, Checks: []attest.Check{holds, holds}}, []string{"the policy demands proof of ghcr.io/arch/x@" + pin.String() + ", but what was found is about " + other.String()}},
		{"verified with another policy, which asked for less", &attest.Report{OK: true, Digest: pin, Checks: []attest.Check{holds}}, []string{"2 of the policy's rules concern ghcr.io/arch/x@" + pin.String() + ", but only 1 were checked"}},
		{"not OK for a check that was not made", &attest.Report{Digest: pin, Checks: []attest.Check{holds, holds}, Class: attest.ClassVerification}, []string{"what was found of ghcr.io/arch/x@" + pin.String() + " is not enough: verification-failed"}},
		{"says yes, but a check failed", &attest.Report{OK: true, Digest: pin, Checks: []attest.Check{holds, holds, fails}}, []string{"policy: there are 1 principal by 1 operator"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, r := range admission.Attested(demand, tt.report) {
				got = append(got, r.Msg)
				if r.Check != admission.CheckAttestation || r.Field != "spec.image" || r.Cure == "" {
					t.Errorf("%+v", r)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestRefuse shows that what is found after admission makes a refusal of the verdict, and leaves the first one as it was.
func TestRefuse(t *testing.T) {
	v := judge(sign(t, newJob(), "alice", "bob"), activate(t, newPolicy()), nil)
	if v.Refuse(nil) != v {
		t.Error("without reasons, it is another verdict")
	}
	no := v.Refuse([]admission.Reason{{Check: admission.CheckAttestation, Field: "spec.image", Msg: "nothing proves it", Cure: "prove it"}})
	if no.Admitted || no.Limits != nil || no.Issued != nil || len(no.Reasons) != 1 || !v.Admitted || v.Limits == nil {
		t.Errorf("%+v\n%+v", no, v)
	}
}
