package attest_test

import (
	"context"
	"slices"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// newPeers is a world in which alice and bob, together or alone, run nodes.
func newPeers(t testing.TB, threshold int) *world {
	t.Helper()
	w := newWorld(t)
	root := w.newRoot()
	root.Spec.Roles[manifest.RolePeer] = manifest.TrustGroup{Threshold: threshold, Of: []string{"alice", "bob"}}
	w.setRoot(root)
	return w
}

// account is a run of the result by somebody, changed.
func (w *world) account(result *attest.Statement, change func(*attest.JobRun)) *attest.Statement {
	run := jobRun()
	run.Confinement.Missing, run.Anomalies = nil, nil
	if change != nil {
		change(&run)
	}
	return newJobRun(w.t, result, run)
}

func (w *world) jobReceipt(result *attest.Statement, by ...person) *attest.Receipt {
	r := &attest.Receipt{}
	r.Add(w.sign(result, by...))
	for i, p := range by {
		r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Usage.CPUMicros += int64(i) }), p))
	}
	return r
}

// otherResult is what somebody got who got something else.
func otherResult(t testing.TB, change func(*manifest.Job)) *attest.Statement {
	t.Helper()
	doc, inputs := jobDocument(), jobInputs()
	if change != nil {
		change(doc)
	}
	subjects := attest.JobSubjects([]attest.JobOutput{
		{Name: "index", NAR: digest.Of([]byte("another"))}, {Name: "counts", File: digest.Of([]byte("another")), NAR: digest.Of([]byte("another"))},
	}, digest.Of(nil), 0)
	s, err := attest.NewJobResult(doc, inputs, subjects, 0, attest.Gas{Used: 1, Schedule: "arch-gas/1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyJob(t *testing.T) {
	result := newJobResult(t)
	tests := []struct {
		name      string
		threshold int
		receipt   func(w *world) *attest.Receipt
		change    func(in *attest.VerifyInput)
		want      []string // failed checks; none: OK
		class     attest.Class
	}{
		{name: "run by one", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }},
		{name: "run by two, and two are asked for", threshold: 2, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice, w.bob) }, change: func(in *attest.VerifyInput) { in.Rebuilds, in.Operators = 2, 2 }},
		{name: "no receipt", threshold: 1, receipt: func(*world) *attest.Receipt { return nil }, want: []string{attest.CheckReceipts, attest.CheckSignature}, class: attest.ClassNothing},
		{name: "too few", threshold: 2, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, want: []string{attest.CheckQuorum}, class: attest.ClassPolicy},
		{name: "one, and two are asked for", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, change: func(in *attest.VerifyInput) { in.Rebuilds = 2 }, want: []string{attest.CheckRebuilds}, class: attest.ClassPolicy},
		{name: "a stranger", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.eve) }, want: []string{attest.CheckSignature}, class: attest.ClassVerification},
		{name: "a builder is no peer", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.carol) }, want: []string{attest.CheckQuorum}, class: attest.ClassPolicy},
		{name: "another artifact", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, change: func(in *attest.VerifyInput) { in.Artifact = file("counts", []byte("changed")) }, want: []string{attest.CheckSubject}, class: attest.ClassVerification},
		{name: "another job", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, change: func(in *attest.VerifyInput) { in.Manifest = digest.Of(nil) }, want: []string{attest.CheckManifest}, class: attest.ClassVerification},
		{name: "the job that was asked for", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, change: func(in *attest.VerifyInput) { in.Manifest, _ = manifest.ID(jobDocument()) }},
		{name: "another name", threshold: 1, receipt: func(w *world) *attest.Receipt { return w.jobReceipt(result, w.alice) }, change: func(in *attest.VerifyInput) { in.Name = "index" }, want: []string{attest.CheckName}, class: attest.ClassVerification},
		{name: "no account of a run", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			return r
		}, want: []string{attest.CheckRun}, class: attest.ClassVerification},
		{name: "an account of somebody who did not sign the result", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, nil), w.bob))
			return r
		}, want: []string{attest.CheckRun}, class: attest.ClassVerification},
		{name: "other gas than the result's", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Usage.Gas++ }), w.alice))
			return r
		}, want: []string{attest.CheckRun}, class: attest.ClassVerification},
		{name: "published where the job says", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Published = publishedRun().Published }), w.alice))
			return r
		}},
		{name: "published where the job does not say", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) {
				run.Published = []attest.ResourceDescriptor{attest.Published("counts", "oci:registry.example/words:v1", digest.Of(nil))}
			}), w.alice))
			return r
		}, want: []string{attest.CheckRun}, class: attest.ClassVerification},
		{name: "weaker confinement", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Confinement.Missing = []string{"seccomp: no"} }), w.alice))
			return r
		}, want: []string{attest.CheckConfinement}, class: attest.ClassPolicy},
		{name: "something was not counted", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Confinement.Missing = []string{"refused-syscalls: no"} }), w.alice))
			return r
		}},
		{name: "weaker confinement, accepted", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) { run.Confinement.Missing = []string{"seccomp: no"} }), w.alice))
			return r
		}, change: func(in *attest.VerifyInput) { in.BuilderIDs = []string{attest.BuilderHermetic, attest.BuilderDegraded} }},
		{name: "somebody else got something else", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := w.jobReceipt(result, w.alice)
			r.Add(w.sign(otherResult(w.t, nil), w.bob))
			return r
		}, want: []string{attest.CheckConflict}, class: attest.ClassDiffers},
		{name: "somebody else got something else, allowed", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := w.jobReceipt(result, w.alice)
			r.Add(w.sign(otherResult(w.t, nil), w.bob))
			return r
		}, change: func(in *attest.VerifyInput) { in.AllowNegative = true }},
		{name: "a stranger got something else", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := w.jobReceipt(result, w.alice)
			r.Add(w.sign(otherResult(w.t, nil), w.eve))
			return r
		}},
		{name: "another job gave something else", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := w.jobReceipt(result, w.alice)
			r.Add(w.sign(otherResult(w.t, func(doc *manifest.Job) { doc.Metadata.Name = "other" }), w.bob))
			return r
		}},
		{name: "an anomaly, and the policy holds such back", threshold: 1, receipt: func(w *world) *attest.Receipt {
			r := &attest.Receipt{}
			r.Add(w.sign(result, w.alice))
			r.Add(w.sign(w.account(result, func(run *attest.JobRun) {
				run.Anomalies = []attest.JobAnomaly{{Kind: "fork-burst", Evidence: "many"}}
			}), w.alice))
			return r
		}, change: func(in *attest.VerifyInput) {
			in.Policy = &manifest.Policy{}
			in.Policy.Spec.Validation.QuarantineOnAnomaly = true
		}, want: []string{attest.CheckAnomalies}, class: attest.ClassPolicy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newPeers(t, tt.threshold)
			in := attest.VerifyInput{Artifact: file("counts", artifact), Receipt: tt.receipt(w), Trust: w.trust, At: now}
			if tt.change != nil {
				tt.change(&in)
			}
			r, err := attest.VerifyJob(context.Background(), in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, failures(r)); diff != "" || r.OK != (tt.want == nil) || r.Class != tt.class {
				t.Errorf("OK %v, class %q, want %q; failed (-want +got)\n%s\n%s", r.OK, r.Class, tt.class, diff, r.Text())
			}
			again, err := attest.VerifyJob(context.Background(), in)
			if diff := cmp.Diff(r, again); diff != "" || err != nil {
				t.Errorf("a second time: %v\n%s", err, diff)
			}
		})
	}
}

// Of a job that is not deterministic, two results contradict nothing.
func TestVerifyJobThatVaries(t *testing.T) {
	w := newPeers(t, 1)
	vary := func(doc *manifest.Job) { doc.Spec.Determinism.Clock = manifest.ClockReal }
	doc := jobDocument()
	vary(doc)
	result, err := attest.NewJobResult(doc, jobInputs(), jobSubjects(), 0, attest.Gas{Used: 123456, Schedule: "arch-gas/1"})
	if err != nil {
		t.Fatal(err)
	}
	receipt := w.jobReceipt(result, w.alice)
	receipt.Add(w.sign(otherResult(t, vary), w.bob))
	r, err := attest.VerifyJob(context.Background(), attest.VerifyInput{Artifact: file("counts", artifact), Receipt: receipt, Trust: w.trust, At: now})
	if err != nil || !r.OK || !slices.ContainsFunc(r.Checks, func(c attest.Check) bool { return c.Name == attest.CheckConflict && c.Result == attest.Skip }) {
		t.Errorf("%v\n%s", err, r.Text())
	}
}
