package sexp_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/builder/guix/sexp"
)

// real is what libgcrypt wrote for Guix 1.5.0.
const real = "(public-key \n (ecc \n  (curve Ed25519)\n  (q #C2F875DC97C2BA8E2A34842E44F08E9D67C3FD4DE1476211D3CA4C4A82DE2387#)\n  )\n )\n"

func list(of ...sexp.Expression) sexp.Expression {
	return sexp.Expression{List: append([]sexp.Expression{}, of...)}
}

func TestParse(t *testing.T) {
	a, b := sexp.Atom("a"), sexp.Atom("b")
	for text, want := range map[string]sexp.Expression{
		"a":              a,
		" \t\r\n(a b)\n": list(a, b),
		"(a(b))":         list(a, list(b)),
		"()":             list(),
		"(1:a(1:b)0:)":   list(a, list(b), sexp.Atom("")),
		`(a"b"#00fF#)`:   list(a, b, sexp.Atom("\x00\xff")),
		"3:(a)":          sexp.Atom("(a)"),
		`"\\\"\n (a)"`:   sexp.Atom("\\\"\n (a)"),
		"##":             sexp.Atom(""),
		"-./_:*+=9":      sexp.Atom("-./_:*+=9"),
		strings.Repeat("(", 16) + strings.Repeat(")", 16): nested(16),
	} {
		got, err := sexp.Parse(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func nested(n int) sexp.Expression {
	e := list()
	for range n - 1 {
		e = list(e)
	}
	return e
}

func TestParseRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                         "ends too early",
		"(a":                       "ends too early",
		"a b":                      "something follows",
		"(a))":                     "something follows",
		"a\x00":                    "something follows",
		")":                        "begins no expression",
		"(a ; comment\n)":          "begins no expression",
		"|YQ==|":                   "begins no expression",
		"[text/plain]a":            "begins no expression",
		"#0#":                      "#HEX#",
		"#0g#":                     "#HEX#",
		"#00 00#":                  "#HEX#",
		"#00":                      "#HEX#",
		`"a`:                       "text has no end",
		`"a\`:                      "text has no end",
		`"\x41"`:                   "not known here",
		"01:a":                     "LENGTH:BYTES",
		"1a":                       "LENGTH:BYTES",
		"2:a":                      "announced",
		"99999999999999999999:a":   "LENGTH:BYTES",
		strings.Repeat("(", 17):    "in each other",
		strings.Repeat(" ", 65537): "more than 65536",
	} {
		_, err := sexp.Parse(text)
		if _, ok := errors.AsType[*sexp.SyntaxError](err); !ok || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.40q: %v, want %q", text, err, reason)
		}
	}
}

func TestForms(t *testing.T) {
	key, err := sexp.Parse(real)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(real, key.Advanced()); diff != "" {
		t.Errorf("advanced form (-libgcrypt +here):\n%s", diff)
	}
	want := "(10:public-key(3:ecc(5:curve7:Ed25519)(1:q32:\xc2\xf8\x75\xdc\x97\xc2\xba\x8e\x2a\x34\x84\x2e\x44\xf0\x8e\x9d\x67\xc3\xfd\x4d\xe1\x47\x62\x11\xd3\xca\x4c\x4a\x82\xde\x23\x87)))"
	if diff := cmp.Diff(want, key.Canonical()); diff != "" {
		t.Errorf("canonical form (-want +got):\n%s", diff)
	}
	if inner, ok := key.Named("public-key"); !ok || len(inner) != 1 {
		t.Errorf("Named: %v, %v", inner, ok)
	}
	if _, ok := key.Named("private-key"); ok {
		t.Error("Named finds what is not there")
	}
	if got, ok := sexp.List("curve", sexp.Atom("Ed25519")).Value("curve"); !ok || got != "Ed25519" {
		t.Errorf("Value: %q, %v", got, ok)
	}
	if _, ok := key.Value("public-key"); ok {
		t.Error("a list is taken for a value")
	}
}

// FuzzParse: both forms of what was read are read back as the same, and of the canonical one there is one.
func FuzzParse(f *testing.F) {
	for _, text := range []string{real, "(a((b)#00#\"x y\")3:abc)", `("\n\\" ())`, "((a) b (c))"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := sexp.Parse(text)
		if err != nil {
			return
		}
		canonical, err := sexp.Parse(e.Canonical())
		if err != nil && len(e.Canonical()) <= sexp.MaxSize || err == nil && !cmp.Equal(e, canonical) {
			t.Errorf("%q: canonical %q: %v", text, e.Canonical(), err)
		}
		advanced, err := sexp.Parse(e.Advanced())
		if err != nil && len(e.Advanced()) <= sexp.MaxSize || err == nil && !cmp.Equal(e, advanced) {
			t.Errorf("%q: advanced %q: %v", text, e.Advanced(), err)
		}
	})
}
