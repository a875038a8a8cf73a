package attacker_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"golang.org/x/sync/errgroup"

	"arch.network/runner"
	"arch.network/tests/attacker"
)

// testCollusion runs two jobs at the same time that try to meet.
func testCollusion(t *testing.T, d driver) {
	s := newScene(t)
	meet := "meet-" + rand.Text()
	r := d.new(t)
	var said bytes.Buffer
	var jobs errgroup.Group
	for _, role := range []string{"giver", "taker"} {
		spec := s.spec(t, "collude", role, meet)
		for i, m := range spec.Mounts { // a directory that both may write to would be a meeting place by design
			if m.Target == "/shared" {
				spec.Mounts[i] = runner.Mount{Kind: runner.Tmpfs, Target: "/shared"}
			}
		}
		if role == "taker" {
			spec.Stdout = &said
		}
		jobs.Go(func() error {
			result, err := r.Run(t.Context(), spec)
			if err == nil && !result.OK() {
				t.Errorf("%s: %+v", role, result)
			}
			return err
		})
	}
	must(t, jobs.Wait())
	reports, err := attacker.ReadReports(&said)
	must(t, err)
	if len(reports) < 10 {
		t.Errorf("only %d meeting places were tried", len(reports))
	}
	for _, report := range reports {
		if report.Outcome != attacker.Denied {
			t.Errorf("%s: %s: %s", report.Name, report.Outcome, report.Detail)
		}
		t.Logf("%s: %s: %s", report.Name, report.Outcome, report.Detail)
	}
	s.unharmed(t)
}
