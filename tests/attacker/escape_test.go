package attacker_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/tests/attacker"
)

// spec confines the attack with everything that a job may be given.
func (s *scene) spec(t *testing.T, args ...string) runner.Spec {
	t.Helper()
	attack := program(t)
	spec := runner.Spec{
		Mounts: []runner.Mount{
			{Kind: runner.Bind, Source: attack, Target: "/bin/attack"},
			{Kind: runner.Bind, Source: s.input, Target: "/inputs/data"},
			{Kind: runner.Bind, Source: s.shared, Target: "/shared", Writable: true},
			{Kind: runner.Tmpfs, Target: "/build"},
		},
		Limits: runner.Limits{Wall: 3 * time.Minute, Memory: 1 << 30, Processes: 256},
	}
	targets := s.targets
	if setUID, capable, ok := privileged(t, attack); ok {
		spec.Mounts = append(spec.Mounts, runner.Mount{Kind: runner.Bind, Source: setUID, Target: targets.SetUID},
			runner.Mount{Kind: runner.Bind, Source: capable, Target: targets.FileCaps})
	} else {
		targets.SetUID, targets.FileCaps = "", ""
	}
	spec.Commands = []runner.Command{{Argv: append([]string{"/bin/attack"}, args...), Env: []string{targets.Env()}, Dir: "/build"}}
	return spec
}

// names lists the attempts that there are.
func names(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(program(t), "list").Output()
	must(t, err)
	return strings.Fields(string(out))
}

// testAttempts demands that every attempt is denied, and that nothing was hit.
func testAttempts(t *testing.T, d driver) {
	s := newScene(t)
	spec := s.spec(t, "all")
	var out bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &out
	r := d.new(t)
	result, err := r.Run(t.Context(), spec)
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out.String())
	}
	if !result.OK() {
		t.Fatalf("result: %+v\n%s", result, out.String())
	}
	reports, err := attacker.ReadReports(&out)
	must(t, err)
	var tried []string
	for _, report := range reports {
		tried = append(tried, report.Name)
		switch report.Outcome {
		case attacker.Denied:
		case attacker.NotApplicable:
			if !strings.HasPrefix(report.Detail, "no target") {
				t.Errorf("%s: not applicable: %s", report.Name, report.Detail)
			}
		default:
			t.Errorf("%s: %s: %s", report.Name, report.Outcome, report.Detail)
		}
		t.Logf("%s/%s: %s: %s", report.Class, report.Name, report.Outcome, report.Detail)
	}
	if diff := cmp.Diff(names(t), tried); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if len(tried) < 60 {
		t.Errorf("only %d attempts", len(tried))
	}
	s.unharmed(t)
}

// unharmed fails the test if something outside was changed.
func (s *scene) unharmed(t *testing.T) {
	t.Helper()
	if tale := s.askVictim(); tale != "unharmed" {
		t.Errorf("the victim was %s", tale)
	}
	if diff := cmp.Diff(s.before, s.state(t)); diff != "" {
		t.Errorf("the host changed (-before +after):\n%s", diff)
	}
	if left := alive("/bin/attack"); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}
