package attest_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// The claim has the same bytes at every honest builder: nothing but what was built enters it.
func TestClaimIsDeterministic(t *testing.T) {
	w := newWorld(t)
	want, err := w.claim.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		deps := append(dependencies(3), dependencies(3)...)
		slices.Reverse(deps)
		doc := document("hello")
		doc.Signatures = []manifest.Signature{{By: "did:key:zX", Alg: "ed25519", Sig: "AAAA"}}
		out := outputs("hello", artifact)
		slices.Reverse(out)
		got, err := w.newClaim(doc, deps, out).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Fatalf("claims differ (-want +got):\n%s", diff)
		}
	}
	for _, word := range []string{"time", "host", "user", "builder", "invocation", "finished"} {
		if strings.Contains(strings.ToLower(string(want)), word) {
			t.Errorf("the claim speaks of %q:\n%s", word, want)
		}
	}
}

func TestNewClaimRefuses(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name string
		doc  func(*manifest.Build)
		deps []attest.ResourceDescriptor
		out  []attest.Output
		want string
	}{
		{name: "local path", doc: func(b *manifest.Build) {
			b.Spec.Inputs[0].Ref, b.Spec.Inputs[0].Path = manifest.Ref{}, "."
		}, want: "must be replaced by a tree: reference"},
		{name: "unpinned dependency", deps: []attest.ResourceDescriptor{{URI: "https://example.org"}}, want: "no digest that pins it"},
		{name: "weak digest", deps: []attest.ResourceDescriptor{{URI: "x", Digest: map[string]string{"sha1": strings.Repeat("0", 40)}}}, want: "no digest that pins it"},
		{name: "two digests of one thing", deps: append(dependencies(2), attest.ResourceDescriptor{
			Name: "input-000", URI: "https://example.org/input-000.tar.gz", MediaType: "application/gzip",
			Digest: map[string]string{"sha256": digest.Of(nil).Hex()},
		}), want: "with different digests"},
		{name: "output twice", out: append(outputs("hello", artifact), outputs("hello", []byte("x"))...), want: "named twice"},
		{name: "no output", out: []attest.Output{}, want: "no subject"},
		{name: "output with #", out: outputs("a#b", artifact), want: "is not NAME"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc := document("hello")
			if tt.doc != nil {
				tt.doc(doc)
			}
			deps, out := tt.deps, tt.out
			if deps == nil {
				deps = w.dependencies
			}
			if out == nil {
				out = outputs("hello", artifact)
			}
			if _, err := attest.NewClaim(doc, deps, out); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewClaim: %v, want %q", err, tt.want)
			}
		})
	}
}

// Subjects name one output in all its forms.
func TestOutputSubjects(t *testing.T) {
	d := func(s string) digest.SHA256 { return digest.Of([]byte(s)) }
	tests := []struct {
		name string
		out  attest.Output
		want map[string]string
	}{
		{"file", attest.Output{Name: "f", File: d("f"), NAR: d("n")}, map[string]string{"f": d("f").Hex(), "f#nar": d("n").Hex()}},
		{"tree", attest.Output{Name: "t", NAR: d("n"), Tar: d("t")}, map[string]string{"t": d("t").Hex(), "t#nar": d("n").Hex(), "t#tar": d("t").Hex()}},
		{
			"image",
			attest.Output{Name: "i", NAR: d("n"), Tar: d("t"), OCI: d("o")},
			map[string]string{"i": d("t").Hex(), "i#nar": d("n").Hex(), "i#tar": d("t").Hex(), "i#oci": d("o").Hex()},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			for _, s := range tt.out.Subjects() {
				got[s.Name] = s.Digest["sha256"]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("subjects (-want +got):\n%s", diff)
			}
		})
	}
}

