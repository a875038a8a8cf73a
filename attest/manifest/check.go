package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// validate checks the fields of doc by their rules, and then, if they are right, how they fit together.
func validate(doc Document) error { return validateAs(doc, false) }

// validateAs is validate; parsed says that doc was just read from its canonical form.
func validateAs(doc Document, parsed bool) error {
	p := problems{parsed: parsed}
	checkHead(&p, doc)
	checkStruct(&p, "", reflect.ValueOf(doc).Elem())
	if r, ok := doc.(interface{ related(*problems) }); ok {
		if len(p.list) == 0 {
			r.related(&p)
		}
	} else if len(p.list) == 0 {
		return doc.Validate()
	}
	return p.err()
}

// checkHead checks what all kinds share beside single fields.
func checkHead(p *problems, doc Document) {
	v := reflect.ValueOf(doc).Elem()
	if got := v.FieldByName("APIVersion").String(); got != APIVersion {
		p.add("apiVersion", "write apiVersion: "+APIVersion, "%q is not %s", got, APIVersion)
	}
	if got := v.FieldByName("Kind").String(); got != doc.DocumentKind() {
		p.add("kind", "", "%q is not %s", got, doc.DocumentKind())
	}
	h := doc.Head()
	for _, f := range []struct{ name, value string }{{"created", h.Created}, {"expires", h.Expires}} {
		if _, err := parseInstant(f.value); f.value != "" && patterns["time"].match(f.value) && err != nil {
			p.add("metadata."+f.name, "", "%q is no time of the calendar", f.value)
		}
	}
	if h.Created != "" && h.Expires != "" && h.Created >= h.Expires {
		p.add("metadata.expires", "", "%s is not after metadata.created, %s", h.Expires, h.Created)
	}
	if n := len(Signatures(doc)); n > MaxSignatures {
		p.add("signatures", "", "%d signatures; at most %d are allowed", n, MaxSignatures)
	}
}

func checkStruct(p *problems, path string, v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		value := v.Field(f.index)
		at := join(path, f.name)
		isNumber := value.CanInt() || value.CanFloat()
		isPart := value.Kind() == reflect.Struct && !isText(value.Type())
		switch {
		case !isEmpty(value) || (!f.optional && (isNumber || isPart)):
			checkValue(p, at, value, f.rules)
		case !f.optional:
			p.add(at, f.hintExample(), "missing")
		}
	}
}

// hintExample shows what the field looks like.
func (f field) hintExample() string {
	switch {
	case f.example != "":
		return fmt.Sprintf("such as %s: %s", f.name, quoteIfAmbiguous(f.example))
	case len(enumOf(f.typ, f.rules)) > 0:
		return "one of " + strings.Join(enumOf(f.typ, f.rules), ", ")
	}
	return ""
}

// isEmpty reports whether v is left out of a document.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// checkValue checks a value that is there.
func checkValue(p *problems, path string, v reflect.Value, r rules) {
	t := v.Type()
	switch {
	case t == rawType:
		checkRaw(p, path, v.Interface().(Raw), r)
	case t.Kind() == reflect.Pointer:
		checkValue(p, path, v.Elem(), r)
	case checkItself(p, path, v) || isText(t):
	case t.Kind() == reflect.Struct:
		checkStruct(p, path, v)
	case t.Kind() == reflect.Slice:
		if v.Len() > MaxKeys {
			p.add(path, "", "%d items; at most %d are allowed", v.Len(), MaxKeys)
			return
		}
		for i := range v.Len() {
			checkValue(p, fmt.Sprintf("%s[%d]", path, i), v.Index(i), r)
		}
	case t.Kind() == reflect.Map:
		checkMap(p, path, v, r)
	case t.Kind() == reflect.String:
		checkString(p, path, v.String(), enumOf(t, r), r)
	case t.Kind() == reflect.Float64:
		checkNumber(p, path, v.Float(), r)
	case v.CanInt():
		if n := v.Int(); n < -MaxInteger || n > MaxInteger {
			p.add(path, "", "%d is beyond ±(2^53-1)", n)
		} else {
			checkNumber(p, path, float64(n), r)
		}
	}
}

// checkItself uses the value's own Validate, if it has one.
func checkItself(p *problems, path string, v reflect.Value) bool {
	own, ok := v.Interface().(interface{ Validate() error })
	if !ok {
		return false
	}
	if p.parsed && reflect.PointerTo(v.Type()).Implements(textUnmarshaler) {
		return true // reading it was checking it
	}
	if err := own.Validate(); err != nil {
		p.wrap(path, err)
	}
	return true
}

