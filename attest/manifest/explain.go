package manifest

import (
	"fmt"
	"reflect"
	"strings"

	"arch.network/attest/digest"
)

// Explanation documents one field of a kind, or a kind.
type Explanation struct {
	Path     string      `json:"path"` // such as "Job.spec.resources"
	Type     string      `json:"type"` // such as "list of BuildInput"
	Required bool        `json:"required"`
	Doc      string      `json:"doc"`
	Rule     string      `json:"rule,omitempty"`    // what a value must look like
	Example  string      `json:"example,omitempty"` // of one value
	Values   []ValueHelp `json:"values,omitempty"`  // all there are
	Fields   []FieldHelp `json:"fields,omitempty"`  // below it, in their order
}

// ValueHelp documents one value of a field that has a closed set of them.
type ValueHelp struct {
	Value string `json:"value"`
	Doc   string `json:"doc,omitempty"`
}

// FieldHelp is one line about a field.
type FieldHelp struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Required bool   `json:"required"`
	Doc      string `json:"doc"` // its first sentence
}

// Explain documents a path such as "Job", "Job.spec.resources" or "Build.spec.inputs.mount". The items of lists and the
// values of maps are left out of the path.
func Explain(path string) (Explanation, error) {
	kind, rest, _ := strings.Cut(path, ".")
	doc := newDocument(kind)
	if doc == nil {
		return Explanation{}, unknownKind(kind)
	}
	docs, err := readComments()
	if err != nil {
		return Explanation{}, err
	}
	t := reflect.TypeOf(doc).Elem()
	out := Explanation{Path: kind, Type: kind, Required: true, Doc: docs[kind]}
	for name := range strings.SplitSeq(rest, ".") {
		if rest == "" {
			break
		}
		owner := elementOf(t)
		if owner.Kind() != reflect.Struct || isText(owner) {
			return Explanation{}, &SyntaxError{Msg: fmt.Sprintf("%s has no field %q: it is %s", out.Path, name, helpType(t))}
		}
		i := fieldIndex(owner, name)
		if i < 0 {
			return Explanation{}, &SyntaxError{Msg: fmt.Sprintf("%s has no field %q", out.Path, name), Cure: didYouMean(name, fieldNames(owner))}
		}
		f := fieldsOf(owner)[i]
		out = docs.explainField(out.Path+"."+name, owner, f)
		t = f.typ
	}
	out.Fields = docs.fieldsBelow(elementOf(t))
	return out, nil
}

// explainField documents f of the struct type owner.
func (d comments) explainField(path string, owner reflect.Type, f field) Explanation {
	elem := elementOf(f.typ)
	out := Explanation{Path: path, Type: helpType(f.typ), Required: !f.optional, Doc: d.ofField(owner, f), Example: f.example}
	if more := d[elem.Name()]; more != "" && isDocument(elem) && !strings.Contains(out.Doc, more) {
		out.Doc = strings.TrimSpace(out.Doc + "\n" + more)
	}
	for _, v := range enumOf(elem, f.rules) {
		out.Values = append(out.Values, ValueHelp{Value: v, Doc: d[elem.Name()+"="+v]})
	}
	out.Rule = ruleText(f)
	return out
}

// isDocument reports whether a type is one of this package's own, whose comment tells something about the field.
func isDocument(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[Job]().PkgPath() }

// ruleText says what a field's value must look like.
func ruleText(f field) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	r := f.rules
	if r.keys != "" {
		add("each key: %s", patterns[r.keys].says)
	}
	if r.pattern != "" {
		add("%s", patterns[r.pattern].says)
	}
	if r.types != nil {
		add("one of %s", strings.Join(r.types, ", "))
	}
	if r.min != nil {
		add("at least %s", plainFloat(*r.min))
	}
	if r.max != nil {
		add("at most %s", plainFloat(*r.max))
	}
	if r.maxLen > 0 {
		add("at most %d bytes", r.maxLen)
	}
	return strings.Join(words, "; ")
}

// elementOf returns what a path goes on with below t: the type of its items or values, or t.
func elementOf(t reflect.Type) reflect.Type {
	for t != rawType && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		t = t.Elem()
	}
	return t
}

func (d comments) fieldsBelow(t reflect.Type) []FieldHelp {
	if t.Kind() != reflect.Struct || isText(t) {
		return nil
	}
	var out []FieldHelp
	for _, f := range fieldsOf(t) {
		doc := d.ofField(t, f)
		if doc == "" {
			doc = d[elementOf(f.typ).Name()]
		}
		out = append(out, FieldHelp{Name: f.name, Type: helpType(f.typ), Required: !f.optional, Doc: firstSentence(doc)})
	}
	return out
}

func firstSentence(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if i := strings.Index(s, ". "); i >= 0 {
		s = s[:i+1]
	}
	return s
}

func fieldNames(t reflect.Type) []string {
	var out []string
	for _, f := range fieldsOf(t) {
		out = append(out, f.name)
	}
	return out
}

// helpType names a type as documents know it.
func helpType(t reflect.Type) string {
	switch {
	case t == rawType:
		return "any value"
	case t == reflect.TypeFor[digest.SHA256]():
		return "digest"
	case t.Kind() == reflect.Pointer:
		return helpType(t.Elem())
	case t.Kind() == reflect.Slice:
		return "list of " + helpType(t.Elem())
	case t.Kind() == reflect.Map:
		return "map from string to " + helpType(t.Elem())
	case t.Name() == "int64" || t.Name() == "int":
		return "integer"
	case t.Name() == "float64":
		return "number"
	case t.Name() == "bool":
		return "boolean"
	}
	return t.Name()
}

// String writes the explanation for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	need := "optional"
	if e.Required {
		need = "required"
	}
	fmt.Fprintf(&b, "%s  (%s, %s)\n\n", e.Path, e.Type, need)
	writeIndented(&b, e.Doc)
	if e.Rule != "" {
		b.WriteString("\nRule:\n")
		writeIndented(&b, e.Rule)
	}
	if e.Example != "" {
		b.WriteString("\nExample:\n")
		writeIndented(&b, e.Example)
	}
	rows := make([][2]string, 0, len(e.Values)+len(e.Fields))
	title := "\nValues:\n"
	for _, v := range e.Values {
		rows = append(rows, [2]string{v.Value, v.Doc})
	}
	for _, f := range e.Fields {
		title = "\nFields:\n"
		name := f.Name
		if f.Required {
			name += " *"
		}
		rows = append(rows, [2]string{name, fmt.Sprintf("(%s) %s", f.Type, f.Doc)})
	}
	writeRows(&b, title, rows)
	return b.String()
}

func writeIndented(b *strings.Builder, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString("  " + line + "\n")
	}
}

// writeRows aligns the second column.
func writeRows(b *strings.Builder, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	b.WriteString(title)
	for _, r := range rows {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-*s  %s", width, r[0], r[1]), " ") + "\n")
	}
}
