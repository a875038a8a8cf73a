package admission_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"arch.network/agent/admission"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

func TestAdmitted(t *testing.T) {
	p := newPolicy()
	p.Spec.Validation.MinReplicas = 2
	p.Spec.Local.Cap = manifest.JobResources{Memory: "1Gi", Gas: 1000}
	p.Spec.Attestations = []manifest.PolicyAttestation{{Match: "ghcr.io/**", Role: "builder"}, {Match: "https://example.org/*", Role: "builder", Reproduced: true}}
	j := newJob()
	j.Spec.Timeout = "30m"
	j.Spec.Resources.Gas = 500
	got := judge(sign(t, j, "bob", "alice", "mallory"), activate(t, p), nil)
	want := &admission.Verdict{
		Admitted: true, Job: got.Job, Name: "count", Owner: "user:alice", At: "2026-06-01T12:00:00Z",
		Policy: admission.Document{Name: "house", Version: 3, ID: got.Policy.ID}, Root: admission.Document{Name: "net", Version: 1, ID: got.Root.ID},
		Issued:   &admission.Issued{Rule: 0, Role: "job", Principals: []string{"alice", "bob"}, Operators: []string{"alice.example", "bob.example"}},
		Limits:   &admission.Limits{CPU: 4000, Memory: 1 << 30, Scratch: 1 << 30, Output: 1 << 30, Processes: 1024, Gas: 500, Timeout: 30 * 60 * 1000},
		Replicas: 2,
		Demands:  []admission.Demand{{Field: "spec.image", Ref: j.Spec.Image, Rules: []int{1}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got.Summary() != "job count is admitted: alice, bob signed as role job, policy house version 3" {
		t.Errorf("summary: %s", got.Summary())
	}
}

// TestRefused tells the reasons as "check field: message". Each must have a cure.
func TestRefused(t *testing.T) {
	constraint := func(key string, op manifest.Operator, value string) manifest.Constraint {
		return manifest.Constraint{Key: key, Op: op, Value: manifest.Raw(value)}
	}
	tests := []struct {
		name    string
		job     func(*manifest.Job)
		policy  func(*manifest.Policy)
		in      func(*admission.Input)
		signers []string
		want    []string
	}{
		{"nobody of us signed", nil, nil, nil, []string{"mallory"}, []string{"signature signatures: no signature of anyone who may issue jobs verifies"}},
		{"one of two", nil, nil, nil, []string{"alice"}, []string{"quorum signatures: role job: job needs 2 of alice, bob, carol: 1 agreed (alice)"}},
		{"one signed, and the policy's signer", nil, nil, nil, []string{"alice", "dave"}, []string{"quorum signatures: role job: job needs 2 of alice, bob, carol: 1 agreed (alice)"}},
		{"an owner whom nobody may speak for", func(j *manifest.Job) { j.Metadata.Owner = "org:x" }, nil, nil, nil, []string{
			`quorum metadata.owner: policy house lets nobody issue jobs of owner "org:x" for runtime wasm`,
		}},
		{"expired", func(j *manifest.Job) { j.Metadata.Expires = "2026-06-01T12:00:00Z" }, nil, nil, nil, []string{"time metadata.expires: it expired on 2026-06-01T12:00:00Z"}},
		{"not yet", func(j *manifest.Job) { j.Spec.NotBefore = "2026-06-01T12:00:01Z" }, nil, nil, nil, []string{"time spec.notBefore: it must not run before 2026-06-01T12:00:01Z"}},
		{"redirected to another node", func(j *manifest.Job) { j.Spec.Audience = []string{"node-2"} }, nil, nil, nil, []string{`audience spec.audience: it is for ["node-2"]`}},
		{"for a pool of ours", func(j *manifest.Job) { j.Spec.Audience = []string{"node-2", "pool-a"} }, nil, nil, nil, nil},
		{"replayed", nil, nil, func(in *admission.Input) { in.Replay = admission.Spent }, nil, []string{"replay spec.nonce: this document was accepted before, and its nonce lets it count once"}},
		{"its nonce in another document", nil, nil, func(in *admission.Input) { in.Replay = admission.Reused }, nil, []string{`replay spec.nonce: another document of "user:alice" with this nonce was accepted before`}},
		{"a nonce for ever", func(j *manifest.Job) { j.Metadata.Expires = "" }, nil, nil, nil, []string{"replay spec.nonce: it has a nonce, but no end until which that would have to be remembered"}},
		{"the policy's grace is over", nil, nil, func(in *admission.Input) { in.At = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC) }, nil, []string{
			"policy : policy house expired on 2026-12-01T00:00:00Z, and its offline grace is over", "time metadata.expires: it expired on 2026-07-01T00:00:00Z",
		}},
		{
			"everything at once", func(j *manifest.Job) {
				j.Spec.Runtime, j.Spec.Image = manifest.RuntimeOCI, manifest.Ref{Scheme: manifest.RefOCI, Location: "ghcr.io/arch/x", Digest: j.Spec.Image.Digest}
				j.Spec.Capabilities.Net = []string{"egress:25"}
				j.Spec.Resources = manifest.JobResources{Memory: "4Gi"}
				j.Spec.Audience = []string{"node-2"}
			}, nil, nil,
			[]string{"alice"},
			[]string{
				"quorum signatures: role job: job needs 2 of alice, bob, carol: 1 agreed (alice)",
				`audience spec.audience: it is for ["node-2"]`,
				"rules spec.runtime: runtime oci is not allowed by policy house",
				`rules spec.capabilities.net[0]: capability "egress:25" is not allowed by policy house`,
				"rules spec.resources.memory: 4Gi is over the policy's 2Gi",
			},
		},
		{"the node is too small", nil, func(p *manifest.Policy) { p.Spec.Resources.Owner.Memory = "1Gi" }, nil, nil, []string{
			"limits spec.resources.memory: its memory alone is over what the policy allows all jobs of an owner",
		}},
		{"placement holds", func(j *manifest.Job) {
			j.Spec.Placement.Constraints = []manifest.Constraint{constraint("energy.price_eur_kwh", "<=", "0.15"), constraint("locality.country", "in", `["ch","at"]`)}
		}, nil, nil, nil, nil},
		{"placement does not hold", func(j *manifest.Job) {
			j.Spec.Placement.Constraints = []manifest.Constraint{
				constraint("energy.price_eur_kwh", "<", "0.12"), constraint("locality.user_hops", "<=", "2"),
				constraint("locality.country", "!=", `"ch"`), constraint("locality.country", "==", `3`), constraint("energy.price_eur_kwh", "==", "0.12"),
			}
		}, nil, nil, nil, []string{
			"placement spec.placement.constraints[0]: energy.price_eur_kwh is 0.12, but must be < 0.12",
			`placement spec.placement.constraints[1]: this node does not know "locality.user_hops"`,
			`placement spec.placement.constraints[2]: locality.country is "ch", but must be != "ch"`,
			`placement spec.placement.constraints[3]: locality.country is "ch", which cannot be compared by == with 3`,
		}},
		{"a condition of the policy", func(j *manifest.Job) { j.Spec.Capabilities.Net = []string{"egress:example.org:443"} }, func(p *manifest.Policy) {
			p.Spec.Conditions = []manifest.PolicyCondition{
				{Capabilities: []string{"egress:*"}, Require: []manifest.Constraint{constraint("job.owner", "in", `["user:bob"]`)}, Reason: "only bob may talk"},
				{Owners: []string{"user:bob"}, Require: []manifest.Constraint{constraint("job.owner", "==", `"nobody"`)}, Reason: "not of this job"},
				{Require: []manifest.Constraint{constraint("time.weekday", "<=", "5"), constraint("time.hour", "in", "[12,13]"), constraint("job.memory", "<=", "2147483648")}, Reason: "holds"},
				{Require: []manifest.Constraint{constraint("job.capabilities", "!=", `"egress:example.org:443"`), constraint("energy.price_eur_kwh", "<", "0.1")}, Reason: "dear"},
			}
		}, nil, nil, []string{
			`conditions metadata: condition 1 of policy house ("only bob may talk"): job.owner is "user:alice", but must be in ["user:bob"]`,
			`conditions metadata: condition 4 of policy house ("dear"): job.capabilities is ["egress:example.org:443"], but must be != "egress:example.org:443"`,
			`conditions metadata: condition 4 of policy house ("dear"): energy.price_eur_kwh is 0.12, but must be < 0.1`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, p := newJob(), newPolicy()
			if tt.job != nil {
				tt.job(j)
			}
			if tt.policy != nil {
				tt.policy(p)
			}
			signers := tt.signers
			if signers == nil {
				signers = []string{"alice", "carol"}
			}
			v := judge(sign(t, j, signers...), activate(t, p), tt.in)
			var got []string
			for _, r := range v.Reasons {
				got = append(got, fmt.Sprintf("%s %s: %s", r.Check, r.Field, r.Msg))
				if r.Cure == "" {
					t.Errorf("%s has no cure", r.Msg)
				}
			}
			if v.Admitted != (len(tt.want) == 0) || v.Admitted != (v.Limits != nil) {
				t.Errorf("admitted: %v", v.Admitted)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Transformer("short", beginning)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// beginning cuts what quorum says about strangers.
func beginning(s string) string {
	before, _, _ := bytes.Cut([]byte(s), []byte("; "))
	return string(before)
}

// TestGraced shows that within the policy's offline grace, jobs still run, and the verdict says so.
func TestGraced(t *testing.T) {
	j := newJob()
	j.Metadata.Expires = "2027-01-01T00:00:00Z"
	v := judge(sign(t, j, "alice", "bob"), activate(t, newPolicy()), func(in *admission.Input) { in.At = time.Date(2026, 12, 1, 23, 0, 0, 0, time.UTC) })
	if !v.Admitted || !v.Graced {
		t.Errorf("admitted %v, graced %v: %v", v.Admitted, v.Graced, v.Reasons)
	}
}

// TestNotBelieved shows that nothing is read of what nobody who may issue jobs has signed.
func TestNotBelieved(t *testing.T) {
	a := activate(t, newPolicy())
	changed := sign(t, newJob(), "alice", "bob")
	env, err := dsse.Parse(changed)
	if err != nil {
		t.Fatal(err)
	}
	env.Payload = bytes.Replace(env.Payload, []byte("user:alice"), []byte("user:malic"), 1)
	policyEnvelope := sign(t, newPolicy(), "alice", "bob")
	broken := &dsse.Envelope{PayloadType: manifest.PayloadType("Job"), Payload: []byte(`{"kind":"Job"}`)}
	if err := broken.Add(t.Context(), key(t, "alice")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		envelope []byte
		check    admission.Check
	}{
		"changed after it was signed": {env.Marshal(), admission.CheckSignature},
		"a policy":                    {policyEnvelope, admission.CheckEnvelope},
		"no envelope":                 {[]byte("apiVersion: x"), admission.CheckEnvelope},
		"signed, but no document":     {broken.Marshal(), admission.CheckEnvelope},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(tt.envelope, a, nil)
			if v.Admitted || v.Name != "" || v.Owner != "" || len(v.Reasons) != 1 || v.Reasons[0].Check != tt.check {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestSameBytes shows that the verdict does not depend on the order of signatures or of maps.
func TestSameBytes(t *testing.T) {
	j := newJob()
	j.Spec.Inputs = map[string]manifest.Ref{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		j.Spec.Inputs[name] = j.Spec.Image
	}
	p := newPolicy()
	p.Spec.Attestations = []manifest.PolicyAttestation{{Role: "builder"}}
	var first []byte
	for range 20 {
		for _, names := range [][]string{{"alice", "bob"}, {"bob", "alice"}} {
			form, err := judge(sign(t, j, names...), activate(t, p), nil).Canonical()
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = form
			}
			if !bytes.Equal(first, form) {
				t.Fatalf("%s\n%s", first, form)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	a := activate(f, newPolicy())
	f.Add(sign(f, newJob(), "alice", "bob"))
	f.Add(sign(f, newJob(), "mallory"))
	f.Add(sign(f, newPolicy(), "dave"))
	f.Add([]byte(`{"payloadType":"x"}`))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		v := judge(envelope, a, nil)
		if v.Admitted == (len(v.Reasons) > 0) {
			t.Fatalf("admitted %v with reasons %v", v.Admitted, v.Reasons)
		}
		if _, err := v.Canonical(); err != nil {
			t.Fatal(err)
		}
	})
}
