package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// results are what became of the tests in a guest, in the order in which they started.
type results struct {
	tests []*result
	rest  string // what was written outside of tests
}

// result is one test, or one level of a name between tests.
type result struct {
	name   string // last part
	ran    bool   // false: a level that no test stands for
	action string // "pass", "fail" or "skip"; empty: it did not end
	output strings.Builder
	took   float64 // seconds
	tests  []*result
}

// event is a line of test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// parse reads the output of a test binary with -test.v=test2json.
func parse(t *testing.T, output []byte) *results {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "test2json", "-t")
	cmd.Stdin = bytes.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	r, err := collect(bytes.NewReader(events))
	if err != nil {
		t.Fatalf("read the results of the tests: %v", err)
	}
	return r
}

func collect(events io.Reader) (*results, error) {
	r := &results{}
	for dec := json.NewDecoder(events); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return nil, err
		}
		r.add(e)
	}
}

func (r *results) add(e event) {
	if e.Test == "" {
		r.rest += e.Output
		return
	}
	test := r.find(e.Test)
	test.ran = true
	switch e.Action {
	case "output":
		if !framing(e.Output) {
			test.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		test.action, test.took = e.Action, e.Elapsed
	}
}

// framing reports whether a line is one of package testing's own, which the outer test writes again.
func framing(line string) bool {
	line = strings.TrimLeft(line, " ")
	return strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ")
}

// find returns the result of a test, and makes it if there is none.
func (r *results) find(name string) *result {
	level := &r.tests
	var found *result
	for part := range strings.SplitSeq(name, "/") {
		i := slices.IndexFunc(*level, func(t *result) bool { return t.name == part })
		if i < 0 {
			i = len(*level)
			*level = append(*level, &result{name: part})
		}
		found = (*level)[i]
		level = &found.tests
	}
	return found
}

// repeat makes t's subtests end as those in the guest did. A single test with the name of t's own top-level test is not repeated
// as a level.
func (r *results) repeat(t *testing.T, own string) {
	t.Helper()
	if len(r.tests) == 1 && r.tests[0].name == own {
		r.tests[0].repeat(t)
		return
	}
	for _, test := range r.tests {
		t.Run(test.name, test.repeat)
	}
}

func (r *result) repeat(t *testing.T) {
	t.Helper()
	text := strings.TrimRight(r.output.String(), "\n")
	if r.action == "skip" {
		t.Skip(reason(text))
	}
	if text != "" {
		t.Log("\n" + text)
	}
	if r.took >= 1 {
		t.Logf("took %.1fs in the guest", r.took)
	}
	for _, test := range r.tests {
		t.Run(test.name, test.repeat)
	}
	switch {
	case r.action == "fail" && !t.Failed():
		t.Error("failed in the guest")
	case r.action == "" && r.ran:
		t.Error("did not end in the guest")
	}
}

// reason drops the place from what a skipped test said: "file.go:12: cannot run here: …".
func reason(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.Index(text, "cannot run here: "); i >= 0 {
		return text[i:]
	}
	return text
}
