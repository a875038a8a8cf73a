package canonical_test

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"unicode/utf8"

	"arch.network/attest/canonical"
	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
)

// Whatever Transform accepts is JSON, has the form that jcs gives it, and comes back unchanged; whatever jcs or
// encoding/json refuse, Transform refuses.
func FuzzTransform(f *testing.F) {
	for _, c := range transforms() {
		f.Add([]byte(c.in))
	}
	for _, seed := range []string{"9007199254740993", "-0", "1e-400", `{"a":1,"a":1}`, `"\ud800"`, "\"\xff\"", "[[1e20]]", `{"b":0,"a":{"d":0,"c":0}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := canonical.Transform(in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q, which encoding/json refuses", in)
		}
		want, err := jcs.Transform(in)
		if err != nil {
			t.Fatalf("accepted %q, which jcs refuses: %v", in, err)
		}
		if diff := cmp.Diff(string(want), string(out)); diff != "" {
			t.Fatalf("(-jcs +ours):\n%s", diff)
		}
		if err := canonical.Check(out); err != nil {
			t.Fatalf("result %q: %v", out, err)
		}
		if (canonical.Check(in) == nil) != bytes.Equal(in, out) {
			t.Fatalf("Check of %q is not whether it equals %q", in, out)
		}
		if err := skipAll(in); err != nil {
			t.Fatalf("Reader refuses %q: %v", in, err)
		}
	})
}

// Whatever Reader accepts is JSON.
func FuzzReader(f *testing.F) {
	for _, c := range transforms() {
		f.Add([]byte(c.in))
	}
	f.Add([]byte(`[1e400,-0,{"a":null,"a":1}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if skipAll(in) == nil && (!json.Valid(in) || !utf8.Valid(in)) {
			t.Fatalf("accepted %q", in)
		}
	})
}

// Whatever Unmarshal accepts is exactly what Marshal makes of the result, for the struct, and for any.
func FuzzUnmarshalRoundTrip(f *testing.F) {
	f.Add([]byte(`{"count":3,"kind":"a","next":{"kind":"b"},"price":0.15,"raw":{"x":[1]},"tags":{"k":"v"}}`))
	f.Add([]byte(`{"KIND":"a"}`))
	f.Add([]byte(`{"kind":""}`))
	f.Add([]byte(`[1,"a",null,{"":1e+21}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var doc document
		if canonical.Unmarshal(in, &doc) == nil {
			again(t, in, doc)
		}
		var value any
		err := canonical.Unmarshal(in, &value)
		if (err == nil) != (canonical.Check(in) == nil) {
			t.Fatalf("decode of %q into any: %v", in, err)
		}
		if err == nil {
			again(t, in, value)
		}
	})
}

func again(t *testing.T, in []byte, v any) {
	out, err := canonical.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(in), string(out)); diff != "" {
		t.Fatalf("(-in +out):\n%s", diff)
	}
}

// Whatever Marshal accepts, Unmarshal reads back as the same value.
func FuzzMarshalRoundTrip(f *testing.F) {
	f.Add("Build", 3, 0.15, "key", "value")
	f.Add("\ufffd", -1, 1e21, "", "\u2028")
	f.Add("\xff", 1<<53, 1e20, "\ud7ff", "\x00")
	f.Fuzz(func(t *testing.T, kind string, count int, price float64, key, value string) {
		in := document{Kind: kind, Count: count, Price: price, Next: &document{Tags: map[string]string{key: value}}}
		out, err := canonical.Marshal(in)
		if err != nil {
			valid := utf8.ValidString(kind) && utf8.ValidString(key) && utf8.ValidString(value)
			small := count <= canonical.MaxInteger && count >= -canonical.MaxInteger
			exact := math.Abs(price) <= canonical.MaxInteger || math.Abs(price) >= 1e21
			if valid && small && exact && !math.IsInf(price, 0) {
				t.Fatalf("%+v: %v", in, err)
			}
			return
		}
		var back document
		if err := canonical.Unmarshal(out, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, back); diff != "" {
			t.Fatalf("(-in +back):\n%s", diff)
		}
	})
}
