package attest_test

import (
	"slices"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// jobDocument returns a Job with an input and two outputs.
func jobDocument() *manifest.Job {
	ref := func(name string) manifest.Ref {
		return manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/" + name, Digest: digest.Of([]byte(name))}
	}
	return &manifest.Job{
		APIVersion: manifest.APIVersion, Kind: "Job", Metadata: manifest.Metadata{Name: "wordcount"},
		Spec: manifest.JobSpec{
			Image: ref("wordcount.wasm"), Runtime: manifest.RuntimeWasm,
			Inputs:  map[string]manifest.Ref{"text": ref("text")},
			Outputs: map[string]manifest.Target{"counts": {Destination: "store"}, "index": {Destination: "oci:registry.example/words:v1"}},
		},
	}
}

func jobInputs() []attest.ResourceDescriptor {
	var list []attest.ResourceDescriptor
	for _, name := range []string{"wordcount.wasm", "text"} {
		ref := manifest.Ref{Scheme: manifest.RefURL, Location: "https://example.org/" + name, Digest: digest.Of([]byte(name))}
		list = append(list, attest.ResourceDescriptor{URI: ref.String(), Digest: map[string]string{"sha256": ref.Digest.Hex()}})
	}
	return list
}

func jobSubjects() []attest.ResourceDescriptor {
	return attest.JobSubjects([]attest.JobOutput{
		{Name: "index", NAR: digest.Of([]byte("index"))},
		{Name: "counts", File: digest.Of(artifact), NAR: digest.Of([]byte("counts"))},
	}, digest.Of([]byte("2 words\n")), 8)
}

func newJobResult(t testing.TB) *attest.Statement {
	t.Helper()
	s, err := attest.NewJobResult(jobDocument(), jobInputs(), jobSubjects(), 0, attest.Gas{Used: 123456, Schedule: "arch-gas/1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func jobRun() attest.JobRun {
	return attest.JobRun{
		ResolvedInputs: jobInputs(),
		Runner:         attest.Builder{ID: "https://arch.network/runners/arch/v1", Version: map[string]string{"arch": "v1"}},
		Engine:         "wazero/1.12.0 compiler", End: attest.JobEnd{Reason: "exit"},
		Usage: attest.JobUsage{
			WallMicros: 5200, CPUMicros: 4100, MemoryPeak: 9 << 20, Gas: 123456, EnergyMicro: 61500,
			EnergyFrom: "model: 15 W a processor", Accounting: "rusage",
		},
		Confinement: attest.JobConfinement{
			Driver: "namespace", Enforced: []string{"mount-namespace", "network-none", "seccomp"}, Missing: []string{"memory: no control group is delegated"},
		},
		Anomalies:  []attest.JobAnomaly{{Kind: "fork-burst", AtMicros: 900, Evidence: "120 new processes in 100 ms; more than 100 are rare"}},
		Byproducts: []attest.ResourceDescriptor{{Name: "stdout", MediaType: attest.MediaLog, Digest: map[string]string{"sha256": digest.Of([]byte("2 words\n")).Hex()}}},
		StartedOn:  "2026-05-01T11:59:59Z", FinishedOn: "2026-05-01T12:00:00Z",
	}
}

// publishedRun is a run that pushed an output.
func publishedRun() attest.JobRun {
	run := jobRun()
	run.Published = []attest.ResourceDescriptor{attest.Published("index", "oci:registry.example/words:v1", digest.Of([]byte("manifest")))}
	return run
}

func newJobRun(t testing.TB, result *attest.Statement, run attest.JobRun) *attest.Statement {
	t.Helper()
	s, err := attest.NewJobRun(result, run)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Two nodes that get the same make the same bytes, whatever order things come in.
func TestJobResultIsOne(t *testing.T) {
	first := newJobResult(t)
	inputs, subjects := jobInputs(), jobSubjects()
	slices.Reverse(inputs)
	second, err := attest.NewJobResult(jobDocument(), append(inputs, inputs...), subjects, 0, attest.Gas{Used: 123456, Schedule: "arch-gas/1"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := first.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Encode()
	if diff := cmp.Diff(string(a), string(b)); diff != "" || err != nil {
		t.Errorf("%v (-first +second)\n%s", err, diff)
	}
	back, err := attest.ParseStatement(a)
	if err != nil {
		t.Fatal(err)
	}
	r, err := back.JobResult()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.Document()
	if diff := cmp.Diff(jobDocument(), doc); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	id, err := manifest.ID(jobDocument())
	if err != nil || id != r.JobID {
		t.Errorf("job %s, want %s: %v", r.JobID, id, err)
	}
}

func TestJobResultRefuses(t *testing.T) {
	subjects := jobSubjects()
	other := jobDocument()
	other.Metadata.Name = "other"
	tests := []struct {
		name     string
		inputs   []attest.ResourceDescriptor
		subjects []attest.ResourceDescriptor
		exit     int
		gas      attest.Gas
		want     string
	}{
		{"an output is missing", jobInputs(), subjects[:2], 0, attest.Gas{}, `output "counts"`},
		{"an output that nobody declared", jobInputs(), attest.JobSubjects([]attest.JobOutput{{Name: "x", NAR: digest.Of(nil)}}, digest.SHA256{}, 0), 0, attest.Gas{}, "is no output"},
		{"an output after a failure", jobInputs(), subjects, 1, attest.Gas{}, "ended with 1"},
		{"an input is missing", jobInputs()[:1], subjects, 0, attest.Gas{}, "not among the resolvedInputs"},
		{"an input without a digest", []attest.ResourceDescriptor{{URI: "x:y"}}, subjects, 0, attest.Gas{}, "no digest"},
		{"subjects out of order", jobInputs(), []attest.ResourceDescriptor{subjects[1], subjects[0]}, 0, attest.Gas{}, "out of order"},
		{"a negative exit status", jobInputs(), subjects, -1, attest.Gas{}, "exit status"},
		{"gas of no schedule", jobInputs(), subjects, 0, attest.Gas{Used: 1}, "schedule"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := attest.NewJobResult(jobDocument(), tt.inputs, tt.subjects, tt.exit, tt.gas)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A failure has a result, too: what was printed, and nothing else.
func TestJobResultOfFailure(t *testing.T) {
	s, err := attest.NewJobResult(jobDocument(), jobInputs(), attest.JobSubjects(nil, digest.Of(nil), 0), 3, attest.Gas{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.JobResult(); err != nil || r.Exit != 3 || len(s.Subject) != 1 || s.Subject[0].Name != attest.SubjectStdout {
		t.Errorf("%+v, %v, %v", r, s.Subject, err)
	}
}

func TestJobRun(t *testing.T) {
	w := newWorld(t)
	result := newJobResult(t)
	s := newJobRun(t, result, publishedRun())
	if diff := cmp.Diff(result.Subject, s.Subject); diff != "" {
		t.Errorf("subjects (-result +run)\n%s", diff)
	}
	r, err := s.JobRun()
	if err != nil {
		t.Fatal(err)
	}
	checkOneForm(t, s, r)
	killed := jobRun()
	killed.JobID, killed.End = r.JobID, attest.JobEnd{Reason: "timeout", Detail: strings.Repeat("ä", 2*attest.MaxText)}
	s = newJobRun(t, nil, killed)
	if s.Subject[0].Name != attest.SubjectJob || s.Subject[0].Digest["sha256"] != r.JobID.Hex() {
		t.Errorf("a run without a result has the subjects %v", s.Subject)
	}
	receipt := &attest.Receipt{}
	for _, stmt := range []*attest.Statement{result, s} {
		if !receipt.Add(w.sign(stmt, w.alice)) {
			t.Errorf("a receipt does not know %s", stmt.PredicateType)
		}
	}
	back := read(t, write(t, receipt))
	if len(back.Results) != 1 || len(back.Runs) != 1 || len(back.Others) != 0 {
		t.Errorf("%d results, %d runs and %d others were read back", len(back.Results), len(back.Runs), len(back.Others))
	}
}

func TestJobRunRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*attest.JobRun)
		want   string
	}{
		{"no job", func(r *attest.JobRun) { r.JobID = digest.SHA256{} }, "names no job"},
		{"no runner", func(r *attest.JobRun) { r.Runner.ID = "" }, "runner.id"},
		{"no engine", func(r *attest.JobRun) { r.Engine = "" }, "engine"},
		{"an unknown reason", func(r *attest.JobRun) { r.End.Reason = "tired" }, "unknown reason"},
		{"an exit without a result", func(r *attest.JobRun) { r.End = attest.JobEnd{Reason: "exit"} }, "ended by itself"},
		{"an exit status of a timeout", func(r *attest.JobRun) { r.End.Exit = 1 }, "exit status 1"},
		{"a signal of a timeout", func(r *attest.JobRun) { r.End.Signal = "SIGKILL" }, "signal"},
		{"a signal without a name", func(r *attest.JobRun) { r.End = attest.JobEnd{Reason: "signal"} }, "signal"},
		{"a negative usage", func(r *attest.JobRun) { r.Usage.CPUMicros = -1 }, "usage"},
		{"numbers from nowhere", func(r *attest.JobRun) { r.Usage.Accounting = "" }, "where its numbers"},
		{"energy from nowhere", func(r *attest.JobRun) { r.Usage.EnergyFrom = "" }, "energy"},
		{"no driver", func(r *attest.JobRun) { r.Confinement.Driver = "" }, "driver"},
		{"no confinement", func(r *attest.JobRun) { r.Confinement.Enforced = nil }, "enforced"},
		{"guarantees in disorder", func(r *attest.JobRun) { r.Confinement.Enforced = []string{"b", "a"} }, "sorted"},
		{"a guarantee without a name", func(r *attest.JobRun) { r.Confinement.Enforced = []string{""} }, "without a name"},
		{"an anomaly without a kind", func(r *attest.JobRun) { r.Anomalies[0].Kind = "" }, "anomalies[0]"},
		{"an end before the start", func(r *attest.JobRun) { r.FinishedOn = "2026-04-01T00:00:00Z" }, "before"},
		{"no time", func(r *attest.JobRun) { r.StartedOn = "" }, "startedOn"},
		{"something published by a run that did not end", func(r *attest.JobRun) { r.Published = publishedRun().Published }, "has published outputs"},
		{"an unpinned input", func(r *attest.JobRun) { r.ResolvedInputs = []attest.ResourceDescriptor{{URI: "x:y"}} }, "no digest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run := jobRun()
			run.JobID, run.End = digest.Of(nil), attest.JobEnd{Reason: "timeout"}
			if _, err := attest.NewJobRun(nil, run); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tt.change(&run)
			if _, err := attest.NewJobRun(nil, run); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestPublishedRefuses(t *testing.T) {
	one := publishedRun().Published[0]
	other := func(change func(*attest.ResourceDescriptor)) []attest.ResourceDescriptor {
		d := one
		change(&d)
		return []attest.ResourceDescriptor{d}
	}
	for name, list := range map[string][]attest.ResourceDescriptor{
		"no output":   other(func(d *attest.ResourceDescriptor) { d.Name = "" }),
		"no registry": other(func(d *attest.ResourceDescriptor) { d.URI = "https://registry.example/words" }),
		"no digest":   other(func(d *attest.ResourceDescriptor) { d.Digest = nil }),
		"twice":       {one, one},
		"disorder":    {one, attest.Published("counts", one.URI, digest.Of(nil))},
	} {
		run := jobRun()
		run.Published = list
		if _, err := attest.NewJobRun(newJobResult(t), run); err == nil || !strings.Contains(err.Error(), "published[") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a result carries must be the document itself, in the one form.
func TestJobResultOneForm(t *testing.T) {
	w := newWorld(t)
	result := newJobResult(t)
	for _, tt := range []struct{ name, old, new string }{
		{"another id", `"jobId":"sha256:`, `"jobId":"sha256:0`},
		{"another document", `"name":"wordcount"`, `"name":"other"`},
		{"gas of nothing", `"gas":{"schedule":"arch-gas/1","used":123456},`, `"gas":{"schedule":"","used":0},`},
		{"an unknown member", `"exit":0,`, `"exit":0,"extra":1,`},
		{"a member is missing", `"exit":0,`, ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := attest.ParseStatement(w.rewrite(result, tt.old, tt.new))
			if err == nil {
				_, err = s.JobResult()
			}
			if err == nil {
				t.Error("it was read")
			}
		})
	}
}

func FuzzJobStatements(f *testing.F) {
	result := newJobResult(f)
	for _, s := range []*attest.Statement{result, newJobRun(f, result, jobRun())} {
		data, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := attest.ParseStatement(data)
		if err != nil {
			return
		}
		if r, err := s.JobResult(); err == nil {
			checkOneForm(t, s, r)
		}
		if r, err := s.JobRun(); err == nil {
			checkOneForm(t, s, r)
		}
	})
}
