package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// results has one of each type that --json writes, but for documents, which have schemas of their own.
func results() []result {
	return []result{
		archiveEntry{},
		archiveFile{},
		buildDifference{},
		buildProgress{},
		buildResult{},
		cacheKey{},
		challengeProgress{},
		challengeResult{},
		checkResult{},
		configResult{},
		diffResult{},
		doctorResult{},
		documentResult{},
		explained{},
		explainedField{},
		explanation{},
		failure{},
		fetchProgress{},
		findingList{},
		fsckResult{},
		gcResult{},
		hammered{},
		hashResult{},
		instrumented{},
		jobFinding{},
		jobList{},
		jobLog{},
		jobOutput{},
		jobProgress{},
		jobResult{},
		jobSummary{},
		keyResult{},
		killed{},
		ledgerEntry{},
		ledgerEntryList{},
		ledgerKeys{},
		ledgerPolicy{},
		listening{},
		logEntry{},
		logList{},
		logText{},
		manualPages{},
		narEntry{},
		narListing{},
		narRestored{},
		nodeStatus{},
		nodeTop{},
		noteResult{},
		objectList{},
		objectResult{},
		pinList{},
		pinResult{},
		policyActivation{},
		policyChanges{},
		policyCheckResult{},
		policyProposal{},
		policyRules{},
		proofList{},
		proofResult{},
		publishedReceipts{},
		rebuildResult{},
		replayed{},
		runResult{},
		storeCheck{},
		trustCheckResult{},
		uploadProgress{},
		verifyResult{},
		verifySigsResult{},
		versionResult{},
	}
}

// TestResults holds that results lists every type that is a result, and that no kind is two things.
func TestResults(t *testing.T) {
	var listed []string
	kinds := map[string]bool{}
	for _, r := range results() {
		listed = append(listed, reflect.TypeOf(r).Name())
		if kinds[r.kind()] || slices.Contains(manifest.Kinds(), r.kind()) || slices.Contains(codeNames(), r.kind()) {
			t.Errorf("%s is two things", r.kind())
		}
		kinds[r.kind()] = true
	}
	var declared []string
	for _, file := range parsed(t, ".") {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "kind" {
				continue
			}
			if of := f.Recv.List[0].Type.(*ast.Ident).Name; of != "shown" {
				declared = append(declared, of)
			}
		}
	}
	slices.Sort(declared)
	slices.Sort(listed)
	if diff := cmp.Diff(declared, listed); diff != "" {
		t.Errorf("types with a method kind, and those that results lists (-declared +listed):\n%s", diff)
	}
}

// TestResultSchemas holds that schema is what is made from the types. ARCH_UPDATE=1 writes it anew; what then vanishes from a schema, or
// becomes another type, breaks the promise that `arch help json` makes.
func TestResultSchemas(t *testing.T) {
	var kinds []string
	docs := comments{t: t, of: map[string]string{}, seen: map[string]bool{}}
	for _, r := range results() {
		kinds = append(kinds, r.kind())
		want := schemaOf(r, docs, false)
		file := filepath.Join("schema", r.kind()+".json")
		if os.Getenv("ARCH_UPDATE") != "" {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), string(want)); diff != "" {
			t.Errorf("%s is not made from %T; ARCH_UPDATE=1 writes it anew (-file +type):\n%s", file, r, diff)
		}
	}
	slices.Sort(kinds)
	if diff := cmp.Diff(kinds, resultKinds()); os.Getenv("ARCH_UPDATE") == "" && diff != "" {
		t.Errorf("kinds of results, and files in schema (-kinds +files):\n%s", diff)
	}
}

