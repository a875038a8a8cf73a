package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// Schema returns the JSON Schema (draft 2020-12) of a kind, indented, made from the Go types, their tags and comments. It
// is for editors, such as yaml-language-server: whatever ReadYAML accepts satisfies it, but what it accepts may still be
// refused, since it knows only single fields.
func Schema(kind string) ([]byte, error) {
	doc := newDocument(kind)
	if doc == nil {
		return nil, unknownKind(kind)
	}
	docs, err := readComments()
	if err != nil {
		return nil, err
	}
	b := schemaBuilder{docs: docs, defs: map[string]any{}}
	root := b.object(reflect.TypeOf(doc).Elem())
	props := root["properties"].(map[string]any)
	props["apiVersion"] = map[string]any{"const": APIVersion, "description": headDocs["apiVersion"]}
	props["kind"] = map[string]any{"const": kind, "description": headDocs["kind"]}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://arch.network/schema/v1/" + strings.ToLower(kind) + ".json"
	root["title"] = kind
	root["$defs"] = b.defs
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encode schema of %s: %w", kind, err)
	}
	return out.Bytes(), nil
}

func unknownKind(kind string) error {
	return &SyntaxError{Msg: fmt.Sprintf("%q is no kind of document", kind), Cure: didYouMean(kind, Kinds())}
}

// headDocs document the fields that are the same in every kind.
var headDocs = map[string]string{
	"apiVersion": "apiVersion is the version of the document format; there is only " + APIVersion + ".",
	"kind":       "kind says which kind of document this is.",
	"metadata":   "metadata is the head of the document.",
	"spec":       "spec is the body of the document.",
	"signatures": "signatures are those of several signers, over the canonical form without signatures.",
}

// schemaBuilder makes the schemas of types. Structs and texts with a grammar of their own become definitions.
type schemaBuilder struct {
	docs comments
	defs map[string]any
}

// value returns the schema of a type under rules. Required strings, lists and maps are not empty.
func (b *schemaBuilder) value(t reflect.Type, r rules, required bool) map[string]any {
	switch {
	case t == rawType:
		return rawSchema(r)
	case isText(t), t == reflect.TypeFor[Quantity](), t == reflect.TypeFor[Duration]():
		return b.define(t.Name(), func() map[string]any { return b.textSchema(t) })
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.value(t.Elem(), r, required)
	case reflect.Struct:
		return b.define(t.Name(), func() map[string]any { return b.object(t) })
	case reflect.Slice:
		s := map[string]any{"type": "array", "items": b.value(t.Elem(), r, false), "maxItems": MaxKeys}
		if required {
			s["minItems"] = 1
		}
		return s
	case reflect.Map:
		s := map[string]any{"type": "object", "additionalProperties": b.value(t.Elem(), r.element(), false), "maxProperties": MaxKeys}
		s["propertyNames"] = map[string]any{"minLength": 1, "maxLength": maxKey}
		if r.keys != "" {
			s["propertyNames"] = map[string]any{"pattern": patterns[r.keys].text}
		}
		if required {
			s["minProperties"] = 1
		}
		return s
	case reflect.String:
		return b.stringSchema(t, r, required)
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return numberSchema("number", r)
	}
	return numberSchema("integer", r)
}

// element returns the rules for the values of a map.
func (r rules) element() rules {
	r.keys = ""
	return r
}

// define returns a reference to the definition of that name, which build makes once.
func (b *schemaBuilder) define(name string, build func() map[string]any) map[string]any {
	if _, ok := b.defs[name]; !ok {
		b.defs[name] = nil // for types that contain themselves
		b.defs[name] = build()
	}
	return map[string]any{"$ref": "#/$defs/" + name}
}

