package canonical_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"arch.network/attest/canonical"
	"github.com/google/go-cmp/cmp"
)

// transforms are the vectors of the RFC and of its authors' test suite (github.com/cyberphone/json-canonicalization), and our own.
func transforms() map[string]struct{ in, want string } {
	return map[string]struct{ in, want string }{
		"RFC 8785 section 3.2.2": {
			`{
  "numbers": [333333333.33333329, 1E30, 4.50,
              2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}`,
			`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],` +
				`"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		"RFC 8785 section 3.2.3, order": {
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",` +
				`"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			`{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","ö":"Latin Small Letter O With Diaeresis",` +
				`"€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
		"arrays": {
			"[\n  56,\n  {\n    \"d\": true,\n    \"10\": null,\n    \"1\": [ ]\n  }\n]\n",
			`[56,{"1":[],"10":null,"d":true}]`,
		},
		"french": {
			`{"peach": "This sorting order","péché": "is wrong according to French",
			  "pêche": "but canonicalization MUST","sin":   "ignore locale"}`,
			`{"peach":"This sorting order","péché":"is wrong according to French",` +
				`"pêche":"but canonicalization MUST","sin":"ignore locale"}`,
		},
		"structures": {
			`{"1": {"f": {"f": "hi","F": 5} ,"\n": 56.0}, "10": { }, "": "empty", "a": { },
			  "111": [ {"e": "yes","E": "no" } ], "A": { }}`,
			`{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}`,
		},
		"unicode is not normalised": {`{"Unnormalized Unicode":"A\u030a"}`, "{\"Unnormalized Unicode\":\"A\u030a\"}"},
		"weird": {
			`{"\u20ac": "Euro Sign","\r": "Carriage Return","\u000a": "Newline","1": "One","\u0080": "Control\u007f",
			  "\ud83d\ude02": "Smiley","\u00f6": "o","\ufb33": "Dalet","</script>": "Browser Challenge"}`,
			`{"\n":"Newline","\r":"Carriage Return","1":"One","</script>":"Browser Challenge",` +
				"\"\u0080\":\"Control\u007f\",\"ö\":\"o\",\"€\":\"Euro Sign\",\"😂\":\"Smiley\",\"\ufb33\":\"Dalet\"}",
		},
		"every short escape":         {`"\b\t\n\f\r\"\\\/\u0008\u0000\u001F"`, `"\b\t\n\f\r\"\\/\b\u0000\u001f"`},
		"line separators stay":       {`"\u2028\u2029<>&"`, "\"\u2028\u2029<>&\""},
		"scalar with white space":    {" \t\r\n42 \n", "42"},
		"string alone":               {`"a"`, `"a"`},
		"literals":                   {"[true,false,null]", "[true,false,null]"},
		"empty":                      {"[{ },[ ]]", "[{},[]]"},
		"largest integers":           {"[9007199254740991,-9007199254740991]", "[9007199254740991,-9007199254740991]"},
		"integer spelled as a float": {"[1.0,1e3,100e-2,0.0,0e9,9007199254740991.0]", "[1,1000,1,0,0,9007199254740991]"},
		"float beyond the integers":  {"[1e21,1.5E300,-1e22]", "[1e+21,1.5e+300,-1e+22]"},
		"smallest float":             {"4.9e-324", "5e-324"},
		"prefix sorts first":         {`{"aa":1,"a":2,"":3}`, `{"":3,"a":2,"aa":1}`},
		"private use and astral":     {`{"\ue000":1,"\ud800\udc00":2,"\uffff":3,"\ud7ff":4}`, "{\"\ud7ff\":4,\"𐀀\":2,\"\ue000\":1,\"\uffff\":3}"},
		"nested disorder":            {`{"b":{"d":[{"z":1,"y":2}],"c":3},"a":0}`, `{"a":0,"b":{"c":3,"d":[{"y":2,"z":1}]}}`},
		"64 levels":                  {strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
	}
}

func TestTransform(t *testing.T) {
	for name, c := range transforms() {
		t.Run(name, func(t *testing.T) {
			got, err := canonical.Transform([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := canonical.Check(got); err != nil {
				t.Errorf("the result is not canonical: %v", err)
			}
		})
	}
}

// What is canonical already is handed back in place, and that is all: neither Transform nor whoever appends to its result
// writes into the input.
func TestTransformLeavesInput(t *testing.T) {
	for name, c := range transforms() {
		in := append(make([]byte, 0, 2*len(c.in)+8), c.in+"\n"...)
		out, err := canonical.Transform(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = append(out, "XXXX"...)
		if diff := cmp.Diff(c.in+"\n", string(in)); diff != "" {
			t.Errorf("%s: the input after Transform (-want +got):\n%s", name, diff)
		}
	}
	in := []byte(`{"a":[1,"é\n",{"b":1e+30}],"c":null}`)
	if allocs := testing.AllocsPerRun(10, func() { canonical.Transform(in) }); allocs > 4 {
		t.Errorf("%.0f allocations for what is canonical already", allocs)
	}
}

func TestTransformRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"nothing":                       {"", "byte 0: unexpected end, want a value"},
		"white space":                   {" \n", "byte 2: unexpected end, want a value"},
		"byte order mark":               {"\ufeff{}", `byte 0: unexpected "\xef", want a value`},
		"second value":                  {"{} {}", `byte 3: unexpected "{", want the end`},
		"trailing NUL":                  {"1\x00", `byte 1: unexpected "\x00", want the end`},
		"form feed as space":            {"\f1", `byte 0: unexpected "\f", want a value`},
		"literal in upper case":         {"True", `byte 0: unexpected "T", want a value`},
		"literal with a tail":           {"nullx", `byte 4: unexpected "x", want the end`},
		"comment":                       {"[1/**/]", `byte 2: unexpected "/", want "," or "]"`},
		"single quotes":                 {"['a']", `byte 1: unexpected "'", want a value`},
		"trailing comma in array":       {"[1,]", `byte 3: unexpected "]", want a value`},
		"trailing comma in object":      {`{"a":1,}`, `byte 7: unexpected "}", want a member name`},
		"no colon":                      {`{"a" 1}`, `byte 5: unexpected "1", want ":"`},
		"number as name":                {`{1:1}`, `byte 1: unexpected "1", want a member name`},
		"unclosed array":                {"[1", `byte 2: unexpected end, want "," or "]"`},
		"unclosed object":               {`{"a":1`, `byte 6: unexpected end, want "," or "}"`},
		"wrong bracket":                 {"[1}", `byte 2: unexpected "}", want "," or "]"`},
		"duplicate":                     {`{"a":1,"b":2,"a":3}`, `byte 0: object with duplicate member "a"`},
		"duplicate by escape":           {`[{"kind":1,"\u006bind":2}]`, `byte 1: object with duplicate member "kind"`},
		"duplicate, nested":             {`{"x":{"a":{},"a":{}}}`, `byte 5: object with duplicate member "a"`},
		"duplicate empty name":          {`{"":1,"":1}`, `byte 0: object with duplicate member ""`},
		"65 levels":                     {strings.Repeat("[", 65), "byte 64: over 64 levels deep"},
		"65 levels of objects":          {strings.Repeat(`{"":`, 65), "byte 256: over 64 levels deep"},
		"a million brackets":            {strings.Repeat("[", 1e6), "byte 64: over 64 levels deep"},
		"over the size limit":           {strings.Repeat(" ", canonical.MaxSize) + "1", "byte 16777216: 16777217 bytes are over the limit of 16777216"},
		"grows over the size limit":     {"[" + strings.Repeat("1e-6,", 2<<20) + "1]", "byte 16777216: 18874371 bytes are over the limit of 16777216"},
		"negative zero":                 {"-0", "byte 0: negative zero"},
		"negative zero as a float":      {"[-0.0]", "byte 1: negative zero"},
		"negative zero, exponent":       {"-0e5", "byte 0: negative zero"},
		"leading zero":                  {"01", "byte 0: number with a leading zero"},
		"leading zero, negative":        {"-01", "byte 0: number with a leading zero"},
		"leading plus":                  {"+1", `byte 0: unexpected "+", want a value`},
		"leading point":                 {".5", `byte 0: unexpected ".", want a value`},
		"trailing point":                {"1.", "byte 2: unexpected end, want a digit"},
		"bare exponent":                 {"1e", "byte 2: unexpected end, want a digit"},
		"bare signed exponent":          {"[1e+]", `byte 4: unexpected "]", want a digit`},
		"bare minus":                    {"-", "byte 1: unexpected end, want a digit"},
		"hexadecimal":                   {"0x10", `byte 1: unexpected "x", want the end`},
		"underscore":                    {"1_000", `byte 1: unexpected "_", want the end`},
		"NaN":                           {"NaN", `byte 0: unexpected "N", want a value`},
		"infinity":                      {"-Infinity", `byte 1: unexpected "I", want a digit`},
		"overflow":                      {"1e400", "byte 0: number 1e400 overflows a double"},
		"underflow":                     {"1e-400", "byte 0: number 1e-400 underflows a double"},
		"underflow with leading zeros":  {"-0.01E-400", "byte 0: number -0.01E-400 underflows a double"},
		"integer too large":             {"9007199254740992", "byte 0: integer 9007199254740992 is outside ±(2^53-1)"},
		"integer too small":             {"-9007199254740992", "byte 0: integer -9007199254740992 is outside ±(2^53-1)"},
		"integer that jcs rounds":       {"9007199254740993", "byte 0: integer 9007199254740993 is outside ±(2^53-1)"},
		"integer beyond 64 bits":        {"18446744073709551617", "byte 0: integer 18446744073709551617 is outside ±(2^53-1)"},
		"integer without end":           {strings.Repeat("9", 5000), "byte 0: integer " + strings.Repeat("9", 32) + "… is outside ±(2^53-1)"},
		"large integer as a float":      {"9007199254740992.0", "byte 0: integer 9007199254740992.0 is outside ±(2^53-1)"},
		"large integer by exponent":     {"[1e20]", "byte 1: integer 1e20 is outside ±(2^53-1)"},
		"large integer after rounding":  {"9007199254740991.9", "byte 0: integer 9007199254740991.9 is outside ±(2^53-1)"},
		"unclosed string":               {`"abc`, "byte 4: unexpected end in a string"},
		"unclosed escape":               {`"abc\`, "byte 4: unexpected end in a string"},
		"line break in a string":        {"\"a\nb\"", `byte 2: control character '\n' in a string`},
		"NUL in a string":               {"\"\x00\"", `byte 1: control character '\x00' in a string`},
		"unknown escape":                {`"\x41"`, `byte 1: unknown escape "\\x"`},
		"short unicode escape":          {`"\u12"`, "byte 1: \\u without four hexadecimal digits"},
		"signed unicode escape":         {`"\u+123"`, "byte 1: \\u without four hexadecimal digits"},
		"lone high surrogate":           {`"\ud800"`, `byte 1: lone surrogate \ud800`},
		"lone low surrogate":            {`"\udc00x"`, `byte 1: lone surrogate \udc00`},
		"high surrogate and letter":     {`"\ud800\u0041"`, `byte 1: surrogates \ud800\u0041 are no pair`},
		"two high surrogates":           {`"\ud800\ud800"`, `byte 1: surrogates \ud800\ud800 are no pair`},
		"surrogates in the wrong order": {`"\udc00\ud800"`, `byte 1: surrogates \udc00\ud800 are no pair`},
		"surrogate and half an escape":  {`"\ud800\u12"`, "byte 7: \\u without four hexadecimal digits"},
		"invalid UTF-8":                 {"\"\xff\"", "byte 1: invalid UTF-8"},
		"invalid UTF-8 in a name":       {"{\"\xc3\":1}", "byte 2: invalid UTF-8"},
		"overlong UTF-8":                {"\"\xc0\xaf\"", "byte 1: invalid UTF-8"},
		"surrogate in UTF-8":            {"\"\xed\xa0\x80\"", "byte 1: invalid UTF-8"},
		"beyond Unicode":                {"\"\xf4\x90\x80\x80\"", "byte 1: invalid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := canonical.Transform([]byte(c.in))
			if out != nil {
				t.Errorf("result %.60q beside an error", out)
			}
			if _, ok := errors.AsType[*canonical.SyntaxError](err); !ok {
				t.Fatalf("error is %T, want *SyntaxError", err)
			}
			if diff := cmp.Diff("read JSON at "+c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHints(t *testing.T) {
	for in, want := range map[string]string{
		"9007199254740993": "write a number this large as a string",
		"-0":               "write 0",
		"x":                "",
	} {
		_, err := canonical.Transform([]byte(in))
		hinter, ok := errors.AsType[interface {
			error
			Hint() string
		}](err)
		if !ok {
			t.Fatalf("%s: error has no hint", in)
		}
		if diff := cmp.Diff(want, hinter.Hint()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
}

func TestMarshal(t *testing.T) {
	type point struct {
		Y int     `json:"y"`
		X float64 `json:"x,omitempty"`
		N *int    `json:"n"`
	}
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"struct":            {point{Y: 2, X: 0.15}, `{"n":null,"x":0.15,"y":2}`},
		"map":               {map[string]any{"b": []string{"<&>"}, "a": nil}, `{"a":null,"b":["<&>"]}`},
		"replacement rune":  {"\ufffd", "\"\ufffd\""},
		"line separator":    {"\u2028", "\"\u2028\""},
		"raw":               {json.RawMessage(` {"b":1 , "a":1.50} `), `{"a":1.5,"b":1}`},
		"bytes":             {[]byte{1, 2}, `"AQI="`},
		"nil":               {nil, "null"},
		"float32":           {float32(0.1), "0.1"},
		"large exponent":    {1e300, "1e+300"},
		"the layouts' edge": {[]float64{1e-7, 1e-6, 123456789.5}, "[1e-7,0.000001,123456789.5]"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := canonical.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"large integer":        {int64(1 << 53), "encode int64: read JSON at byte 0: integer 9007199254740992 is outside ±(2^53-1)"},
		"small integer":        {[]int64{-1 << 53}, "encode []int64: read JSON at byte 1: integer -9007199254740992 is outside ±(2^53-1)"},
		"large unsigned":       {uint64(math.MaxUint64), "encode uint64: read JSON at byte 0: integer 18446744073709551615 is outside ±(2^53-1)"},
		"large integral float": {1e20, "encode float64: read JSON at byte 0: integer 100000000000000000000 is outside ±(2^53-1)"},
		"negative zero":        {math.Copysign(0, -1), "encode float64: read JSON at byte 0: negative zero"},
		"NaN":                  {math.NaN(), "encode float64: json: unsupported value: NaN"},
		"channel":              {make(chan int), "encode chan int: json: unsupported type: chan int"},
		"invalid UTF-8":        {"a\xff", "encode string: read JSON at byte 2: text that is not UTF-8"},
		"invalid UTF-8, name":  {map[string]int{"\xff": 1}, "encode map[string]int: read JSON at byte 2: text that is not UTF-8"},
		"raw duplicate":        {json.RawMessage(`{"a":1,"a":1}`), `encode json.RawMessage: read JSON at byte 0: object with duplicate member "a"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := canonical.Marshal(c.in)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

type document struct {
	Kind  string            `json:"kind"`
	Count int               `json:"count,omitempty"`
	Price float64           `json:"price,omitempty"`
	Tags  map[string]string `json:"tags,omitempty"`
	Next  *document         `json:"next,omitempty"`
	Raw   json.RawMessage   `json:"raw,omitempty"`
	Skip  string            `json:"-"`
}

func TestUnmarshal(t *testing.T) {
	in := `{"count":3,"kind":"a","next":{"kind":"b"},"price":0.15,"raw":{"x":[1]},"tags":{"k":"v"}}`
	want := document{
		Kind: "a", Count: 3, Price: 0.15, Tags: map[string]string{"k": "v"},
		Next: &document{Kind: "b"}, Raw: json.RawMessage(`{"x":[1]}`),
	}
	got := document{Kind: "old", Tags: map[string]string{"old": "old"}, Skip: "old"}
	if err := canonical.Unmarshal([]byte(in), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	const compare = "compare JSON with its canonical form: "
	for name, c := range map[string]struct{ in, want string }{
		"unknown member":           {`{"kind":"a","other":1}`, `json: unknown field "other"`},
		"unknown nested member":    {`{"kind":"a","next":{"kind":"b","x":0}}`, `json: unknown field "x"`},
		"member of no name":        {`{"-":"a","kind":"a"}`, `json: unknown field "-"`},
		"upper case":               {`{"KIND":"a"}`, compare + `byte 2 is different: have "{\"KIND\":\"a\"}", want "{\"kind\":\"a\"}"`},
		"Kelvin sign":              {"{\"\u212aind\":\"a\"}", compare + `byte 2 is different: have "{\"` + "\u212a" + `ind\":\"a\"}", want "{\"kind\":\"a\"}"`},
		"both cases":               {`{"Kind":"b","kind":"a"}`, compare + `byte 2 is different: have "{\"Kind\":\"b\",\"kind\":\"a\"", want "{\"kind\":\"a\"}"`},
		"missing member":           {`{}`, compare + `byte 1 is different: have "{}", want "{\"kind\":\"\"}"`},
		"empty optional member":    {`{"count":0,"kind":"a"}`, compare + `byte 2 is different: have "{\"count\":0,\"kind\":\"a\"}", want "{\"kind\":\"a\"}"`},
		"null for absent":          {`{"kind":"a","next":null}`, compare + `byte 11 is different: have "{\"kind\":\"a\",\"next\":null}", want "{\"kind\":\"a\"}"`},
		"null for text":            {`{"kind":null}`, compare + `byte 8 is different: have "{\"kind\":null}", want "{\"kind\":\"\"}"`},
		"null for all":             {`null`, compare + `byte 0 is different: have "null", want "{\"kind\":\"\"}"`},
		"number for text":          {`{"kind":1}`, "json: cannot unmarshal number into Go struct field document.kind of type string"},
		"fraction for integer":     {`{"count":1.5,"kind":""}`, "json: cannot unmarshal number 1.5 into Go struct field document.count of type int"},
		"white space":              {`{"kind": "a"}`, compare + `byte 8 is different: have "{\"kind\": \"a\"}", want "{\"kind\":\"a\"}"`},
		"line break at the end":    {"{\"kind\":\"a\"}\n", compare + `byte 12 is different: have "{\"kind\":\"a\"}\n", want "{\"kind\":\"a\"}"`},
		"order":                    {`{"kind":"a","count":1}`, compare + `byte 2 is different: have "{\"kind\":\"a\",\"count\":1}", want "{\"count\":1,\"kind\":\"a\"}"`},
		"escape without need":      {`{"kind":"\u0061"}`, compare + `byte 9 is different: have "{\"kind\":\"\\u0061\"}", want "{\"kind\":\"a\"}"`},
		"number spelled otherwise": {`{"count":1.0,"kind":"a"}`, compare + `byte 10 is different: have "{\"count\":1.0,\"kind\":\"a\"}", want "{\"count\":1,\"kind\":\"a\"}"`},
		"raw in another form":      {`{"kind":"a","raw":{"b":1,"a":1}}`, compare + `byte 20 is different: have "\"a\",\"raw\":{\"b\":1,\"a\":1}}", want "\"a\",\"raw\":{\"a\":1,\"b\":1}}"`},
		"duplicate":                {`{"kind":"a","kind":"a"}`, `read JSON at byte 0: object with duplicate member "kind"`},
		"duplicate in raw":         {`{"kind":"a","raw":{"a":1,"a":1}}`, `read JSON at byte 18: object with duplicate member "a"`},
		"depth":                    {`{"raw":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}", "read JSON at byte 70: over 64 levels deep"},
		"second value":             {`{"kind":"a"}{}`, `read JSON at byte 12: unexpected "{", want the end`},
	} {
		t.Run(name, func(t *testing.T) {
			got := document{Kind: "untouched"}
			err := canonical.Unmarshal([]byte(c.in), &got)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			if diff := cmp.Diff("decode canonical_test.document: "+c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(document{Kind: "untouched"}, got); diff != "" {
				t.Errorf("target changed by an error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnmarshalTarget(t *testing.T) {
	for name, v := range map[string]any{"nil": nil, "value": document{}, "nil pointer": (*document)(nil)} {
		if err := canonical.Unmarshal([]byte("{}"), v); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var anything any
	if err := canonical.Unmarshal([]byte(`{"a":[1,"b",null]}`), &anything); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(map[string]any{"a": []any{1.0, "b", nil}}), anything); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
