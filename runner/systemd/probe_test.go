package systemd_test

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner/systemd"
)

// testProbes checks that every guarantee is seen where it is given, and none where it is not.
func testProbes(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	if diff := cmp.Diff([]string(nil), broken(r.Report().Effects)); diff != "" {
		t.Errorf("effects that do not hold (-want +got):\n%s", diff)
	}
	again, err := systemd.Probe(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), broken(again.Effects)); diff != "" {
		t.Errorf("effects that do not hold the second time (-want +got):\n%s", diff)
	}
	if os.Getenv(binaryVariable) != "" { // this process has a network of its own, so that every unit has another one
		return
	}
	seen := seenWithout(t, r)
	for try := 0; try < 4 && len(seen) == 1 && seen[0].Name == "cpu"; try++ { // other work looks like a quota
		seen = seenWithout(t, r)
	}
	for _, e := range seen {
		if busy, burnt := systemd.Burn(); e.Name == "cpu" && busy {
			t.Logf("the machine is too busy to tell whether there is a CPU quota: without one, %s", burnt)
			continue
		}
		t.Errorf("%s is seen in a unit without any property: %s", e.Name, e.Seen)
	}
}

// seenWithout are the effects that are seen in a unit without any property, but for those that tell what can be done.
func seenWithout(t *testing.T, r *systemd.Runner) (list []systemd.Effect) {
	t.Helper()
	weak, err := systemd.ProbeUnconfined(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range weak {
		if e.Holds && e.Name != "unit-inner" && e.Name != "unit-user" {
			list = append(list, e)
		}
	}
	return list
}

// broken names the effects that do not hold.
func broken(effects []systemd.Effect) []string {
	var list []string
	for _, e := range effects {
		if !e.Holds {
			list = append(list, e.Name)
		}
	}
	slices.Sort(list)
	return list
}
