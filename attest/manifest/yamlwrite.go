package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// WriteYAML writes a valid document as YAML that ReadYAML reads back equal. Fields stand in the order of their types, map
// keys sorted; the same document always gives the same bytes.
func WriteYAML(doc Document) ([]byte, error) {
	if err := doc.Validate(); err != nil {
		return nil, err
	}
	var w yamlWriter
	w.fields(reflect.ValueOf(doc).Elem(), 0)
	if w.err != nil {
		return nil, fmt.Errorf("write %s %q: %w", doc.DocumentKind(), doc.Head().Name, w.err)
	}
	if w.Len() > MaxSize {
		return nil, &SyntaxError{Msg: fmt.Sprintf("%s %q has %d bytes as YAML; at most %d are allowed", doc.DocumentKind(), doc.Head().Name, w.Len(), MaxSize)}
	}
	return w.Bytes(), nil
}

// yamlWriter writes block style, two spaces a level.
type yamlWriter struct {
	bytes.Buffer
	err error
}

func (w *yamlWriter) indent(level int) { w.WriteString(strings.Repeat("  ", level)) }

// fields writes the fields of a struct, one or more lines each, and reports whether there were any.
func (w *yamlWriter) fields(v reflect.Value, level int) bool {
	any := false
	for _, f := range fieldsOf(v.Type()) {
		value := v.Field(f.index)
		if isEmpty(value) && f.optional {
			continue
		}
		w.indent(level)
		w.WriteString(f.name + ":")
		w.value(value, level+1)
		any = true
	}
	return any
}

// value writes what comes after a key's colon, with the line's end.
func (w *yamlWriter) value(v reflect.Value, level int) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if s, ok := w.inline(v); ok {
		w.WriteString(" " + s + "\n")
		return
	}
	w.WriteByte('\n')
	switch v.Kind() {
	case reflect.Struct:
		if !w.fields(v, level) {
			w.Truncate(w.Len() - 1)
			w.WriteString(" {}\n")
		}
	case reflect.Map:
		w.table(v, level)
	case reflect.Slice:
		w.items(v, level)
	}
}

func (w *yamlWriter) table(v reflect.Value, level int) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		w.indent(level)
		w.WriteString(quoteIfAmbiguous(k.String()) + ":")
		w.value(v.MapIndex(k), level+1)
	}
}

// items writes a list. The first field of a struct stands behind the dash.
func (w *yamlWriter) items(v reflect.Value, level int) {
	for i := range v.Len() {
		item := v.Index(i)
		w.indent(level)
		w.WriteString("-")
		if s, ok := w.inline(item); ok {
			w.WriteString(" " + s + "\n")
			continue
		}
		start := w.Len()
		w.fields(item, level+1)
		block := w.Bytes()[start:]
		if len(block) == 0 {
			w.WriteString(" {}\n")
			continue
		}
		copy(block, " "+string(block[2*level+2:])) // the first line's indentation shrinks to one space
		w.Truncate(w.Len() - (2*level + 1))
	}
}

// inline returns a value that fits behind a colon or dash.
func (w *yamlWriter) inline(v reflect.Value) (string, bool) {
	t := v.Type()
	switch {
	case t == rawType:
		return w.free(v.Interface().(Raw)), true
	case isText(t):
		text, err := v.Interface().(interface{ MarshalText() ([]byte, error) }).MarshalText()
		if err != nil {
			w.err = err
		}
		return quoteIfAmbiguous(string(text)), true
	}
	switch v.Kind() {
	case reflect.String:
		return quoteIfAmbiguous(v.String()), true
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), true
	case reflect.Float64:
		return plainFloat(v.Float()), true
	case reflect.Map, reflect.Slice:
		if v.Len() == 0 {
			return map[reflect.Kind]string{reflect.Map: "{}", reflect.Slice: "[]"}[v.Kind()], true
		}
	}
	return "", false
}

// free writes a JSON value in flow style.
func (w *yamlWriter) free(raw Raw) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		w.err = err
	}
	var b strings.Builder
	writeFlow(&b, v)
	return b.String()
}

func writeFlow(b *strings.Builder, v any) {
	switch v := v.(type) {
	case string:
		b.WriteString(quoteYAML(v))
	case float64:
		b.WriteString(plainFloat(v))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, item)
		}
		b.WriteByte(']')
	case map[string]any:
		keys := keysOf(v)
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoteYAML(k) + ": ")
			writeFlow(b, v[k])
		}
		b.WriteByte('}')
	}
}
