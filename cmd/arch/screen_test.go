package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestPrintable(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"text", "héllo\t→\n", "héllo\t→\n"},
		{"CSI", "\x1b[31mred", `\x1b[31mred`},
		{"OSC", "\x1b]0;title\x07", `\x1b]0;title\x07`},
		{"carriage return", "good\rbad", `good\x0dbad`},
		{"backspace", "ab\bc", `ab\x08c`},
		{"delete", "\x7f", `\x7f`},
		{"C1 in UTF-8", "\u009b31m", `\u009b31m`},
		{"C1 as a byte", "\x9b31m", `\x9b31m`},
		{"right to left", "gpj.\u202egnp.exe", `gpj.\u202egnp.exe`},
		{"isolates", "\u2066a\u2069", `\u2066a\u2069`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"no UTF-8", "a\xffb", `a\xffb`},
		{"replacement character", "\ufffd", "\ufffd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, printable(c.in)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// FuzzPrintable holds that whatever is printed is valid text without anything that a terminal acts on, and that JSON
// stays the same value.
func FuzzPrintable(f *testing.F) {
	f.Add("text")
	f.Add("\x1b[2J\u009b\u202e\xff\x00")
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		if !utf8.ValidString(got) || strings.IndexFunc(got, unprintable) >= 0 {
			t.Errorf("printable(%q) = %q", text, got)
		}
		if printable(got) != got {
			t.Errorf("printable(%q) changes when repeated", text)
		}
		if !utf8.ValidString(text) {
			return
		}
		data, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		safe := printableJSON(data)
		var back string
		if err := json.Unmarshal(safe, &back); err != nil || back != text {
			t.Errorf("printableJSON(%q) = %q, which is %q: %v", data, safe, back, err)
		}
		if bytes.IndexFunc(safe, unprintable) >= 0 {
			t.Errorf("printableJSON(%q) = %q", data, safe)
		}
	})
}

func TestScreen(t *testing.T) {
	for _, c := range []struct {
		color bool
		want  string
	}{
		{true, "a \\x1b[1m\x1b[32mPASS\\x1b\x1b[0m é\n"},
		{false, "a \\x1b[1mPASS\\x1b é\n"},
	} {
		s := &screen{color: c.color}
		s.Write([]byte("a \x1b[1m"))
		s.paint("32", "PASS\x1b")
		s.Write([]byte(" \xc3")) // a character in two parts
		s.Write([]byte("\xa9\n"))
		if diff := cmp.Diff(c.want, string(s.bytes())); diff != "" {
			t.Errorf("color %v (-want +got)\n%s", c.color, diff)
		}
	}
}