// Statements of others are read as the specification says: unknown members are ignored, names compared exactly.
func TestParseStatement(t *testing.T) {
	sum := digest.Of(artifact).Hex()
	subject := `"subject":[{"name":"hello","digest":{"sha256":"` + sum + `"}}]`
	head := `"_type":"https://in-toto.io/Statement/v1",` + subject
	tests := []struct{ name, in, err string }{
		{"plain", `{` + head + `,"predicateType":"x"}`, ""},
		{"white space", "{ " + head + ",\n\"predicateType\":\"x\" }", ""},
		{"unknown member", `{` + head + `,"predicateType":"x","more":{"subject":1}}`, ""},
		{"member in another case", `{` + head + `,"predicateType":"x","Subject":[],"PREDICATETYPE":"y"}`, ""},
		{"unknown digest", `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"blake9":"??"}}],"predicateType":"x"}`, ""},
		{"old type", `{"_type":"https://in-toto.io/Statement/v0.1",` + subject + `,"predicateType":"x"}`, "_type"},
		{"only another case", `{"_type":"https://in-toto.io/Statement/v1","Subject":[{"digest":{"sha256":"` + sum + `"}}],"predicateType":"x"}`, "no subject"},
		{"no predicate type", `{` + head + `}`, "no predicateType"},
		{"no subject", `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x"}`, "no subject"},
		{"subject without digest", `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x"}],"predicateType":"x"}`, "no digest"},
		{"upper-case digest", strings.ReplaceAll(`{`+head+`,"predicateType":"x"}`, sum, strings.ToUpper(sum)), "lower-case"},
		{"short digest", strings.ReplaceAll(`{`+head+`,"predicateType":"x"}`, sum, sum[2:]), "64"},
		{"duplicate member", `{` + head + `,"predicateType":"x","predicateType":"y"}`, "duplicate"},
		{"trailing data", `{` + head + `,"predicateType":"x"}{}`, ""},
		{"no object", `[]`, "want an object"},
		{"subject is no list", `{"_type":"https://in-toto.io/Statement/v1","subject":{},"predicateType":"x"}`, "want an array"},
		{"our type, not canonical", `{` + head + `,"predicateType":"` + attest.ClaimType + `"}`, "canonical"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := attest.ParseStatement([]byte(tt.in))
			if tt.name == "trailing data" {
				if err == nil {
					t.Error("trailing data was accepted")
				}
				return
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("ParseStatement: %v, want %q", err, tt.err)
			}
			if err == nil && (s.PredicateType != "x" || len(s.Subject) != 1) {
				t.Errorf("read %+v", s)
			}
		})
	}
	if _, err := attest.ParseStatement(bytes.Repeat([]byte(" "), attest.MaxStatement+1)); err == nil {
		t.Error("an oversized statement was accepted")
	}
}

// A provenance reads back what the run was.
func TestProvenanceRoundTrip(t *testing.T) {
	w := newWorld(t)
	s := w.provenance(w.claim)
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := attest.ParseStatement(data)
	if err != nil {
		t.Fatal(err)
	}
	p, err := back.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	variations, err := p.Variations()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run().Variations, variations); diff != "" {
		t.Errorf("variations (-want +got):\n%s", diff)
	}
	confinement, err := p.Byproduct(attest.ByproductConfinement)
	if err != nil || string(confinement) != string(run().Confinement) {
		t.Errorf("confinement %s, %v", confinement, err)
	}
	if diff := cmp.Diff(w.dependencies, p.BuildDefinition.ResolvedDependencies); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	if p.RunDetails.Metadata.StartedOn != "2026-05-01T11:00:00Z" {
		t.Errorf("startedOn %q", p.RunDetails.Metadata.StartedOn)
	}
	again, err := back.Encode()
	if err != nil || string(again) != string(data) {
		t.Errorf("encoding again gives other bytes: %v", err)
	}
	if _, err := back.Claim(); err == nil {
		t.Error("a provenance was read as a claim")
	}
}