func (b *schemaBuilder) object(t reflect.Type) map[string]any {
	props, required := map[string]any{}, []string{}
	for _, f := range fieldsOf(t) {
		s := b.value(f.typ, f.rules, !f.optional)
		if doc := b.docs.ofField(t, f); doc != "" {
			s["description"] = doc
		}
		if f.example != "" {
			s["examples"] = []any{exampleValue(f)}
		}
		props[f.name] = s
		if !f.optional {
			required = append(required, f.name)
		}
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false, "description": b.docs[t.Name()]}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// ofField returns what is to be said about a field.
func (d comments) ofField(t reflect.Type, f field) string {
	if doc := d[t.Name()+"."+f.goName]; doc != "" {
		return named(doc, f.goName, f.name)
	}
	if fieldIndex(t, "apiVersion") >= 0 {
		return headDocs[f.name]
	}
	return ""
}

func fieldIndex(t reflect.Type, name string) int {
	return slices.IndexFunc(fieldsOf(t), func(f field) bool { return f.name == name })
}

// exampleValue returns the example of a field's tag as the JSON value that it stands for.
func exampleValue(f field) any {
	t := f.typ
	isList := t.Kind() == reflect.Slice && t != rawType
	var value any = f.example
	if k := t.Kind(); k == reflect.Float64 || k == reflect.Int || k == reflect.Int64 {
		value = json.Number(f.example)
	}
	if isList {
		return []any{value}
	}
	return value
}

func (b *schemaBuilder) stringSchema(t reflect.Type, r rules, required bool) map[string]any {
	s := map[string]any{"type": "string"}
	switch enum := enumOf(t, r); {
	case enum != nil:
		s["enum"] = enum
	case r.pattern != "":
		s["pattern"] = patterns[r.pattern].text
	default:
		s["maxLength"] = maxString
		if r.maxLen > 0 {
			s["maxLength"] = r.maxLen
		}
		if required {
			s["minLength"] = 1
		}
	}
	return s
}

func numberSchema(typ string, r rules) map[string]any {
	s := map[string]any{"type": typ, "minimum": -MaxInteger, "maximum": MaxInteger}
	if r.min != nil {
		s["minimum"] = *r.min
	}
	if r.max != nil {
		s["maximum"] = *r.max
	}
	return s
}

func rawSchema(r rules) map[string]any {
	types := r.types
	if types == nil {
		types = []string{"string", "number", "boolean", "array", "object"}
	}
	return map[string]any{"type": types}
}

// Regular expressions of the texts that have a grammar of their own, in the common subset of RE2 and ECMA 262. They are
// checked against the parsers by a test.
const (
	hexRE  = `sha256:[0-9a-f]{64}`
	sriRE  = `sha256-[A-Za-z0-9+/]{43}=`
	hostRE = `([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?|[A-Za-z0-9-]+:[0-9]+|localhost|\[[0-9a-fA-F:]+\](:[0-9]+)?)`
	repoRE = `(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?`
)

// refPatterns are the spellings of a Ref, by scheme.
var refPatterns = map[RefScheme]string{
	RefOCI:   `^(oci:)?` + hostRE + repoRE + `@` + hexRE + `$`,
	RefStore: `^/(nix|gnu)/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+#` + sriRE + `$`,
	RefCID:   `^ipfs://b[a-z2-7]{58}(/.+)?$`,
	RefURL:   `^(https?|file)://[^#]*#` + sriRE + `$`,
	RefModel: `^[a-z][a-z0-9+.-]*://[^@#]+@` + hexRE + `$`,
	RefGo:    `^go:[^@#]+@v[^#]+#h1:[A-Za-z0-9+/]{43}=$`,
	RefGit:   `^git\+(https?|file)://[^#]+@([0-9a-f]{40}|[0-9a-f]{64})#` + sriRE + `$`,
	RefTree:  `^tree:[A-Za-z0-9][A-Za-z0-9._+-]*#` + sriRE + `$`,
}

func (b *schemaBuilder) textSchema(t reflect.Type) map[string]any {
	s := map[string]any{"type": "string", "description": b.docs[t.Name()]}
	switch t {
	case refType, targetType:
		spellings := []any{}
		for _, scheme := range slices.Sorted(maps.Keys(refPatterns)) {
			spellings = append(spellings, map[string]any{"pattern": refPatterns[scheme]})
		}
		if t == targetType {
			spellings = append(spellings, map[string]any{"enum": []string{"store", "ipfs"}}, map[string]any{"pattern": `^oci:` + hostRE + repoRE + `$`}, map[string]any{"pattern": `^file:///[^#?%]+$`})
		}
		s["anyOf"] = spellings
	case reflect.TypeFor[Quantity]():
		s["pattern"] = quantityPattern
	case reflect.TypeFor[Duration]():
		s["pattern"] = durationPattern
	case reflect.TypeFor[digest.SHA256]():
		s["pattern"] = "^" + hexRE + "$"
		s["description"] = "A SHA-256 hash, as sha256: and 64 lower-case hexadecimal digits."
	}
	return s
}
