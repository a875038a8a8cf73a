package guest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCollect shows what is understood of test2json's events.
func TestCollect(t *testing.T) {
	const events = `
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/x"}
{"Action":"output","Test":"TestA/x","Output":"    a_test.go:1: wrong\n"}
{"Action":"output","Test":"TestA/x","Output":"    --- FAIL: TestA/x (0.00s)\n"}
{"Action":"fail","Test":"TestA/x"}
{"Action":"run","Test":"TestA/a/b"}
{"Action":"output","Test":"TestA/a/b","Output":"    a_test.go:2: cannot run here: no GPU\n"}
{"Action":"skip","Test":"TestA/a/b"}
{"Action":"fail","Test":"TestA"}
{"Action":"run","Test":"TestB"}
{"Action":"output","Output":"panic: no\n"}
{"Action":"fail"}
`
	r, err := collect(strings.NewReader(events))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"TestA: fail", `TestA/x: fail "    a_test.go:1: wrong\n"`, "TestA/a: level", `TestA/a/b: skip "    a_test.go:2: cannot run here: no GPU\n"`,
		"TestB: did not end",
	}
	if diff := cmp.Diff(want, describe("", r.tests)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r.rest != "panic: no\n" {
		t.Errorf("rest: %q", r.rest)
	}
	if got := reason(r.tests[0].tests[1].tests[0].output.String()); got != "cannot run here: no GPU" {
		t.Errorf("reason: %q", got)
	}
	if _, err := collect(strings.NewReader("{")); err == nil {
		t.Error("a cut event is taken")
	}
}

func describe(prefix string, tests []*result) []string {
	var lines []string
	for _, test := range tests {
		name := prefix + test.name
		line := name + ": " + test.action
		switch {
		case !test.ran:
			line = name + ": level"
		case test.action == "":
			line = name + ": did not end"
		}
		if text := test.output.String(); text != "" {
			line += " " + quote(text)
		}
		lines = append(lines, line)
		lines = append(lines, describe(name+"/", test.tests)...)
	}
	return lines
}

func quote(s string) string { return `"` + strings.ReplaceAll(s, "\n", `\n`) + `"` }

// FuzzCollect reads what a broken or hostile guest may write in place of events.
func FuzzCollect(f *testing.F) {
	f.Add(`{"Action":"run","Test":"TestA/x"}{"Action":"output","Test":"TestA","Output":"=== RUN"}{"Action":"skip","Test":"TestA/x"}`)
	f.Add(`{"Action":"fail","Test":"/"}`)
	f.Add(`{"Action":"output","Output":"panic"}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, events string) {
		r, err := collect(strings.NewReader(events))
		if err != nil {
			return
		}
		for _, test := range r.tests {
			if strings.Contains(test.name, "/") {
				t.Errorf("a level is called %q", test.name)
			}
		}
		describe("", r.tests)
	})
}