func checkMap(p *problems, path string, v reflect.Value, r rules) {
	if v.Len() > MaxKeys {
		p.add(path, "", "%d keys; at most %d are allowed", v.Len(), MaxKeys)
		return
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	for _, k := range keys {
		at := join(path, k.String())
		if msg, cure := badKey(k.String()); msg != "" {
			p.add(at, cure, "%s", msg)
			continue
		}
		if rule := patterns[r.keys]; r.keys != "" && !rule.match(k.String()) {
			p.add(at, "want "+rule.says, "%q cannot be a key here", k.String())
			continue
		}
		value := v.MapIndex(k)
		if isEmpty(value) && isText(value.Type()) {
			p.add(at, "", "empty")
			continue
		}
		checkValue(p, at, value, r)
	}
}

func checkString(p *problems, path, s string, enum []string, r rules) {
	limit := cmp.Or(r.maxLen, maxString)
	if r.pattern != "" && r.maxLen == 0 {
		limit = 4096 // the longest of identities, a did:key of ML-DSA-65, has 2,678
	}
	if r.pattern == "base64" {
		limit = 8192 // an ML-DSA-65 signature has 4,412; a large OpenPGP one fits
	}
	switch {
	case len(s) > limit:
		p.add(path, "", "%d bytes; at most %d are allowed", len(s), limit)
		return
	case enum != nil && !slices.Contains(enum, s):
		p.add(path, didYouMean(s, slices.Clone(enum)), "%q is not allowed here", shorten(s))
		return
	}
	if msg := badText(s); msg != "" {
		p.add(path, "", "%s", msg)
		return
	}
	if rule := patterns[r.pattern]; r.pattern != "" {
		clean := r.pattern != "abspath" || pathClean(s)
		if !rule.match(s) || !clean {
			p.add(path, "want "+rule.says, "%q is not allowed here", shorten(s))
		}
	}
}

func checkNumber(p *problems, path string, n float64, r rules) {
	switch {
	case math.IsNaN(n) || math.IsInf(n, 0) || (n == 0 && math.Signbit(n)) || math.Abs(n) > MaxInteger:
		p.add(path, "", "%v is not a number that every reader understands alike", n)
	case r.min != nil && n < *r.min:
		p.add(path, "", "%s is less than %s", plainFloat(n), plainFloat(*r.min))
	case r.max != nil && n > *r.max:
		p.add(path, "", "%s is more than %s", plainFloat(n), plainFloat(*r.max))
	}
}

// plainFloat writes a number without an exponent.
func plainFloat(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// rawKind names the JSON type of a value that is well formed.
func rawKind(raw Raw) string {
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// checkRaw checks a free value: its type, and that YAML can say it, too.
func checkRaw(p *problems, path string, raw Raw, r rules) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		p.add(path, "", "not JSON: %v", err)
		return
	}
	if kind := rawKind(raw); r.types != nil && !slices.Contains(r.types, kind) {
		p.add(path, "", "a value of type %s is not allowed here; want %s", kind, strings.Join(r.types, ", "))
		return
	}
	depth := MaxDepth - 4 // no Raw has more than four mappings around it
	if r.types != nil {
		depth = 1 // a list of plain values
	}
	checkFree(p, path, v, depth)
}

// checkFree walks a free value that may nest depth times more. Its messages name the path of the whole value: paths of
// hostile depth would cost more than the value itself.
func checkFree(p *problems, path string, v any, depth int) {
	switch v := v.(type) {
	case nil:
		p.add(path, "leave the field out, or give it a value", "null is no value")
	case string:
		checkString(p, path, v, nil, rules{})
	case float64:
		checkNumber(p, path, v, rules{})
	case []any:
		if depth == 0 || len(v) > MaxKeys {
			p.add(path, "", "a list is too long or too deep")
			return
		}
		for _, e := range v {
			checkFree(p, path, e, depth-1)
		}
	case map[string]any:
		if depth == 0 || len(v) > MaxKeys {
			p.add(path, "", "a mapping is too long or too deep")
			return
		}
		keys := keysOf(v)
		slices.Sort(keys)
		for _, k := range keys {
			if msg, cure := badKey(k); msg != "" {
				p.add(path, cure, "%s", msg)
			}
			checkFree(p, path, v[k], depth-1)
		}
	}
}
