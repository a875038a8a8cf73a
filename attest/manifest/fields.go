package manifest

import (
	"encoding"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// field is one field of a document type: its name in documents and the rules of its schema tag. Reader, writer,
// Validate, Schema and Explain all go by it.
//
// The tag is a list of words: pattern=NAME, enum=A|B, min=N, max=N, maxLen=N, types=A|B (of a Raw), keys=NAME (the
// pattern of a map's keys). On a list or a map the rules hold for each element.
type field struct {
	name     string // in JSON and YAML
	goName   string
	index    int
	typ      reflect.Type
	optional bool // may be left out
	rules    rules
	example  string
}

// rules bound a value. The zero rules allow everything.
type rules struct {
	pattern  string
	keys     string
	enum     []string
	types    []string
	min, max *float64
	maxLen   int // bytes of a string; zero: maxString
}

// maxString bounds strings that have no rule of their own: certificates and scripts fit.
const maxString = 32 << 10

// enumerated is a string type that has a closed set of values.
type enumerated interface{ values() []string }

func texts[T ~string](values ...T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	rawType         = reflect.TypeFor[Raw]()
	refType         = reflect.TypeFor[Ref]()
	targetType      = reflect.TypeFor[Target]()
)

// isText reports whether values of t are written as strings by their own methods.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textUnmarshaler) }

// fieldTable holds the fields of every struct type of documents, in their order. It never changes; it is made when first
// needed.
var fieldTable = sync.OnceValue(func() map[reflect.Type][]field {
	table := map[reflect.Type][]field{}
	for _, kind := range Kinds() {
		addFields(table, reflect.TypeOf(newDocument(kind)).Elem())
	}
	return table
})

// fieldsOf returns the fields of a struct type.
func fieldsOf(t reflect.Type) []field { return fieldTable()[t] }

// addFields enters a struct type and those below it. It panics on a malformed tag, which is a mistake in this package's
// source and found by any test.
func addFields(table map[reflect.Type][]field, t reflect.Type) {
	if _, known := table[t]; known || t.Kind() != reflect.Struct || isText(t) {
		return
	}
	table[t] = nil // for types that contain themselves
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, field{
			name: name, goName: f.Name, index: i, typ: f.Type, optional: opts != "",
			rules: parseRules(f.Tag.Get("schema")), example: f.Tag.Get("example"),
		})
		addFields(table, elementOf(f.Type))
	}
	table[t] = out
}

func parseRules(tag string) rules {
	var r rules
	for word := range strings.FieldsSeq(tag) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "pattern":
			r.pattern = value
		case "keys":
			r.keys = value
		case "enum":
			r.enum = strings.Split(value, "|")
		case "types":
			r.types = strings.Split(value, "|")
		case "min", "max":
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				panic("manifest: bad schema tag " + tag)
			}
			if key == "min" {
				r.min = &n
			} else {
				r.max = &n
			}
		case "maxLen":
			n, err := strconv.Atoi(value)
			if err != nil {
				panic("manifest: bad schema tag " + tag)
			}
			r.maxLen = n
		default:
			panic("manifest: bad schema tag " + tag)
		}
	}
	return r
}

// enumOf returns the values that a string of type t may have: by its tag, or by its type; nil if any.
func enumOf(t reflect.Type, r rules) []string {
	if r.enum != nil {
		return r.enum
	}
	if e, ok := reflect.Zero(t).Interface().(enumerated); ok && t.Kind() == reflect.String {
		return e.values()
	}
	return nil
}

// join appends a field or key to a path.
func join(path, name string) string {
	if name == "" || strings.ContainsAny(name, ".[]\"\\ ") || !isPrintable(name) {
		return path + "[" + strconv.Quote(name) + "]"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
