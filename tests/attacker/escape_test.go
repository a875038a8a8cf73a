package attacker_test

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
	"arch.network/runner/systemd"
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
	judge(t, reports)
	s.unharmed(t)
}

// judge demands that every attempt there is was made, and denied.
func judge(t *testing.T, reports []attacker.Report) {
	t.Helper()
	var tried []string
	for _, report := range reports {
		tried = append(tried, report.Name)
		switch report.Outcome {
		case attacker.Denied:
		case attacker.NotApplicable:
			if !strings.HasPrefix(report.Detail, "no target") && !strings.HasPrefix(report.Detail, "no writable directory") {
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
}

// testPool makes the attempts in workers of a pool, whose confinement is systemd's alone. One that a call ends is followed by the next.
func testPool(t *testing.T) {
	s := newScene(t)
	r, err := systemd.New(t.Context(), systemd.Options{})
	must(t, err)
	defer r.Close()
	class := s.spec(t, "worker")
	class.Mounts = slices.DeleteFunc(class.Mounts, func(m runner.Mount) bool { return m.Writable })
	s.targets.Shared = ""
	class.Commands[0].Dir, class.Commands[0].Env = "", []string{s.targets.Env()}
	class.Limits = runner.Limits{Memory: 256 << 20, Processes: 64}
	pool, err := r.NewPool(t.Context(), systemd.PoolOptions{Class: class, Size: 2})
	must(t, err)
	defer pool.Close()
	var reports []attacker.Report
	for all := names(t); len(reports) < len(all); {
		reports = append(reports, s.employ(t, pool, all[len(reports)])...)
	}
	judge(t, reports)
	must(t, pool.Close())
	s.unharmed(t)
}

// employ has one worker make attempts until it ends; the one that ended it counts as denied by that.
func (s *scene) employ(t *testing.T, pool runner.Pool, first string) []attacker.Report {
	t.Helper()
	w, err := pool.Take(t.Context(), runner.Limits{Wall: time.Minute})
	must(t, err)
	_, err = fmt.Fprintln(w.Conn(), first)
	must(t, err)
	text, _ := io.ReadAll(w.Conn())
	result, err := w.Wait(t.Context())
	must(t, err)
	reports, err := attacker.ReadReports(bytes.NewReader(text))
	must(t, err)
	if result.OK() {
		return reports
	}
	list := names(t)
	ended := list[slices.Index(list, first)+len(reports)]
	return append(reports, attacker.Report{
		Name: ended, Outcome: attacker.Denied, Detail: fmt.Sprintf("the worker ended: %s %s %d", result.Reason, result.Signal, result.Exit),
	})
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
	if left := s.alive(); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	if left := groups(); len(left) > 0 {
		t.Errorf("control groups are left: %q", left)
	}
}
