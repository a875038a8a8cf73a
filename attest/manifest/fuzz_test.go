package manifest

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	yaml4 "go.yaml.in/yaml/v4"

	"arch.network/attest/canonical"
)

// FuzzReadYAML checks that the reader never panics, that whatever it accepts comes back from its canonical form and from
// written YAML, and that another YAML library understands the source alike.
func FuzzReadYAML(f *testing.F) {
	for _, dir := range []string{"accepted", "refused"} {
		for _, name := range corpus(f, dir) {
			if src := readFile(f, name); len(src) < 8<<10 {
				f.Add(src)
			}
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := ReadYAML(src)
		if err != nil {
			_ = expectation(err)
			return
		}
		checkRoundTrips(t, doc)
		checkOtherReader(t, src)
	})
}

// checkOtherReader decodes src with go.yaml.in/yaml/v4 into Go values, by that library's own idea of types, and compares
// with ours.
func checkOtherReader(t *testing.T, src []byte) {
	t.Helper()
	var theirs any
	if err := yaml4.Unmarshal(src, &theirs); err != nil {
		t.Errorf("another reader refuses what is accepted: %v\n%s", err, src)
		return
	}
	var ours any
	if err := json.Unmarshal(boundJSON(t, src), &ours); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ours, doubles(theirs)); diff != "" {
		t.Errorf("another reader reads differently (-ours +theirs):\n%s\n%s", diff, src)
	}
}

// boundJSON returns the JSON that a source is turned into before it is decoded.
func boundJSON(t *testing.T, src []byte) []byte {
	t.Helper()
	file, err := parseYAML(src)
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := file.bind()
	if err != nil {
		t.Fatal(err)
	}
	return b.json.Bytes()
}

// doubles turns all numbers into float64, and empty collections into what encoding/json makes of them.
func doubles(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = doubles(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k := range v {
			out[k] = doubles(v[k])
		}
		return out
	case map[any]any:
		return "a mapping with keys that are no strings"
	case float64:
		if math.IsNaN(v) {
			return "NaN"
		}
	}
	return v
}

func FuzzReadJSON(f *testing.F) {
	for _, name := range corpus(f, "accepted") {
		doc, err := ReadYAML(readFile(f, name))
		if err != nil {
			f.Fatal(err)
		}
		payload, err := Canonical(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
		f.Add(bytes.ReplaceAll(payload, []byte(`"kind"`), []byte(`"KIND"`)))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := ReadJSON(src)
		if err != nil {
			// Any JSON that a lenient decoder takes for a document is a good start for the identity, too.
			if form, err := canonical.Transform(src); err == nil {
				_, _ = ReadJSON(form)
			}
			return
		}
		if again, err := Canonical(doc); err != nil || !bytes.Equal(again, src) {
			t.Fatalf("canonical form is not what was read: %v\n%s\n%s", err, src, again)
		}
		checkRoundTrips(t, doc)
	})
}

func FuzzParseRef(f *testing.F) {
	for _, r := range validRefs {
		f.Add(r.text)
	}
	for _, r := range unpinnedRefs {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			return
		}
		again, err := ParseRef(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q is %+v, written %q, read again %+v, %v", s, ref, ref.String(), again, err)
		}
		if err := ref.Validate(); err != nil {
			t.Error(err)
		}
		if !matchesSchema(refPatterns, ref.Scheme, s) {
			t.Errorf("%q is a reference, but the schema's pattern of %s does not match it", s, ref.Scheme)
		}
	})
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"4", "500m", "8Gi", "1G", ".5", "1.", "1e3", "1E-3", "7E", "9.3Ei", "0.1Ki", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := Quantity(s)
		n, err := q.Bytes()
		if err == nil && (n < 0 || q.Validate() != nil) {
			t.Errorf("%q is %d bytes, valid: %v", s, n, q.Validate())
		}
		if m, merr := q.Milli(); err == nil && merr == nil && m != n*1000 {
			t.Errorf("%q is %d and %d thousandths", s, n, m)
		}
		if d, err := Duration(s).Duration(); err == nil && (d < 0 || d > maxDuration) {
			t.Errorf("%q lasts %v", s, d)
		}
	})
}

// FuzzScalar puts a text without quotes where a string, and where any value, is due.
func FuzzScalar(f *testing.F) {
	for _, s := range []string{
		"a", "a b", "010", "0o10", "1_000", "1:30", "1e3", "1.", ".5", "+1", "-0", "0x1F", "0b1", ".inf", ".NaN", "~", "yes", "Off", "2001-1-1", "2001-01-01 01:02:03", "=", "<<",
		"!x", "&x", "*x", "[a, b]", "{a: b}", "\"\\u0041\"", "'it''s'", "|\n  a\n  b", ">-\n  a\n  b", "a # b", "a#b", "a: b", "- a", "? a", "@a", "`a", "%a", "0.1", "1e5_", "0x", "1__0", "12e03", "-2E+05", "0.1.2", "1.2.3", "1_",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src := []byte("apiVersion: arch.network/v1\nkind: Directive\nmetadata:\n  name: a\n  labels:\n    x: " + s + "\nspec:\n  class: A\n  action: b\n  reason: c\n  parameters:\n    x: " + s + "\n")
		doc, err := ReadYAML(src)
		if err != nil {
			return
		}
		checkRoundTrips(t, doc)
		checkOtherReader(t, src)
	})
}
