package canonical_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"arch.network/attest/canonical"
	"github.com/google/go-cmp/cmp"
)

func TestReader(t *testing.T) {
	in := ` {"name": "a\u0062", "skip": {"big": 1e400, "n": [-0, 99999999999999999999]}, "none": null, "list": ["x", "y"],
		"raw": [1, {"a":2}] } `
	r, err := canonical.NewReader([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	err = r.Object(func(name string) error {
		switch name {
		case "name":
			text, err := r.Text()
			got[name] = string(text)
			return err
		case "none":
			got[name] = r.Null()
			return nil
		case "list":
			var list []string
			err := r.Array(func() error {
				text, err := r.Text()
				list = append(list, string(text))
				return err
			})
			got[name] = list
			return err
		case "raw":
			raw, err := r.Value()
			got[name] = string(raw)
			return err
		}
		return r.Skip()
	})
	if err == nil {
		err = r.End()
	}
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"name": "ab", "none": true, "list": []string{"x", "y"}, "raw": `[1, {"a":2}]`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReaderRefuses(t *testing.T) {
	nine := `"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,`
	for name, c := range map[string]struct{ in, want string }{
		"duplicate":                    {`{"a":1,"a":2}`, `byte 7: duplicate member "a"`},
		"duplicate of the ninth":       {"{" + nine + `"i":1}`, `byte 55: duplicate member "i"`},
		"duplicate of the first, late": {"{" + nine + `"a":1}`, `byte 55: duplicate member "a"`},
		"nested duplicate":             {`[{"a":{"b":1,"\u0062":2}}]`, `byte 13: duplicate member "b"`},
		"depth":                        {strings.Repeat("[", 65), "byte 64: over 64 levels deep"},
		"size":                         {strings.Repeat(" ", canonical.MaxSize+1), "byte 16777216: 16777217 bytes are over the limit of 16777216"},
		"invalid UTF-8":                {"[\"\xff\"]", "byte 2: invalid UTF-8"},
		"trailing data":                {"{}x", `byte 2: unexpected "x", want the end`},
		"trailing comma":               {`{"a":1,}`, `byte 7: unexpected "}", want a member name`},
		"array for the bracket":        {`[1}`, `byte 2: unexpected "}", want "," or the closing bracket`},
		"half a literal":               {`nul`, `byte 0: unexpected "n", want a value`},
		"no value":                     {`{"a":}`, `byte 5: unexpected "}", want a value`},
		"nothing":                      {``, `byte 0: unexpected end, want a value`},
	} {
		t.Run(name, func(t *testing.T) {
			err := skipAll([]byte(c.in))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff("read JSON at "+c.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReaderTypes(t *testing.T) {
	for name, read := range map[string]func(*canonical.Reader) error{
		`byte 0: unexpected "1", want "{"`:      func(r *canonical.Reader) error { return r.Object(func(string) error { return r.Skip() }) },
		`byte 0: unexpected "1", want "["`:      func(r *canonical.Reader) error { return r.Array(r.Skip) },
		`byte 0: unexpected "1", want a string`: func(r *canonical.Reader) error { _, err := r.Text(); return err },
	} {
		r, err := canonical.NewReader([]byte("1"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("read JSON at "+name, read(r).Error()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if r.Null() {
			t.Error("1 is null")
		}
	}
}

// skipAll reads one value and the end.
func skipAll(data []byte) error {
	r, err := canonical.NewReader(data)
	if err != nil {
		return err
	}
	if err := r.Skip(); err != nil {
		return err
	}
	return r.End()
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"a\"\\\x00\n<é😂": `x"a\"\\\u0000\n<é😂"`,
		"a\xffb":         "x\"a\ufffdb\"",
	} {
		if diff := cmp.Diff(want, string(canonical.AppendString([]byte("x"), in))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestReaderPlain reads strings both ways: what Plain takes is what Text says, and what it does not take Text reads from the same place.
func TestReaderPlain(t *testing.T) {
	letters := func(text []byte) bool {
		return !bytes.ContainsFunc(text, func(r rune) bool { return r < 'a' || r > 'z' })
	}
	for in, plain := range map[string]bool{
		`"abc"`: true, ` "abc" `: true, `""`: true, `"a\u0062"`: false, `"a\"b"`: false, `"é"`: false, "\"\n\"": false, `"abc`: false, `1`: false, ``: false,
	} {
		one, err := canonical.NewReader([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		two, err := canonical.NewReader([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		took := one.Plain(func(text []byte) bool { got = text; return letters(text) })
		if took != plain {
			t.Errorf("%s: taken: %v", in, took)
		}
		var gotErr error
		if !took {
			got, gotErr = one.Text()
		}
		want, wantErr := two.Text()
		if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || string(got) != string(want) {
			t.Errorf("%s: %q, %v; want %q, %v", in, got, gotErr, want, wantErr)
		}
		if gotErr == nil && one.End() != nil {
			t.Errorf("%s: it did not end behind the string", in)
		}
	}
}
