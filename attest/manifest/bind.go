package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"arch.network/attest/canonical"
)

// binder turns a YAML tree into JSON by the Go type it is meant for, so that each scalar is read as what the schema says.
// It gathers problems and goes on.
type binder struct {
	problems
	json   bytes.Buffer
	places map[string]*yaml.Node // by path
	refs   []boundRef
	// lenient leaves out what is wrong with references, for whoever is about to pin them.
	lenient bool
}

// boundRef is a scalar whose schema type is Ref or Target.
type boundRef struct {
	node *yaml.Node
	path string
	err  error // of ParseRef or ParseTarget
}

// document reads the tree by the schema of its kind.
func (f *yamlFile) document() (Document, error) {
	doc, b, err := f.bind()
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b.json.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(doc); err != nil {
		return nil, at(f.root, "", "decode %s: %v", doc.DocumentKind(), err)
	}
	if err := validate(doc); err != nil {
		return nil, b.locate(err)
	}
	return normal(doc)
}

// bind turns the tree into JSON for the empty document that it returns.
func (f *yamlFile) bind() (Document, *binder, error) {
	doc, err := f.kind()
	if err != nil {
		return nil, nil, err
	}
	b := &binder{places: map[string]*yaml.Node{}}
	b.mapping(f.root, reflect.TypeOf(doc).Elem(), "")
	return doc, b, b.err()
}

// normal returns doc as its canonical form says it, so that what was left out and what was written as empty are one.
func normal(doc Document) (Document, error) {
	payload, err := Canonical(doc)
	if err != nil {
		return nil, err
	}
	again := newDocument(doc.DocumentKind())
	if err := canonical.Unmarshal(payload, again); err != nil {
		return nil, err
	}
	from, to := signatureFields(reflect.ValueOf(doc).Elem()), signatureFields(reflect.ValueOf(again).Elem())
	for i := range from {
		if from[i].Kind() != reflect.Slice || from[i].Len() > 0 {
			to[i].Set(from[i])
		}
	}
	return again, nil
}

// kind returns an empty document of the kind that the tree names.
func (f *yamlFile) kind() (Document, error) {
	version, err := f.headField("apiVersion", "begin with apiVersion: "+APIVersion)
	if err != nil {
		return nil, err
	}
	if version.Value != APIVersion {
		e := at(version, "write apiVersion: "+APIVersion, "%q is not %s", shorten(version.Value), APIVersion)
		e.Path = "apiVersion"
		return nil, e
	}
	kind, err := f.headField("kind", "add kind: one of "+strings.Join(Kinds(), ", "))
	if err != nil {
		return nil, err
	}
	doc := newDocument(kind.Value)
	if doc == nil {
		e := at(kind, didYouMean(kind.Value, Kinds()), "%q is no kind of document", shorten(kind.Value))
		e.Path = "kind"
		return nil, e
	}
	return doc, nil
}

// headField returns the scalar of a field that says how the rest is to be read.
func (f *yamlFile) headField(name, cure string) (*yaml.Node, error) {
	n := lookup(f.root, name)
	var e *SyntaxError
	switch {
	case n == nil:
		e = at(f.root, cure, "missing")
	case n.Kind != yaml.ScalarNode:
		e = at(n, cure, "a %s; want a string", shape(n))
	default:
		return n, nil
	}
	e.Path = name
	return nil, e
}

// lookup returns the value of a key of a mapping, or nil.
func lookup(n *yaml.Node, key string) *yaml.Node {
	for pair := range slices.Chunk(n.Content, 2) {
		if pair[0].Value == key {
			return pair[1]
		}
	}
	return nil
}

// report records e at path.
func (b *binder) report(path string, e *SyntaxError) {
	e.Path = path
	b.append(e)
}

// value binds a node to a type.
func (b *binder) value(n *yaml.Node, t reflect.Type, path string) {
	b.places[path] = n
	switch {
	case t == rawType:
		b.free(n, path)
	case t.Kind() == reflect.Pointer:
		b.value(n, t.Elem(), path)
	case isText(t):
		b.text(n, t, path)
	case t.Kind() == reflect.Struct:
		b.mapping(n, t, path)
	case t.Kind() == reflect.Map:
		b.table(n, t, path)
	case t.Kind() == reflect.Slice:
		b.list(n, t, path)
	case n.Kind != yaml.ScalarNode:
		b.report(path, at(n, "", "a %s; want %s", shape(n), typeName(t)))
	default:
		b.scalar(n, t, path)
	}
}

