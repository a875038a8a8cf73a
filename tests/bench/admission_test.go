package bench

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/agent/admission"
	"arch.network/agent/policy"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// BenchmarkAdmission judges a job of a 2 KB manifest that three of five must sign, from the bytes of its envelope to the bytes of
// the verdict, with the policy's keys ready; beside three bare Ed25519 verifications of the same message. CPU time of the
// thread, on one core, the two taking turns; the tenth percentile, for caches that others empty count as CPU time, too.
func BenchmarkAdmission(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := newAdmissionFixture(b)
	var ours, floor []time.Duration
	for b.Loop() {
		ours = append(ours, threadTime(b, f.judge))
		floor = append(floor, threadTime(b, f.verify))
	}
	o, e := tenth(ours), tenth(floor)
	b.ReportMetric(float64(o)/1e3, "cpu-µs")
	b.ReportMetric(float64(e)/1e3, "ed25519x3-µs")
	b.ReportMetric(float64(o-e)/1e3, "overhead-µs") // of everything but the signatures
	b.ReportMetric(float64(len(f.payload)), "manifest-B")
	b.ReportMetric(0, "ns/op") // of both together: of no use
}

// tenth says what it takes when nobody else is in the way.
func tenth(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/10]
}

// threadTime returns the CPU time that f took of this thread.
func threadTime(b *testing.B, f func() error) time.Duration {
	start := threadClock(b)
	err := f()
	took := threadClock(b) - start
	if err != nil {
		b.Fatal(err)
	}
	return took
}

func threadClock(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

type admissionFixture struct {
	active   *policy.Active
	envelope []byte
	payload  []byte
	message  []byte
	keys     []ed25519.PublicKey
	sigs     [][]byte
	at       time.Time
	facts    map[string]manifest.Raw
}

func (f *admissionFixture) judge() error {
	in := admission.Input{Active: f.active, Names: []string{"node-1"}, At: f.at, Facts: f.facts}
	in.Proposal = admission.Open(f.envelope, f.active, f.at)
	v := admission.Judge(in)
	if !v.Admitted {
		return errors.New(v.Summary())
	}
	_, err := v.Canonical()
	return err
}

func (f *admissionFixture) verify() error {
	for i, k := range f.keys {
		if !ed25519.Verify(k, f.message, f.sigs[i]) {
			return errors.New("it does not verify")
		}
	}
	return nil
}

func newAdmissionFixture(b *testing.B) *admissionFixture {
	b.Helper()
	f := &admissionFixture{at: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), facts: map[string]manifest.Raw{
		"energy.price_eur_kwh": manifest.Raw("0.1"), "locality.user_hops": manifest.Raw("1"),
	}}
	var keys []*identity.Key
	root := &manifest.TrustRoot{APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "net", Expires: "2027-01-01T00:00:00Z"}}
	root.Spec = manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{}}
	job := manifest.TrustGroup{Threshold: 3}
	for i := range 5 {
		seed := bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize)
		k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed))
		if err != nil {
			b.Fatal(err)
		}
		keys = append(keys, k)
		f.keys = append(f.keys, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
		name := fmt.Sprintf("p%d", i)
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{k.Public().String()}})
		job.Of = append(job.Of, name)
	}
	f.keys = f.keys[:3]
	root.Spec.Roles[manifest.RoleJob] = job
	root.Spec.Roles[manifest.RolePolicy] = manifest.TrustGroup{Threshold: 1, Of: []string{"p0"}}
	root.Spec.Roles[manifest.RoleGovernance] = manifest.TrustGroup{Threshold: 1, Of: []string{"p0"}}
	trust, err := attest.NewTrust(root)
	if err != nil {
		b.Fatal(err)
	}
	if f.active, err = policy.New(trust, signed(b, admissionPolicy(), keys[:1]), f.at); err != nil {
		b.Fatal(err)
	}
	env := signed(b, admissionJob(), keys[:3])
	f.envelope, f.payload, f.message = env.Marshal(), env.Payload, dsse.PAE(env.PayloadType, env.Payload)
	for _, s := range env.Signatures {
		f.sigs = append(f.sigs, s.Sig)
	}
	return f
}

func signed(b *testing.B, doc manifest.Document, keys []*identity.Key) *dsse.Envelope {
	b.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		b.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	for _, k := range keys {
		if err := env.Add(b.Context(), k); err != nil {
			b.Fatal(err)
		}
	}
	return env
}

func admissionPolicy() *manifest.Policy {
	p := &manifest.Policy{APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: "2027-01-01T00:00:00Z"}}
	p.Spec = manifest.PolicySpec{
		Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob, Owners: []string{"user:*", "org:*"}}},
		Runtimes:     []manifest.Runtime{manifest.RuntimeWasm, manifest.RuntimeOCI},
		Capabilities: manifest.PolicyCapabilities{Allow: []string{"egress:443", "egress:*.example.org:*", "read:/datasets", "write:/var/arch/cache"}},
		Resources:    manifest.PolicyResources{Job: manifest.JobResources{CPU: "4", Memory: "8Gi"}, Owner: manifest.JobResources{Memory: "16Gi"}, Timeout: "6h"},
		Attestations: []manifest.PolicyAttestation{{Match: "ghcr.io/arch/**", Role: manifest.RoleBuilder, Reproduced: true}},
		Conditions: []manifest.PolicyCondition{{
			Capabilities: []string{"egress:*"}, Reason: "no mail",
			Require: []manifest.Constraint{{Key: "job.capabilities", Op: manifest.OpNotEqual, Value: manifest.Raw(`"egress:25"`)}},
		}},
	}
	return p
}

// admissionJob is the size of a job with a few inputs: its canonical form has about 2 KB.
func admissionJob() *manifest.Job {
	j := &manifest.Job{APIVersion: manifest.APIVersion, Kind: "Job", Metadata: manifest.Metadata{Name: "embed-wikipedia", Owner: "user:superintelligence", Expires: "2026-12-01T00:00:00Z"}}
	j.Spec = manifest.JobSpec{
		Image:   manifest.Ref{Scheme: manifest.RefOCI, Location: "ghcr.io/arch/os/embeddings", Digest: digest.Of([]byte("image"))},
		Runtime: manifest.RuntimeWasm, Nonce: "n-00000001", Audience: []string{"node-1"},
		Resources:    manifest.JobResources{CPU: "4", Memory: "8Gi", GPU: "0", PowerBudgetW: 80},
		Capabilities: manifest.Capabilities{Net: []string{"egress:443"}, FS: []string{"read:/datasets/wiki", "write:/var/arch/cache"}},
		Inputs:       map[string]manifest.Ref{},
		Placement: manifest.Placement{Constraints: []manifest.Constraint{
			{Key: "energy.price_eur_kwh", Op: manifest.OpLessEqual, Value: manifest.Raw("0.15")}, {Key: "locality.user_hops", Op: manifest.OpLessEqual, Value: manifest.Raw("2")},
		}},
	}
	for i := range 8 {
		name := fmt.Sprintf("shard-%d", i)
		j.Spec.Inputs[name] = manifest.Ref{Scheme: manifest.RefURL, Location: "https://data.example.org/wikipedia/2026-01-31/en/" + name + ".parquet", Digest: digest.Of([]byte(name))}
		j.Spec.Args = append(j.Spec.Args, "--shard", "/inputs/"+name)
	}
	return j
}
