package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
)

func TestProblem(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
	}{
		{&agent.UnknownError{Ref: "x", Many: 2}, wire.CodeUnknown},
		{&agent.ForgottenError{ID: digest.Of([]byte("j")), Name: "j", State: agent.Failed, Since: time.Unix(9, 0).UTC(), Entry: agent.Entry{Index: 4, Sequence: 5}}, wire.CodeForgotten},
		{&agent.FullError{Owner: "user:a", Max: 3}, wire.CodeFull},
		{&agent.LaggedError{Next: 7}, wire.CodeLagged},
		{&agent.DeniedError{By: "uid:7", Verb: "drain", Cure: "ask"}, wire.CodeDenied},
		{&agent.StepError{From: agent.Failed, To: agent.Cancelled}, wire.CodeStep},
		{wire.New(wire.CodeRequest, "limit: %q is no number", "x"), wire.CodeRequest},
	} {
		t.Run(c.code, func(t *testing.T) {
			data, err := json.Marshal(wire.ProblemOf(fmt.Errorf("wrapped: %w", c.err)))
			if err != nil {
				t.Fatal(err)
			}
			var p wire.Problem
			if err := json.Unmarshal(data, &p); err != nil {
				t.Fatal(err)
			}
			if p.Code != c.code || p.Status < 400 || p.Title == "" || p.Hint == "" || p.Type != "urn:arch:problem:"+c.code {
				t.Errorf("the problem is %s", data)
			}
			if diff := cmp.Diff(c.err, p.Err()); diff != "" {
				t.Errorf("it came back otherwise (-want +got):\n%s", diff)
			}
		})
	}
	p := wire.ProblemOf(&agent.EnvelopeError{Err: errors.New("line 3")})
	if e, ok := errors.AsType[*agent.EnvelopeError](p.Err()); !ok || e.Err.Error() != "line 3" {
		t.Errorf("an envelope's error came back as %v", p.Err())
	}
}

// What the node says of itself stays with it.
func TestInternal(t *testing.T) {
	p := wire.ProblemOf(&fs.PathError{Op: "open", Path: "/secret/place", Err: fs.ErrPermission})
	if data, _ := json.Marshal(p); p.Code != wire.CodeInternal || strings.Contains(string(data), "secret") {
		t.Errorf("the problem is %s", data)
	}
}

func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range wire.Codes() {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if c.Status < 400 || c.Title == "" || !strings.HasSuffix(c.Meaning, ".") || c.Cure == "" || strings.HasSuffix(c.Cure, ".") {
			t.Errorf("%s is not explained: %+v", c.Name, c)
		}
	}
}