// shape names what a node is.
func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return "single value"
}

// wrongShape reports a node that is no mapping or list where one is due.
func (b *binder) wrongShape(n *yaml.Node, want, cure, path string) {
	if n.Kind == yaml.ScalarNode && !isQuoted(n) && plainKind(n.Value) == kindNull {
		b.report(path, noValue(n))
		return
	}
	b.report(path, at(n, cure, "a %s; want %s", shape(n), want))
}

func (b *binder) scalar(n *yaml.Node, t reflect.Type, path string) {
	var text string
	var e *SyntaxError
	switch t.Kind() {
	case reflect.Bool:
		text, e = boolScalar(n)
	case reflect.Float64:
		text, e = numberScalar(n)
	case reflect.Int, reflect.Int64:
		text, e = integerScalar(n)
	default:
		if text, e = stringScalar(n); e == nil {
			b.string(text)
			return
		}
	}
	if e != nil {
		b.report(path, e)
		return
	}
	b.json.WriteString(text)
}

// string writes a JSON string.
func (b *binder) string(s string) {
	quoted, _ := json.Marshal(s) // a string always has a form
	b.json.Write(quoted)
}

// text binds a scalar to a type that reads itself.
func (b *binder) text(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode {
		b.report(path, at(n, "", "a %s; want %s", shape(n), typeName(t)))
		return
	}
	s, e := stringScalar(n)
	if e != nil {
		b.report(path, e)
		return
	}
	err := readText(t, s)
	isRef := t == refType || t == targetType
	if isRef {
		b.refs = append(b.refs, boundRef{node: n, path: path, err: err})
	}
	if err != nil && !(isRef && b.lenient) {
		var p problems
		p.wrap(path, err)
		p.list[0].Line, p.list[0].Column = n.Line, n.Column
		b.append(p.list[0])
	}
	b.string(s)
}

// readText tries to read s as a value of a type that reads itself. Empty text, which would stand for nothing, is an error.
func readText(t reflect.Type, s string) error {
	if s == "" {
		return errors.New("empty; leave the field out instead")
	}
	return reflect.New(t).Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText([]byte(s))
}

// mapping binds a mapping to a struct type.
func (b *binder) mapping(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		b.wrongShape(n, "a mapping", "", path)
		return
	}
	b.places[path] = n
	fields := fieldsOf(t)
	sep := byte('{')
	for pair := range slices.Chunk(n.Content, 2) {
		key := pair[0].Value
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if i < 0 {
			b.unknown(pair[0], path, fields)
			continue
		}
		b.json.WriteByte(sep)
		sep = ','
		b.string(key)
		b.json.WriteByte(':')
		b.value(pair[1], fields[i].typ, join(path, key))
	}
	if sep == '{' {
		b.json.WriteByte('{')
	}
	b.json.WriteByte('}')
	for _, f := range fields {
		if !f.optional && lookup(n, f.name) == nil {
			b.report(join(path, f.name), at(n, f.hintExample(), "missing"))
		}
	}
}

// unknown reports a key that is no field.
func (b *binder) unknown(key *yaml.Node, path string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	b.report(path, at(key, didYouMean(key.Value, names), "unknown field %q", key.Value))
}

// table binds a mapping to a map type.
func (b *binder) table(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		b.wrongShape(n, "a mapping", "", path)
		return
	}
	b.json.WriteByte('{')
	for i := 0; i < len(n.Content); i += 2 {
		if i > 0 {
			b.json.WriteByte(',')
		}
		b.string(n.Content[i].Value)
		b.json.WriteByte(':')
		b.value(n.Content[i+1], t.Elem(), join(path, n.Content[i].Value))
	}
	b.json.WriteByte('}')
}

func (b *binder) list(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.SequenceNode {
		b.wrongShape(n, "a list", "begin each item with \"- \", or write [a, b]", path)
		return
	}
	b.json.WriteByte('[')
	for i, item := range n.Content {
		if i > 0 {
			b.json.WriteByte(',')
		}
		b.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
	}
	b.json.WriteByte(']')
}

// typeName names a type for people.
func typeName(t reflect.Type) string {
	switch {
	case t == refType:
		return "a reference"
	case t == targetType:
		return "a reference or destination"
	case isText(t):
		return "a digest"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Bool:
		return "a boolean"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}