// schemaOf makes the schema of a result from its type. A strict one refuses what the type does not have; the one for others allows it, since
// later versions may write more.
func schemaOf(r result, docs comments, strict bool) []byte {
	t := reflect.TypeOf(r)
	b := resultSchemas{docs: docs, strict: strict, defs: map[string]any{}}
	root := b.object(t)
	props := root["properties"].(map[string]any)
	for name, value := range map[string]string{"apiVersion": manifest.APIVersion, "kind": r.kind()} {
		if props[name] != nil {
			panic(fmt.Sprintf("%s has a field %s of its own", t, name))
		}
		props[name] = map[string]any{"const": value}
	}
	required, _ := root["required"].([]string)
	root["required"] = append([]string{"apiVersion", "kind"}, required...)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://arch.network/schema/v1/result/" + strings.ToLower(r.kind()) + ".json"
	root["title"] = r.kind()
	if doc, ok := root["description"].(string); ok {
		root["description"] = strings.Replace(doc, t.Name(), r.kind(), 1)
	}
	if len(b.defs) > 0 {
		root["$defs"] = b.defs
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(root); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// resultSchemas makes schemas of types as encoding/json writes them.
type resultSchemas struct {
	docs   comments
	strict bool
	defs   map[string]any
}

func (b *resultSchemas) value(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[digest.SHA256]():
		return map[string]any{"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		panic(fmt.Sprintf("%s encodes itself, so its schema is not known", t))
	case t.Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.value(t.Elem())
	case reflect.Struct:
		name := strings.TrimPrefix(filepath.Base(t.PkgPath())+"."+t.Name(), "arch.")
		if _, ok := b.defs[name]; !ok {
			b.defs[name] = nil // for types that contain themselves
			b.defs[name] = b.object(t)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string", "contentEncoding": "base64"}
		}
		return map[string]any{"type": "array", "items": b.value(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": b.value(t.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Interface:
		return map[string]any{}
	}
	panic(fmt.Sprintf("no schema for %s", t))
}

func (b *resultSchemas) object(t reflect.Type) map[string]any {
	props, required := map[string]any{}, []string{}
	b.fields(t, props, &required)
	out := map[string]any{"type": "object", "properties": props}
	if doc := b.docs.about(t, ""); doc != "" {
		out["description"] = doc
	}
	if len(required) > 0 {
		out["required"] = required
	}
	if b.strict {
		out["additionalProperties"] = false
	}
	return out
}

func (b *resultSchemas) fields(t reflect.Type, props map[string]any, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			of := f.Type
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			b.fields(of, props, required)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			panic(fmt.Sprintf("%s.%s has no name in JSON", t, f.Name))
		}
		s := b.value(f.Type)
		if doc := b.docs.about(t, f.Name); doc != "" {
			s["description"] = doc
		}
		props[name] = s
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// comments are those of types and their fields, by package, type and field.
type comments struct {
	t    *testing.T
	of   map[string]string
	seen map[string]bool // packages
}

func (c comments) about(t reflect.Type, field string) string {
	path, ours := strings.CutPrefix(t.PkgPath(), "arch.network/")
	if !ours || c.t == nil {
		return ""
	}
	if !c.seen[path] {
		c.seen[path] = true
		for _, file := range parsed(c.t, filepath.Join("../..", path)) {
			c.read(path, file)
		}
	}
	return c.of[path+"."+t.Name()+"."+field]
}

func (c comments) read(path string, file *ast.File) {
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			of, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := path + "." + of.Name.Name + "."
			c.of[name] = sentence(gen.Doc)
			st, ok := of.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range st.Fields.List {
				for _, id := range f.Names {
					c.of[name+id.Name] = strings.TrimSpace(sentence(f.Doc) + " " + sentence(f.Comment))
				}
			}
		}
	}
}

func sentence(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// parsed are the source files of a package.
func parsed(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatal(dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// checker checks what --json writes.
type checker struct {
	schemas map[string]*jsonschema.Schema // strict ones, by kind
	seen    map[string]bool               // kinds
}

// newChecker compiles the strict schemas once.
var newChecker = sync.OnceValues(func() (*checker, error) {
	c := &checker{schemas: map[string]*jsonschema.Schema{}, seen: map[string]bool{}}
	texts := map[string][]byte{}
	for _, r := range results() {
		texts[r.kind()] = schemaOf(r, comments{}, true)
	}
	for _, kind := range manifest.Kinds() {
		text, err := manifest.Schema(kind)
		if err != nil {
			return nil, err
		}
		texts[kind] = text
	}
	for kind, text := range texts {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		if err := compiler.AddResource(kind+".json", doc); err != nil {
			return nil, err
		}
		if c.schemas[kind], err = compiler.Compile(kind + ".json"); err != nil {
			return nil, err
		}
	}
	return c, nil
})

// line checks one line.
func (c *checker) line(line []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		return fmt.Errorf("%q is no JSON: %w", line, err)
	}
	object, _ := v.(map[string]any)
	kind, _ := object["kind"].(string)
	schema := c.schemas[kind]
	if schema == nil {
		return fmt.Errorf("%s has no kind that there is a schema for", line)
	}
	c.seen[kind] = true
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// recordVariable names the directory where the arch of the scripts leaves what it writes with --json, for a checker to look at in the end.
const recordVariable = "ARCH_TEST_RECORD"

// scriptMain is mainStatus, and records what is written with --json.
func scriptMain() int {
	dir := os.Getenv(recordVariable)
	if dir == "" || !asksForJSON(os.Args[1:]) {
		return mainStatus()
	}
	var written bytes.Buffer
	var mu sync.Mutex
	status := mainWith(recording{os.Stdout, &written, &mu}, recording{os.Stderr, &written, &mu})
	name := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
	text := fmt.Appendf(nil, "%q\n%s", os.Args[1:], written.Bytes())
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	return status
}

// recording passes on what is written, and keeps it, whole lines at a time.
type recording struct {
	io.Writer
	kept *bytes.Buffer
	mu   *sync.Mutex
}

func (r recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept.Write(p)
	return r.Writer.Write(p)
}

// checkRecord checks what the scripts' arch has left in dir, and that it was of every kind, if all scripts have run.
func checkRecord(t *testing.T, dir string) {
	t.Helper()
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		args, lines, _ := bytes.Cut(text, []byte("\n"))
		if bytes.Contains(args, []byte(`"yaml"`)) || bytes.Contains(args, []byte(`=yaml"`)) { // --output
			return nil
		}
		for line := range bytes.Lines(lines) {
			if err := c.line(line); err != nil {
				t.Errorf("arch %s: %v", args, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") || !hasNix() {
		return // not all scripts have run
	}
	for _, r := range results() {
		if !c.seen[r.kind()] {
			t.Errorf("no script shows a %s, which %T is, with --json", r.kind(), r)
		}
	}
}
