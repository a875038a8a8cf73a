package job_test

import (
	"math"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
	"arch.network/runner/job"

	"github.com/google/go-cmp/cmp"
)

func outcome(doc *manifest.Job) job.Outcome {
	return job.Outcome{
		Result: runner.Result{
			Reason: runner.ReasonExit, Engine: "wazero/1.12.0 compiler",
			Usage: runner.Usage{
				Wall: 5 * time.Millisecond, CPU: 3 * time.Millisecond, MemoryPeak: 4096, Gas: 77,
				Energy: &runner.Energy{Joules: 0.5, Source: "rapl"}, Network: &runner.Traffic{Refused: 1, RefusedTo: []string{"tcp:x:25"}},
				Accounting: "cgroup-v2",
			},
			Anomalies:   []runner.Anomaly{{Kind: runner.AnomalyForkBurst, At: time.Second, Evidence: "many"}},
			Confinement: runner.Confinement{Driver: "namespace", Enforced: []string{"seccomp", "landlock"}},
		},
		Inputs: []attest.ResourceDescriptor{
			{URI: doc.Spec.Image.String(), Digest: map[string]string{"sha256": doc.Spec.Image.Digest.Hex()}},
		},
		Outputs:  []attest.JobOutput{{Name: "counts", File: digest.Of([]byte("c")), NAR: digest.Of([]byte("n"))}},
		Stdout:   job.Printed{Digest: digest.Of([]byte("hi")), Size: 2},
		Schedule: "arch-gas/1", Started: time.Unix(1, 0), Finished: time.Unix(2, 0), Versions: map[string]string{"arch": "v1"},
	}
}

const wordcount = "image: file:///words.wasm#sha256-ERERERERERERERERERERESIiIiIiIiIiIiIiIiIiIiI=\nruntime: wasm\noutputs: {counts: store}"

func TestStatements(t *testing.T) {
	doc := read(t, wordcount)
	o := outcome(doc)
	result, run, err := job.Statements(doc, o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := run.JobRun()
	if err != nil {
		t.Fatal(err)
	}
	resultID, err := result.ID()
	if err != nil {
		t.Fatal(err)
	}
	docID, err := manifest.ID(doc)
	if err != nil {
		t.Fatal(err)
	}
	want := &attest.JobRun{
		JobID: docID, Result: resultID, ResolvedInputs: o.Inputs,
		Runner: attest.Builder{ID: job.RunnerID, Version: map[string]string{"arch": "v1"}},
		Engine: "wazero/1.12.0 compiler", End: attest.JobEnd{Reason: "exit"},
		Usage: attest.JobUsage{
			WallMicros: 5000, CPUMicros: 3000, MemoryPeak: 4096, Gas: 77, EnergyMicro: 500000, EnergyFrom: "rapl",
			Network: attest.JobNetwork{Refused: 1, RefusedTo: []string{"tcp:x:25"}}, Accounting: "cgroup-v2",
		},
		Confinement: attest.JobConfinement{Driver: "namespace", Enforced: []string{"landlock", "seccomp"}},
		Anomalies:   []attest.JobAnomaly{{Kind: "fork-burst", AtMicros: 1000000, Evidence: "many"}},
		Byproducts:  []attest.ResourceDescriptor{{Name: "stdout", MediaType: attest.MediaLog, Digest: map[string]string{"sha256": digest.Of([]byte("hi")).Hex()}}},
		StartedOn:   "1970-01-01T00:00:01Z", FinishedOn: "1970-01-01T00:00:02Z",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Another run on another machine differs in its account, not in its result.
func TestResultIsTheSameElsewhere(t *testing.T) {
	doc := read(t, wordcount)
	here, elsewhere := outcome(doc), outcome(doc)
	elsewhere.Result.Engine, elsewhere.Result.Confinement.Driver = "wazero/1.12.0 interpreter", "systemd"
	elsewhere.Result.Usage = runner.Usage{Wall: time.Hour, CPU: time.Hour, Gas: here.Result.Gas, Accounting: "rusage"}
	elsewhere.Result.Anomalies, elsewhere.Stderr = nil, job.Printed{Digest: digest.Of([]byte("warning")), Size: 7}
	elsewhere.Started, elsewhere.Finished = time.Unix(100, 0), time.Unix(3700, 0)
	var ids []digest.SHA256
	var runs []digest.SHA256
	for _, o := range []job.Outcome{here, elsewhere} {
		result, run, err := job.Statements(doc, o)
		if err != nil {
			t.Fatal(err)
		}
		id, err := result.ID()
		if err != nil {
			t.Fatal(err)
		}
		of, err := run.ID()
		if err != nil {
			t.Fatal(err)
		}
		ids, runs = append(ids, id), append(runs, of)
	}
	if ids[0] != ids[1] {
		t.Errorf("two results: %s and %s", ids[0], ids[1])
	}
	if runs[0] == runs[1] {
		t.Error("two runs have one account")
	}
}

func TestStatementsOfRunsThatWereStopped(t *testing.T) {
	doc := read(t, wordcount)
	for _, r := range []runner.Result{
		{Reason: runner.ReasonTimeout, Detail: "1s"},
		{Reason: runner.ReasonSignal, Signal: "SIGSEGV"},
		{Reason: runner.ReasonOutOfMemory},
		{Reason: runner.ReasonLimit, Detail: "gas"},
		{Reason: runner.ReasonRefused, Detail: "no module"},
		{Reason: runner.ReasonCancelled},
		{Reason: runner.ReasonNotFound},
	} {
		t.Run(string(r.Reason), func(t *testing.T) {
			o := outcome(doc)
			r.Confinement.Driver = "namespace"
			r.Usage = runner.Usage{Energy: &runner.Energy{Joules: math.Inf(1), Source: "rapl"}, MemoryPeak: -1}
			o.Result, o.Outputs = r, nil
			result, run, err := job.Statements(doc, o)
			if err != nil || result != nil {
				t.Fatalf("result %v, %v", result, err)
			}
			if _, err := run.JobRun(); err != nil {
				t.Error(err)
			}
		})
	}
}