func TestNegativeBounds(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("ä", attest.MaxCause)
	n := attest.Negative{
		State: attest.Differs, Cause: long, Tried: "2026-04-30T00:00:00Z", By: attest.Builder{ID: attest.BuilderHermetic},
		Found: []attest.Mismatch{{Name: "hello", Expected: digest.Of(artifact), Found: digest.Of(nil)}},
	}
	for range 3 * attest.MaxDifferences {
		n.Differences = append(n.Differences, attest.Difference{Output: "hello", Path: "bin/\xff" + long, Offset: 7, Cause: "mtime", Detail: long})
	}
	s, err := attest.NewNegative(w.claim, n)
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := attest.ParseStatement(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.Negative()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Differences) != attest.MaxDifferences || got.Total != 3*attest.MaxDifferences || len(got.Cause) > attest.MaxCause {
		t.Errorf("%d differences of %d, cause of %d bytes", len(got.Differences), got.Total, len(got.Cause))
	}
	claim, err := w.claim.ID()
	if err != nil || got.Claim != claim {
		t.Errorf("claim %s, want %s (%v)", got.Claim, claim, err)
	}
}

func TestValidateRefuses(t *testing.T) {
	id := digest.Of([]byte("claim"))
	sum := map[string]string{"sha256": id.Hex()}
	by := attest.Builder{ID: attest.BuilderHermetic}
	tests := []struct {
		name string
		p    attest.Predicate
		want string
	}{
		{"provenance without build type", &attest.Provenance{}, "buildType"},
		{"provenance without parameters", &attest.Provenance{BuildDefinition: attest.BuildDefinition{BuildType: "x"}}, "externalParameters"},
		{"provenance without builder", &attest.Provenance{BuildDefinition: attest.BuildDefinition{BuildType: "x", ExternalParameters: []byte("{}")}}, "builder.id"},
		{"provenance that ends before it starts", &attest.Provenance{
			BuildDefinition: attest.BuildDefinition{BuildType: "x", ExternalParameters: []byte("{}")},
			RunDetails:      attest.RunDetails{Builder: by, Metadata: attest.RunMetadata{StartedOn: "2026-01-02T00:00:00Z", FinishedOn: "2026-01-01T00:00:00Z"}},
		}, "before"},
		{"summary without verifier", &attest.VSA{}, "verifier.id"},
		{"summary with another result", &attest.VSA{Verifier: attest.Verifier{ID: "x"}, ResourceURI: "x", Policy: attest.ResourceDescriptor{URI: "x"}, VerificationResult: "passed"}, "PASSED"},
		{"summary without levels", &attest.VSA{Verifier: attest.Verifier{ID: "x"}, ResourceURI: "x", Policy: attest.ResourceDescriptor{URI: "x"}, VerificationResult: attest.Passed}, "verifiedLevels"},
		{"summary with unpinned input", &attest.VSA{
			Verifier: attest.Verifier{ID: "x"}, ResourceURI: "x", Policy: attest.ResourceDescriptor{URI: "x", Digest: sum},
			VerificationResult: attest.Passed, VerifiedLevels: []string{}, InputAttestations: []attest.ResourceDescriptor{{URI: "x"}},
		}, "no digest"},
		{"negative of unknown state", &attest.Negative{State: "bad"}, "unknown state"},
		{"negative without mismatch", &attest.Negative{State: attest.Differs}, "no mismatches"},
		{"negative without missing input", &attest.Negative{State: attest.InputsMissing}, "names no input"},
		{"negative of no claim", &attest.Negative{State: attest.FailedToBuild}, "no claim"},
		{"negative without cause", &attest.Negative{State: attest.FailedToBuild, Claim: id}, "cause"},
		{"negative with equal digests", &attest.Negative{
			State: attest.Differs, Claim: id, Cause: "x", By: by, Tried: "2026-01-01T00:00:00Z",
			Found: []attest.Mismatch{{Name: "x", Expected: id, Found: id}},
		}, "no difference"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate: %v, want %q", err, tt.want)
			}
		})
	}
}

