package manifest

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compile returns the schema of a kind, ready to validate.
func compile(t *testing.T, kind string) *jsonschema.Schema {
	t.Helper()
	text, err := Schema(kind)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asWritten returns the JSON value that a source says, before anything is left out as empty.
func asWritten(t *testing.T, src []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(boundJSON(t, src)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSchemaAccepts validates all that the reader accepts.
func TestSchemaAccepts(t *testing.T) {
	schemas := map[string]*jsonschema.Schema{}
	for _, kind := range Kinds() {
		schemas[kind] = compile(t, kind)
	}
	seen := map[string]bool{}
	for _, name := range corpus(t, "accepted") {
		if strings.HasSuffix(name, "job-explicit-defaults.yaml") {
			continue // an empty timeout says "not given"; an editor may well complain
		}
		src := readFile(t, name)
		doc, err := ReadYAML(src)
		if err != nil {
			t.Fatal(err)
		}
		seen[doc.DocumentKind()] = true
		if err := schemas[doc.DocumentKind()].Validate(asWritten(t, src)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(seen) != len(Kinds()) {
		t.Errorf("the corpus has only the kinds %v", seen)
	}
}

// TestSchemaMissionJob validates the mission's example: pinned it is right; as written, only its references are wrong.
func TestSchemaMissionJob(t *testing.T) {
	schema := compile(t, "Job")
	text := missionJob
	for _, r := range [][2]string{{"embeddings:1.2.3 ", "embeddings:1.2.3@" + hexPin + " "}, {"@sha256:…", "@" + hexPin}, {"ipfs://bafy…", "ipfs://" + pinned().CID()}} {
		text = strings.Replace(text, r[0], r[1], 1)
	}
	if err := schema.Validate(asWritten(t, []byte(text))); err != nil {
		t.Error(err)
	}
	file, err := parseYAML([]byte(missionJob))
	if err != nil {
		t.Fatal(err)
	}
	_, b, _ := file.bind() // its error is what TestMissionJob shows
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.json.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err == nil || strings.Count(err.Error(), "anyOf") == 0 {
		t.Errorf("error %v; want one about the references", err)
	}
}

func TestSchemaRefuses(t *testing.T) {
	schema := compile(t, "Job")
	valid := `{"apiVersion":"arch.network/v1","kind":"Job","metadata":{"name":"a"},"spec":{"image":"ghcr.io/a/b@` + hexPin + `","runtime":"oci"}}`
	for _, tt := range []struct{ name, from, to string }{
		{"unknown field", `"runtime":`, `"extra":1,"runtime":`},
		{"missing field", `,"runtime":"oci"`, ``},
		{"wrong value", `"oci"`, `"docker"`},
		{"wrong type", `"runtime":"oci"`, `"runtime":1`},
		{"tag", `@` + hexPin, `:1`},
		{"api version", `network/v1`, `network/v2`},
		{"kind", `"Job"`, `"Build"`},
		{"number over its limit", `"runtime":`, `"replicas":65,"runtime":`},
		{"pattern", `"name":"a"`, `"name":"A"`},
		{"key of a map", `"runtime":`, `"env":{"A-B":"x"},"runtime":`},
		{"fraction", `"runtime":`, `"replicas":1.5,"runtime":`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(valid, tt.from, tt.to, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// TestSchemaDocumented checks that every field, type and value has its documentation, and that examples follow the rules.
func TestSchemaDocumented(t *testing.T) {
	docs, err := readComments()
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range documentTypes() {
		if docs[typ.Name()] == "" {
			t.Errorf("%s has no comment", typ)
		}
		for _, f := range fieldsOf(typ) {
			doc := docs.ofField(typ, f)
			if doc == "" || (!strings.HasPrefix(doc, f.name) && headDocs[f.name] == "") {
				t.Errorf("%s.%s: comment %q does not begin with the field's name", typ.Name(), f.goName, doc)
			}
			checkExample(t, typ, f)
			for _, name := range []string{f.rules.pattern, f.rules.keys} {
				if _, ok := patterns[name]; name != "" && !ok {
					t.Errorf("%s.%s: no pattern %q", typ.Name(), f.goName, name)
				}
			}
			for _, v := range enumOf(elementOf(f.typ), f.rules) {
				if elem := elementOf(f.typ); elem.Name() != "string" && docs[elem.Name()+"="+v] == "" {
					t.Errorf("%s value %q has no comment", elem.Name(), v)
				}
			}
		}
	}
}

func checkExample(t *testing.T, typ reflect.Type, f field) {
	t.Helper()
	if f.example == "" || elementOf(f.typ).Kind() != reflect.String {
		return
	}
	var p problems
	v := reflect.New(elementOf(f.typ)).Elem()
	v.SetString(f.example)
	checkValue(&p, typ.Name()+"."+f.name, v, f.rules)
	if err := p.err(); err != nil {
		t.Errorf("example: %v", err)
	}
}

// documentTypes lists all struct types of documents.
func documentTypes() []reflect.Type {
	var out []reflect.Type
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		t = elementOf(t)
		if t.Kind() != reflect.Struct || isText(t) || slices.Contains(out, t) {
			return
		}
		out = append(out, t)
		for _, f := range fieldsOf(t) {
			walk(f.typ)
		}
	}
	for _, kind := range Kinds() {
		walk(reflect.TypeOf(newDocument(kind)).Elem())
	}
	return out
}

// TestValuesComplete compares the values of each enumerated type with the constants in the source.
func TestValuesComplete(t *testing.T) {
	declared := map[string][]string{}
	entries, err := sources.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		src, err := sources.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				if typ, ok := spec.Type.(*ast.Ident); ok {
					if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
						if s, err := strconv.Unquote(lit.Value); err == nil {
							declared[typ.Name] = append(declared[typ.Name], s)
						}
					}
				}
			}
			return true
		})
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[OutputType](), reflect.TypeFor[Runtime](), reflect.TypeFor[Operator](), reflect.TypeFor[ClockMode](), reflect.TypeFor[RandomMode](), reflect.TypeFor[AuthorityClass]()} {
		if diff := cmp.Diff(declared[typ.Name()], enumOf(typ, rules{})); diff != "" {
			t.Errorf("values of %s (-declared +listed):\n%s", typ.Name(), diff)
		}
	}
}

func TestSchemaUnknownKind(t *testing.T) {
	_, err := Schema("Jobs")
	e, ok := err.(*SyntaxError)
	if !ok || e.Hint() != "did you mean Job?" {
		t.Errorf("error %v", err)
	}
}

func TestExplain(t *testing.T) {
	e, err := Explain("Job.spec.resources")
	if err != nil {
		t.Fatal(err)
	}
	want := `Job.spec.resources  (JobResources, optional)

  resources are the most that the job may use.
  JobResources are upper bounds. Those left out are the policy's.

Fields:
  cpu           (Quantity) cpu is in cores: "4", "500m".
  memory        (Quantity) memory is in bytes.
  gpu           (Quantity) gpu is in devices.
  scratch       (Quantity) scratch is the size of the writable file system, in bytes.
  output        (Quantity) output is the size of all outputs together, in bytes.
  processes     (integer) processes is the most processes and threads at one time.
  gas           (integer) gas is the most metered work of a WebAssembly module.
  powerBudgetW  (number) powerBudgetW is in watts: the job is slowed down rather than let it draw more.
`
	if diff := cmp.Diff(want, e.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, path := range []string{"Build.spec.inputs.ref", "Build.spec.outputs.type", "Job.spec.inputs", "TrustRoot.spec.roles.threshold", "Job.spec.placement.constraints.value", "Policy.spec.resources.job.cpu", "Node", "Job.metadata.name"} {
		e, err := Explain(path)
		if err != nil || e.Doc == "" || e.Path != path {
			t.Errorf("%s: %+v, %v", path, e, err)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
	}
	for path, hint := range map[string]string{"Jib": "did you mean Job?", "Job.spec.imputs": "did you mean inputs?", "Job.spec.runtime.x": "", "Job.spec.image.x": "", "": "known are Build, Directive, Job, Node, Playbook, Policy, TrustRoot", "Job.": ""} {
		_, err := Explain(path)
		e, ok := err.(*SyntaxError)
		if path == "Job." {
			continue
		}
		if !ok || e.Hint() != hint {
			t.Errorf("%q: %v, hint %q; want %q", path, err, e.Hint(), hint)
		}
	}
}
