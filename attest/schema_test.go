package attest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// examples are the statements that the documentation shows.
func (w *world) examples() map[string]*attest.Statement {
	w.t.Helper()
	negative, err := attest.NewNegative(w.claim, attest.Negative{
		State: attest.Differs, Cause: "hello differs: a timestamp at byte 1024", Tried: "2026-05-02T08:00:00Z",
		By:    attest.Builder{ID: attest.BuilderHermetic, Version: map[string]string{"arch": "v1"}},
		Found: []attest.Mismatch{{Name: "hello", Expected: digest.Of(artifact), Found: digest.Of([]byte("other"))}},
		Differences: []attest.Difference{{
			Output: "hello", Path: "", Offset: 1024, Cause: "timestamp-in-content", Detail: "2026-05-02 where 2026-05-01 was claimed",
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	summary, _ := w.vsa(w.verify(w.input(w.receipt(w.alice, w.bob))), summaryOptions())
	return map[string]*attest.Statement{
		"build-claim": w.claim, "build-negative": negative, "provenance": w.provenance(w.claim), "verification-summary": summary,
		"job-result": newJobResult(w.t), "job-run": newJobRun(w.t, newJobResult(w.t), publishedRun()),
		"decision": newDecision(w.t, decision(), decisionSubject()),
	}
}

func compileSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	data, err := attest.Schema(name)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(name+".json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func instance(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What we write follows our schemas, and the documentation's example is what we write.
// ARCH_UPDATE=1 writes the examples anew.
func TestSchemas(t *testing.T) {
	w := newWorld(t)
	examples := w.examples()
	for _, name := range attest.SchemaNames() {
		t.Run(name, func(t *testing.T) {
			schema := compileSchema(t, name)
			data, err := examples[name].Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance(t, data)); err != nil {
				t.Errorf("what we write does not follow the schema: %v", err)
			}
			shown := exampleOf(t, name, data)
			if err := schema.Validate(instance(t, shown)); err != nil {
				t.Errorf("the example does not follow the schema: %v", err)
			}
			if diff := cmp.Diff(instance(t, data), instance(t, shown)); diff != "" {
				t.Errorf("the example is out of date; ARCH_UPDATE=1 writes it anew (-written +shown):\n%s", diff)
			}
		})
	}
}

// exampleOf returns the JSON block of a page, after writing it anew if asked.
func exampleOf(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	doc, err := attest.PredicateDoc(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(doc, []byte("```json\n"))
	example, after, closed := bytes.Cut(rest, []byte("```\n"))
	if !ok || !closed {
		t.Fatalf("%s has no example", name)
	}
	if os.Getenv("ARCH_UPDATE") == "" {
		return example
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	page := string(before) + "```json\n" + pretty.String() + "\n```\n" + string(after)
	if err := os.WriteFile("predicates/"+name+".md", []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	return pretty.Bytes()
}

// The schemas refuse what the readers refuse.
func TestSchemasRefuse(t *testing.T) {
	w := newWorld(t)
	examples := w.examples()
	tests := []struct{ name, schema, old, new string }{
		{"another predicate type", "build-claim", attest.ClaimType, "https://example.org"},
		{"unknown member of a claim", "build-claim", `"normalizer":{`, `"note":1,"normalizer":{`},
		{"short digest", "build-claim", `"sha256":"`, `"sha256":"0`},
		{"signatures in the manifest", "build-claim", `"kind":"Build"`, `"kind":"Build","signatures":[]`},
		{"unknown state", "build-negative", `"state":"differs"`, `"state":"bad"`},
		{"differs without mismatches", "build-negative", `"mismatches"`, `"misses"`},
		{"provenance without confinement", "provenance", `"arch_confinement"`, `"confinement"`},
		{"provenance without times", "provenance", `"startedOn"`, `"started"`},
		{"time that is none", "provenance", `"startedOn":"2026`, `"startedOn":"yesterday`},
		{"signature in a job", "job-result", `"kind":"Job"`, `"kind":"Job","signatures":[]`},
		{"unknown member of a job result", "job-result", `"exit":0`, `"exit":0,"note":1`},
		{"unknown reason", "job-run", `"reason":"exit"`, `"reason":"tired"`},
		{"published to no registry", "job-run", `"uri":"oci:registry`, `"uri":"https:registry`},
		{"signal of an exit", "job-run", `"reason":"exit"`, `"reason":"exit","signal":"SIGKILL"`},
		{"exit without a result", "job-run", `"result":"`, `"results":"`},
		{"unknown kind of decision", "decision", `"kind":"admission"`, `"kind":"guess"`},
		{"first decision with one before it", "decision", `"sequence":7`, `"sequence":1`},
		{"decision without milliseconds", "decision", `.123456Z`, `Z`},
		{"decision by nobody", "decision", `"by":"uid:1000"`, `"by":"somebody"`},
		{"evidence that is carried along", "decision", `"name":"policy.yaml"`, `"content":"eA==","name":"policy.yaml"`},
		{"summary of another result", "verification-summary", `"PASSED"`, `"MAYBE"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := w.rewrite(examples[tt.schema], tt.old, tt.new)
			if err := compileSchema(t, tt.schema).Validate(instance(t, bad)); err == nil {
				t.Errorf("the schema accepts %s", bad)
			}
		})
	}
}

func TestSchemaUnknown(t *testing.T) {
	for _, name := range []string{"", "build-claim.json", "../attest", "x"} {
		if _, err := attest.Schema(name); err == nil || !strings.Contains(err.Error(), "there is none") {
			t.Errorf("Schema(%q): %v", name, err)
		}
	}
}