// checkOneForm holds a predicate of ours that was accepted to the one form that we write.
func checkOneForm(t *testing.T, s *attest.Statement, p attest.Predicate) {
	t.Helper()
	form, err := canonical.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(form), string(s.Predicate)); diff != "" {
		t.Fatalf("a predicate of ours in another form was accepted (-ours +accepted):\n%s", diff)
	}
}

// Predicates of ours have one form, and no other is read.
func TestOneForm(t *testing.T) {
	w := newWorld(t)
	content := w.newClaim(w.document, append(dependencies(1), attest.ResourceDescriptor{
		URI: "x:y", Digest: map[string]string{"sha256": digest.Of(nil).Hex()}, Content: []byte("\xff\xff"),
	}), outputs("hello", artifact))
	tests := []struct {
		name     string
		of       *attest.Statement
		old, new string
	}{
		{"as it is", content, `"content"`, `"content"`},
		{"url-safe base64", content, `"content":"//8="`, `"content":"__8="`},
		{"base64 without padding", content, `"content":"//8="`, `"content":"//8"`},
		{"empty member", content, `"content":"//8="`, `"content":""`},
		{"empty map", content, `"content":"//8="`, `"annotations":{},"content":"//8="`},
		{"null", content, `"content":"//8="`, `"content":null`},
		{"unknown member", content, `"content":"//8="`, `"contents":"//8="`},
		{"missing member", content, `,"version":"1"`, ``},
		{"null list", w.newClaim(w.document, nil, outputs("hello", artifact)), `"resolvedDependencies":[]`, `"resolvedDependencies":null`},
		{"another spelling of a digest", w.negative(attest.Differs), digest.Of(artifact).String(), digest.Of(artifact).SRI()},
		{"false is written", w.negative(attest.Differs), `"retryable":false,`, ``},
		{"zero is not", w.negative(attest.Differs), `"mismatches"`, `"differencesTotal":0,"mismatches"`},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := attest.ParseStatement(w.rewrite(tt.of, tt.old, tt.new))
			if err == nil {
				_, err = s.Claim()
				if tt.of.PredicateType == attest.NegativeType {
					_, err = s.Negative()
				}
			}
			if (err == nil) != (i == 0) {
				t.Errorf("read: %v", err)
			}
		})
	}
}

func FuzzParseStatement(f *testing.F) {
	w := newWorld(f)
	for _, s := range []*attest.Statement{w.claim, w.provenance(w.claim), w.negative(attest.Differs)} {
		data, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":null}}],"predicateType":"x","predicate":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := attest.ParseStatement(data)
		if err != nil {
			return
		}
		encoded, err := s.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := attest.ParseStatement(encoded)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, encoded)
		}
		if diff := cmp.Diff(s, back); diff != "" {
			t.Fatalf("statement changed (-first +second):\n%s", diff)
		}
		own := s.PredicateType == attest.ClaimType || s.PredicateType == attest.NegativeType
		if own && !bytes.Equal(encoded, data) {
			t.Fatalf("two forms of one statement of ours:\n%s\n%s", data, encoded)
		}
		_, _ = s.Provenance()
		_, _ = s.VSA()
		if c, err := s.Claim(); err == nil {
			checkOneForm(t, s, c)
		}
		if n, err := s.Negative(); err == nil {
			checkOneForm(t, s, n)
		}
	})
}

// Levels of others may be strings, as protobuf writes 64-bit integers; ours are numbers.
func TestLevels(t *testing.T) {
	var l attest.Levels
	if err := json.Unmarshal([]byte(`{"SLSA_BUILD_LEVEL_3":"5","SLSA_BUILD_LEVEL_0":1}`), &l); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attest.Levels{"SLSA_BUILD_LEVEL_3": 5, "SLSA_BUILD_LEVEL_0": 1}, l); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
	for _, bad := range []string{`{"x":-1}`, `{"x":1.5}`, `{"x":"a"}`, `{"x":null}`, `[]`, `{"x":99999999999}`} {
		if err := json.Unmarshal([]byte(bad), &l); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
